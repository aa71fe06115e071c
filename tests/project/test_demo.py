"""What `make demo` must have reached on its archive at full size: `make soak` runs the demo and then asks for it.

Without ``--full-size`` nothing is asked of what an earlier demo may have left. tests/cli/test_submit.py runs the demo's
steps as far as the autodecoder, on a smaller archive; with ``--full-size`` all of them.
"""

import json
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "build" / "demo"

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def metrics(scale: float) -> dict[str, float]:
    if scale < 1:
        pytest.skip("what the demo must reach at full size: 'make soak' runs it, and then these")
    return dict(json.loads((DEMO / "evaluation" / "metrics.json").read_text()))


def test_the_autodecoder_predicts_held_out_photons_better_than_bayesian_blocks(metrics: dict[str, float]) -> None:
    assert metrics["heldout_gain.constant"] == 0
    assert metrics["heldout_gain.bayesian_blocks"] < metrics["heldout_gain.autodecoder"]
    assert metrics["heldout_gain.autodecoder"] < metrics["heldout_gain.true_rate"]


@pytest.mark.parametrize("direction", ["text_to_xray", "xray_to_text"])
def test_words_and_light_find_one_another_on_sources_that_no_training_saw(
    metrics: dict[str, float], direction: str
) -> None:
    assert metrics["retrieval.n_sources"] > 100
    assert metrics[f"retrieval.{direction}.recall_at_10"] >= 5 * metrics["retrieval.chance.recall_at_10"]


def test_the_release_and_the_report_are_there(metrics: dict[str, float]) -> None:
    assert "<html" in (DEMO / "evaluation" / "report.html").read_text()
    assert json.loads((DEMO / "release" / "manifest.json").read_text())
