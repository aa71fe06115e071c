"""`lexray embed`: texts → vectors, by vLLM on Ray Data, by sentence-transformers in this process, or by an API."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from lexray.embeddings.engines import EmbeddingEngine, HfEmbeddingEngine, HttpEmbeddingEngine
from lexray.embeddings.store import EmbeddingFailure, EmbeddingStats, PartProgress, Provenance, TextColumn, WorkPlan
from lexray.embeddings.vllm_engine import VllmEmbeddingEngine
from lexray.llm.openai import Endpoint
from lexray.llm.sentence_encoder import DEFAULT_MODEL, TextModel, describe_text_model
from lexray.llm.vllm import VllmSettings
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.tables.schemas import QUARANTINE

#: Texts of which MLflow shows the first.
_SAMPLE = 20
Positive = Annotated[int, Field(ge=1)]


class EmbedConfig(JobConfig):
    """Configuration of `lexray embed`."""

    summaries: str = Field(description="summaries table, or any other with `source_id` and a column of texts")
    column: str = Field("summary", description="the column of texts")
    include_ungrounded: bool = Field(False, description="embed summaries, too, that say more than their papers do")
    engine: Literal["vllm", "hf", "http"] = Field(
        "vllm",
        description="'vllm': vLLM on Ray Data; 'hf': sentence-transformers in this process; 'http': `endpoint`",
    )
    model: str = Field(DEFAULT_MODEL, description="sentence model: its folder, or its name on the Hugging Face hub")
    endpoint: Endpoint | None = Field(None, description="an API like OpenAI's: url, model and more; for engine 'http'")
    document_prefix: str | None = Field(
        None, description="put before each text; by default what the model's folder says, of an endpoint's nothing"
    )
    max_length: int | None = Field(
        None, ge=8, description="tokens of a text that are read; by default, and at most, as many as the model takes"
    )
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="'auto' takes a GPU where there is one")
    replicas: Positive | tuple[Positive, Positive] = Field(
        1, description="vLLM engines: so many at most, or the fewest and the most of them"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share each layer of a vLLM engine's model")
    pipeline_parallel: int = Field(1, ge=1, description="groups of a model's layers, each on GPUs of its own")
    batch_size: int = Field(64, ge=1, description="texts a call")
    price_per_million_tokens: float | None = Field(None, ge=0, description="what the endpoint takes, in any currency")
    price_per_hour: float | None = Field(None, ge=0, description="what the machines that embed cost, all together")

    @model_validator(mode="after")
    def _fits(self) -> "EmbedConfig":
        if (self.engine == "http") != (self.endpoint is not None):
            raise ValueError("engine 'http' and 'endpoint' come together")
        if isinstance(self.replicas, tuple) and self.replicas[0] > self.replicas[1]:
            raise ValueError("'replicas' takes the fewest first, then the most")
        return self


def run(config: EmbedConfig, context: JobContext) -> JobResult:
    """Embed what is new or changed, then make the table of all vectors that are wanted."""
    texts = TextColumn.of(config.summaries, config.column, config.include_ungrounded)
    engine = _engine(config, context)
    backlog = WorkPlan(texts, engine.recipe, config.out, config.force)
    progress = backlog.survey()
    if config.endpoint is not None and (_missing(progress) or not backlog.is_committed()):
        # Only the endpoint's name is part of a key: behind it there may be a model with other vectors by now.
        backlog = replace(backlog, dimension=engine.dimension)
        progress = backlog.survey()
    n_texts, n_left = sum(part.texts for part in progress.values()), sum(_missing(progress).values())
    tally = EmbeddingStats()
    with context.progress.task("texts", total=n_left) as task:
        for result in engine.embed(backlog, list(_missing(progress))) if n_left else ():
            tally.add(result)
            task.advance(result.n_rows + len(result.failures))
    tally.stop()

    failed = {failure.source_id for failure in tally.failures}
    if tally.n_rows or not backlog.is_committed(failed):
        backlog.commit(engine.dimension, failed)
    quarantine = _write_quarantine(config.out, tally.failures)
    counts = _counts(config.out, texts, n_texts, n_left, tally)
    if counts["truncated"]:
        context.progress.warn(
            f"embed: {counts['truncated']} of {counts['texts']} texts are longer than the {engine.max_length} tokens "
            "that are read of them"
        )
    _log_provenance(context, backlog, engine if n_left else None)
    return JobResult(
        counts=counts,
        metrics=_metrics(config, counts, tally),
        outputs=[quarantine],
        refused=counts["failed"],
        taken=counts["texts"] - counts["failed"],
        complete=not tally.failures,
    )


def _missing(plan: dict[int, PartProgress]) -> dict[int, int]:
    """Texts without a vector by part, of parts that have any."""
    return {part: extent.left for part, extent in plan.items() if extent.left}


def _engine(config: EmbedConfig, context: JobContext) -> EmbeddingEngine:
    if config.endpoint is not None:
        return HttpEmbeddingEngine(config.endpoint, config.document_prefix or "", config.batch_size)
    model = _limited(describe_text_model(config.model), config)
    if config.engine == "hf":
        return HfEmbeddingEngine(model, {"auto": None, "cpu": "cpu", "gpu": "cuda"}[config.device], config.batch_size)
    settings = VllmSettings(
        gpu=False,
        replicas=config.replicas,
        batch_size=config.batch_size,
        tensor_parallel=config.tensor_parallel,
        pipeline_parallel=config.pipeline_parallel,
    )
    return VllmEmbeddingEngine(model, config.device, settings, config.ray, context.progress)


def _limited(model: TextModel, config: EmbedConfig) -> TextModel:
    """The model with the prefix and the longest text that the configuration asks for."""
    prefix = model.document_prefix if config.document_prefix is None else config.document_prefix
    return replace(model, document_prefix=prefix, max_length=min(model.max_length, config.max_length or 10**9))


def _counts(out: str, texts: TextColumn, n_texts: int, n_left: int, tally: EmbeddingStats) -> dict[str, Any]:
    table = delta.dataset(out)
    return {
        "texts": n_texts,
        "embedded": tally.n_rows,
        "unchanged": n_texts - n_left,
        "truncated": int(table.count_rows(filter=pc.field("truncated"))),
        "failed": len(tally.failures),
        "failed_by_reason": tally.reasons,
        "skipped": texts.count() - n_texts,
        "dimension": int(table.schema.field("embedding").type.list_size),
    }


def _metrics(config: EmbedConfig, counts: dict[str, Any], tally: EmbeddingStats) -> dict[str, float]:
    found = {
        "seconds_to_first_vector": tally.seconds_to_first,
        "seconds": tally.seconds,
        "tokens_in": tally.n_tokens,
        "tokens_per_s": tally.tokens_per_s,
        "truncated": counts["truncated"],
        **{f"failed/{reason}": n for reason, n in tally.reasons.items()},
    }
    if tally.n_rows and (config.price_per_million_tokens is not None or config.price_per_hour is not None):
        tokens, hours = tally.n_tokens / 1e6, tally.seconds / 3600
        paid = (config.price_per_million_tokens or 0) * tokens + (config.price_per_hour or 0) * hours
        found["cost_per_1000"] = 1000 * paid / tally.n_rows
    return found


def _write_quarantine(out: str, failures: list[EmbeddingFailure]) -> str:
    table = f"{out}.quarantine"
    rows = [{"file": one.source_id, "stage": "embed", "reason": one.reason, "detail": one.detail} for one in failures]
    part = delta.write_part(table, QUARANTINE, 0, pa.Table.from_pylist(rows, schema=QUARANTINE))
    # Written even where it is empty: the failures of an earlier run must not outlive it.
    delta.commit(table, "quarantine", QUARANTINE, [part])
    return table


def _log_provenance(context: JobContext, backlog: WorkPlan, used: EmbeddingEngine | None) -> None:
    """Which engine and model it was, and what some of the rows are made of."""
    stamp = Provenance("", "", backlog.recipe.model, "") if used is None else used.stamp
    context.run.tags({f"text_model.{name}": value for name, value in vars(stamp).items() if value and name != "model"})
    context.run.tags({"text_model": stamp.model})
    shown = delta.dataset(backlog.out).head(_SAMPLE, columns=["source_id", "truncated", "engine_version", "part"])
    texts = {
        row["source_id"]: row["text"]
        for part in set(shown["part"].to_pylist())
        for row in backlog.texts.read(part).to_pylist()
    }
    context.run.table([row | {"text": texts[row["source_id"]]} for row in shown.to_pylist()], "sample.json")


JOB = Job(
    name="embed",
    config=EmbedConfig,
    run=run,
    inputs=("summaries",),
    positional=("summaries",),
    summary="Turn summaries into text vectors with a sentence model.",
)
