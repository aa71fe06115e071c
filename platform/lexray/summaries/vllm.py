"""Text vectors from vLLM on Ray Data: replicas of the engine read texts, their vectors go to the parts as they come.

vLLM pools as the model's own folder says (`modules.json`), the same place that sentence-transformers reads.
"""

import functools
import importlib.util
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from ray.exceptions import RayActorError, RayError

from lexray import storage
from lexray.errors import LexrayError
from lexray.summaries.encoder import TextModel, Tokens, unit
from lexray.summaries.vectors import Written, read_texts, write_vectors

#: Room for attention's keys and values on a CPU, in GiB: a sentence model keeps none between texts.
_KV_CACHE_GIB = "1"
#: How often an engine that died is started anew. Ray's default is without end, also where it dies of its first text.
_RESTARTS = 2
#: vLLM's attention on a CPU dies of smaller heads.
_CPU_HEAD_SIZE = 32
_OURS = f"{LexrayError.__module__}.{LexrayError.__qualname__}: "


@dataclass(frozen=True)
class EngineSettings:
    """How the engine is run.

    Attributes
    ----------
    gpu : bool
        One GPU for each replica; otherwise one logical CPU, in float32.
    replicas : int
    batch_size : int
        Texts a call.
    """

    gpu: bool
    replicas: int = 1
    batch_size: int = 64


def require_vllm() -> None:
    """Say which extra to install where vLLM is absent.

    Raises
    ------
    LexrayError
        If it is.
    """
    if importlib.util.find_spec("vllm") is None:
        raise LexrayError(
            "engine vllm: vLLM is not installed; install lexray[llm] on a machine with a GPU, lexray[llm-cpu] on one "
            "without, or set engine=hf"
        )


def has_gpu() -> bool:
    """Whether the Ray session has a GPU to give."""
    return bool(ray.cluster_resources().get("GPU", 0))


def embed(summaries: str, model: TextModel, settings: EngineSettings, out: str) -> Iterator[Written]:
    """Write vectors of summaries as files of the table `out`; nothing is visible before `storage.commit`.

    Parameters
    ----------
    summaries : str
        Table; only rows whose status is 'ok' are read.
    model : TextModel
        A local one's folder must be on every node.
    settings : EngineSettings
        Device, replicas and batch.
    out : str
        Table of `schemas.text_embeddings`, parted as `summaries` is.

    Yields
    ------
    Written
        As the workers write. Before the first, an engine has to start.

    Raises
    ------
    LexrayError
        If vLLM is absent, or the engine does not start or ends in the middle of the work.
    """
    require_vllm()
    if not settings.gpu:
        _require_head_size(model)
    parts = list(storage.part_files(summaries))
    texts = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=max(len(parts), 1)).flat_map(
        lambda row: _texts(summaries, row)
    )
    written = _processor(model, settings)(texts).map_batches(
        functools.partial(_write, out=out, model=model), batch_format="numpy", batch_size=None
    )
    data = logging.getLogger("ray.data")
    level = data.level
    data.setLevel(logging.CRITICAL)  # what goes wrong is said once, by our error
    try:
        for row in written.iter_rows():
            truncated = row.pop("truncated")
            yield Written(storage.Fragment(**row), truncated)
    except RayError as error:
        raise LexrayError(
            f"engine vllm with {model.name}: {_cause(error)}; Ray's worker logs say more, engine=hf does without vLLM"
        ) from None
    finally:
        data.setLevel(level)


