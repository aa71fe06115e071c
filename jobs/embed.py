"""`lexray embed`: summaries → text vectors, by vLLM on Ray Data or by sentence-transformers in this process."""

import time
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lexray import cluster, storage
from lexray.config import JobConfig
from lexray.errors import LexrayError
from lexray.job import Context, Job, Outcome
from lexray.schemas import text_embeddings
from lexray.summaries import vllm
from lexray.summaries.encoder import DEFAULT_MODEL, TextEncoder, TextModel, describe_model
from lexray.summaries.vectors import Written, count_texts, read_texts, write_vectors


class Config(JobConfig):
    """Configuration of `lexray embed`."""

    summaries: str = Field(description="summaries table")
    engine: Literal["vllm", "hf"] = Field(
        "vllm", description="'vllm': vLLM on Ray Data; 'hf': sentence-transformers in this process"
    )
    model: str = Field(DEFAULT_MODEL, description="sentence model: its folder, or its name on the Hugging Face hub")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="'auto' takes a GPU where there is one")
    replicas: int = Field(1, ge=1, description="vLLM engines, each with one GPU or one logical CPU")
    batch_size: int = Field(64, ge=1, description="texts a call")


def run(config: Config, context: Context) -> Outcome:
    """Embed the summaries that did not fail."""
    if config.engine == "vllm":
        vllm.require_vllm()
    model = describe_model(config.model)
    n_rows = storage.dataset(config.summaries).count_rows()
    n_texts = count_texts(config.summaries)
    start = time.monotonic()
    first: float | None = None
    fragments: list[storage.Fragment] = []
    truncated = 0
    engine = _with_vllm if config.engine == "vllm" else _in_process
    with context.progress.task("texts", total=n_texts) as task:
        for written in engine(config, model, context) if n_texts else ():
            first = first or time.monotonic()
            fragments.append(written.fragment)
            truncated += written.truncated
            task.advance(written.fragment.n_rows)
    storage.commit(config.out, "text_embeddings", text_embeddings(model.dimension), fragments)
    if truncated:
        context.progress.warn(
            f"embed: {truncated} of {n_texts} texts are longer than the model's {model.max_length} tokens"
        )
    context.run.tags({"text_model": model.name, "text_model.sha256": model.sha256})
    return Outcome(
        counts={"texts": n_texts, "truncated": truncated, "skipped": n_rows - n_texts, "dimension": model.dimension},
        metrics={"seconds_to_first_vector": (first or start) - start, "seconds": time.monotonic() - start},
        taken=n_texts,
    )


def _with_vllm(config: Config, model: TextModel, context: Context) -> Iterator[Written]:
    with cluster.session(config.ray):
        gpu = vllm.has_gpu() if config.device == "auto" else config.device == "gpu"
        if gpu and not vllm.has_gpu():
            raise LexrayError("device gpu: the Ray session has none; set device=cpu or join a cluster that has one")
        where = "GPU" if gpu else "CPU"
        context.progress.say(f"  starting vLLM with {model.name} on the {where}; this takes about a minute")
        settings = vllm.EngineSettings(gpu, config.replicas, config.batch_size)
        yield from vllm.embed(config.summaries, model, settings, config.out)


def _in_process(config: Config, model: TextModel, _: Context) -> Iterator[Written]:
    encoder = TextEncoder(config.model, {"auto": None, "cpu": "cpu", "gpu": "cuda"}[config.device])
    for part in storage.part_files(config.summaries):
        texts = read_texts(config.summaries, part)
        if texts.num_rows:
            summaries = texts["summary"].to_pylist()
            vectors = encoder.encode(summaries, config.batch_size)
            fragment = write_vectors(config.out, part, model, texts["source_id"].to_pylist(), vectors)
            yield Written(fragment, sum(encoder.truncated(summaries)))


JOB = Job(
    name="embed",
    config=Config,
    run=run,
    inputs=("summaries",),
    positional=("summaries",),
    summary="Turn summaries into text vectors with a sentence model.",
)
