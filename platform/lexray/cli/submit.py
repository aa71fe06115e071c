"""Jobs on a cluster, through Ray's job server: send one, follow its log, end with its exit code.

A submitted job is the same command line, run on the cluster's head. The YAML files that its arguments name and, with a
wheel, Lexray itself are sent along, but no data: the cluster's machines must be able to read all paths.
"""

import asyncio
import contextlib
import json
import os
import shlex
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
import httpx
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from rich.table import Column, Table
from rich.text import Text

from lexray.errors import EXIT_FAILED, ConfigError, LexrayError, did_you_mean, first_line
from lexray.runtime import ray_internals
from lexray.tables.files import refuse_credentials


@dataclass(frozen=True)
class SubmissionResult:
    """How a submitted job ended.

    Attributes
    ----------
    status : str
        'SUCCEEDED', 'FAILED' or 'STOPPED'.
    exit_code : int
        Of the job's own process; 128 + the signal's number where one killed it, 1 where it has none.
    log : str
        All that it printed, stdout and stderr as they came.
    """

    status: str
    exit_code: int
    log: str

    @property
    def answer(self) -> str | None:
        """The JSON object that a job called with ``--json`` printed; the log holds it among the lines of stderr."""
        for line in reversed(self.log.splitlines()):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    json.loads(line)
                    return line
        return None

    @property
    def advice(self) -> str:
        """What a person can do about it; empty where nothing needs to be done."""
        if "No module named lexray" in self.log or "No module named 'lexray'" in self.log:
            return "Lexray is not installed on the cluster: use an image that has it, or send it along with --wheel"
        return ""


def connect(address: str) -> JobSubmissionClient:
    """Client of the job server at `address`, such as ``http://head:8265``.

    Raises
    ------
    ConfigError
        If the address is not one of HTTP.
    LexrayError
        If no job server answers there, or it wants a token.
    """
    address = address if "://" in address else f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address {address}: expected the job server's HTTP address, such as http://head:8265")
    ray_internals.quiet("job_client")
    try:
        httpx.get(f"{address}/api/version", timeout=10)
        # Ray reads these before the address that it is given.
        with _unset("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise LexrayError(f"{address}: the cluster wants a token, set RAY_AUTH_TOKEN: {first_line(error)}") from None
    except (httpx.HTTPError, httpx.InvalidURL, ConnectionError, RuntimeError) as error:
        raise LexrayError(
            f"{address}: no Ray job server answers ({first_line(error)}); "
            "start a cluster with `ray start --head`, or forward port 8265 of its head to this machine"
        ) from None


def submit(
    client: JobSubmissionClient,
    arguments: Sequence[str],
    commands: Sequence[str],
    wheel: str | None = None,
    environment: Sequence[str] = (),
) -> str:
    """Submit ``lexray ARGUMENTS``; returns the submission's id.

    Parameters
    ----------
    client : JobSubmissionClient
        From `connect`.
    arguments : sequence of str
        As for `lexray` itself. YAML files among them are sent along.
    commands : sequence of str
        Commands that may be submitted.
    wheel : str, optional
        Wheel of Lexray to run, for a cluster where it is not installed or is another version. Its own dependencies must
        be there: installing them for each job would bring several GB of torch.
    environment : sequence of str
        ``NAME=VALUE``, or ``NAME`` to pass on the value it has here.

    Raises
    ------
    ConfigError
        If the command is unknown, a file or a variable does not exist, or an argument holds credentials.
    """
    for argument in arguments:
        if "://" in argument:  # Ray's job server shows a job's command line to everybody
            refuse_credentials(argument.partition("=")[2] if "=" in argument.partition("://")[0] else argument)
    command = next((c for c in commands if list(arguments[: len(c.split())]) == c.split()), None)
    if command is None:
        words = " ".join(arguments[:2]) or "nothing"
        raise ConfigError(f"lexray submit: cannot submit '{words}'{did_you_mean(words, commands)}")
    with tempfile.TemporaryDirectory(prefix="lexray-submit-") as folder:
        sent = [_copy_if_yaml(argument, number, Path(folder)) for number, argument in enumerate(arguments)]
        if wheel is not None:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder)
            except (OSError, zipfile.BadZipFile) as error:
                raise ConfigError(f"--wheel {wheel}: not a wheel that can be read: {error}") from None
        try:
            return str(
                client.submit_job(
                    entrypoint=shlex.join(["python", "-m", "lexray.cli", *sent]),
                    runtime_env={
                        "working_dir": folder,
                        "env_vars": dict(_environment_variable(item) for item in environment),
                    },
                    submission_id=f"lexray-{command.replace(' ', '-')}-{uuid.uuid4().hex[:8]}",
                    metadata={"lexray": command},
                )
            )
        except RuntimeError as error:
            raise LexrayError(f"the job server refused the job: {first_line(error)}") from None


