"""What tests share: one Ray session, a home folder of their own, and the command line called as a user calls it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Ray: its first start writes an authentication token into the home folder, and clusters started
# later would turn authenticated.
_HOME = tempfile.TemporaryDirectory(prefix="lexray-home-")
os.environ["HOME"] = _HOME.name
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["HF_HUB_OFFLINE"] = "1"
# Small models gain nothing from a second thread, and threads that spin for one another starve the workers beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.pop("RAY_ADDRESS", None)

from lexray.runtime.config import RayConfig
from lexray.runtime.ray_session import session
from service import release, release_inputs, service  # noqa: F401  # fixtures of all test modules

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _tracking(tmp_path_factory: pytest.TempPathFactory) -> None:
    """MLflow writes into the tests' own folder."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """The one local Ray session of the test run."""
    with session(RayConfig(num_cpus=4)):
        yield


@pytest.fixture(scope="session")
def real_events() -> Path:
    """Folder with the real event files, or a skip that says why."""
    folder = SHARED_DATA / "real-events"
    if not folder.is_dir():
        pytest.skip("real event files lie beside the project, in ../shared/data/real-events, and are absent here")
    return folder


@pytest.fixture(scope="session")
def real_literature() -> Path:
    """JSONL file with real abstracts, or a skip that says why."""
    path = SHARED_DATA / "real-literature.jsonl"
    if not path.is_file():
        pytest.skip("real abstracts lie beside the project, in ../shared/data, and are absent here")
    return path


class Cli:
    """Calls `lexray` in a process of its own, as a user does."""

    def __call__(self, *args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lexray.cli", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)

    def json(self, *args: str | Path) -> dict[str, Any]:
        """The JSON object of a call that must succeed."""
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="session")
def cli() -> Cli:
    return Cli()
