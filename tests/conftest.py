"""What tests share: one Ray session, one cluster, a home folder of their own, and the command line."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
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
# vLLM's engine computes in its own process and starts none for that, which would import vLLM once more.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
# What vLLM finds out about a model's class, in a process that imports vLLM once more, it finds there the next time.
os.environ.setdefault("VLLM_CACHE_ROOT", str(Path(__file__).parents[1] / "build" / "vllm"))
os.environ.pop("RAY_ADDRESS", None)

from lexray.cli.app import main
from lexray.runtime.config import RayConfig
from lexray.runtime.ray_session import session
from local_cluster import Cluster, local_cluster
from service import release, release_inputs, service  # noqa: F401  # fixtures of all test modules
from trained_models import new, population, splitnet, trained_grid  # noqa: F401

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# `make test` tries the same examples each time; `make fuzz` and `make soak` search for others.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", derandomize=False, deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-size", action="store_true", help="tests marked 'scale' at full size, not at a tenth")


#: Files whose tests share the service and the cluster: one process runs them all.
_SERVERS = ("tests/serve/", "tests/cli/test_submit.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests.

    Those of the service and of the cluster come last, since both cost processor time, even idle. Of two processes one
    runs these while the other has the many small ones: the large ones come before.
    """
    with_ray = {item.path for item in items if _uses(item, "ray_session")}
    for item in items:
        if _uses(item, "cluster", "service", "locked_service", "browser"):
            item.add_marker("cluster")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: 1 if item.nodeid.startswith(_SERVERS) else 0 if item.path in with_ray else 2)
    else:
        items.sort(key=lambda item: (_uses(item, "cluster"), _uses(item, "service")))


def _uses(item: pytest.Item, *fixtures: str) -> bool:
    return not set(fixtures).isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How `make test` spreads the tests over two processes: file by file, the servers' files as if they were one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "servers" if file.startswith(_SERVERS) else file

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> float:
    """Of the size of a test marked `scale`: 1 with ``--full-size``, as `make soak` runs it, otherwise 0.1."""
    return 1.0 if request.config.getoption("--full-size") else 0.1


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


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The one cluster of the test run that is not its Ray session."""
    with local_cluster() as running:
        yield running


@pytest.fixture
def join_session(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts join the test run's Ray session and start none."""
    import ray  # after Lexray has set Ray's environment

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


Ended = subprocess.CompletedProcess[str]


class Cli:
    """Calls `lexray`: its entry point in this process, where jobs join the Ray session, or a process of its own."""

    def __call__(self, *args: str | Path, cwd: Path | None = None) -> Ended:
        command = ["lexray", *map(str, args)]
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(cwd or "."),
        ):
            patch.setattr(sys, "argv", command)
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return Ended(command, code, out.getvalue(), err.getvalue())

    def process(self, *args: str | Path) -> Ended:
        """As a user calls it."""
        command = [sys.executable, "-m", "lexray.cli", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def json(self, *args: str | Path) -> dict[str, Any]:
        """The JSON object of a call that must succeed."""
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="session")
def cli() -> Cli:
    return Cli()