def follow(client: JobSubmissionClient, submission_id: str, write: Callable[[str], object]) -> SubmissionResult:
    """Pass a job's log to `write` as it grows, from its beginning, until the job ends.

    A broken connection is made again. Interrupting it (Ctrl-C) stops following, not the job.

    Raises
    ------
    LexrayError
        If there is no such job.
    """
    return asyncio.run(_follow(client, submission_id, write))


async def _follow(client: JobSubmissionClient, submission_id: str, write: Callable[[str], object]) -> SubmissionResult:
    shown: list[str] = []
    task = asyncio.current_task()
    while True:
        with contextlib.suppress(RuntimeError, aiohttp.ClientError):
            await _tail(client, submission_id, shown, write)
        details = submission_details(client, submission_id)
        # By Ctrl-C, which may end in an error of the connection, or come while the job server is asked.
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        if details.status.is_terminal():
            break
        await asyncio.sleep(0.5)  # the log has ended, or its connection broke
    with contextlib.suppress(RuntimeError):  # the log is gone where its machine is; the exit code is not
        if missed := client.get_job_logs(submission_id)[sum(map(len, shown)) :]:
            shown.append(missed)
            write(missed)
    return SubmissionResult(details.status.value, _exit_code(details), "".join(shown))


def submission_details(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    """What the job server knows of a job.

    Raises
    ------
    LexrayError
        If there is no such job.
    """
    try:
        return client.get_job_info(submission_id)
    except RuntimeError as error:
        raise LexrayError(f"{submission_id}: {first_line(error)}; `lexray jobs` lists the jobs") from None
    except OSError as error:  # what requests raises
        raise LexrayError(f"{submission_id}: lost the job server, the job may go on: {first_line(error)}") from None


def list_submissions(client: JobSubmissionClient) -> list[JobDetails]:
    """Submitted jobs, the newest last."""
    submitted = (job for job in client.list_jobs() if job.submission_id is not None)
    return sorted(submitted, key=lambda job: job.start_time or 0)


async def _tail(
    client: JobSubmissionClient, submission_id: str, shown: list[str], write: Callable[[str], object]
) -> None:
    skip = sum(map(len, shown))  # every connection sends the log from its beginning
    async for chunk in client.tail_job_logs(submission_id):
        new = chunk[skip:]
        skip = max(0, skip - len(chunk))
        if new:
            shown.append(new)
            write(new)


def as_dict(job: JobDetails) -> dict[str, str | int | None]:
    """What ``lexray jobs --json`` prints of a job; its environment is left out, since it may hold secrets."""
    return {
        "submission_id": job.submission_id,
        "status": job.status.value,
        "exit_code": job.driver_exit_code,
        "command": job.entrypoint.removeprefix("python -m lexray.cli "),
        "start_time_ms": job.start_time,
        "end_time_ms": job.end_time,
    }


def table(jobs: Sequence[JobDetails]) -> Table:
    """For people."""
    shown = Table(
        Column("id", no_wrap=True), "status", "exit code", "started", "took", "command", box=None, pad_edge=False
    )
    for job in jobs:
        start = None if job.start_time is None else datetime.fromtimestamp(job.start_time / 1000)
        end = None if job.end_time is None else datetime.fromtimestamp(job.end_time / 1000)
        shown.add_row(
            Text(job.submission_id or ""),
            job.status.value.lower(),
            "" if job.driver_exit_code is None else str(job.driver_exit_code),
            "" if start is None else f"{start:%Y-%m-%d %H:%M:%S}",
            "" if start is None or end is None else f"{(end - start).total_seconds():.0f} s",
            Text(job.entrypoint.removeprefix("python -m lexray.cli ")),
        )
    return shown


def _exit_code(details: JobDetails) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = int(details.driver_exit_code or EXIT_FAILED)
    return code if code > 0 else 128 - code


def _copy_if_yaml(argument: str, number: int, folder: Path) -> str:
    """The argument; where it names a local YAML file, that is copied into `folder` and named relative to it."""
    option, equals, path = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    if not path.endswith((".yaml", ".yml")) or "://" in path:  # most are no paths, and may be longer than one can be
        return argument
    if not Path(path).is_file():
        if Path(path).is_absolute():
            return argument  # one that the cluster has, such as its image's
        raise ConfigError(f"{path}: no such configuration file")
    name = f"configs/{number}-{Path(path).name}"
    (folder / "configs").mkdir(exist_ok=True)
    (folder / name).write_bytes(Path(path).read_bytes())
    return f"{option}{equals}{name}"


def _environment_variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals and name not in os.environ:
        raise ConfigError(f"--env {name}: it is not set here; give it as {name}=VALUE")
    return name, value if equals else os.environ[name]


@contextlib.contextmanager
def _unset(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
