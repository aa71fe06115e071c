"""`lexray summarize`: summarize each source's papers, with a language model or by their own sentences."""

from typing import Any, Literal

from pydantic import Field, model_validator

from lexray.errors import ConfigError
from lexray.jobs.engine_config import TextEngineConfig
from lexray.llm import vllm
from lexray.llm.chat_model import describe_language_model
from lexray.runtime import ray_session
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.summaries.extractive_run import extract_summaries
from lexray.summaries.run import (
    HttpSummaryEngine,
    SummaryEngine,
    VllmSummaryEngine,
    describe_endpoint,
    write_missing,
)
from lexray.summaries.schema import MAX_WORDS
from lexray.summaries.statistics import summary_statistics
from lexray.summaries.writer import Writer, WriterSettings


class SummarizeConfig(TextEngineConfig, WriterSettings):
    """Configuration of `lexray summarize`."""

    literature: str = Field(description="literature table")
    engine: Literal["extractive", "vllm", "http"] = Field(
        "extractive",
        description="'extractive': the papers' most informative sentences; 'vllm': `model` on Ray; 'http': `endpoint`",
    )
    model: str | None = Field(None, description="language model: its folder, or its name on the Hugging Face hub")
    revision: str | None = Field(None, description="the hub's branch, tag or commit of it")
    context: int = Field(
        16384, ge=1024, description="tokens of a prompt and its answer, as far as the model takes them"
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of vLLM's engine, such as gpu_memory_utilization"
    )
    batch_size: int = Field(32, ge=1, description="sources a call; those of several calls are under way at once")
    price_per_million_in: float | None = Field(None, ge=0, description="of tokens read, in any currency")
    price_per_million_out: float | None = Field(None, ge=0, description="of tokens written")
    price_per_hour: float | None = Field(None, ge=0, description="what the machines that write cost, all together")
    workers: int = Field(2, ge=1, description="worker processes of the engine 'extractive', each with one CPU")

    @model_validator(mode="after")
    def _fits(self) -> "SummarizeConfig":
        if self.engine == "vllm" and self.model is None:
            raise ValueError("engine 'vllm' takes a 'model'")
        if self.engine == "extractive" and self.model is not None:
            raise ValueError("engine 'extractive' takes no 'model'; set engine=vllm")
        if self.engine != "extractive" and self.max_words > MAX_WORDS:
            raise ValueError(f"'max_words': a language model's summary has at most {MAX_WORDS}")
        return self


def run(config: SummarizeConfig, context: JobContext) -> JobResult:
    """Summarize the sources that lack a summary; those that failed before are tried again."""
    counts: dict[str, int] = {}
    metrics: dict[str, float] = {}
    with ray_session.session(config.ray):
        if config.engine == "extractive":
            extract_summaries(config.literature, config.out, config, config.workers, config.force, context.progress)
        else:
            writer, engine = _engine(config)
            written = write_missing(config.literature, config.out, writer, engine, config.force, context.progress)
            context.run.tags(writer.provenance | {"prompt_sha256": writer.prompt_sha256})
            counts = {"written": written.n_written, "unchanged": written.n_sources - written.n_written}
            metrics = written.metrics(config.price_per_million_in, config.price_per_million_out, config.price_per_hour)
    table = summary_statistics(config.out)
    if table.ungrounded:
        context.progress.warn(
            f"summarize: {table.ungrounded} of {table.sources} summaries say more than their papers do; they are "
            "flagged 'ungrounded', and their column 'findings' says what"
        )
    context.run.table(table.sample, "summaries.json")
    return JobResult(
        counts=table.counts | counts,
        metrics=table.metrics | metrics,
        refusals=table.refusals,
        accepted=table.sources - table.failed,
        # What fails without a model fails every time.
        complete=config.engine == "extractive" or not table.failed,
    )


def _engine(config: SummarizeConfig) -> tuple[Writer, SummaryEngine]:
    settings = WriterSettings.model_validate({name: getattr(config, name) for name in WriterSettings.model_fields})
    model = None if config.model is None else describe_language_model(config.model, config.revision)
    engine: SummaryEngine
    if config.endpoint is not None:
        most = config.replicas if isinstance(config.replicas, int) else config.replicas[1]
        options = {"extra_body": config.endpoint.extra_body}
        writer = Writer(settings, describe_endpoint(config.endpoint), config.context, options)
        engine = HttpSummaryEngine(config.endpoint, most, config.batch_size, model)
    else:
        vllm.require_vllm()
        if model is None:
            raise ConfigError("engine vllm: set 'model'")
        wanted = config.vllm_settings(config.engine_args)
        run_as = vllm.resolve_device(wanted, config.device, model.path, model.name)
        engine = VllmSummaryEngine(model, run_as, min(config.context, model.context))
        writer = Writer(settings, engine.provenance, engine.context, engine.output_arguments)
    writer.check_context(engine.counter())
    return writer, engine


JOB = Job("summarize", SummarizeConfig, run, inputs=("literature",), positional=("literature",))
