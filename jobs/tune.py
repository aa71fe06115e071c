"""`lexray tune`: search the alignment's parameters with Ray Tune; a nested MLflow run for each trial."""

from dataclasses import fields
from typing import Any

from pydantic import Field, field_validator

from lexray.errors import LexrayError
from lexray.jobs import train_alignment
from lexray.models.alignment.trainer import METRICS, AlignmentSettings
from lexray.runtime import ray_session
from lexray.runtime.config import BaseConfig, JobConfig, parse
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables.files import resolve_path
from lexray.training.pairs import PairedTables, read_pairs
from lexray.training.search import AlignmentSearch, write_configuration, write_trials
from lexray.training.search_space import parse_space
from lexray.training.trials import TrialLog

_TABLES = ("latents", "text_embeddings", "events")


class AshaConfig(BaseConfig):
    """Asynchronous successive halving, Li et al. 2018, arXiv:1810.05934."""

    grace_period: int = Field(20, ge=1, description="epochs that every trial gets")
    reduction_factor: float = Field(3.0, gt=1, description="of so many trials that come to a rung, one goes on")


class TuneConfig(JobConfig):
    """Configuration of `lexray tune`."""

    base: dict[str, Any] = Field(description="configuration of `lexray train alignment`, without 'out'")
    space: dict[str, Any] = Field(description="key: {uniform | loguniform | randint | choice: […]} of what is searched")
    samples: int = Field(20, ge=1, description="trials")
    asha: AshaConfig = AshaConfig()
    metric: str = Field("val/loss", description=f"what is best, over a trial's epochs: one of {', '.join(METRICS)}")
    max_concurrent: int = Field(2, ge=1, description="trials at a time, each with one CPU")
    seed: int = Field(0, ge=0, description="of the draws; the training's own seed is base.seed")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"it takes one of {', '.join(METRICS)}")
        return value

    @property
    def tables(self) -> list[str]:
        """Tables that the search reads."""
        return [self.base[key] for key in _TABLES if key in self.base]

    @property
    def training(self) -> train_alignment.TrainAlignmentConfig:
        """The configuration that each trial's values are merged into."""
        return parse(train_alignment.TrainAlignmentConfig, {**self.base, "out": self.out}, "lexray tune: base")


def run(config: TuneConfig, context: JobContext) -> JobResult:
    """Search, and write OUT/trials.parquet and OUT/best.yaml."""
    training = config.training
    searchable = [field.name for field in fields(AlignmentSettings)]
    space = parse_space(
        config.space, train_alignment.TrainAlignmentConfig, {**config.base, "out": config.out}, searchable
    )
    pairs = read_pairs(training.latents, training.text_embeddings, training.events, training.split_seed)
    search = AlignmentSearch(
        settings=training.settings,
        space=space,
        samples=config.samples,
        max_concurrent=config.max_concurrent,
        grace_period=config.asha.grace_period,
        reduction_factor=config.asha.reduction_factor,
        seed=config.seed,
        scratch=f"{config.out.rstrip('/')}.trials",
    )
    with ray_session.session(config.ray), context.progress.task("trials", total=config.samples) as task:
        log = TrialLog(config.tracking, context.run, task, config.metric, METRICS[config.metric])
        search.run(pairs, log)
    return _write(config, log, pairs)


def _write(config: TuneConfig, log: TrialLog, pairs: PairedTables) -> JobResult:
    """Write the trials and the configuration of the best one."""
    trials = list(log.trials.values())
    failed = [trial for trial in trials if trial.status == "failed"]
    write_trials(config.out, log)
    best = log.best()
    if best is None:
        raise LexrayError(f"lexray tune: all {len(trials)} trials failed, the first with: {failed[0].error}")
    former = train_alignment.TrainAlignmentConfig.former_keys
    chosen = {former.get(key, key): value for key, value in config.base.items()} | best.values
    chosen |= {key: resolve_path(chosen[key]) for key in _TABLES}
    write_configuration(
        config.out,
        chosen,
        f"The best of {len(trials)} trials by {config.metric}: lexray train alignment --config THIS --out DIR",
    )
    epoch = best.best_epoch(config.metric, log.mode)
    return JobResult(
        counts={
            "trials": len(trials),
            "stopped early": sum(trial.status == "stopped" for trial in trials),
            "failed": len(failed),
            "best trial": best.name,
            "best epoch": epoch,
        },
        metrics={f"best/{name}": value for name, value in best.history[epoch - 1].items()},
        refusals=pairs.refusals,
        accepted=pairs.n_rows - len(pairs.refusals),
    )


JOB = Job("tune", TuneConfig, run, inputs=("tables",), positional=())
