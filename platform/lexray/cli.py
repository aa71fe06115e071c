"""The command line: a command a job, all of one form, and the commands that are no jobs."""

import importlib
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, get_origin

import typer
from rich.console import Console
from rich.table import Table

from lexray import __version__
from lexray.config import describe, parse, read_yaml
from lexray.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, ConfigError, LexrayError
from lexray.job import Job, Report, execute
from lexray.progress import Progress

app = typer.Typer(
    name="lexray",
    help="Align X-ray event lists with what the literature says of their sources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train = typer.Typer(help="Fit a model.", no_args_is_help=True)
app.add_typer(train, name="train")

#: Command, module below `lexray.jobs` and one line of help. Modules are imported when their command runs: importing Ray
#: and torch takes seconds.
JOBS = {
    "simulate": ("simulate", "Write an archive of event files, papers and labels that looks like the real thing."),
    "ingest": ("ingest", "Read event files into the events table; what cannot be read goes to quarantine."),
    "literature": ("literature", "Match papers to the sources of an events table."),
    "summarize": ("summarize", "Write a summary of each source from its papers."),
    "embed": ("embed", "Turn summaries into text vectors with a sentence model."),
    "train autodecoder": ("train_autodecoder", "Fit the autodecoder to an events table."),
    "encode": ("encode", "Fit latents of detections with a trained autodecoder."),
    "rates": ("rates", "Write reconstructed rates of detections."),
    "train alignment": ("train_alignment", "Fit the two towers that bring latents and text into one space."),
    "project": ("project", "Put latents and text vectors into the shared space."),
    "evaluate": ("evaluate", "Measure everything, and write the report."),
    "index": ("index", "Complete a release: models, heads, text model and search index in one folder."),
    "tune": ("tune", "Search the parameters of a training with Ray Tune."),
}


def load_job(name: str) -> Job[Any]:
    """The job behind a command, imported now."""
    job: Job[Any] = importlib.import_module(f"lexray.jobs.{JOBS[name][0]}").JOB
    return job


Inputs = Annotated[list[str] | None, typer.Argument(help="Inputs; shorthand for configuration keys (see --keys).")]
ConfigFile = Annotated[str | None, typer.Option("--config", "-c", metavar="FILE", help="YAML configuration.")]
Sets = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key; repeatable.")]
Out = Annotated[str | None, typer.Option("--out", "-o", metavar="DIR", help="Where the result goes.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Keys = Annotated[bool, typer.Option("--keys", help="List the configuration's keys and end.")]


def _command(name: str) -> Callable[..., None]:
    def command(
        inputs: Inputs = None,
        config: ConfigFile = None,
        sets: Sets = None,
        out: Out = None,
        as_json: Json = False,
        keys: Keys = False,
    ) -> None:
        job = load_job(name)
        if keys:
            print_keys(job)
            return
        values = read_yaml(config, sets or (), _from_arguments(job, inputs or [], out))
        parsed = parse(job.config, values, config or f"lexray {name}")
        report = execute(job, parsed, Progress())
        finish(report, as_json)

    command.__doc__ = JOBS[name][1]
    return command


def _from_arguments(job: Job[Any], inputs: list[str], out: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {} if out is None else {"out": out}
    left = list(inputs)
    for key in job.positional:
        takes_many = get_origin(job.config.model_fields[key].annotation) in (list, tuple)
        if left:
            values[key], left = (left, []) if takes_many else (left[0], left[1:])
    if left:
        expected = " ".join(job.positional) or "none"
        raise ConfigError(f"lexray {job.name}: too many inputs: {' '.join(left)}; it takes: {expected}")
    return values


def print_keys(job: Job[Any]) -> None:
    """Print a job's configuration keys as a table."""
    table = Table("key", "type", "default", "meaning", title=f"lexray {job.name}", title_justify="left", box=None)
    for row in describe(job.config):
        table.add_row(*row)
    Console(soft_wrap=False).print(table, markup=False)


def finish(report: Report, as_json: bool) -> None:
    """Say what a job did, and end the process with its exit code."""
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict(), default=str) + "\n")
    else:
        console = Console(stderr=True, soft_wrap=True)
        for key, value in {**report.counts, **report.metrics}.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            console.print(f"  {key:<36} {shown}", highlight=False, markup=False)
        console.print(f"  written to {report.out}", highlight=False, markup=False)
    if report.exit_code != EXIT_DONE:
        refused = f"{report.refused_fraction:.0%} of the inputs were refused, more than max_bad_fraction"
        Console(stderr=True).print(f"lexray {report.job}: {refused}; see {report.out}.quarantine", style="red")
        raise typer.Exit(report.exit_code)


for _name in JOBS:
    _group, _, _word = _name.rpartition(" ")
    (train if _group == "train" else app).command(_word, help=JOBS[_name][1])(_command(_name))


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"{__version__}\n")


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else EXIT_DONE)
    except LexrayError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("interrupted", EXIT_FAILED)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        _fail(message(), EXIT_USAGE)


def _fail(message: str, code: int) -> None:
    Console(stderr=True, soft_wrap=True).print(f"lexray: {message}", style="red", highlight=False, markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
