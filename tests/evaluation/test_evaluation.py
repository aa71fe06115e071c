"""What the figures of an evaluation are worth: each against a derivation or a count of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from builders import ENERGIES, event_list
from event_files import write_event_file
from lexray.errors import LexrayError
from lexray.evaluation import retrieval
from lexray.evaluation.baselines import bayesian_blocks, constant_rate
from lexray.evaluation.heldout import PiecewiseRate, counts_per_band, gain, gain_interval, score, score_models, thin
from lexray.evaluation.regression import classify_by_neighbours, probe
from lexray.events.arrow import to_table
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.inference.autodecoder import Autodecoder
from lexray.jobs.evaluate import JOB, EvaluateConfig
from lexray.models.alignment.heads import Heads, fit_heads
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.runtime.config import parse
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.schemas import EVENTS, RATES, SUMMARIES, embeddings, latents
from lexray.training.source_means import source_means
from lexray.training.splits import split

SPAN = 20_000.0
HALVES = np.array([0.0, SPAN / 2, SPAN])


def draw(name: str, rate: PiecewiseRate, gti: GoodTimeIntervals, seed: int) -> EventList:
    """Photons of a piecewise constant rate through good-time intervals, cell by cell and interval by interval."""
    generator = np.random.default_rng(seed)
    times, bands = [], []
    for start, stop in zip(gti.start, gti.stop, strict=True):
        low, high = np.maximum(rate.edges[:-1], start), np.minimum(rate.edges[1:], stop)
        for b, level in enumerate(rate.rate):
            for a, z, r in zip(low, high, level, strict=True):
                n = generator.poisson(r * max(0.0, z - a))
                times.append(generator.uniform(a, z, n) if n else np.zeros(0))
                bands.append(np.full(n, b))
    time, band = np.concatenate(times), np.concatenate(bands)
    order = np.argsort(time)
    source = name.split(":")[-1]
    energy = ENERGIES[band[order]]
    return event_list(time[order], energy, gti, detection_id=name, source_id=source, mission="chandra")


def step(first: float, counts: float = 400.0, gti: GoodTimeIntervals | None = None) -> PiecewiseRate:
    """A rate with a share `first` of its density in the first half of the span, `counts` photons in good time."""
    bands = np.array([0.5, 0.3, 0.2])[:, None]
    rate = PiecewiseRate(HALVES, bands * np.array([first, 1 - first]))
    return rate.scaled(counts / rate.expected(gti or GoodTimeIntervals(0, SPAN)).sum())


WHOLE = GoodTimeIntervals(0, SPAN)
GAPPY = GoodTimeIntervals([0, 4_000, 12_000, 15_000], [2_000, 8_000, 13_500, SPAN])


# --- thinning


def test_thinning_splits_each_photon_once_and_again_the_same() -> None:
    events = draw("chandra:1:acis:a", step(0.5), WHOLE, 0)
    fit, held = thin(events, seed=3)
    assert sorted([*fit.time, *held.time]) == events.time.tolist()
    again, _ = thin(events, seed=3)
    np.testing.assert_array_equal(fit.time, again.time)
    other, _ = thin(events, seed=4)
    assert other.time.tolist() != fit.time.tolist()


def test_thinning_is_binomial_and_differs_between_detections() -> None:
    many = [draw(f"chandra:{i}:acis:s{i}", step(0.5), WHOLE, 0) for i in range(100)]  # the same photons under 100 names
    kept = np.array([len(thin(e)[0]) for e in many])
    n = len(many[0])
    assert abs(kept.mean() - 0.8 * n) < 4 * np.sqrt(0.16 * n / 100)
    # The variance of 100 binomial draws, within the 1e-4 tails of its χ² distribution with 99 degrees of freedom.
    assert 0.5 < kept.var(ddof=1) / (0.16 * n) < 1.65


# --- likelihood and gain


def test_likelihood_is_the_closed_form_of_a_step() -> None:
    gti = GoodTimeIntervals([0, 12_000], [6_000, SPAN])
    time = np.array([100.0, 5_000.0, 13_000.0])
    events = event_list(time, ENERGIES[[0, 2, 0]], gti)
    rate = PiecewiseRate(HALVES, np.array([[0.2, 0.1], [0.3, 0.3], [0.05, 0.4]]))
    expected = np.log(0.2) + np.log(0.05) + np.log(0.1) - (0.55 * 6_000 + 0.8 * 8_000)
    assert rate.log_likelihood(events) == pytest.approx(expected, rel=1e-14)


def test_score_scales_to_the_held_out_share_and_gives_all_models_one_level() -> None:
    fit, held = thin(draw("chandra:1:acis:a", step(0.7), WHOLE, 1))
    n, m = counts_per_band(fit), counts_per_band(held)
    shape = step(0.7)
    p = np.array([0.7, 0.3]) / (SPAN / 2)
    level = 0.25 * (n + 0.5)
    first = np.array([np.count_nonzero((held.band == b) & (held.time < SPAN / 2)) for b in range(3)])
    by_hand = np.sum(m * np.log(level)) + np.sum(first * np.log(p[0]) + (m - first) * np.log(p[1])) - level.sum()
    assert score(shape, fit, held) == pytest.approx(by_hand, rel=1e-12)
    # A model that is wrong in level by any factor scores the same: shapes alone are compared.
    assert score(shape.scaled(17.0), fit, held) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("gti", [WHOLE, GAPPY], ids=["whole", "gaps"])
def test_gain_of_the_truth_is_its_information(gti: GoodTimeIntervals) -> None:
    """With a share p of the photons in one part of the good time of share q, the gain is KL(p, q) bits a photon."""
    q = gti.exposure(HALVES)[0] / gti.ontime
    density = np.array([0.85, 0.15])
    p = density[0] * q / (density[0] * q + density[1] * (1 - q))
    information = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    truth = step(0.85, 400, gti)
    events = [draw(f"chandra:{i}:acis:s{i}", truth, gti, i) for i in range(120)]
    scores = score_models(
        events, {"constant": lambda f: [constant_rate(e) for e in f], "true": lambda f: [truth] * len(f)}
    )
    assert _gain(scores, "true") == pytest.approx(information, abs=0.02)
    low, high = gain_interval(
        [s.log_likelihood["true"] for s in scores],
        [s.log_likelihood["constant"] for s in scores],
        [s.n_held for s in scores],
        [s.source_id for s in scores],
    )
    assert low < information < high


def test_constant_gains_exactly_nothing_and_an_exact_rate_a_little_more_than_its_shape() -> None:
    truth = step(0.85, 60)
    events = [draw(f"chandra:{i}:acis:s{i}", truth, WHOLE, i) for i in range(150)]
    scores = score_models(
        events,
        {"constant": lambda f: [constant_rate(e) for e in f], "shape": lambda f: [truth] * len(f)},
        {"exact": lambda f: [truth] * len(f)},
    )
    assert _gain(scores, "constant") == 0.0
    # A level fitted to 0.8 n photons costs about half a unit of χ² a band, scaled by 0.2 / 0.8: 3 × 0.125 nat a source.
    cost = 150 * 3 * 0.125 / sum(s.n_held for s in scores) / np.log(2)
    assert _gain(scores, "exact") - _gain(scores, "shape") == pytest.approx(cost, abs=0.02)


def _gain(scores: list[Any], model: str) -> float:
    return gain(
        [s.log_likelihood[model] for s in scores],
        [s.log_likelihood["constant"] for s in scores],
        [s.n_held for s in scores],
    )


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.float64, (3, 6), elements=st.floats(0.01, 5)),
    hnp.arrays(np.int64, 3, elements=st.integers(0, 1000)),
)
def test_level_rule_expects_half_a_count_more_than_seen(rate: np.ndarray, counts: np.ndarray) -> None:
    levelled = PiecewiseRate(np.linspace(0, SPAN, 7), rate).at_level(counts, GAPPY)
    np.testing.assert_allclose(levelled.expected(GAPPY), counts + 0.5)


def test_rates_refuse_what_they_cannot_score() -> None:
    with pytest.raises(ValueError, match="edges must increase"):
        PiecewiseRate(np.array([0.0, 0.0]), np.ones((3, 1)))
    with pytest.raises(ValueError, match="not negative"):
        PiecewiseRate(np.array([0.0, 1.0]), -np.ones((3, 1)))
    with pytest.raises(ValueError, match="outside the cells"):
        PiecewiseRate(np.array([0.0, 10.0]), np.ones((3, 1))).log_likelihood(draw("a:a", step(0.5), WHOLE, 0))


# --- Bayesian Blocks


def test_bayesian_blocks_find_a_step_and_leave_steady_sources_alone() -> None:
    found = bayesian_blocks(draw("a:a", step(0.9, 800), WHOLE, 0))
    assert np.min(np.abs(found.edges - SPAN / 2)) < 0.03 * SPAN
    assert len(bayesian_blocks(draw("a:a", step(0.5, 800), WHOLE, 1)).edges) == 2


def test_a_gap_is_no_drop_of_the_rate() -> None:
    events = draw("a:a", step(0.5, 800), GoodTimeIntervals([0, 15_000], [5_000, SPAN]), 2)
    found = bayesian_blocks(events)
    np.testing.assert_allclose(found.rate.sum(axis=0), len(events) / 10_000, rtol=0.02)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_bayesian_blocks_of_hardly_any_photons_are_finite(n: int) -> None:
    time = np.array([100.0, 7_000.0])[:n]
    events = event_list(time, ENERGIES[[0, 2]][:n], WHOLE)
    found = bayesian_blocks(events)
    assert np.isfinite(score(found, events, draw("a:a", step(0.5, 30), WHOLE, 0)))


# --- retrieval


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(*[hnp.arrays(np.float32, (n, 3), elements=st.integers(-2, 2).map(float)) for _ in range(2)])
    )
)
def test_ranks_agree_with_a_brute_force_count_ties_against(pair: tuple[np.ndarray, np.ndarray]) -> None:
    queries, targets = pair
    found = retrieval.ranks(queries, targets)
    for i, query in enumerate(queries):
        own = sum(float(a) * float(b) for a, b in zip(query, targets[i], strict=True))
        others = [
            sum(float(a) * float(b) for a, b in zip(query, t, strict=True)) for j, t in enumerate(targets) if j != i
        ]
        assert found[i] == 1 + sum(value >= own for value in others)


def test_recall_median_and_cutoffs_by_hand() -> None:
    found = retrieval.summarise([1, 2, 3, 11, 40, *[100] * 145])
    assert found["recall_at_10"] == pytest.approx(3 / 150)
    assert found["recall_at_1pct"] == pytest.approx(2 / 150)  # the best 2 of 150
    assert found["recall_at_5pct"] == pytest.approx(3 / 150)  # the best 8
    assert found["median_rank"] == 100
    assert found["recall_at_10_low"] <= found["recall_at_10"] <= found["recall_at_10_high"]


def test_random_vectors_do_as_chance_says_and_a_collapsed_space_is_last() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 800, 16))
    chance = retrieval.chance(800)
    found = retrieval.summarise(retrieval.ranks(x, y))
    assert found["recall_at_10"] == pytest.approx(chance["recall_at_10"], abs=0.016)
    assert found["recall_at_5pct"] == pytest.approx(chance["recall_at_5pct"], abs=0.03)
    assert found["median_rank"] == pytest.approx(chance["median_rank"], rel=0.12)
    assert np.all(retrieval.ranks(x[:50], np.ones((50, 16))) == 50)


# --- probes


def _features(seed: int = 0, n: int = 400) -> tuple[np.ndarray, list[str], np.random.Generator]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 6)), [split(f"s{i}") for i in range(n)], generator


def test_probes_know_what_is_there_and_nothing_else() -> None:
    x, splits, generator = _features()
    linear = probe(x, x @ [1, -2, 0, 0, 0.5, 0] + 0.1 * generator.normal(size=len(x)), splits)
    noise = probe(x, generator.normal(size=len(x)), splits)
    bent = x[:, 0] ** 2
    assert linear is not None
    assert linear.r2 > 0.95
    assert linear.low <= linear.r2 <= linear.high
    assert noise is not None
    assert noise.r2 < 0.1
    forest, ridge = probe(x, bent, splits, "forest"), probe(x, bent, splits, "ridge")
    assert forest is not None
    assert ridge is not None
    assert forest.r2 > ridge.r2 + 0.4


def test_probe_is_judged_on_the_test_sources_alone() -> None:
    x, splits, _ = _features()
    y = x[:, 0].copy()
    y[np.array(splits) == "val"] = np.nan
    found = probe(x, y, splits)
    assert found is not None
    assert (found.n_train, len(found.truth)) == (splits.count("train"), splits.count("test"))
    assert probe(x, np.full(len(x), np.nan), splits) is None


def test_nearest_neighbours_beside_the_majority() -> None:
    x, splits, generator = _features(1)
    centre = np.where(np.arange(len(x))[:, None] % 3 == 0, 4.0, -4.0)
    classes: list[str | None] = ["AGN" if i % 3 == 0 else "YSO" for i in range(len(x))]
    found = classify_by_neighbours(x + centre, classes, splits)
    assert found is not None
    assert found.accuracy == 1.0
    assert found.majority == pytest.approx(
        np.mean([c == "YSO" for c, s in zip(classes, splits, strict=True) if s == "test"])
    )
    shuffled = classify_by_neighbours(generator.normal(size=x.shape), classes, splits)
    assert shuffled is not None
    assert shuffled.balanced_accuracy == pytest.approx(0.5, abs=0.12)


def test_source_means_are_of_unit_norm_where_asked() -> None:
    names, mean = source_means(["b", "a", "b"], np.array([[1.0, 0], [0, 2], [0, 1]]), unit=True)
    assert names == ["a", "b"]
    np.testing.assert_allclose(mean, [[0, 1], [np.sqrt(0.5), np.sqrt(0.5)]], rtol=1e-6)


# --- heads


@pytest.fixture(scope="module")
def noisy_classes() -> tuple[np.ndarray, dict[str, list[Any]], list[str]]:
    """Embeddings of three classes that overlap, so that nobody could tell all of them apart, and numeric labels."""
    generator = np.random.default_rng(5)
    n = 1500
    true = generator.integers(0, 3, n)
    x = generator.normal(size=(n, 8)) + 2 * np.eye(3, 8)[true]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels: dict[str, list[Any]] = {
        "class": [None if i % 50 == 0 else ("AGN", "CV", "YSO")[k] for i, k in enumerate(true)],
        "hardness": [float(value) for value in x[:, 4]],
        "luminosity": [None if i % 7 == 0 else float(10 ** (33 + 2 * value)) for i, value in enumerate(x[:, 5])],
        "noise": [float(value) for value in generator.normal(size=n)],
        "ra": [float(value) for value in 360 * x[:, 4]],
        "note": ["a string"] * n,
        "rare": [1.5] * 5 + [None] * (n - 5),
    }
    return x.astype(np.float32), labels, [split(f"s{i}") for i in range(n)]


def test_heads_predict_what_can_be_known_and_are_calibrated(noisy_classes: Any) -> None:
    x, labels, splits = noisy_classes
    heads = fit_heads(x, labels, splits)
    test = np.array(splits) == "test"
    p = heads.probabilities(x[test])
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    known = np.array([c is not None for c in np.array(labels["class"], dtype=object)[test]])
    truth = np.array([c or "" for c in labels["class"]])[test]
    right = np.array(heads.classes)[p.argmax(axis=1)] == truth
    # How sure it is, on average, is how often it is right.
    assert p.max(axis=1)[known].mean() == pytest.approx(right[known].mean(), abs=0.05)
    assert right[known].mean() > 0.6
    # Numbers that the embeddings hold get a head; positions, strings, noise and what five sources have do not.
    assert [item.name for item in heads.properties] == ["hardness", "luminosity"]
    hardness, luminosity = heads.properties
    assert not hardness.log10
    assert luminosity.log10
    assert hardness.r2 > 0.99
    said = heads.predict(x[test])["properties"]["luminosity"]
    assert np.corrcoef(np.log10(said), x[test][:, 5])[0, 1] > 0.99


def test_heads_survive_the_disk(noisy_classes: Any, tmp_path: Path) -> None:
    x, labels, splits = noisy_classes
    heads = fit_heads(x, labels, splits)
    heads.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"heads.safetensors", "heads.json"}
    before, after = heads.predict(x), Heads.load(tmp_path).predict(x)
    assert before["class"] == after["class"]
    for group in ("class_probabilities", "properties"):
        assert before[group].keys() == after[group].keys()
        for name in before[group]:
            np.testing.assert_array_equal(before[group][name], after[group][name])


def test_heads_refuse_what_is_not_theirs(noisy_classes: Any, tmp_path: Path) -> None:
    x, labels, splits = noisy_classes
    with pytest.raises(FileNotFoundError, match="no heads here"):
        Heads.load(tmp_path)
    heads = fit_heads(x, labels, splits)
    heads.save(tmp_path)
    with pytest.raises(ValueError, match="must be"):
        heads.predict(x[:, :4])
    said = json.loads((tmp_path / "heads.json").read_text())
    (tmp_path / "heads.json").write_text(json.dumps({**said, "classes": said["classes"][:-1]}))
    with pytest.raises(ValueError, match="do not belong together"):
        Heads.load(tmp_path)


def test_heads_without_classes_say_so() -> None:
    x, splits, _ = _features()
    heads = fit_heads(x, {"hr_hs": x[:, 0]}, splits)
    said = heads.predict(x[:2])
    assert said["class"] == [None, None]
    assert said["class_probabilities"] == {}
    assert set(said["properties"]) == {"hr_hs"}


# --- the job


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tables of 60 sources in two classes, steady and stepping, with embeddings that know which source is which."""
    root = tmp_path_factory.mktemp("evaluate")
    path = {name: str(root / name) for name in ("events", "latents", "embeddings", "summaries", "autodecoder")}
    path |= {name: str(root / f"{name}.parquet") for name in ("labels", "true_rates")}
    generator = np.random.default_rng(0)
    events, truth, labels, vectors, said = [], [], [], [], []
    for i in range(60):
        gti, rate = (WHOLE, GAPPY)[i % 2], step(0.85 if i % 3 else 0.5, 200, (WHOLE, GAPPY)[i % 2])
        source = f"S{i}"
        events.append(draw(f"chandra:{i}:acis:{source}", rate, gti, i))
        for b in range(3):
            centres = (rate.edges[:-1] + rate.edges[1:]) / 2
            truth.append({"detection_id": events[-1].detection_id, "band": b, "t": centres, "rate": rate.rate[b]})
        kind = "CV" if i % 3 else "AGN"
        labels.append({"source_id": source, "class": kind, "hr_hs": float(i % 7), "rms": float(i % 3 > 0)})
        place = generator.normal(size=8) + 4 * np.eye(8)[int(i % 3 > 0)]
        place /= np.linalg.norm(place)
        vectors.append({"id": events[-1].detection_id, "source_id": source, "modality": "xray", "embedding": place})
        vectors.append({"id": source, "source_id": source, "modality": "text", "embedding": place})
        said.append({"source_id": source, "summary": f"A {kind} of many words, seen <often>. It varies."})
    delta.write(path["events"], "events", EVENTS, to_table(events), 4)
    delta.write(path["embeddings"], "embeddings", embeddings(8), pa.Table.from_pylist(vectors, embeddings(8)))
    delta.write(path["summaries"], "summaries", SUMMARIES, pa.Table.from_pylist(said, SUMMARIES))
    pq.write_table(pa.Table.from_pylist(truth, RATES), path["true_rates"])
    pq.write_table(pa.Table.from_pylist(labels), path["labels"])
    small = GridSettings(latent_dim=4, n_knots=16, width=16, fit_steps=20)
    decoder = small.decoder()
    model = Autodecoder(small, decoder.state_dict(), torch.zeros(4))
    model.save(path["autodecoder"])
    encoded = model.encode(events)
    rows = [
        {"detection_id": e.detection_id, "source_id": e.source_id, "latent": z, "log_rate": r}
        for e, z, r in zip(events, encoded.latent, encoded.log_rate, strict=True)
    ]
    schema = latents(encoded.latent.shape[1])
    delta.write(path["latents"], "latents", schema, pa.Table.from_pylist(rows, schema))
    return path


