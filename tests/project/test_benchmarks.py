"""Benchmarks are run by hand: this sees that what they import is still there."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_benchmark_can_be_imported() -> None:
    modules = sorted(path for path in BENCHMARKS.rglob("*.py") if "results" not in path.parts)
    assert len(modules) > 5
    folders = sorted({str(path.parent) for path in modules})
    code = f"import sys; sys.path[:0] = {folders!r}\n" + "\n".join(f"import {path.stem}" for path in modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
