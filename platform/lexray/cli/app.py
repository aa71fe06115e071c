"""The command line: one command for each job, all of one form, and the other commands.

Modules are imported when their command runs: importing Ray and torch takes seconds.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, get_origin

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from lexray.cli.options import split_options
from lexray.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, ConfigError
from lexray.jobs.registry import JOBS, REGISTRY, load_job
from lexray.runtime.config import describe, parse, read_yaml
from lexray.runtime.job import Job, JobReport, execute
from lexray.runtime.progress import Progress
from lexray.runtime.ray_internals import find_user_error
from lexray.version import __version__


class _TwoWordGroup(TyperGroup):
    """Commands such as `evaluate autodecoder`, whose first word is a command too and no group."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of two words where the first two are its name, else that of the first word."""
        name = " ".join(args[:2])
        if len(args) > 1 and name in self.commands:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="lexray",
    cls=_TwoWordGroup,
    help="Align X-ray event lists with what the literature says of their sources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS = {"": app}
for _group, _help in {"train": "Fit a model.", "fetch": "Get real data from an archive."}.items():
    GROUPS[_group] = typer.Typer(help=_help, no_args_is_help=True)
    app.add_typer(GROUPS[_group], name=_group)

ConfigFile = Annotated[str | None, typer.Option("--config", "-c", metavar="FILE", help="YAML configuration.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _command(name: str) -> Callable[..., None]:
    def command(
        inputs: Annotated[
            list[str] | None, typer.Argument(help="Inputs, and any key as --KEY VALUE (see --keys).")
        ] = None,
        config: ConfigFile = None,
        sets: Overrides = None,
        out: Annotated[str | None, typer.Option("--out", "-o", metavar="DIR", help="Where the result goes.")] = None,
        as_json: Json = False,
        keys: Annotated[bool, typer.Option("--keys", help="List the configuration's keys and end.")] = False,
    ) -> None:
        job = load_job(name)
        if keys:
            print_keys(job)
            return
        paths, options = split_options(job, inputs or [])
        values = read_yaml(config, [*(sets or []), *options], _positional_values(job, paths, out))
        report = execute(job, parse(job.config, values, config or f"lexray {name}"), Progress())
        print_report(job, report, as_json)

    command.__doc__ = JOBS[name][1]
    return command


def _positional_values(job: Job[Any], inputs: list[str], out: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {} if out is None else {"out": out}
    remaining = list(inputs)
    for key in job.positional:
        takes_many = get_origin(job.config.model_fields[key].annotation) in (list, tuple)
        if remaining:
            values[key], remaining = (remaining, []) if takes_many else (remaining[0], remaining[1:])
    if remaining:
        expected = " ".join(job.positional) or "none"
        raise ConfigError(f"lexray {job.name}: too many inputs: {' '.join(remaining)}; it takes: {expected}")
    return values


def print_keys(job: Job[Any]) -> None:
    """Print a job's configuration keys as a table."""
    table = Table("key", "type", "default", "meaning", title=f"lexray {job.name}", title_justify="left", box=None)
    for row in describe(job.config):
        table.add_row(*row)
    Console(soft_wrap=False).print(table, markup=False)


def print_report(job: Job[Any], report: JobReport, as_json: bool) -> None:
    """Print what a job did, and end the process with its exit code."""
    if as_json:
        _print_json(asdict(report))
    else:
        _say((job.summary_table or _format_counts)(report.counts, report.metrics))
        _say(f"  written to {report.out}")
    _exit_if_refused(report)


def _format_counts(counts: dict[str, Any], metrics: dict[str, float]) -> str:
    found = {**counts, **metrics}.items()
    shown = ((key, f"{value:.4g}" if isinstance(value, float) else str(value)) for key, value in found)
    return "\n".join(f"  {key:<36} {value}" for key, value in shown)


def _exit_if_refused(report: JobReport) -> None:
    if report.exit_code != EXIT_DONE:
        refused = f"{report.refused_fraction:.0%} of the inputs were refused, more than max_bad_fraction"
        _say(f"lexray {report.job}: {refused}; see {report.refusals}", style="red")
        raise typer.Exit(report.exit_code)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, default=str) + "\n")


def _print_either(as_json: bool, values: dict[str, Any], table: Table, console: Console | None = None) -> None:
    """Print what was found as JSON, or as a table for people: on stderr, unless it is what the command is for."""
    if as_json:
        _print_json(values)
    else:
        (console or Console(stderr=True)).print(table)


def _say(shown: str | Table, style: str | None = None) -> None:
    """Print what is for people, on stderr, as it is."""
    Console(stderr=True, soft_wrap=True).print(shown, style=style, highlight=False, markup=False)


for _name in JOBS:
    _group, _, _word = _name.rpartition(" ")
    if _group not in GROUPS:
        _group, _word = "", _name
    # What is no option of every job reaches `inputs`, where `split_options` finds the configuration's keys.
    GROUPS[_group].command(_word, help=JOBS[_name][1], context_settings={"ignore_unknown_options": True})(
        _command(_name)
    )


@app.command()
def run(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="YAML with workdir and steps, such as configs/demo.yaml.")
    ],
    sets: Overrides = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="End after this step.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Run this step alone; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline: the jobs of one configuration, in one Ray session; what is up to date is skipped."""
    from lexray.runtime import pipeline

    parsed = parse(pipeline.PipelineConfig, read_yaml(config, sets or ()), config)
    report = pipeline.run(parsed, pipeline.plan_steps(parsed, REGISTRY, until, only or ()), Progress())
    Console(stderr=True).print(pipeline.table(report))
    if as_json:
        _print_json(asdict(report))
    if report.failed_step is not None:
        _exit_if_refused(report.steps[report.failed_step])


