"""What every job shares: it is skipped if its output is up to date, tracked in MLflow, and ends with a report.

A job is a `Job`: a name, a configuration model, and a function that reads inputs and writes `config.out`. `execute`
runs it. `lexray.cli` makes a command of each.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.table import Table

from lexray.errors import EXIT_DONE, EXIT_TOO_MANY_REFUSED, ConfigError
from lexray.runtime import tracking
from lexray.runtime.config import JobConfig
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.files import resolve_path
from lexray.tables.provenance import read_provenance, remove_provenance, write_provenance
from lexray.tables.quarantine import Refusal, describe_refusals, quarantine_of, write_quarantine
from lexray.version import __version__

C = TypeVar("C", bound=JobConfig)


@dataclass(frozen=True)
class JobResult:
    """What a job's function returns.

    Attributes
    ----------
    counts : dict
        What was read, written and refused, by a name that a person reads ('files', 'detections' …).
    metrics : dict
        Figures that are logged to MLflow.
    outputs : list of str
        Everything else that was written.
    refusals : list of Refusal, optional
        Inputs that were left out, and why: `execute` writes them to the quarantine, also where there are none; None
        leaves it alone.
    accepted : int
        Inputs used, for `max_bad_fraction`.
    complete : bool
        Whether the same run again would find nothing to do; else it runs again.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    refusals: list[Refusal] | None = None
    accepted: int = 0
    complete: bool = True


@dataclass(frozen=True)
class JobReport:
    """What `execute` returns of a job, and `--json` prints."""

    job: str
    out: str
    version: str
    skipped: bool
    counts: dict[str, Any]
    metrics: dict[str, float]
    outputs: list[str]
    inputs: dict[str, str]
    mlflow_run: str | None
    seconds: float
    refused_fraction: float
    exit_code: int
    complete: bool

    @property
    def refusals(self) -> str:
        """Path of the table that lists what was refused, of a job that refuses rows or files."""
        return quarantine_of(self.out)


@dataclass(frozen=True)
class JobContext:
    """What a job's function gets besides its configuration: the MLflow run, and where progress is shown."""

    run: tracking.MlflowRun
    progress: Progress


@dataclass(frozen=True)
class Job(Generic[C]):
    """A step of the pipeline.

    Attributes
    ----------
    name : str
        Its command: ``lexray NAME``; two words make a subcommand ('train autodecoder').
    config : type
        Its configuration model.
    run : callable
        ``run(config, context) -> JobResult``; writes `config.out`.
    inputs : tuple of str
        Keys of the configuration that name what is read (a path or a list of paths); None values are left out.
    positional : tuple of str
        Keys that positional arguments of the command fill, in order; the last takes all that are left where its type
        is a list.
    outputs : tuple of str
        Keys that name further tables that are written; None values are left out.
    summary_table : callable, optional
        Makes a table of (counts, metrics) for a person; by default each has a line.
    """

    name: str
    config: type[C]
    run: Callable[[C, JobContext], JobResult]
    inputs: tuple[str, ...]
    positional: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    summary_table: Callable[[dict[str, Any], dict[str, float]], Table] | None = None


def execute(job: Job[C], config: C, progress: Progress, parent: tracking.MlflowRun | None = None) -> JobReport:
    """Run a job, or find its output up to date and say so.

    An output is up to date if the same job with the same configuration, the same Lexray and the same versions of its
    inputs wrote it completely, and nothing that it wrote is missing or has changed since.

    Raises
    ------
    ConfigError
        If a path is relative and the job runs on a cluster, or nothing can be written to `out`.
    """
    start = time.monotonic()
    _require_absolute_paths(job, config)
    config = _with_absolute_paths(job, config)
    written = _output_paths(job, config)
    if len(set(written)) < len(written):
        raise ConfigError(f"{job.name}: {' and '.join(('out', *job.outputs))} are one path: {written[0]}; name two")
    for path in written:
        _require_writable_out(job, path)
    inputs = _versions(job, config)
    fingerprint = _fingerprint(job, config, inputs)
    if (previous := _previous_report(job, config, fingerprint)) is not None:
        progress.info(f"{job.name}: up to date, nothing to do ({config.out})")
        code = _exit_code(config, previous["refused_fraction"])
        now = {"skipped": True, "seconds": time.monotonic() - start, "exit_code": code}
        return JobReport(**{"complete": True, **previous, **now})  # Lexray 0.1.0 did not record `complete`
    if not delta.is_table(config.out):
        # A folder changes file by file: a half-written one must not count as the old output.
        remove_provenance(config.out)

    parameters = config.model_dump(mode="json")
    with tracking.run(config.tracking, job.name, parameters, parent) as run:
        # Of many inputs, a shell's expanded pattern, MLflow shows the first; the report that is logged names them all.
        run.tags({f"input.{path[-200:]}": version for path, version in list(inputs.items())[:20]})
        with progress.step(job.name):
            outcome = job.run(config, JobContext(run, progress))
        run.metrics(outcome.metrics)
        refused, outputs = outcome.refusals or [], outcome.outputs
        if outcome.refusals is not None:
            outputs = [*outputs, write_quarantine(config.out, job.name, refused)]
        total = len(refused) + outcome.accepted
        fraction = len(refused) / total if total else 0.0
        # A table's version is read from its log; a folder has none, so its fingerprint stands for it.
        version = delta.version(config.out) if delta.is_table(config.out) else fingerprint
        report = JobReport(
            job=job.name,
            out=config.out,
            version=version,
            skipped=False,
            counts=outcome.counts,
            metrics=outcome.metrics,
            outputs=outputs,
            inputs=inputs,
            mlflow_run=run.run_id,
            seconds=round(time.monotonic() - start, 3),
            refused_fraction=fraction,
            exit_code=_exit_code(config, fraction),
            complete=outcome.complete,
        )
        run.tags({"output": config.out, "output.version": version})
        run.dictionary(asdict(report), "report.json")
        provenance = {"fingerprint": fingerprint, "lexray": __version__, "config": parameters}
        for path in written:
            own = report if path == config.out else replace(report, out=path, version=delta.version(path))
            write_provenance(path, {**provenance, "report": asdict(own)})
    if refused:
        what = f"refused {len(refused)} of {total} inputs: {describe_refusals(refused)}"
        progress.warn(f"{job.name}: {what}; see {report.refusals}")
    return report


