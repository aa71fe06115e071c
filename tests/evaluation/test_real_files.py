"""Held-out gain on single event files: block by block as of the whole, and which files are left out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from event_files import GOOD_PI, write_event_file
from lexray.errors import LexrayError
from lexray.evaluation.baselines import constant_rate
from lexray.evaluation.heldout import PiecewiseRate, score_models
from lexray.evaluation.real_files import FileGain, over_the_best, read_files, score_file, score_files
from lexray.evaluation.report.metrics import GAIN_SECTION, EvaluationResults, measure_real_files
from lexray.events.arrow import to_table
from lexray.events.eventlist import Bands, EventList
from lexray.events.reader import read_events
from lexray.runtime.progress import Progress
from lexray.simulation.population import SimulatedPopulation
from lexray.tables import delta
from lexray.tables.schemas import EVENTS


def constant(fits: Sequence[EventList]) -> list[PiecewiseRate]:
    return [constant_rate(fit) for fit in fits]


def chandra_file(path: Path, seed: int = 0) -> Path:
    """A steady source of 200 photons."""
    time = np.sort(np.random.default_rng(seed).uniform(1000.0, 1100.0, 200))
    return write_event_file(path, columns={"time": time, "pi": np.full(200, GOOD_PI["chandra"])})


def test_blocks_of_good_time_add_up_to_the_held_out_gain(population: SimulatedPopulation) -> None:
    for i, e in enumerate(population.select(range(12)).event_lists()):
        truth = population.rate(i)

        def true(fits: Sequence[EventList], truth: PiecewiseRate = truth) -> list[PiecewiseRate]:
            return [truth for _ in fits]

        found = score_file(replace(e, file="/somewhere/of_old.evt.gz"), {"true": true, "flat": constant}, 2)
        scores = [score_models([e], {"true": true, "flat": constant}, seed=seed)[0] for seed in range(2)]
        expected = sum(s.log_likelihood["true"] - s.log_likelihood["flat"] for s in scores)
        assert found.by_block["true"].sum() == pytest.approx(expected, abs=1e-6)
        assert np.abs(found.by_block["flat"]).max() < 1e-9
        assert found.n_held == sum(s.n_held for s in scores)
        assert (found.name, found.n_photons) == ("of_old.evt.gz", len(e))
        assert set(found.by_block) == {"true", "flat", "bayesian_blocks"}


def test_what_is_gained_over_the_best_of_each_file_has_an_interval() -> None:
    random = np.random.default_rng(0)
    files = [
        FileGain(str(i), 900, 600, {"a": random.normal(1, 1, 40), "b": np.zeros(40), "ours": random.normal(2, 1, 40)})
        for i in range(3)
    ]
    value, low, high = over_the_best(files, "ours", ("a", "b"))
    by_hand = sum((f.by_block["ours"] - f.by_block["a"]).sum() for f in files) / 1800 / np.log(2)
    assert value == pytest.approx(by_hand)
    deviation = np.sqrt(3 * 40 * 2) / 1800 / np.log(2)  # of sums of differences of two normal numbers
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.2)
    assert low < value < high


@pytest.mark.ray
def test_files_that_a_training_saw_are_left_out_and_the_table_has_the_others(ray_session: None, tmp_path: Path) -> None:
    seen, new = (chandra_file(tmp_path / f"{name}.fits", seed=seed) for seed, name in enumerate(("seen", "new")))
    few = write_event_file(tmp_path / "few.fits")
    table = str(tmp_path / "events")
    delta.write(table, "events", EVENTS, to_table([replace(read_events(seen), source_id="S")]))
    paths = [str(path) for path in (seen, new, few)]
    too_few = "real file few.fits: has 10 photons, too few to hide some"
    for where in ("train", "val"):
        found, left_out = read_files(paths, table, {"S": where})
        assert [e.file for e in found] == [str(new)]
        assert left_out == ["real file seen.fits: a training saw it", too_few]
    found, left_out = read_files([*paths, str(new)], table, {"S": "test"})
    assert left_out == [too_few]
    models = {"autodecoder": lambda fits: [constant_rate(fit) for fit in fits]}
    files = score_files(found, models, 2, 5, Progress())
    assert [file.name for file in files] == ["new.fits", "new.fits_", "seen.fits"]
    results = EvaluationResults()
    measure_real_files(results, files)
    rows = results.sections[GAIN_SECTION]
    assert [row.what for row in rows[1:]] == [
        "real file new.fits_",
        "real file seen.fits",
        "real files, autodecoder less Bayesian Blocks",
    ]
    assert rows[0].baseline_name == "Bayesian Blocks"
    assert rows[0].value == pytest.approx(0.0, abs=1e-9)
    assert rows[3].value == results.metrics["heldout_gain.real_files.over_the_best"]
    names = ("new.fits.bayesian_blocks", "new.fits.autodecoder", "seen.fits.autodecoder_low")
    assert {f"heldout_gain.real_files.{name}" for name in names} <= set(results.metrics)


def test_files_have_the_tables_bands_and_others_are_refused_by_name(
    tmp_path: Path, population: SimulatedPopulation
) -> None:
    file = chandra_file(tmp_path / "three.fits")
    table, own = str(tmp_path / "events"), Bands((0.3, 1.1, 3.0, 10.0))
    delta.write(table, "events", EVENTS, to_table([read_events(file, {"chandra": own})]))
    (read,), _ = read_files([str(file)], table, {})
    assert read.bands == own
    nustar = str(tmp_path / "nustar")
    two = read_events(write_event_file(tmp_path / "two.fits", "nustar"), {"nustar": Bands((3.0, 10.0, 79.0))})
    delta.write(nustar, "events", EVENTS, to_table([two]))
    with pytest.raises(LexrayError, match=r"three\.fits: 3 energy bands, the detections of .*nustar have 2$"):
        read_files([str(file)], nustar, {})
