"""Detections unlike all that an autodecoder was trained on are flagged by name, wherever it answers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import event_list
from lexray.events.arrow import to_table
from lexray.events.eventlist import Bands, EventList
from lexray.inference.autodecoder import Autodecoder, load_autodecoder
from lexray.inference.photons import photons_of
from lexray.jobs import encode, rates
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.training_range import TrainingRange
from lexray.runtime.config import parse
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.show.page import render
from lexray.simulation.population import SimulatedPopulation
from lexray.simulation.wide_population import WidePopulation
from lexray.tables import delta
from lexray.tables.schemas import EVENTS


def odd_ones(most: int) -> dict[str, EventList]:
    """Detections of one oddity each; no training had more than `most` photons."""

    def steady(name: str, n: int, length: float = 28_800.0, **more: Any) -> EventList:
        time = np.random.default_rng(0).uniform(0.0, length, n)
        return event_list(time, 1.5, length, detection_id=name, source_id=name, **more)

    def pulsed(n: int) -> EventList:
        """Photons all at one of two moments."""
        time = np.repeat([9_000.0, 20_000.0], n // 2) + np.random.default_rng(0).uniform(0, 1e-3, n)
        return event_list(time, 1.5, 28_800.0, detection_id="anomalous", source_id="anomalous")

    return {
        "": steady("", 300),
        "counts_unseen": steady("counts_unseen", 2 * most),
        "times_unseen": steady("times_unseen", 300, 1e7),
        "energies_unseen": steady("energies_unseen", 300, bands=Bands((1.0, 1.2, 12.0, 25.0))),
        "anomalous": pulsed(300),
    }


def test_each_oddity_has_its_name(splitnet: Autodecoder, population: SimulatedPopulation) -> None:
    odd = odd_ones(int(population.select(range(800)).photons.counts.sum(1).max()))
    encoded = splitnet.encode(list(odd.values()))
    assert encoded.flags is not None
    found = dict(zip(odd, encoded.flags, strict=True))
    assert found[""] == ()
    for name in list(odd)[1:]:
        assert name in found[name], found
    assert found["energies_unseen"] == ("energies_unseen",)
    assert found["anomalous"] == ("anomalous",)


def test_what_is_like_the_training_has_no_flag(splitnet: Autodecoder, new: SimulatedPopulation) -> None:
    encoded = splitnet.encode_photons(new.photons)
    assert encoded.flags is not None
    assert encoded.p_value is not None
    assert sum(len(flags) for flags in encoded.flags) <= 6  # one in 250 is as anomalous by chance
    for flags, p_value in zip(encoded.flags, encoded.p_value, strict=True):
        assert ("anomalous" in flags) == (p_value < 1.01 / 501 or p_value == 1.0)


def test_a_training_that_began_with_another_knows_what_that_one_saw(population: SimulatedPopulation) -> None:
    faint, bright = (population.select(list(range(i, i + 60))).photons for i in (0, 60))
    faint = faint.keep(torch.rand(len(faint.time), generator=torch.Generator().manual_seed(0)) < 0.05)
    first, second = TrainingRange.of(bright), TrainingRange.of(faint)
    assert any("counts_unseen" in flags for flags in first.flags(faint))
    assert any("counts_unseen" in flags for flags in second.flags(bright))
    both = first.joined(second)
    assert not any(both.flags(faint) + both.flags(bright))


def test_of_the_wide_population_long_and_short_good_times_are_beyond_all(population: SimulatedPopulation) -> None:
    """Also where cells of many sizes are in it."""
    wide = WidePopulation(0)
    held = TrainingRange.of(Photons.concatenate([wide.photons(part) for part in (0, 11, 12)]))
    lengths = {5.0: True, 100.0: False, 28_800.0: False, 1e7: True}
    events = [event_list(np.linspace(0.01, length, 300, endpoint=False), 1.5, length) for length in lengths]
    found = held.flags(photons_of(events, 3))
    assert [("times_unseen" in flags) for flags in found] == list(lengths.values())


def test_rates_alone_say_it_in_a_line(splitnet: Autodecoder, caplog: pytest.LogCaptureFixture) -> None:
    odd = odd_ones(10_000)
    splitnet.rates([odd[""]])
    assert not caplog.records
    splitnet.rates([odd[name] for name in ("", "times_unseen", "energies_unseen")])
    (record,) = caplog.records
    assert "of 3 detections some are unlike its training: energies_unseen 1, times_unseen 1" in record.message


def test_what_a_training_held_is_saved_with_the_model(
    splitnet: Autodecoder, population: SimulatedPopulation, tmp_path: Path
) -> None:
    splitnet.save(tmp_path)
    again = load_autodecoder(tmp_path).trained_on
    assert splitnet.trained_on is not None
    assert again is not None
    assert isinstance(again, TrainingRange)
    for name, value in splitnet.trained_on.tensors().items():
        torch.testing.assert_close(again.tensors()[name], value)
    photons = population.select(range(800)).photons
    assert not any(again.flags(photons))
    assert again.counts.tolist() == [photons.counts.sum(1).min(), photons.counts.sum(1).max()]


@pytest.mark.ray
def test_both_tables_and_the_job_say_it(
    ray_session: None, splitnet: Autodecoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splitnet.save(tmp_path / "autodecoder")
    odd = odd_ones(10_000)
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, to_table([odd[name] for name in ("times_unseen", "anomalous")]))
    common = {"events": events, "autodecoder": str(tmp_path / "autodecoder"), "workers": 1}
    tables = {}
    for job in (encode, rates):
        config = parse(job.JOB.config, {**common, "out": str(tmp_path / job.JOB.name)})
        report = execute(job.JOB, config, Progress())
        assert report.counts["flagged"] == 2
        assert f"{job.JOB.name}: 2 detections are unlike the training's" in capsys.readouterr().err
        tables[job.JOB.name] = delta.read(str(tmp_path / job.JOB.name)).to_pylist()
    latents = {row["detection_id"]: row for row in tables["encode"]}
    for row in tables["rates"]:
        for column in ("anomaly", "p_value", "flags"):
            assert row[column] == latents[row["detection_id"]][column], column
        assert row["detection_id"] in row["flags"]


def test_a_detections_page_says_it(splitnet: Autodecoder) -> None:
    odd = odd_ones(10_000)
    assert "Unlike the training" not in render(odd[""], splitnet)
    page = render(odd["anomalous"], splitnet)
    assert "Unlike the training" in page
    assert re.search(r">anomalous \(anomaly -?\d+\.\d nat, p-value [\d.]+\)<", page)
