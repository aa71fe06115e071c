"""`lexray embed`: embed texts with vLLM on Ray Data, sentence-transformers in this process, or an API."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from lexray.embeddings.engines import EmbeddingEngine, HfEmbeddingEngine, HttpEmbeddingEngine
from lexray.embeddings.run import embed_missing, log_provenance
from lexray.embeddings.store import TextColumn
from lexray.embeddings.vllm_engine import VllmEmbeddingEngine
from lexray.jobs.engine_config import TextEngineConfig
from lexray.llm.sentence_encoder import DEFAULT_MODEL, describe_text_model
from lexray.runtime.job import Job, JobContext, JobResult


class EmbedConfig(TextEngineConfig):
    """Configuration of `lexray embed`."""

    summaries: str = Field(description="summaries table, or any other with `source_id` and a column of texts")
    column: str = Field("summary", description="the column of texts")
    include_ungrounded: bool = Field(False, description="embed summaries, too, that say more than their papers do")
    engine: Literal["vllm", "hf", "http"] = Field(
        "vllm",
        description="'vllm': vLLM on Ray Data; 'hf': sentence-transformers in this process; 'http': `endpoint`",
    )
    model: str = Field(DEFAULT_MODEL, description="sentence model: its folder, or its name on the Hugging Face hub")
    document_prefix: str | None = Field(
        None, description="prefix of each text; by default the model folder's, for an endpoint none"
    )
    max_length: int | None = Field(
        None, ge=8, description="tokens of a text that are read; by default, and at most, as many as the model takes"
    )
    batch_size: int = Field(64, ge=1, description="texts per call")
    price_per_million_tokens: float | None = Field(None, ge=0, description="what the endpoint takes, in any currency")
    price_per_hour: float | None = Field(None, ge=0, description="what the machines that embed cost, all together")


def run(config: EmbedConfig, context: JobContext) -> JobResult:
    """Embed the texts that are new or changed, and commit the table of all vectors."""
    texts = TextColumn.of(config.summaries, config.column, config.include_ungrounded)
    engine = _engine(config, context)
    embedded = embed_missing(engine, texts, config.out, config.force, context.progress)
    counts = embedded.counts()
    if counts["truncated"]:
        context.progress.warn(
            f"embed: {counts['truncated']} of {counts['texts']} texts are longer than the {engine.max_length} tokens "
            "that are read of them"
        )
    log_provenance(embedded, context.run)
    metrics = embedded.metrics(config.price_per_million_tokens, config.price_per_hour)
    return JobResult(
        counts=counts,
        metrics=metrics | {"truncated": counts["truncated"]},
        refusals=embedded.failures,
        accepted=counts["texts"] - counts["failed"],
        complete=not embedded.failures,
    )


def _engine(config: EmbedConfig, context: JobContext) -> EmbeddingEngine:
    if config.endpoint is not None:
        return HttpEmbeddingEngine(config.endpoint, config.document_prefix or "", config.batch_size)
    model = describe_text_model(config.model)
    prefix = model.document_prefix if config.document_prefix is None else config.document_prefix
    model = replace(model, document_prefix=prefix, max_length=min(model.max_length, config.max_length or 10**9))
    if config.engine == "hf":
        return HfEmbeddingEngine(model, {"auto": None, "cpu": "cpu", "gpu": "cuda"}[config.device], config.batch_size)
    return VllmEmbeddingEngine(model, config.device, config.vllm_settings(), config.ray, context.progress)


JOB = Job("embed", EmbedConfig, run, inputs=("summaries",), positional=("summaries",))
