"""Text vectors from vLLM on Ray Data: replicas of the engine read texts; vectors are written as they come.

vLLM pools as the model's own folder says (`modules.json`), the same place that sentence-transformers reads. The prefix
of a document is put before the text here: vLLM reads no prompts.
"""

import functools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import ray.data

from lexray.embeddings.engines import embedding_spec
from lexray.embeddings.store import BatchResult, EmbeddingWriter, Provenance
from lexray.errors import LexrayError
from lexray.llm import vllm
from lexray.llm.sentence_encoder import TextModel, TextTokenizer, Vectors
from lexray.runtime import ray_session
from lexray.runtime.config import RayConfig
from lexray.runtime.progress import Progress
from lexray.tables.quarantine import Refusal
from lexray.tables.row_checkpoints import MissingRow, RowPlan

Row = dict[str, Any]
#: Columns that pass by the engine.
_PASSTHROUGH_COLUMNS = ("part", "source_id", "text", "key", "truncated", "n_tokens")


class VllmEmbeddingEngine:
    """vLLM on Ray Data.

    Parameters
    ----------
    model : TextModel
        A local one's folder must be on every node.
    device : {'auto', 'cpu', 'gpu'}
        'auto' takes GPUs where the Ray session has some.
    settings : VllmSettings
        Their `gpu` follows from `device`.
    session : RayConfig
        The Ray session to join or to start.
    progress : Progress

    Raises
    ------
    LexrayError
        If vLLM is absent, or cannot pool as the model needs.
    """

    def __init__(
        self,
        model: TextModel,
        device: Literal["auto", "cpu", "gpu"],
        settings: vllm.VllmSettings,
        session: RayConfig,
        progress: Progress,
    ) -> None:
        vllm.require_vllm()
        if model.document_prefix and not model.pools_prefix:
            raise LexrayError(
                f"engine vllm with {model.name}: the model leaves its prefix out of the vector, which vLLM cannot do; "
                "set engine=hf"
            )
        self.spec, self.dimension, self.max_length = embedding_spec(model), model.dimension, model.max_length
        self.provenance = Provenance("vllm", f"vllm {vllm.version()}", model.name, model.revision)
        self._model, self._device, self._settings = model, device, settings
        self._session, self._progress = session, progress

    def embed(self, plan: RowPlan[str], parts: Sequence[int]) -> Iterator[BatchResult]:
        """As `EmbeddingEngine.embed`; before the first texts are done, an engine has to start."""
        model = self._model
        with ray_session.session(self._session):
            settings = vllm.resolve_device(self._settings, self._device, model.path, model.name)
            self._progress.info(vllm.start_notice(model.name, settings))
            texts = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).flat_map(
                lambda row: [
                    {"part": text.part, "source_id": text.source_id, "key": text.key, "text": text.made_from}
                    for text in plan.missing(int(row["part"]))
                ]
            )
            engine: Row = {"max_model_len": model.max_length} | ({"revision": model.revision} if model.on_hub else {})
            tokenize = functools.partial(_tokenize, model=model)
            processor = vllm.build(model.source, "embed", settings, engine, tokenize, _vector)
            write = functools.partial(_write, writer=EmbeddingWriter(plan.rows, self.provenance))
            with vllm.one_line_errors(model.name):
                for row in processor(texts).map_batches(write, batch_format="numpy", batch_size=None).iter_rows():
                    failures = tuple(Refusal(*failure) for failure in json.loads(row["failures"]))
                    yield BatchResult(row["n_rows"], row["n_tokens"], failures, row["began"], row["ended"])


def _tokenize(row: Row, model: TextModel) -> Row:
    tokens = _tokenizer(model.source, model.max_length, model.revision if model.on_hub else None)
    ids, truncated = tokens([row["text"]], model.document_prefix)
    return {"tokenized_prompt": ids[0], "truncated": truncated[0], "n_tokens": len(ids[0])}


@functools.lru_cache(maxsize=1)
def _tokenizer(source: str, max_length: int, revision: str | None) -> TextTokenizer:
    """Loaded once a process."""
    return TextTokenizer(source, max_length, revision)


def _vector(row: Row) -> Row:
    # As bytes: failed rows do not pass here and have none.
    vector = np.asarray(row["embeddings"], np.float32).tobytes()
    return {name: row[name] for name in _PASSTHROUGH_COLUMNS} | {
        "vector": vector,
        "began": time.time() - row["time_taken_llm"],
    }


def _write(batch: Row, writer: EmbeddingWriter) -> Row:
    """Write a block's vectors; returns one row, the fields of its `BatchResult`."""
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    good = [row for row in rows if not row["__inference_error__"]]
    failures = [
        Refusal(row["source_id"], "engine_error", " ".join(row["__inference_error__"].split())[:300])
        for row in rows
        if row["__inference_error__"]
    ]
    texts = [MissingRow(int(row["part"]), row["source_id"], row["key"], row["text"]) for row in good]
    vectors: list[Vectors] = [np.frombuffer(row["vector"], dtype=np.float32) for row in good]
    truncated = [bool(row["truncated"]) for row in good]
    n_tokens, began = sum(int(row["n_tokens"]) for row in good), min((row["began"] for row in good), default=np.inf)
    done = writer.write(texts, vectors, truncated, n_tokens, float(began), failures)
    fields = vars(done) | {"failures": json.dumps([list(vars(failure).values()) for failure in done.failures])}
    return {name: [value] for name, value in fields.items()}
