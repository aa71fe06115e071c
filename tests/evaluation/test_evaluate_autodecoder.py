"""`lexray evaluate autodecoder`, and `lexray evaluate` next to it on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from event_files import write_event_file
from lexray.cli.app import app
from lexray.evaluation.report import autodecoder
from lexray.evaluation.report.metrics import EvaluationResults
from lexray.events.arrow import to_table
from lexray.inference.autodecoder import Autodecoder
from lexray.jobs.evaluate_autodecoder import JOB, EvaluateAutodecoderConfig
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.runtime.config import parse
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.simulation.population import LIGHT_CURVE_TYPES, SimulatedPopulation
from lexray.tables import delta
from lexray.tables.schemas import EVENTS, RATES, latents
from lexray.training.splits import split

N = 160


@pytest.fixture(scope="module")
def tables(population: SimulatedPopulation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tables of 160 simulated sources, two small untrained autodecoders, and latents with made-up anomalies."""
    root = tmp_path_factory.mktemp("reconstruction")
    path = {name: str(root / name) for name in ("events", "latents", "autodecoder", "other")}
    path |= {name: str(root / f"{name}.parquet") for name in ("labels", "true_rates")}
    sources = population.select(range(N))
    events = sources.event_lists()
    delta.write(path["events"], "events", EVENTS, to_table(events), 3)
    truth = []
    for i, e in enumerate(events):
        rate = sources.rate(i)
        t = (rate.edges[:-1] + rate.edges[1:]) / 2
        truth += [{"detection_id": e.detection_id, "band": b, "t": t, "rate": rate.rate[b]} for b in range(3)]
    pq.write_table(pa.Table.from_pylist(truth, RATES), path["true_rates"])
    kinds = [LIGHT_CURVE_TYPES[k] for k in sources.light_curve_type]
    pq.write_table(pa.table({"source_id": [e.source_id for e in events], "kind": kinds}), path["labels"])
    models = {}
    for name, dim in (("autodecoder", 16), ("other", 2)):
        small = GridSettings(latent_dim=dim, n_knots=32, width=16, fit_steps=40)
        models[name] = Autodecoder(small, small.decoder().state_dict(), torch.zeros(dim))
        models[name].save(path[name])
    encoded = models["autodecoder"].encode(events)
    schema = latents(encoded.latent.shape[1])
    rows = [
        {"detection_id": e.detection_id, "source_id": e.source_id, "latent": z, "log_rate": r,
         "anomaly": float(-i), "p_value": (i + 0.5) / N}
        for i, (e, z, r) in enumerate(zip(events, encoded.latent, encoded.log_rate, strict=True))
    ]  # fmt: skip
    delta.write(path["latents"], "latents", schema, pa.Table.from_pylist(rows, schema))
    return {**path, "baseline_autodecoders": [path.pop("other")]}


@pytest.fixture(scope="module")
def evaluated(
    tables: dict[str, Any], ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, dict[str, float]]:
    out = tmp_path_factory.mktemp("evaluation")
    given = {key: value for key, value in tables.items() if key != "other"}
    file = tmp_path_factory.mktemp("files") / "real.fits"
    real = write_event_file(file, columns={"time": 1000.0 + np.arange(99.0), "pi": np.full(99, 100)})
    keys = {"out": str(out), "chosen_on": 20, "group_by": "kind", "real_files": [str(real)], "thinnings": 1, **given}
    report = execute(JOB, parse(EvaluateAutodecoderConfig, keys), Progress())
    return out, report, json.loads((out / "metrics.json").read_text())


@pytest.mark.ray
def test_every_model_is_scored_on_the_test_sources(
    evaluated: tuple[Path, Any, dict[str, float]], population: SimulatedPopulation
) -> None:
    _, report, metrics = evaluated
    names = [e.source_id.casefold() for e in population.select(range(N)).event_lists()]
    n_test = [split(name) for name in names].count("test")
    assert metrics["heldout_gain.n_detections"] == report.counts["test_detections"] == n_test
    gains = {name: metrics[f"heldout_gain.{name}"] for name in ("bayesian_blocks", "kernel", "total_variation")}
    others = [key for key in metrics if key.startswith("heldout_gain.baseline.") and key.endswith("k")]
    assert len(others) == 1
    ceiling = metrics["heldout_gain.true_rate"]
    for name, value in gains.items():
        assert 0 < value < ceiling
        assert metrics[f"heldout_gain.{name}_share_of_ceiling"] == pytest.approx(value / ceiling)
        over = metrics[f"heldout_gain.autodecoder_over_{name}"]
        assert over == pytest.approx(metrics["heldout_gain.autodecoder"] - value, abs=1e-9)
    best = max(metrics[f"heldout_gain.real_files.real.fits.{name}"] for name in gains)
    ours = metrics["heldout_gain.real_files.real.fits.autodecoder"]
    assert metrics["heldout_gain.real_files.over_the_best"] == pytest.approx(ours - best)
    # Sixteen numbers can say more of a rate than two.
    assert metrics["heldout_gain.autodecoder"] > metrics[others[0]]


