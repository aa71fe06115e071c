"""A search of the alignment's parameters with Ray Tune, and what it writes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
from omegaconf import OmegaConf
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from lexray.models.alignment.pairs import Pairs
from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.tables.files import filesystem
from lexray.training.pairs import PairedTables
from lexray.training.search_space import Domain
from lexray.training.trials import Trial, TrialLog


@dataclass(frozen=True)
class AlignmentSearch:
    """Random draws of the alignment's parameters, with asynchronous successive halving.

    Attributes
    ----------
    settings : AlignmentSettings
        What the draws are merged into.
    space : mapping of str to Domain
    samples : int
        Trials.
    max_concurrent : int
        Trials at a time, each with one CPU.
    grace_period : int
        Epochs that every trial gets.
    reduction_factor : float
        Of so many trials that come to a rung, one continues.
    seed : int
        Of the draws.
    scratch : str
        Folder or URI that Ray Tune writes to, deleted at the end.
    """

    settings: AlignmentSettings
    space: Mapping[str, Domain]
    samples: int
    max_concurrent: int
    grace_period: int
    reduction_factor: float
    seed: int
    scratch: str

    def run(self, pairs: PairedTables, log: TrialLog) -> None:
        """Train all trials on Ray; `log` keeps what became of each, and says which metric counts."""
        system, root = filesystem(self.scratch)
        system.create_dir(root, recursive=True)
        tuner = tune.Tuner(
            tune.with_parameters(_trial(self.settings, pairs.n_bands), train=pairs.train, val=pairs.val),
            param_space={key: _ray_domain(domain) for key, domain in self.space.items()},
            tune_config=tune.TuneConfig(
                metric=log.metric,
                mode=log.mode,
                num_samples=self.samples,
                scheduler=ASHAScheduler(
                    max_t=max(self.settings.epochs, self.grace_period),
                    grace_period=self.grace_period,
                    reduction_factor=self.reduction_factor,
                    stop_last_trials=False,
                ),
                reuse_actors=True,  # a new process imports torch for longer than a trial trains
                search_alg=BasicVariantGenerator(max_concurrent=self.max_concurrent, random_state=self.seed),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=root,
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
            system.delete_dir(root)


def write_trials(out: str, log: TrialLog) -> None:
    """Write `OUT/trials.parquet`: a row for each trial, with its draw and the metrics of its best epoch."""
    system, root = filesystem(out)
    system.create_dir(root, recursive=True)
    rows = [_row(trial, log) for trial in log.trials.values()]
    names = dict.fromkeys(name for row in rows for name in row)  # a trial that failed at once has no metrics
    pa.parquet.write_table(
        pa.table({name: [row.get(name) for row in rows] for name in names}), f"{root}/trials.parquet", filesystem=system
    )


def write_configuration(out: str, values: Mapping[str, Any], comment: str) -> None:
    """Write `OUT/best.yaml`: a training's configuration below a line of comment."""
    system, root = filesystem(out)
    with system.open_output_stream(f"{root}/best.yaml") as stream:
        stream.write((f"# {comment}\n" + OmegaConf.to_yaml(OmegaConf.create(dict(values)))).encode())


def _trial(base: AlignmentSettings, n_bands: int) -> Callable[..., None]:
    """The function that trains one draw, in the trial's own process."""

    # Nested, so that it travels by value: a trial's process then imports torch and this model, not MLflow and all jobs.
    def trial(values: dict[str, Any], train: Pairs, val: Pairs) -> None:
        trainer = AlignmentTrainer(replace(base, **values), train, val, n_bands)
        while not trainer.finished:
            # Tune ends the trial here if others do better.
            tune.report({**trainer.run_epoch(), "finished": trainer.finished})

    return trial


def _ray_domain(domain: Domain) -> Any:
    if domain.kind == "choice":
        return tune.choice(list(domain.values))
    low, high = domain.values
    if domain.kind == "randint":
        return tune.randint(low, high + 1)  # Tune leaves the upper end out
    return {"uniform": tune.uniform, "loguniform": tune.loguniform}[domain.kind](low, high)


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
