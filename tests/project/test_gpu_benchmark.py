"""benchmarks/gpu.py, which is for a machine with a GPU, must run when one is at hand: its tiny version on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_it_measures_every_kind_and_says_where_it_ran(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--modes", "float32", "bfloat16", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found = json.loads(out.read_text())
    assert found["device"].startswith("no GPU, ran on CPU: ") != torch.cuda.is_available()
    assert found["ceilings"]["copy_GB_s"] > 0
    assert found["training"].keys() == found["encoding"].keys() == {"splitnet", "grid", "resnet"}
    for kind, cells in found["training"].items():
        assert list(cells) == ["float32, batch 8", "bfloat16, batch 8"]
        for cell in cells.values():
            assert cell["sources_per_second"] == pytest.approx(8000 / cell["ms_per_step"], rel=0.01), kind
            assert cell["GFLOP_per_step"] > 0
            assert cell["GB_s"] > 0
            assert cell["skipped_steps"] == 0
            assert "gain_bits_per_photon" in cell["held_out"]
        assert found["encoding"][kind]["sources_per_second"] > 0
    # Three passes of two FLOPs a weight and moment: the published decoder's arithmetic, at this width.
    weights = 33 * 32 + 10 * 32**2 + 32 * 3
    photons = 8 * found["sources"]["photons_each"]
    expected = 3 * 2 * weights * (8 * 65 + photons) / 1e9
    assert found["training"]["resnet"]["float32, batch 8"]["GFLOP_per_step"] == pytest.approx(expected, rel=0.5)
