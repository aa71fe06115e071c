"""Seconds of `make install`, and of what `make test` adds, with pip and with uv, and the packages that weigh most.

python benchmarks/install.py [--out FILE]

Each installs the committed tree into a new folder, one after the other, uv where it is on the path. What pip keeps of
downloads and uv of unpacked packages is left as it is: the figures are those of a machine that installed before.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def time_make(folder: Path, target: str, path: str) -> dict[str, float]:
    """Wall and CPU seconds of `make TARGET` in `folder`, with `path` as the PATH."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["make", target], cwd=folder, env={**environment, "PATH": path}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - start, 1), "cpu_s": round(cpu, 1)}


def path_without_uv() -> str:
    """The PATH without this environment's programs and without folders that hold uv."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not (Path(f) / "uv").exists() and ".venv" not in Path(f).parts)


def largest_packages(environment: Path, n: int = 15) -> dict[str, float]:
    """MB of the `n` largest installed packages, and of all."""
    site = next((environment / "lib").glob("python*/site-packages"))
    sizes = {}
    for package in importlib.metadata.distributions(path=[str(site)]):
        files = (Path(package.locate_file(file)) for file in package.files or [])
        sizes[package.name] = sum(file.stat().st_size for file in files if file.exists()) / 1e6
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:n]
    return {"all": round(sum(sizes.values())), **{name: round(size) for name, size in largest}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "install.json")
    args = parser.parse_args()
    uv = shutil.which("uv")
    paths = {"pip": path_without_uv()} | ({"uv": f"{path_without_uv()}{os.pathsep}{Path(uv).parent}"} if uv else {})
    result: dict[str, Any] = {
        "benchmark": "install",
        "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine()},
        "load_average_at_start": round(os.getloadavg()[0], 1),
    }
    for tool, path in paths.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
            result[tool] = {"install": time_make(folder, "install", path)}
            result[tool]["test"] = time_make(folder, ".venv/installed-test", path)
            result["megabytes"] = largest_packages(folder / ".venv")
        print(tool, result[tool])
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
