"""What became of each trial of a search, kept as it happens and logged to a nested MLflow run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from lexray.errors import last_line
from lexray.runtime import tracking
from lexray.runtime.config import TrackingConfig
from lexray.runtime.progress import ProgressTask

#: Epochs between two calls to MLflow of one trial.
_LOG_EVERY = 25


@dataclass
class Trial:
    """One draw and its training.

    Attributes
    ----------
    name : str
    values : dict
        What was drawn.
    run : tracking.Run
        Its MLflow run.
    history : list of dict
        Metrics of each epoch.
    status : str
        'running', 'finished', 'stopped' where the scheduler ended it, 'failed'.
    error : str
        Why it failed.
    """

    name: str
    values: dict[str, Any]
    run: tracking.MlflowRun
    began: float
    history: list[dict[str, float]] = field(default_factory=list)
    logged: int = 0
    seconds: float = 0.0
    status: str = "running"
    error: str = ""

    def best_epoch(self, metric: str, mode: str) -> int:
        """Epoch, from 1, with the best value of a metric; 0 where there is none."""
        sign = 1 if mode == "min" else -1
        return 1 + min(range(len(self.history)), key=lambda i: sign * self.history[i][metric], default=-1)


class TrialLog(tune.Callback):  # type: ignore[misc]
    """Follows a search from the driver, so that a trial that is killed is still accounted for.

    Parameters
    ----------
    config : TrackingConfig
        Of the job.
    parent : tracking.Run
        The job's run.
    task : ProgressTask
        Advanced by each trial that ends.
    metric, mode : str
        What is best, and 'min' or 'max'.
    """

    def __init__(
        self, config: TrackingConfig, parent: tracking.MlflowRun, task: ProgressTask, metric: str, mode: str
    ) -> None:
        self._config, self._parent, self._task = config, parent, task
        self.metric, self.mode = metric, mode
        self.trials: dict[str, Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks down to restore a search elsewhere; open runs cannot go there, and we start again.
        return {}

    def best(self) -> Trial | None:
        """The trial with the best value of the metric in any epoch, of those that did not fail."""
        sign = 1 if self.mode == "min" else -1
        good = [trial for trial in self.trials.values() if trial.history and trial.status != "failed"]
        return min(good, key=lambda trial: sign * self.best_value(trial), default=None)

    def best_value(self, trial: Trial) -> float:
        """Best value of the metric in any of a trial's epochs."""
        return trial.history[trial.best_epoch(self.metric, self.mode) - 1][self.metric]

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Open the trial's MLflow run."""
        name = f"trial {len(self.trials):04d}"
        run = tracking.start_run(self._config, name, trial.config, self._parent)
        self.trials[trial.trial_id] = Trial(name, dict(trial.config), run, time.monotonic())

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Keep an epoch's metrics."""
        this = self.trials[trial.trial_id]
        this.history.append({name: float(result[name]) for name in result if "/" in name or name == "temperature"})
        if result["finished"]:
            this.status = "finished"
        if len(this.history) - this.logged >= _LOG_EVERY:
            self._log(this)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Close its run; a trial that had not finished was ended by the scheduler."""
        this = self.trials[trial.trial_id]
        if this.status == "running":
            this.status = "stopped"
        self._end(this)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Close its run as failed; the search goes on."""
        this = self.trials[trial.trial_id]
        this.status, this.error = "failed", _last_line(trial.error_file) or "its process died"
        this.run.tags({"error": this.error})
        self._end(this)

    def _end(self, trial: Trial) -> None:
        trial.seconds = time.monotonic() - trial.began
        self._log(trial)
        trial.run.tags({"trial.status": trial.status})
        trial.run.end(failed=trial.status == "failed")
        best = self.best()
        self._task.advance(1, "" if best is None else f"best {self.metric} {self.best_value(best):.4g}")

    def _log(self, trial: Trial) -> None:
        trial.run.series(trial.history[trial.logged :], trial.logged + 1)
        trial.logged = len(trial.history)


def _last_line(error_file: str | None) -> str:
    """What a stack trace ends with: the error itself."""
    if error_file is None or not Path(error_file).is_file():
        return ""
    return last_line(Path(error_file).read_text(errors="replace"))