def is_up_to_date(job: Job[C], config: C) -> bool:
    """Whether `execute` would find nothing to do."""
    config = _with_absolute_paths(job, config)
    return _previous_report(job, config, _fingerprint(job, config, _versions(job, config))) is not None


def _previous_report(job: Job[C], config: C, fingerprint: str) -> dict[str, Any] | None:
    """Report of the run that wrote what lies at the outputs now, if it is the one that `fingerprint` asks for."""
    if config.force or config.never_skip:
        return None
    before = {path: read_provenance(path) or {} for path in _output_paths(job, config)}
    if any(provenance.get("fingerprint") != fingerprint for provenance in before.values()):
        return None
    report: dict[str, Any] = before[config.out]["report"]
    # A later run may have committed another version of a table and been killed before it could say so.
    unchanged = report.get("complete", True) and all(
        delta.version(path) == provenance["report"]["version"]
        for path, provenance in before.items()
        if delta.is_table(path)
    )
    return report if unchanged and all(delta.version(path) != "absent" for path in report["outputs"]) else None


def _exit_code(config: JobConfig, refused_fraction: float) -> int:
    return EXIT_TOO_MANY_REFUSED if refused_fraction > config.max_bad_fraction else EXIT_DONE


def _require_absolute_paths(job: Job[C], config: C) -> None:
    """Refuse relative paths on a cluster, where each worker would resolve them in a folder of its own."""
    if config.ray.address is None and not os.environ.get("RAY_ADDRESS"):
        return
    for path in (*_output_paths(job, config), *_paths(config, job.inputs)):
        if "://" not in path and not Path(path).expanduser().is_absolute():
            raise ConfigError(
                f"{job.name}: '{path}' is a relative path, which on a cluster is another folder on each machine; "
                "give an absolute path that all of them mount, or an object store's URI"
            )


def _require_writable_out(job: Job[C], out: str) -> None:
    """Refuse an output that cannot be written, before any work is done."""
    if "://" in out:
        return
    path = Path(out)
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{job.name}: out: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"{job.name}: out: {nearest} cannot be written to; name another folder")


def _with_absolute_paths(job: Job[C], config: C) -> C:
    """Make paths absolute: Ray's workers run in folders of their own, on this machine too."""
    named = {key: getattr(config, key) for key in ("out", *job.inputs, *job.outputs)}
    return config.model_copy(
        update={
            key: resolve_path(value) if isinstance(value, str) else [resolve_path(path) for path in value]
            for key, value in named.items()
            if value is not None
        }
    )


def _versions(job: Job[C], config: C) -> dict[str, str]:
    return {path: delta.version(path) for path in _paths(config, job.inputs)}


def _output_paths(job: Job[C], config: C) -> list[str]:
    return _paths(config, ("out", *job.outputs))


def _paths(config: JobConfig, keys: Sequence[str]) -> list[str]:
    values = [getattr(config, key) for key in keys]
    return [path for value in values for path in ([value] if isinstance(value, str) else value or [])]


def _fingerprint(job: Job[C], config: C, inputs: dict[str, str]) -> str:
    parameters = config.model_dump(mode="json", exclude={"tracking", "ray", "force", "max_bad_fraction"})
    return delta.digest({"job": job.name, "lexray": __version__, "config": parameters, "inputs": inputs})
