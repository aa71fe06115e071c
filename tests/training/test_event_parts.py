"""What of an events table is trained on: who, which version, and what becomes of invalid rows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from builders import ENERGIES, event_list
from lexray.events.arrow import to_table
from lexray.events.eventlist import EventList
from lexray.models.autodecoders.photons import Photons
from lexray.tables import delta
from lexray.tables.schemas import EVENTS
from lexray.training import event_parts, splits
from lexray.training.event_parts import EventsTable

N, N_PARTS = 120, 4


def detection(i: int) -> EventList:
    random = np.random.default_rng(i)
    n = 5 + i % 7
    energy = random.choice(ENERGIES, n)
    return event_list(random.uniform(0, 1e4, n), energy, detection_id=f"d{i:03d}", source_id=f"s{i:03d}")


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A table of which three rows are odd."""
    rows = to_table([detection(i) for i in reversed(range(N))]).to_pylist()
    rows[-1]["exposure"] = 0.0
    rows[-2]["bands"] = [0.5, 7.0]
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, pa.Table.from_pylist(rows, EVENTS), n_parts=N_PARTS)
    return events


def test_the_split_is_planned_without_the_photons_and_without_odd_rows(table: str) -> None:
    plan = event_parts.plan_training(table, 0, 3, max_validation=1000)
    assert plan.left_out == {"d000": "has no exposure", "d001": "has not 3 energy bands"}
    assignment = splits.read_splits(table, 0)
    for split, planned in (
        ("train", [name for part in plan.parts.values() for name in part.train]),
        ("val", [name for part in plan.parts.values() for name in part.val]),
    ):
        assert sorted(planned) == [f"d{i:03d}" for i in range(2, N) if assignment[f"s{i:03d}"] == split]


def test_parts_are_read_as_they_were_planned(table: str) -> None:
    plan = event_parts.plan_training(table, 0, 3, max_validation=1000)
    source = EventsTable(plan.parts, 3)
    delta.write(table, "events", EVENTS, to_table([detection(i) for i in range(200, 210)]), n_parts=N_PARTS)
    validation = source.validation()
    for number, size in source.sizes.items():
        photons, names = source.read(number)
        assert names == sorted(names)
        assert (len(photons), len(photons.time)) == (size.detections, size.photons)
        assert photons.counts.sum(1).tolist() == [5 + int(name[1:]) % 7 for name in names]
        assert len(validation.get(number, ())) == len(plan.parts[number].val)
    assert source.emptied == {}


def test_a_detection_with_impossible_photons_trains_as_if_it_had_none(table: str) -> None:
    rows = delta.read(table).drop_columns(["part"]).to_pylist()
    for row in rows:
        if int(row["detection_id"][1:]) % 2:
            row["time"][0] = math.nan
    delta.write(table, "events", EVENTS, pa.Table.from_pylist(rows, EVENTS), n_parts=N_PARTS)
    plan = event_parts.plan_training(table, 0, 3, max_validation=0)
    source = EventsTable(plan.parts, 3)
    for number in source.sizes:
        photons, names = source.read(number)
        expected = [0 if int(name[1:]) % 2 else 5 + int(name[1:]) % 7 for name in names]
        assert photons.counts.sum(1).tolist() == expected
    emptied = {name for part in plan.parts.values() for name in part.train if int(name[1:]) % 2}
    assert source.emptied == dict.fromkeys(emptied, "has an event without a time, or outside its energy bands")


def test_the_validation_is_capped_by_a_hash_and_grows_with_its_cap(table: str) -> None:
    def chosen(most: int) -> set[str]:
        parts = event_parts.plan_training(table, 0, 3, max_validation=most).parts
        return {name for part in parts.values() for name in part.val}

    everyone = chosen(1000)
    assert len(chosen(0)) == 0
    assert len(chosen(5)) == 5
    assert chosen(3) < chosen(5) < everyone
    assert chosen(5) != set(sorted(everyone)[:5])


def of_two_missions(i: int) -> EventList:
    """The first in the alphabet saw two photons of each source, the other three."""
    n, name = (2, f"asca:{i:03d}") if i < 100 else (3, f"xmm:{i:03d}")
    energy = np.full(n, 1.0, dtype=np.float32)
    return replace(detection(i), detection_id=name, time=np.arange(n, dtype=np.float64), energy=energy)


def test_a_sample_is_of_many_parts_and_not_of_the_first_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = str(tmp_path / "events")
    delta.write(table, "events", EVENTS, to_table([of_two_missions(i) for i in range(200)]), n_parts=20)
    plan = event_parts.plan_training(table, 0, 3, max_validation=0)
    n = sum(len(part.train) for part in plan.parts.values())
    of_first = sum(name.startswith("asca") for part in plan.parts.values() for name in part.train)
    read: list[int] = []
    whole = EventsTable.read

    def noting(self: EventsTable, part: int) -> tuple[Photons, Sequence[str]]:
        read.append(part)
        return whole(self, part)

    monkeypatch.setattr(EventsTable, "read", noting)
    sample = event_parts.sample(plan, 3, 30)
    assert len(sample) == 30
    assert 5 <= len(read) <= 8
    share = float((sample.offsets.diff() == 2).double().mean())
    assert abs(share - of_first / n) < 0.3  # three standard deviations
    assert torch.equal(event_parts.sample(plan, 3, 30).time, sample.time)
    assert len(event_parts.sample(plan, 3, n - 1)) == n - 1
    assert len(event_parts.sample(plan, 3, 10 * n)) == n