@pytest.mark.ray
def test_groups_add_up_to_the_whole(evaluated: tuple[Path, Any, dict[str, float]]) -> None:
    _, _, metrics = evaluated
    by_kind = {key.split(".")[2] for key in metrics if key.startswith("heldout_gain.by_group.")}
    assert by_kind == set(LIGHT_CURVE_TYPES)
    assert metrics["heldout_gain.by_group.steady.true_rate"] == pytest.approx(0, abs=1e-9)
    for grouped in ("by_group", "by_counts"):
        gains = [v for k, v in metrics.items() if k.startswith(f"heldout_gain.{grouped}.") and k.endswith(".true_rate")]
        assert min(gains) < metrics["heldout_gain.true_rate"] < max(gains)


@pytest.mark.ray
def test_representations_are_probed_detection_by_detection(evaluated: tuple[Path, Any, dict[str, float]]) -> None:
    _, _, metrics = evaluated
    for name in autodecoder.PROPERTY_LABELS:
        for representation in ("latents", "log_rate"):
            assert np.isfinite(metrics[f"regression.{name}.{representation}.ridge.r2"])
            assert np.isfinite(metrics[f"regression.{name}.{representation}.forest.r2"])
    assert metrics["regression.hr_hs.log_rate.ridge.r2"] > 0.5  # it is a function of the count rates
    assert metrics["regression.rms.log_rate.ridge.r2"] < 0.2  # of which these know nothing


@pytest.mark.ray
def test_report_shows_charts_light_curves_and_the_rarest(
    evaluated: tuple[Path, Any, dict[str, float]], population: SimulatedPopulation
) -> None:
    out, _, metrics = evaluated
    page = (out / "report.html").read_text()
    names = {path.name for path in out.glob("*.png")}
    expected = {"heldout_gain", "heldout_gain_by_class", "heldout_gain_by_counts", "properties", "lightcurve-1"}
    assert {f"{name}.png" for name in expected} <= names
    rarest = population.select([0]).event_lists()[0].detection_id
    assert f"<td>{rarest}</td>" in page
    assert metrics["anomalies.share_below_1pct"] == pytest.approx(2 / N)
    assert "chosen by their held-out gain on 20 training detections" in page


@pytest.mark.ray
def test_without_tables_and_baselines_it_says_what_is_left_out(
    tables: dict[str, Any], evaluated: tuple[Path, Any, dict[str, float]], tmp_path: Path
) -> None:
    config = EvaluateAutodecoderConfig(
        out=str(tmp_path), events=tables["events"], autodecoder=tables["autodecoder"], chosen_on=0
    )
    execute(JOB, config, Progress())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "heldout_gain.kernel" not in metrics
    assert not [key for key in metrics if key.startswith(("regression", "anomalies"))]
    # The same photons are hidden whatever else is scored.
    for name in ("autodecoder", "bayesian_blocks"):
        before = evaluated[2][f"heldout_gain.{name}"]
        assert metrics[f"heldout_gain.{name}"] == pytest.approx(before, rel=1e-9)
    assert "no latents table was given" in (tmp_path / "report.html").read_text()


@pytest.mark.ray
def test_detections_that_no_model_can_take_are_listed_once_wherever_they_are_read(
    tables: dict[str, Any], evaluated: tuple[Path, Any, dict[str, float]], tmp_path: Path
) -> None:
    rows = delta.read(tables["events"], order="detection_id").to_pylist()
    wrong = {part: next(r for r in rows if split(r["source_id"].casefold()) == part) for part in ("train", "test")}
    for row in wrong.values():
        row["exposure"] = 0.0
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, pa.Table.from_pylist(rows, EVENTS), 3)
    config = EvaluateAutodecoderConfig(
        out=str(tmp_path / "out"),
        events=events,
        autodecoder=tables["autodecoder"],
        latents=tables["latents"],
        chosen_on=N,
    )
    report = execute(JOB, config, Progress())
    assert report.counts["test_detections"] == evaluated[1].counts["test_detections"] - 1
    assert report.refused_fraction == pytest.approx(2 / N)
    details = delta.read(report.refusals)["detail"].to_pylist()
    assert sorted(details) == sorted(f"detection {row['detection_id']} has no exposure" for row in wrong.values())


def test_two_words_are_a_command_and_one_still_is() -> None:
    runner = CliRunner()
    both = runner.invoke(app, ["evaluate", "autodecoder", "--keys"])
    one = runner.invoke(app, ["evaluate", "--keys"])
    assert (both.exit_code, one.exit_code) == (0, 0)
    assert "group_by" in both.stdout
    assert "text_embeddings" in one.stdout
    assert "group_by" not in one.stdout


def test_latents_without_scores_have_no_anomalies() -> None:
    rows = {"detection_id": ["a"], "source_id": ["s"], "anomaly": [None], "p_value": [None]}
    found = EvaluationResults()
    schema = pa.schema([("detection_id", pa.string()), ("source_id", pa.string()), ("anomaly", pa.float32()),
                        ("p_value", pa.float32())])  # fmt: skip
    assert autodecoder.anomaly_table(found, pa.table(rows, schema), {}, {}) is None
    assert "anomalies: the latents table has no score" in found.left_out
    assert autodecoder.ANOMALIES_SECTION not in found.sections
