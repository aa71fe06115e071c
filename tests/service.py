"""Fixtures of a small real release and of a service that runs it, shared by the tests of all that serve needs."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tiny_release import ReleaseInputs, make_inputs


@dataclass(frozen=True)
class ServiceProcess:
    """`lexray serve` in a session of its own."""

    process: subprocess.Popen[str]
    url: str
    said: str  # until it was up

    def members(self) -> list[psutil.Process]:
        """Processes of the service that are alive: they share its session, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def stop(self) -> str:
        """Send SIGTERM, wait, and return what it said last."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=120)[0]


@contextlib.contextmanager
def running_service(release: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[ServiceProcess]:
    """Start `lexray serve` on a free port and wait until it says where it is."""
    command = [sys.executable, "-m", "lexray.cli", "serve", str(release), "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.strip().startswith("page"):
            break
    else:
        raise AssertionError(f"the service did not start: {''.join(said)}")
    service = ServiceProcess(process, line.split()[1].rstrip("/"), "".join(said))
    try:
        yield service
    finally:
        if process.poll() is None:
            service.stop()


@pytest.fixture(scope="session")
def release_inputs(tmp_path_factory: pytest.TempPathFactory) -> ReleaseInputs:
    """Models and tables that a release is made of."""
    return make_inputs(tmp_path_factory.mktemp("release-inputs"))


@pytest.fixture(scope="session")
def release(release_inputs: ReleaseInputs) -> Path:
    """A release, built by the job."""
    return Path(release_inputs.build().out)


@pytest.fixture(scope="session")
def service(release: Path) -> Iterator[ServiceProcess]:
    """The one service of the test run; it takes bodies of up to 1 MiB."""
    with running_service(release, "--set", "limits.max_body_mib=1", "--set", "limits.max_texts=8") as running:
        yield running