@pytest.fixture(scope="module")
def evaluated(archive: dict[str, str], ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("evaluation")
    files = tmp_path_factory.mktemp("files")
    real = write_event_file(files / "real.fits", columns={"time": 1000.0 + np.arange(99.0), "pi": np.full(99, 100)})
    keys = {"out": str(out), "real_files": [str(real), str(write_event_file(files / "faint.fits"))], **archive}
    return out, execute(JOB, parse(EvaluateConfig, keys), Progress())


@pytest.mark.ray
def test_evaluate_measures_everything_on_test_sources(evaluated: tuple[Path, Any]) -> None:
    out, report = evaluated
    metrics = json.loads((out / "metrics.json").read_text())
    n_test = [split(f"s{i}") for i in range(60)].count("test")
    assert report.counts["test_sources"] == n_test
    assert metrics["heldout_gain.n_detections"] == metrics["retrieval.n_sources"] == n_test
    assert metrics["heldout_gain.constant"] == 0
    assert metrics["heldout_gain.true_rate"] > 0.1
    assert metrics["heldout_gain.true_rate"] > metrics["heldout_gain.bayesian_blocks"] > 0
    assert np.isfinite(metrics["heldout_gain.autodecoder"])
    assert metrics["retrieval.text_to_xray.recall_at_10"] == 1.0  # both modalities share their vectors here
    assert metrics["retrieval.text_to_xray.median_rank"] == 1
    assert metrics["retrieval.chance.recall_at_10"] == pytest.approx(min(10, n_test) / n_test)
    assert metrics["classification.aligned.accuracy"] == 1.0
    assert metrics["classification.majority"] < 1
    assert metrics["regression.rms.aligned.forest.r2"] > 0.7
    assert metrics["regression.hr_hs.aligned.ridge.r2"] < 0.5  # the vectors know nothing of it
    assert report.metrics["heldout_gain.true_rate"] == metrics["heldout_gain.true_rate"]


@pytest.mark.ray
def test_evaluate_writes_a_report_with_its_pictures(evaluated: tuple[Path, Any]) -> None:
    out, _ = evaluated
    page = (out / "report.html").read_text()
    first_table = page[: page.index("</table>")]
    assert "real file real.fits" in first_table
    assert "real files, autodecoder less Bayesian Blocks" in first_table
    metrics = json.loads((out / "metrics.json").read_text())
    ours, blocks = (metrics[f"heldout_gain.real_files.real.fits.{name}"] for name in ("autodecoder", "bayesian_blocks"))
    assert metrics["heldout_gain.real_files.over_the_best"] == pytest.approx(ours - blocks)
    pictures = {path.name for path in out.glob("*.png")}
    assert {"heldout_gain.png", "shared_space.png", "retrieval.png", "confusion.png", "lightcurve-1.png"} <= pictures
    assert page.count('src="data:image/png;base64,') == len([name for name in pictures if ".dark." not in name])
    assert "seen &lt;often&gt;." in page
    assert "<often>" not in page


@pytest.mark.ray
def test_evaluate_without_labels_truth_and_models_leaves_rows_out_and_says_so(
    archive: dict[str, str], evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    report = execute(JOB, EvaluateConfig(out=str(tmp_path), events=archive["events"]), Progress())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert not [key for key in metrics if not key.startswith("heldout_gain")]
    assert "heldout_gain.true_rate" not in metrics
    page = (tmp_path / "report.html").read_text()
    assert "no labels were given" in page
    assert "no embeddings table was given" in page
    # The same photons are hidden whichever other models are scored, and on whichever worker.
    before = json.loads((evaluated[0] / "metrics.json").read_text())
    assert metrics["heldout_gain.bayesian_blocks"] == pytest.approx(before["heldout_gain.bayesian_blocks"], rel=1e-12)
    assert report.counts["test_detections"] == before["heldout_gain.n_detections"]
    assert delta.read(report.refusals).num_rows == 0


@pytest.mark.ray
def test_test_detections_that_cannot_be_scored_are_listed_with_what_is_wrong(
    archive: dict[str, str], evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    rows = delta.read(archive["events"], order="detection_id").to_pylist()
    wrong = next(row for row in rows if split(row["source_id"].casefold()) == "test")
    wrong["exposure"] = 0.0
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, pa.Table.from_pylist(rows, EVENTS), 4)
    report = execute(JOB, EvaluateConfig(out=str(tmp_path / "out"), events=events), Progress())
    n_scored = evaluated[1].counts["test_detections"] - 1
    assert report.counts["test_detections"] == n_scored
    assert report.refused_fraction == pytest.approx(1 / (n_scored + 1))
    (listed,) = delta.read(report.refusals).to_pylist()
    assert (listed["reason"], listed["stage"]) == ("invalid_row", "evaluate")
    assert listed["detail"] == f"detection {wrong['detection_id']} has no exposure"


@pytest.mark.ray
def test_evaluate_says_which_labels_are_missing(archive: dict[str, str], ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(LexrayError, match=r"nowhere\.parquet: there is no table here"):
        execute(
            JOB,
            EvaluateConfig(out=str(tmp_path), events=archive["events"], labels=str(tmp_path / "nowhere.parquet")),
            Progress(),
        )
