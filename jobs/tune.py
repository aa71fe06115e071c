"""`lexray tune`: search the parameters of a training with Ray Tune; a nested MLflow run for each trial."""

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
from omegaconf import OmegaConf
from pydantic import Field, field_validator
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from lexray.errors import LexrayError
from lexray.jobs import train_alignment
from lexray.models.alignment.trainer import METRICS, AlignmentSettings, AlignmentTrainer, Pairs
from lexray.runtime import ray_session
from lexray.runtime.config import BaseConfig, JobConfig, parse
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables.files import filesystem, resolve_path
from lexray.training.pairs import PairedTables, read_pairs
from lexray.training.search_space import Domain, parse_space
from lexray.training.trials import Trial, TrialLog

_TABLES = ("latents", "text_embeddings", "events")


class AshaConfig(BaseConfig):
    """Asynchronous successive halving, Li et al. 2018, arXiv:1810.05934."""

    grace_period: int = Field(20, ge=1, description="epochs that every trial gets")
    reduction_factor: float = Field(3.0, gt=1, description="of so many trials that come to a rung, one goes on")


class TuneConfig(JobConfig):
    """What `lexray tune` takes."""

    job: Literal["train alignment"] = Field("train alignment", description="the training; so far only the alignment's")
    base: dict[str, Any] = Field(description="the training's configuration, without 'out'")
    space: dict[str, Any] = Field(description="key: {uniform | loguniform | randint | choice: […]} of what is searched")
    samples: int = Field(20, ge=1, description="trials")
    scheduler: Literal["asha"] = Field("asha", description="what ends hopeless trials early")
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
        """What is read."""
        return [self.base[key] for key in _TABLES if key in self.base]

    @property
    def training(self) -> train_alignment.TrainAlignmentConfig:
        """The configuration that draws are merged into."""
        return parse(train_alignment.TrainAlignmentConfig, {**self.base, "out": self.out}, "lexray tune: base")


def run(config: TuneConfig, context: JobContext) -> JobResult:
    """Search, and write OUT/trials.parquet and OUT/best.yaml."""
    training = config.training
    searchable = [field.name for field in fields(AlignmentSettings)]
    space = parse_space(
        config.space, train_alignment.TrainAlignmentConfig, {**config.base, "out": config.out}, searchable
    )
    pairs = read_pairs(training.latents, training.text_embeddings, training.events, training.split_seed)
    with ray_session.session(config.ray), context.progress.task("trials", total=config.samples) as task:
        log = TrialLog(config.tracking, context.run, task, config.metric, METRICS[config.metric])
        _search(config, training, space, pairs, log)
    return _write(config, log)


def _search(
    config: TuneConfig,
    training: train_alignment.TrainAlignmentConfig,
    space: dict[str, Domain],
    pairs: PairedTables,
    log: TrialLog,
) -> None:
    system, root = filesystem(config.out)
    scratch = f"{root}.trials"
    system.create_dir(scratch, recursive=True)
    asha = ASHAScheduler(
        max_t=max(training.epochs, config.asha.grace_period),
        grace_period=config.asha.grace_period,
        reduction_factor=config.asha.reduction_factor,
        stop_last_trials=False,
    )
    tuner = tune.Tuner(
        tune.with_parameters(_trial(training.settings, pairs.n_bands), train=pairs.train, val=pairs.val),
        param_space={key: _ray_domain(domain) for key, domain in space.items()},
        tune_config=tune.TuneConfig(
            metric=config.metric,
            mode=METRICS[config.metric],
            num_samples=config.samples,
            scheduler=asha,
            reuse_actors=True,  # a new process imports torch for longer than a trial trains
            search_alg=BasicVariantGenerator(max_concurrent=config.max_concurrent, random_state=config.seed),
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=scratch,
            storage_filesystem=system,
            callbacks=[log],
            verbose=0,
        ),
    )
    # A failed trial is told in our own words, in the table and in MLflow; Tune would print its stack trace.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        tuner.fit()
    finally:
        system.delete_dir(scratch)


def _trial(base: AlignmentSettings, n_bands: int) -> Callable[..., None]:
    """The function that trains one draw, in the trial's own process."""

    # Nested, so that it travels by value: a trial's process then imports torch and this model, not MLflow and all jobs.
    def trial(values: dict[str, Any], train: Pairs, val: Pairs) -> None:
        trainer = AlignmentTrainer(replace(base, **values), train, val, n_bands)
        while not trainer.finished:
            metrics = trainer.run_epoch()
            tune.report({**metrics, "finished": trainer.finished})  # Tune ends the trial here if others do better

    return trial


def _ray_domain(domain: Domain) -> Any:
    if domain.kind == "choice":
        return tune.choice(list(domain.values))
    low, high = domain.values
    if domain.kind == "randint":
        return tune.randint(low, high + 1)  # Tune leaves the upper end out
    return {"uniform": tune.uniform, "loguniform": tune.loguniform}[domain.kind](low, high)


def _write(config: TuneConfig, log: TrialLog) -> JobResult:
    trials = list(log.trials.values())
    failed = [trial for trial in trials if trial.status == "failed"]
    system, root = filesystem(config.out)
    system.create_dir(root, recursive=True)
    rows = [_row(trial, log) for trial in trials]
    names = dict.fromkeys(name for row in rows for name in row)  # a trial that failed at once has no metrics
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pa.parquet.write_table(table, f"{root}/trials.parquet", filesystem=system)
    best = log.best()
    if best is None:
        raise LexrayError(f"lexray tune: all {len(trials)} trials failed, the first with: {failed[0].error}")
    chosen = {**config.base, **best.values}
    chosen |= {key: resolve_path(chosen[key]) for key in _TABLES}
    head = f"# The best of {len(trials)} trials by {config.metric}: lexray {config.job} --config THIS --out DIR\n"
    with system.open_output_stream(f"{root}/best.yaml") as stream:
        stream.write((head + OmegaConf.to_yaml(OmegaConf.create(chosen))).encode())
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
    )


def _row(trial: Trial, log: TrialLog) -> dict[str, Any]:
    epoch = trial.best_epoch(log.metric, log.mode)
    return {
        "trial": trial.name,
        "status": trial.status,
        **trial.values,
        "epochs": len(trial.history),
        "best_epoch": epoch,
        **(trial.history[epoch - 1] if epoch else {}),
        "seconds": trial.seconds,
        "error": trial.error,
        "mlflow_run": trial.run.run_id,
    }


JOB = Job(
    name="tune",
    config=TuneConfig,
    run=run,
    inputs=("tables",),
    positional=(),
    summary="Search the parameters of a training with Ray Tune.",
)
