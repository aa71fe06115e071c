"""MLflow: the same runs in a SQLite file and on a real tracking server."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow.entities import Run as Found
from mlflow.tracking import MlflowClient

from lexray.errors import ConfigError, LexrayError
from lexray.runtime import tracking
from lexray.runtime.config import TrackingConfig
from local_cluster import free_ports


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an `mlflow server` on loopback."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True, env=os.environ
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.3)
                raise RuntimeError(f"mlflow server ended: {(folder / 'log').read_text()[-2000:]}")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


@pytest.fixture(params=["sqlite", "server"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> TrackingConfig:
    uri = f"sqlite:///{tmp_path}/new/mlflow.db" if request.param == "sqlite" else request.getfixturevalue("server")
    return TrackingConfig(uri=uri, experiment=f"experiment of {tmp_path.name}")


def runs(config: TrackingConfig) -> dict[str, Found]:
    client = MlflowClient(config.uri)
    experiment = client.get_experiment_by_name(config.experiment)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_jobs_run_nests_under_the_pipelines_and_holds_all_of_it(config: TrackingConfig, tmp_path: Path) -> None:
    picture = tmp_path / "map.png"
    picture.write_bytes(b"png")
    with tracking.run(config, "pipeline", {"steps": 1}) as parent:
        parameters = {"out": "x", "decoder": {"width": 64}, "bands": [0.5, 7.0]}
        with tracking.run(config, "train autodecoder", parameters, parent) as run:
            for step in range(3):
                run.metrics({"loss": 3.0 - step, "recall@5%": 0.5}, step=step)
            run.series([{"gain": 0.1}, {"gain": 0.2}], first=5)
            run.tags({"input.*.fits": "v1"})
            run.artifact(picture)
            run.dictionary({"a": 1}, "nested/facts.json")
            tracking.reopen(run.uri, run.run_id).metrics({"from_a_worker": 1.0})

    found = runs(config)
    job, client = found["train autodecoder"], MlflowClient(config.uri)

    assert job.data.tags["mlflow.parentRunId"] == found["pipeline"].info.run_id
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert job.data.params == {"out": "x", "decoder.width": "64", "bands": "[0.5, 7.0]"}
    history = client.get_metric_history(job.info.run_id, "loss")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert job.data.metrics["recall_at_5pct"] == 0.5
    assert job.data.metrics["gain"] == 0.2
    assert job.data.metrics["from_a_worker"] == 1.0
    assert job.data.tags["input._.fits"] == "v1"
    assert {file.path for file in client.list_artifacts(job.info.run_id)} == {"config.json", "map.png", "nested"}


def test_jobs_that_start_at_once_share_a_new_file(tmp_path: Path) -> None:
    """Each waits until the other is ready; the file has no tables then."""
    uri, ready = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "ready"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from lexray.runtime import tracking; from lexray.runtime.config import TrackingConfig\n"
        "uri, ready, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])\n"
        "(ready / str(n)).touch()\n"
        "while len(list(ready.iterdir())) < 2: time.sleep(0.001)\n"
        "with tracking.run(TrackingConfig(uri=uri), f'job {n}', {}): pass\n"
    )
    ready.mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, uri, str(ready), str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:  # one whose other died would wait for ever
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert set(runs(TrackingConfig(uri=uri))) == {"job 0", "job 1"}


def test_a_run_that_raises_is_failed(config: TrackingConfig) -> None:
    with pytest.raises(KeyboardInterrupt), tracking.run(config, "interrupted", {}):
        raise KeyboardInterrupt
    assert runs(config)["interrupted"].info.status == "FAILED"


def test_the_default_is_a_file_that_does_not_depend_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    with tracking.run(TrackingConfig(), "here", {}) as run:
        monkeypatch.chdir("/")
        run.dictionary({"a": 1}, "a.json")
        tracking.reopen(run.uri, run.run_id).metrics({"b": 1.0})
    assert (tmp_path / "mlflow.db").is_file()
    assert list((tmp_path / "mlartifacts").rglob("a.json"))


def test_a_server_that_is_not_there_is_one_clear_line() -> None:
    uri = f"http://user:secret@127.0.0.1:{free_ports(1)[0]}"
    with (
        pytest.raises(LexrayError, match=r"tracking.uri http://…@127.*: no MLflow server answers") as caught,
        tracking.run(TrackingConfig(uri=uri), "x", {}),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_an_address_of_no_known_kind_is_wrong_configuration() -> None:
    with (
        pytest.raises(ConfigError, match=r"tracking.uri gopher://x"),
        tracking.run(TrackingConfig(uri="gopher://x"), "x", {}),
    ):
        pass
