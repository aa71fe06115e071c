"""`lexray summarize`: papers → a summary of each source, by a language model or out of the papers' own sentences."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lexray.errors import ConfigError, LexrayError
from lexray.llm import vllm
from lexray.llm.chat_model import describe_language_model
from lexray.llm.openai import Endpoint
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import map_parts
from lexray.summaries import extractive_run
from lexray.summaries import run as summarizing
from lexray.summaries.run import HttpSummaryEngine, SummaryEngine, VllmSummaryEngine, WritingStats
from lexray.summaries.schema import MAX_WORDS
from lexray.summaries.statistics import summary_statistics
from lexray.summaries.writer import Writer, WriterSettings
from lexray.tables import delta
from lexray.tables.part_checkpoints import PartCheckpoints
from lexray.tables.row_checkpoints import RowCheckpoints
from lexray.tables.schemas import SUMMARIES

#: Arguments of vLLM's engine that change what it answers, and not only how fast.
_OUTPUT_ARGUMENTS = (
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "hf_overrides",
    "reasoning_parser",
    "speculative_config",
)
Positive = Annotated[int, Field(ge=1)]


class SummarizeConfig(JobConfig, WriterSettings):
    """Configuration of `lexray summarize`."""

    literature: str = Field(description="literature table")
    engine: Literal["extractive", "vllm", "http"] = Field(
        "extractive",
        description="'extractive': the papers' most informative sentences; 'vllm': `model` on Ray; 'http': `endpoint`",
    )
    model: str | None = Field(None, description="language model: its folder, or its name on the Hugging Face hub")
    revision: str | None = Field(None, description="the hub's branch, tag or commit of it")
    endpoint: Endpoint | None = Field(None, description="an API like OpenAI's: url, model and more; for engine 'http'")
    context: int = Field(
        16384, ge=1024, description="tokens of a prompt and its answer, as far as the model takes them"
    )
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="'auto' takes a GPU where there is one")
    replicas: Positive | tuple[Positive, Positive] = Field(
        1, description="engines, or the fewest and the most of them: more are started while sources wait"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share each layer of a vLLM engine's model")
    pipeline_parallel: int = Field(1, ge=1, description="groups of a model's layers, each on GPUs of its own")
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
        if (self.engine == "http") != (self.endpoint is not None):
            raise ValueError("engine 'http' and 'endpoint' come together")
        if self.engine == "vllm" and self.model is None:
            raise ValueError("engine 'vllm' takes a 'model'")
        if self.engine == "extractive" and self.model is not None:
            raise ValueError("engine 'extractive' takes no 'model'; set engine=vllm")
        if self.engine != "extractive" and self.max_words > MAX_WORDS:
            raise ValueError(f"'max_words': a language model's summary has at most {MAX_WORDS}")
        if isinstance(self.replicas, tuple) and self.replicas[0] > self.replicas[1]:
            raise ValueError("'replicas' takes the fewest first, then the most")
        return self


def run(config: SummarizeConfig, context: JobContext) -> JobResult:
    """Summarize the sources that lack a summary; those that failed before are tried again."""
    counts: dict[str, int] = {}
    metrics: dict[str, float] = {}
    with ray_session.session(config.ray):
        if config.engine == "extractive":
            _extract_summaries(config, context)
        else:
            counts, metrics = _write_summaries(config, context)
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
        refused=table.failed,
        taken=table.sources - table.failed,
        # What fails without a model fails every time.
        complete=config.engine == "extractive" or not table.failed,
    )


def _write_summaries(config: SummarizeConfig, context: JobContext) -> tuple[dict[str, int], dict[str, float]]:
    """Summaries by a language model, of what lacks one."""
    writer, engine = _engine(config)
    store = RowCheckpoints(config.out, SUMMARIES)
    if config.force:
        store.remove()
    plan = summarizing.part_progress(config.literature, config.out, writer, force=config.force)
    lacking = sum(part.lacking for part in plan.values())
    tally = WritingStats()
    if lacking:
        if config.engine == "vllm":
            context.progress.say(f"  starting vLLM with {config.model}; this takes about a minute")
        with context.progress.task("sources", total=lacking) as task:
            parts = [part for part, found in plan.items() if found.lacking]
            tally = summarizing.summarize(
                config.literature, config.out, parts, writer, engine, task, afresh=config.force
            )
    gathered_at = time.time_ns()
    fragments = summarizing.gather(config.literature, config.out, writer)
    missing = sum(part.sources for part in plan.values()) - sum(fragment.n_rows for fragment in fragments)
    if missing:
        raise LexrayError(
            f"{config.out}: {missing} finished rows are gone, another run wrote this table meanwhile; run again"
        )
    delta.commit(config.out, "summaries", SUMMARIES, fragments)
    store.remove(gathered_at)
    context.run.tags(writer.provenance | {"prompt_sha256": writer.prompt_sha256})
    sources = sum(part.sources for part in plan.values())
    return {"written": lacking, "unchanged": sources - lacking}, _metrics(config, tally, lacking)


def _engine(config: SummarizeConfig) -> tuple[Writer, SummaryEngine]:
    settings = WriterSettings.model_validate({name: getattr(config, name) for name in WriterSettings.model_fields})
    model = None if config.model is None else describe_language_model(config.model, config.revision)
    replicas = config.replicas
    if config.endpoint is not None:
        most = replicas if isinstance(replicas, int) else replicas[1]
        provenance = summarizing.describe_endpoint(config.endpoint)
        writer = Writer(settings, provenance, config.context, {"extra_body": config.endpoint.extra_body})
        http = HttpSummaryEngine(config.endpoint, most, config.batch_size, model)
        writer.check_context(http.counter())
        return writer, http
    vllm.require_vllm()
    if model is None:
        raise ConfigError("engine vllm: set 'model'")
    wanted = vllm.VllmSettings(
        False, replicas, config.batch_size, config.tensor_parallel, config.pipeline_parallel, config.engine_args
    )
    run_as = vllm.resolve_device(wanted, config.device, model.path, model.name)
    context = min(config.context, model.context)
    provenance = {
        "engine": "vllm",
        "engine_version": vllm.version(),
        "model": model.name,
        "revision": model.revision,
    }
    changes = {name: value for name, value in config.engine_args.items() if name in _OUTPUT_ARGUMENTS}
    writer, engine = Writer(settings, provenance, context, changes), VllmSummaryEngine(model, run_as, context)
    writer.check_context(engine.counter())
    return writer, engine


def _metrics(config: SummarizeConfig, tally: WritingStats, n_sources: int) -> dict[str, float]:
    found: dict[str, float] = {"tokens_in": tally.tokens_in, "tokens_out": tally.tokens_out, "seconds": tally.seconds}
    if tally.seconds:
        found["tokens_per_s"] = (tally.tokens_in + tally.tokens_out) / tally.seconds
        found["tokens_out_per_s"] = tally.tokens_out / tally.seconds
    prices = (config.price_per_million_in, config.price_per_million_out, config.price_per_hour)
    if n_sources and any(price is not None for price in prices):
        amounts = (tally.tokens_in / 1e6, tally.tokens_out / 1e6, tally.seconds / 3600)
        paid = sum((price or 0.0) * amount for price, amount in zip(prices, amounts, strict=True))
        found["cost_per_1000"] = 1000 * paid / n_sources
    return found


def _extract_summaries(config: SummarizeConfig, context: JobContext) -> None:
    """Summaries out of the papers' own sentences."""
    corpus = extractive_run.count_corpus(config.literature)
    journal = PartCheckpoints(
        config.out,
        ["summaries", delta.version(config.literature), config.max_words, config.mask_names, config.min_grounded],
        afresh=config.force,
    )
    with context.progress.task("sources", total=corpus.n_sources) as task:
        make = extractive_run.part_function(corpus, config.max_words, config.mask_names, config.min_grounded)
        fragments = map_parts(config.literature, config.out, SUMMARIES, make, task, config.workers, journal=journal)
    delta.commit(config.out, "summaries", SUMMARIES, fragments)
    journal.remove()
    RowCheckpoints(config.out, SUMMARIES).remove()


JOB = Job(
    name="summarize",
    config=SummarizeConfig,
    run=run,
    inputs=("literature",),
    positional=("literature",),
    summary="Write a summary of each source from its papers.",
)
