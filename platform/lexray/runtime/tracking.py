"""MLflow: every job is a run with its configuration, the versions it read and wrote, metrics and artifacts."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import ExclusiveFileLock

from lexray.errors import ConfigError, LexrayError, first_line
from lexray.runtime.config import TrackingConfig, without_password

#: Metrics that MLflow takes in one call.
_MAX_METRICS = 1000
_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class MlflowRun:
    """An MLflow run that is under way. Safe to use from any thread of the process that opened it."""

    client: MlflowClient
    run_id: str
    uri: str

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one step; slashes in names group them in MLflow's pages."""
        self.series([values], step)

    def series(self, rows: Sequence[Mapping[str, float]], first: int = 0) -> None:
        """Log metrics of many steps, the first of which is `first`, in few calls."""
        now = mlflow.utils.time.get_current_time_millis()
        batch = [
            Metric(_mlflow_name(name), float(value), now, step)
            for step, row in enumerate(rows, first)
            for name, value in row.items()
        ]
        for start in range(0, len(batch), _MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=batch[start : start + _MAX_METRICS])

    def curve(self, name: str) -> dict[int, float]:
        """Values of a metric by the step at which they were logged."""
        history = self.client.get_metric_history(self.run_id, _mlflow_name(name))
        return {metric.step: metric.value for metric in sorted(history, key=lambda metric: metric.step)}

    def last_step(self, name: str) -> int:
        """Last step at which a metric was logged, 0 where it never was: what a resumed training must not repeat."""
        return max(self.curve(name), default=0)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""
        for name, value in values.items():
            self.client.set_tag(self.run_id, _mlflow_name(name), value)

    def artifact(self, path: str | Path) -> None:
        """Store a local file, or a folder's content."""
        (self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact)(self.run_id, str(path))

    def dictionary(self, values: Mapping[str, Any], name: str) -> None:
        """Store a mapping as a JSON or YAML file, by the name's ending."""
        self.client.log_dict(self.run_id, dict(values), name)

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Store rows of the same columns as a table, which MLflow's page shows; `name` ends in '.json'."""
        columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
        self.client.log_table(self.run_id, data=columns, artifact_file=name)

    def end(self, *, failed: bool = False) -> None:
        """Close the run as FINISHED or FAILED; only for one that `start_run` opened."""
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


@contextlib.contextmanager
def run(
    config: TrackingConfig, name: str, parameters: Mapping[str, Any], parent: MlflowRun | None = None
) -> Iterator[MlflowRun]:
    """Open an MLflow run, nested under `parent`; it ends FINISHED, or FAILED where the block raises: see `start`."""
    this = start_run(config, name, parameters, parent)
    try:
        yield this
    except BaseException:
        this.end(failed=True)
        raise
    this.end()


def start_run(
    config: TrackingConfig, name: str, parameters: Mapping[str, Any], parent: MlflowRun | None = None
) -> MlflowRun:
    """Open an MLflow run, nested under `parent`, that the caller ends.

    Parameters
    ----------
    config : TrackingConfig
        Which server and experiment.
    name : str
        The run's name, such as the job's.
    parameters : mapping
        Flattened with dotted keys into the run's parameters and stored whole as ``config.json``.
    parent : MlflowRun, optional
        The run that this one nests under.

    Raises
    ------
    LexrayError
        If the tracking server does not answer or cannot be used.
    """
    client, uri = _client(config)
    nested = {} if parent is None else {"mlflow.parentRunId": parent.run_id}
    tags = {"mlflow.runName": name, "lexray.job": name, **nested}
    try:
        created = client.create_run(_experiment(client, config.experiment, uri), tags=tags)
    except mlflow.exceptions.MlflowException as error:
        raise LexrayError(f"tracking.uri {without_password(uri)}: {first_line(error)}") from error
    this = MlflowRun(client, created.info.run_id, uri)
    this.dictionary(parameters, "config.json")
    for key, value in _flatten(parameters):
        client.log_param(this.run_id, _mlflow_name(key), str(value)[:6000])
    return this


def reopen(uri: str, run_id: str) -> MlflowRun:
    """Handle on a run from another process, such as a training worker."""
    return MlflowRun(MlflowClient(uri), run_id, uri)


def _client(config: TrackingConfig) -> tuple[MlflowClient, str]:
    for name in ("mlflow", "alembic"):  # migrations of a new SQLite file are many lines of INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = None
    if uri.startswith(_SQLITE):
        # Workers run in other folders: the path must not depend on the current one.
        database = Path(uri.removeprefix(_SQLITE)).resolve()
        database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{_SQLITE}{database}"
    if uri.startswith(("http://", "https://")):
        try:  # MLflow itself would retry for two minutes
            httpx.get(f"{uri.rstrip('/')}/health", timeout=20)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise LexrayError(f"tracking.uri {without_password(uri)}: no MLflow server answers: {error}") from None
    try:
        # Two processes that make the tables of one new SQLite file at once would both fail halfway.
        with ExclusiveFileLock(f"{database}.lock") if database else contextlib.nullcontext():
            return MlflowClient(uri), uri
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise ConfigError(f"tracking.uri {without_password(uri)}: {first_line(error)}") from None


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    if (experiment := client.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    # Next to a database, wherever the job was started.
    beside = (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").as_uri() if uri.startswith(_SQLITE) else None
    try:
        return str(client.create_experiment(name, artifact_location=beside))
    except mlflow.exceptions.MlflowException:  # another process made it between our look and our call
        return str(client.get_experiment_by_name(name).experiment_id)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _mlflow_name(name: str) -> str:
    """MLflow takes letters, digits, and a few signs in names: '@1%' becomes 'at_1pct', a pattern's '*' '_'.

    A name may become a file, so no slash may follow another: 's3://bucket' becomes 's3:/bucket'.
    """
    name = name.replace("@", "_at_").replace("%", "pct").replace("↔", "-").replace("→", "-")
    return re.sub(r"/{2,}", "/", re.sub(r"[^\w\-. :/]", "_", name))
