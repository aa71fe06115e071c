"""Event lists, good-time intervals and bands: invariants that everything after them counts on."""

from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import event_list
from lexray.events.arrow import from_table, to_table
from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals

times = st.floats(-1e6, 1e6)
intervals = st.lists(st.tuples(times, times), max_size=12).map(
    lambda pairs: GoodTimeIntervals([a for a, _ in pairs], [b for _, b in pairs])
)


@given(intervals)
def test_intervals_are_sorted_disjoint_and_not_empty(gti: GoodTimeIntervals) -> None:
    assert np.all(gti.stop > gti.start)
    assert np.all(gti.start[1:] > gti.stop[:-1])
    assert gti.ontime == pytest.approx(np.sum(gti.stop - gti.start))


@given(st.lists(st.tuples(times, times), max_size=12), times)
def test_merging_keeps_what_was_good(pairs: list[tuple[float, float]], t: float) -> None:
    gti = GoodTimeIntervals([a for a, _ in pairs], [b for _, b in pairs])
    assert bool(gti.contains(t)) == any(a <= t <= b for a, b in pairs if b > a)


@given(intervals, st.lists(times, min_size=2, max_size=20))
def test_exposure_of_cells_adds_up_and_never_exceeds_them(gti: GoodTimeIntervals, edges: list[float]) -> None:
    edges = sorted(edges)
    exposure = gti.exposure(edges)
    tolerance = 1e-9 * max(1.0, gti.ontime)
    assert np.all(exposure >= -tolerance)
    assert np.all(exposure <= np.diff(edges) + 1e-6)
    whole = gti.exposure([min(edges[0], -1e6), max(edges[-1], 1e6)])
    assert whole[0] == pytest.approx(gti.ontime, rel=1e-9, abs=1e-9)
    assert exposure.sum() == pytest.approx(gti.exposure([edges[0], edges[-1]])[0], rel=1e-9, abs=1e-6)


@given(intervals, intervals, times)
def test_an_intersection_is_good_in_both(one: GoodTimeIntervals, other: GoodTimeIntervals, t: float) -> None:
    both = one.intersect(other)
    edges = np.concatenate([one.start, one.stop, other.start, other.stop])
    if t not in edges:
        assert bool(both.contains(t)) == bool(one.contains(t) and other.contains(t))
    assert both.ontime <= min(one.ontime, other.ontime) * (1 + 1e-9)


def test_good_time_stops_in_gaps() -> None:
    gti = GoodTimeIntervals([0, 20], [10, 30])
    assert gti.good_time_before([-1, 0, 4, 10, 15, 20, 25, 99]).tolist() == [0, 0, 4, 10, 10, 10, 15, 20]
    assert gti.shift(5).start.tolist() == [5, 25]
    assert GoodTimeIntervals([], []).contains([1.0]).tolist() == [False]
    assert GoodTimeIntervals([], []).ontime == 0


def test_nothing_good_is_common_to_intervals_that_only_touch() -> None:
    assert len(GoodTimeIntervals([0], [1]).intersect(GoodTimeIntervals([1], [2]))) == 0
    assert len(GoodTimeIntervals([], []).intersect(GoodTimeIntervals([0], [1]))) == 0


def test_not_finite_and_backward_intervals_are_dropped() -> None:
    gti = GoodTimeIntervals([0, 5, np.nan, 9, 1], [2, 4, 7, np.inf, 3])
    assert (gti.start.tolist(), gti.stop.tolist()) == ([0], [3])
    with pytest.raises(ValueError, match="equally long"):
        GoodTimeIntervals([0, 1], [2])


def test_every_event_of_the_range_is_in_one_band() -> None:
    bands = Bands((0.5, 1.2, 2.0, 7.0))
    energy = np.array([0.49, 0.5, 1.1999, 1.2, 1.99, 2.0, 7.0, 7.01, np.nan], dtype=np.float32)
    assert bands.index(energy).tolist() == [-1, 0, 0, 1, 1, 2, 2, -1, -1]
    assert bands.names() == ["0.5–1.2 keV", "1.2–2 keV", "2–7 keV"]
    assert len(bands) == 3


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=6, unique=True), st.floats(0.01, 200))
def test_bands_do_not_overlap(edges: list[float], energy: float) -> None:
    bands = Bands(tuple(sorted(edges)))
    e = np.float32(energy)
    held = np.asarray(sorted(edges), dtype=np.float32)
    found = int(bands.index(e))
    inside = bool(held[0] <= e <= held[-1])
    assert (found >= 0) == inside
    if inside:
        assert held[found] <= e <= held[found + 1]


@pytest.mark.parametrize("edges", [(1.0,), (2.0, 1.0), (1.0, 1.0)])
def test_bands_must_increase(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must increase"):
        Bands(edges)


def events(**changes: object) -> EventList:
    given = event_list(
        [0.25, 1.5, 21.125],
        [0.6, 1.3, 6.0],
        GoodTimeIntervals([0, 20], [10, 30]),
        detection_id="chandra:1:acis:a",
        source_id="a",
        exposure=18.5,
        mission="chandra",
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def test_a_table_gives_back_the_same_event_lists() -> None:
    full = events(
        ra=10.5,
        dec=-3.25,
        t_ref=1e8,
        t_ref_mjd=51000.5,
        timesys="TT",
        frame_time=0.5,
        area=(100.0, 200.0, 50.0),
        background=Background(np.array([3.0]), np.array([1.0], dtype=np.float32), 8.0),
        flags=("overflow",),
        file="a.fits",
        sha256="0" * 64,
    )
    bare = events(detection_id="b", time=np.array([]), energy=np.array([], dtype=np.float32))

    for before, after in zip([full, bare], from_table(to_table([full, bare])), strict=True):
        for name in EventList.__dataclass_fields__:
            one, other = getattr(before, name), getattr(after, name)
            if name in ("gti", "background") and one is not None:
                one, other = asdict(one), asdict(other)
            np.testing.assert_equal(other, one, err_msg=name)
        assert after.energy.dtype == np.float32
    assert to_table([full, bare])["ontime"].to_pylist() == [20.0, 20.0]


def test_chunked_tables_are_read_row_by_row() -> None:
    rows = pa.concat_tables([to_table([events(detection_id=f"d{i}")]) for i in range(3)])
    assert [e.detection_id for e in from_table(rows)] == ["d0", "d1", "d2"]
    assert all(len(e) == 3 for e in from_table(rows))


def test_times_must_be_sorted_and_as_many_as_energies() -> None:
    with pytest.raises(ValueError, match="not sorted"):
        events(time=np.array([1.0, 0.5, 2.0]))
    with pytest.raises(ValueError, match="equally long"):
        events(time=np.array([1.0]))


def test_what_an_event_list_says_of_itself() -> None:
    e = events()
    assert e.duration == 30
    assert e.band.tolist() == [0, 1, 2]
    assert e.hardness_ratio(0, 2) == 0  # one count each
    assert events(time=np.array([]), energy=np.array([], dtype=np.float32)).hardness_ratio(0, 2) == 0
    assert e.hardness_ratio(1, 2) == -e.hardness_ratio(2, 1)
