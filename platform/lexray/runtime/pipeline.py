"""A pipeline: several jobs from one configuration, in one Ray session and under one MLflow run.

The configuration's ``steps`` name the jobs in the order in which they run, each with that job's own keys. All of them
are read before the first starts, so that a wrong key in the last one is reported at once and not hours later.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field
from rich.table import Table
from rich.text import Text

from lexray.errors import EXIT_DONE, EXIT_TOO_MANY_REFUSED, ConfigError, LexrayError, did_you_mean
from lexray.runtime import ray_session, tracking
from lexray.runtime.config import BaseConfig, JobConfig, RayConfig, TrackingConfig, parse
from lexray.runtime.job import Job, JobReport, execute, is_up_to_date
from lexray.runtime.peak_memory import PeakMemory
from lexray.runtime.progress import Progress
from lexray.runtime.ray_internals import find_user_error

#: The jobs: each command's words, and the function that loads its job.
Registry = Mapping[str, Callable[[], Job[Any]]]


class PipelineConfig(BaseConfig):
    """Configuration of ``lexray run``."""

    workdir: str = Field(description="where the steps' results go; steps use it as ${workdir}")
    name: str = Field("pipeline", description="name of the MLflow run that the steps' runs nest under")
    force: bool = Field(False, description="run every step, up to date or not")
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()
    steps: dict[str, dict[str, Any]] = Field(
        description="the steps in their order: name → keys of its job; `job:` names the job where the name is not it"
    )


class StepError(LexrayError):
    """A step's error with the step's name before it; it ends the process with the same exit code."""

    def __init__(self, step: str, cause: LexrayError) -> None:
        super().__init__(f"step '{step}' failed (exit code {cause.exit_code}): {cause}")
        self.exit_code = cause.exit_code


@dataclass(frozen=True)
class PipelineStep:
    """A job with its configuration, under the name it has in the pipeline."""

    name: str
    job: Job[Any]
    config: JobConfig


@dataclass(frozen=True)
class PipelineReport:
    """What `run` returns of a pipeline, and ``lexray run --json`` prints."""

    name: str
    workdir: str
    mlflow_run: str
    seconds: float
    peak_memory_gib: float
    steps: dict[str, JobReport]
    failed_step: str | None
    exit_code: int


def plan_steps(
    config: PipelineConfig, registry: Registry, until: str | None = None, only: Sequence[str] = ()
) -> list[PipelineStep]:
    """Every step with its job and its validated configuration.

    Parameters
    ----------
    config : PipelineConfig
        The whole pipeline's.
    registry : mapping of str to callable
        The jobs by their commands, such as `lexray.jobs.registry.REGISTRY`.
    until : str, optional
        Last step to keep.
    only : sequence of str, optional
        Steps to keep; they run in the configuration's order.

    Raises
    ------
    ConfigError
        If a job, a key or a step is unknown (the nearest is named) or a value is wrong. The message names the step.
    """
    steps = [_plan_step(name, values, config, registry) for name, values in config.steps.items()]
    names = [step.name for step in steps]
    if not names:
        raise ConfigError("steps: the pipeline has none")
    for name in (*only, *([] if until is None else [until])):
        if name not in names:
            raise ConfigError(f"the pipeline has no step '{name}'{did_you_mean(name, names)}")
    if until is not None:
        steps = steps[: names.index(until) + 1]
    return [step for step in steps if not only or step.name in only]


def run(config: PipelineConfig, steps: Sequence[PipelineStep], progress: Progress) -> PipelineReport:
    """Run steps one after the other; those that are up to date are skipped.

    Ray starts before the first step that has something to do. A step that fails ends the run with its own error, which
    names the step and keeps its exit code; so does a step that refused more of its inputs than it allows, since the
    steps after it would build on what is left.

    Raises
    ------
    StepError
    """
    start = time.monotonic()
    reports: dict[str, JobReport] = {}
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(PeakMemory())
        parent = stack.enter_context(tracking.run(config.tracking, config.name, config.model_dump(mode="json")))
        session = stack.enter_context(contextlib.ExitStack())
        for number, step in enumerate(steps, 1):
            progress.info(f"[{number}/{len(steps)}] {step.name}")
            with _naming_step(step.name):
                if not is_up_to_date(step.job, step.config):
                    session.enter_context(ray_session.session(config.ray))
                reports[step.name] = execute(step.job, step.config, progress, parent)
            parent.metrics({f"seconds/{step.name}": reports[step.name].seconds})
            if reports[step.name].exit_code != EXIT_DONE:
                break
        session.close()
        failed = next((name for name, report in reports.items() if report.exit_code != EXIT_DONE), None)
        seconds = round(time.monotonic() - start, 3)
        parent.metrics({"peak_memory_gib": memory.gib})
        report = PipelineReport(
            name=config.name,
            workdir=config.workdir,
            mlflow_run=parent.run_id,
            seconds=seconds,
            peak_memory_gib=memory.gib,
            steps=reports,
            failed_step=failed,
            exit_code=EXIT_DONE if failed is None else EXIT_TOO_MANY_REFUSED,
        )
        parent.dictionary(asdict(report), "report.json")
    return report


def table(report: PipelineReport) -> Table:
    """One row for each step: its status, time and counts."""
    shown = Table("step", "", "seconds", "counts", box=None, pad_edge=False, title=report.name, title_justify="left")
    for name, step in report.steps.items():
        state = "up to date" if step.skipped else "done" if step.exit_code == EXIT_DONE else "refused too much"
        found = [f"{key} {value}" for key, value in step.counts.items() if isinstance(value, int | float) and value]
        shown.add_row(Text(name), state, f"{step.seconds:.1f}", Text(", ".join(found[:4])))  # `--json` has all
    shown.add_row("all", "", f"{report.seconds:.1f}", f"peak memory {report.peak_memory_gib:.1f} GiB", style="bold")
    return shown


@contextlib.contextmanager
def _naming_step(step: str) -> Iterator[None]:
    """Errors for people start with the step's name; others keep their stack trace and get a note."""
    try:
        yield
    except Exception as error:
        if (user_error := find_user_error(error)) is None:
            error.add_note(f"lexray run: step '{step}' failed")
            raise
        raise StepError(step, user_error) from error


def _plan_step(name: str, values: Mapping[str, Any], config: PipelineConfig, registry: Registry) -> PipelineStep:
    commands = {command.replace(" ", "_"): command for command in registry}
    job_name = str(values.get("job", name)).replace(" ", "_")
    if job_name not in commands:
        raise ConfigError(f"steps.{name}: there is no job '{job_name}'{did_you_mean(job_name, commands)}")
    job = registry[commands[job_name]]()
    for key in ("tracking", "ray"):
        if key in values:
            raise ConfigError(f"steps.{name}.{key}: set '{key}' at the top, all steps share it")
    own = {key: value for key, value in values.items() if key != "job"}
    if config.force:
        own["force"] = True
    return PipelineStep(
        name, job, parse(job.config, {**own, "tracking": config.tracking, "ray": config.ray}, f"steps.{name}")
    )