def _require_head_size(model: TextModel) -> None:
    config = json.loads((Path(model.path) / "config.json").read_text())
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    size = config.get("head_dim") or (width // heads if heads and width else _CPU_HEAD_SIZE)
    if size < _CPU_HEAD_SIZE:
        raise LexrayError(
            f"engine vllm with {model.name}: its attention heads have size {size}, and vLLM on a CPU takes "
            f"{_CPU_HEAD_SIZE} and more; set engine=hf"
        )


def _processor(model: TextModel, settings: EngineSettings) -> Any:
    _quieten()
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(
        model_source=model.source,
        task_type="embed",
        engine_kwargs={
            "max_model_len": model.max_length,
            "dtype": "auto" if settings.gpu else "float32",
            # Compiling costs more time than it saves on models of this size.
            "enforce_eager": True,
            "disable_log_stats": True,
        },
        # Ray asks for a GPU unless it is told what a worker needs.
        placement_group_config={"bundle_per_worker": {"CPU": 1, "GPU": 1} if settings.gpu else {"CPU": 1}},
        concurrency=settings.replicas,
        batch_size=settings.batch_size,
        # Each of these stages would hold a CPU. Texts have no chat to template and vectors nothing to detokenise;
        # tokens are made in `_tokenize`, where truncation is counted.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        runtime_env={"env_vars": _environment(model)},
    )
    processor = build_processor(config, preprocess=functools.partial(_tokenize, model=model), postprocess=_vector)
    name = "vLLMEngineStage"
    stage = processor.get_stage_by_name(name)
    # A copy: assigning to the stage's field would work out its resources anew, and ask for a GPU.
    restarts = {"max_restarts": _RESTARTS, "max_task_retries": _RESTARTS}
    processor.stages[name] = stage.model_copy(
        update={"fn": _speaking(stage.fn), "map_batches_kwargs": stage.map_batches_kwargs | restarts}
    )
    return processor


def _speaking(engine: type[Any]) -> type[Any]:
    """The engine's stage, but one that cannot start says why in place of its first answer.

    A constructor that raises would make Ray print its stack trace on the driver's stdout, and try again on end.
    """

    class Engine(engine):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.refusal = ""
            try:
                super().__init__(*args, **kwargs)
            except Exception as error:  # whatever vLLM, torch or the model's code raise
                self.refusal = " ".join(f"{type(error).__name__}: {error}".split())[:500]

        async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
            if self.refusal:
                raise LexrayError(f"it does not start: {self.refusal}")
            async for answer in super().__call__(batch):
                yield answer

    return Engine


def _quieten() -> None:
    # Building a processor calls ray.init again, which is harmless and would say so.
    logging.getLogger("ray._private.worker").setLevel(logging.WARNING)
    # ray.llm's modules give themselves handlers that print, unless their parent has one when they are imported.
    parent = logging.getLogger("ray.llm")
    parent.setLevel(logging.ERROR)
    if not parent.handlers:
        parent.addHandler(logging.NullHandler())


def _environment(model: TextModel) -> dict[str, str]:
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": _KV_CACHE_GIB,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if model.source == model.path:  # a local folder: whatever asks the hub now would only wait for it
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


def _texts(summaries: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    part = int(row["part"])
    return [{"part": part, **text} for text in read_texts(summaries, part).to_pylist()]


def _tokenize(row: dict[str, Any], model: TextModel) -> dict[str, Any]:
    ids, truncated = _tokens(model.source, model.max_length)([row["summary"]])
    return {"tokenized_prompt": ids[0], "truncated": truncated[0]}


@functools.lru_cache(maxsize=1)
def _tokens(source: str, max_length: int) -> Tokens:
    """Loaded once a process."""
    return Tokens(source, max_length)


def _vector(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("part", "source_id", "truncated")} | {"embedding": unit(row["embeddings"])}


def _write(batch: dict[str, Any], out: str, model: TextModel) -> dict[str, Any]:
    """Write a block's vectors to their parts; gives a row a file."""
    files = []
    for part in np.unique(batch["part"]).tolist():
        of_part = batch["part"] == part
        vectors = np.stack(batch["embedding"][of_part])
        fragment = write_vectors(out, part, model, batch["source_id"][of_part].tolist(), vectors)
        files.append(asdict(fragment) | {"truncated": int(np.sum(batch["truncated"][of_part]))})
    return {name: np.array([file[name] for file in files]) for name in files[0]}


def _cause(error: RayError) -> str:
    """Why an engine did not go on, for a person."""
    if isinstance(error, RayActorError):
        return f"it died {_RESTARTS + 1} times"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A worker's stack trace holds the error's own line, and Ray may add advice behind it.
    ours = [line.partition(_OURS)[2] for line in lines if _OURS in line]
    return (ours or lines[-1:] or [type(error).__name__])[-1]
