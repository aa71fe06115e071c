"""What every job shares: skip what is up to date, track in MLflow, say what was done.

A job is a `Job`: a name, a configuration model, and a function that reads inputs and writes `config.out`. `execute`
runs it. `lexray.cli` makes a command of each.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from lexray import __version__, storage, tracking
from lexray.config import JobConfig, resolve_path
from lexray.errors import EXIT_DONE, EXIT_TOO_MANY_REFUSED
from lexray.progress import Progress

C = TypeVar("C", bound=JobConfig)


@dataclass(frozen=True)
class Outcome:
    """What a job's function hands back.

    Attributes
    ----------
    counts : dict
        What was read, written and refused, by name; the words a person reads ('files', 'detections' …).
    metrics : dict
        Figures that are logged to MLflow.
    outputs : list of str
        Everything written beside `config.out`, such as the quarantine.
    refused, taken : int
        Inputs refused and used, for `max_bad_fraction`.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    refused: int = 0
    taken: int = 0


@dataclass(frozen=True)
class Report:
    """What `execute` says of a job, and `--json` prints."""

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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """What a job's function gets beside its configuration: where to log and where to show progress."""

    run: tracking.Run
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
        ``run(config, context) -> Outcome``; writes `config.out`.
    inputs : tuple of str
        Keys of the configuration that name what is read (a path or a list of paths); None values are left out.
    positional : tuple of str
        Keys that positional arguments of the command fill, in order; the last takes all that are left where its type
        is a list.
    summary : str
        One line for the help.
    """

    name: str
    config: type[C]
    run: Callable[[C, Context], Outcome]
    inputs: tuple[str, ...]
    positional: tuple[str, ...]
    summary: str


def execute(job: Job[C], config: C, progress: Progress, parent: tracking.Run | None = None) -> Report:
    """Run a job, or find its output up to date and say so.

    An output is up to date where the same job, with the same configuration, the same Lexray and the same versions of
    its inputs, wrote it whole.
    """
    start = time.monotonic()
    inputs = {path: storage.version(path) for path in _input_paths(job, config)}
    fingerprint = _fingerprint(job, config, inputs)
    before = None if config.force else storage.read_provenance(config.out)
    if before is not None and before["fingerprint"] == fingerprint:
        progress.say(f"{job.name}: up to date, nothing to do ({config.out})")
        return Report(**{**before["report"], "skipped": True, "seconds": time.monotonic() - start})

    parameters = config.model_dump(mode="json")
    with tracking.run(config.tracking, job.name, parameters, parent) as run:
        for path, version in inputs.items():
            run.tags({f"input.{path[-200:]}": version})
        with progress.step(job.name):
            outcome = job.run(config, Context(run, progress))
        run.metrics(outcome.metrics)
        total = outcome.refused + outcome.taken
        fraction = outcome.refused / total if total else 0.0
        # The provenance names the fingerprint, so a table's version is read from its log and a folder's from it.
        version = storage.version(config.out) if storage.is_table(config.out) else fingerprint
        report = Report(
            job=job.name,
            out=config.out,
            version=version,
            skipped=False,
            counts=outcome.counts,
            metrics=outcome.metrics,
            outputs=outcome.outputs,
            inputs=inputs,
            mlflow_run=run.run_id,
            seconds=round(time.monotonic() - start, 3),
            refused_fraction=fraction,
            exit_code=EXIT_TOO_MANY_REFUSED if fraction > config.max_bad_fraction else EXIT_DONE,
        )
        run.tags({"output": config.out, "output.version": version})
        run.dictionary(report.as_dict(), "report.json")
        storage.write_provenance(
            config.out, {"fingerprint": fingerprint, "lexray": __version__, "config": parameters, "report": report.as_dict()}
        )
    if fraction and report.exit_code == EXIT_DONE:
        progress.warn(f"{job.name}: refused {outcome.refused} of {total} inputs; see {config.out}.quarantine")
    return report


def _input_paths(job: Job[C], config: C) -> list[str]:
    paths: list[str] = []
    for key in job.inputs:
        value = getattr(config, key)
        paths += [] if value is None else [value] if isinstance(value, str) else list(value)
    return paths


def _fingerprint(job: Job[C], config: C, inputs: dict[str, str]) -> str:
    said = config.model_dump(mode="json", exclude={"tracking", "ray", "force", "max_bad_fraction"})
    content = {"job": job.name, "lexray": __version__, "config": said, "inputs": inputs, "out": resolve_path(config.out)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find(jobs: Sequence[Job[Any]], name: str) -> Job[Any] | None:
    """The job of that name, or None."""
    return next((job for job in jobs if job.name == name), None)