Address = Annotated[
    str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help="The cluster's job server.")
]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    address: Address = "http://127.0.0.1:8265",
    wheel: Annotated[
        str | None, typer.Option(metavar="FILE", help="Wheel of Lexray, where the cluster has none.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Variable for the job, by default with its value here."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the log.")] = False,
    as_json: Json = False,
) -> None:
    """Run JOB … or run CONFIG … on a cluster, follow its log and end with its exit code."""
    from lexray.cli import submit as submission

    client = submission.connect(address)
    arguments = [*context.args, *(["--json"] if as_json and not no_wait else [])]
    submission_id = submission.submit(client, arguments, ["run", "doctor", *JOBS], wheel, env or ())
    if no_wait:
        Progress().info(f"submitted {submission_id} to {address}")
        Progress().info(f"follow it with: lexray jobs {submission_id} --address {address}")
        if as_json:
            _print_json({"submission_id": submission_id, "address": address})
    else:
        jobs(submission_id, address, as_json)


@app.command()
def jobs(
    submission_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Follow this job's log.")] = None,
    address: Address = "http://127.0.0.1:8265",
    as_json: Json = False,
) -> None:
    """List the jobs submitted to a cluster, or follow one and end with its exit code."""
    from lexray.cli import submit as submission

    if submission_id is None:
        found = submission.list_submissions(submission.connect(address))
        _print_either(as_json, {"jobs": [submission.as_dict(job) for job in found]}, submission.table(found))
        return
    try:
        Progress().info(f"following {submission_id} at {address}")
        ended = submission.follow(submission.connect(address), submission_id, sys.stderr.write)
    except KeyboardInterrupt:
        Progress().info(
            f"no longer following; the job goes on. Look again with: lexray jobs {submission_id} --address {address}"
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json and ended.answer is not None:
        sys.stdout.write(ended.answer + "\n")
    Progress().info(f"{submission_id}: {ended.status.lower()}, exit code {ended.exit_code}")
    if ended.advice:
        Progress().warn(ended.advice)
    raise typer.Exit(ended.exit_code)


@app.command()
def doctor(
    workdir: Annotated[str, typer.Option(metavar="DIR", help="Where results would go.")] = ".", as_json: Json = False
) -> None:
    """Say what this machine can and cannot run, and why."""
    from lexray.cli import doctor as doctor_module

    checks = doctor_module.run_checks(workdir)
    code = doctor_module.exit_code(checks)
    found = {"ok": code == EXIT_DONE, "checks": [asdict(check) for check in checks]}
    _print_either(as_json, found, doctor_module.table(checks))
    raise typer.Exit(code)


@app.command()
def search(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="A release's folder.")],
    query: Annotated[str, typer.Argument(metavar="SENTENCE|FILE", help="Words, or an event file.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many sources.")] = 10,
    modality: Annotated[
        str | None, typer.Option(metavar="xray|text", help="Compare with vectors of this modality only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the sources of a release that are nearest to a sentence or an event file."""
    from lexray.cli import search as searching

    found = searching.search(release, query, k, modality)
    _print_either(as_json, {"sources": [hit.as_dict() for hit in found]}, searching.table(found), Console())


@app.command()
def show(
    detection: Annotated[
        str, typer.Argument(metavar="DETECTION|FILE", help="A detection_id or its beginning, or an event file.")
    ],
    events: Annotated[
        str | None, typer.Option(metavar="TABLE", help="The events table that the detection is in.")
    ] = None,
    autodecoder: Annotated[
        str | None, typer.Option(metavar="DIR", help="A trained autodecoder, whose rate is drawn too.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE.html", help="The page.")] = None,
    in_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a page with a detection's light curve, spectrum and header."""
    from lexray.show.page import look

    path = look(detection, events, autodecoder, out)
    _say(f"  written to {path}")
    if in_browser:
        typer.launch(str(path))


@app.command()
def serve(
    release: Annotated[str | None, typer.Argument(metavar="RELEASE", help="A release's folder.")] = None,
    config: ConfigFile = None,
    sets: Overrides = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on, by default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port, by default 8000; 0 takes a free one.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Processes that hold the models.")] = None,
    api_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="API keys, one a line; LEXRAY_API_KEYS adds to them.")
    ] = None,
) -> None:
    """Serve a release over HTTP, with a page to ask it from, until Ctrl-C or SIGTERM."""
    given = {"release": release, "host": host, "port": port, "replicas": replicas, "api_key_file": api_key_file}
    values = read_yaml(config, sets or (), {key: value for key, value in given.items() if value is not None})
    from lexray.serve.config import ServeConfig
    from lexray.serve.run import run as run_service

    run_service(parse(ServeConfig, values, config or "lexray serve"), Progress())


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"{__version__}\n")


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else EXIT_DONE)
    except typer.Abort:
        _fail("interrupted", EXIT_FAILED)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        if (plain := find_user_error(error)) is not None:
            _fail(str(plain), plain.exit_code)
        if (message := getattr(error, "format_message", None)) is None:
            raise
        _fail(message(), EXIT_USAGE)


def _fail(message: str, code: int) -> None:
    _say(f"lexray: {message}", style="red")
    sys.exit(code)
