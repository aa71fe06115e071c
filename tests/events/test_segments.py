"""Cutting detections into segments: nothing is lost, nothing counts twice, on either clock."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builders import event_list
from event_files import write_event_file
from lexray.errors import RefusedInput
from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.reader import ReadOptions, read
from lexray.events.segments import Segmentation, cut

CLOCKS = ("wall", "good")


def detection(gti: list[tuple[float, float]], times: list[float], around: list[float] | None = None) -> EventList:
    """Events, numbered by their energies so that each can be told from all others, and background events likewise."""
    energies = np.arange(len(times), dtype=np.float32) + 1
    background = None
    if around is not None:
        background = Background(np.sort(around), np.arange(len(around), dtype=np.float32) + 1, 7.5)
    intervals = GoodTimeIntervals(*zip(*gti, strict=True))
    return event_list(
        times,
        energies,
        intervals,
        detection_id="chandra:1:acis:s",
        bands=Bands((0.5, 1e6)),
        exposure=0.9 * intervals.ontime,
        t_ref=5000.0,
        t_ref_mjd=55000.0,
        background=background,
    )


# Eighths of a second are exact, and often meet the segments' edges.
_EIGHTHS = st.integers(0, 800).map(lambda n: n / 8)


@st.composite
def _detections(draw: st.DrawFn) -> EventList:
    bounds = [0.0, *sorted(draw(st.sets(_EIGHTHS.filter(bool), min_size=1, max_size=9)))]
    gti = list(zip(bounds[::2], bounds[1::2], strict=False))
    good = GoodTimeIntervals(*zip(*gti, strict=True))
    instants = st.lists(_EIGHTHS | st.sampled_from(bounds), max_size=40)
    times, around = ([t for t in draw(instants) if good.contains(t)] for _ in range(2))
    return detection(gti, times, around if draw(st.booleans()) else None)


_LENGTHS = st.integers(1, 900).map(lambda n: n / 8) | st.floats(0.3, 200)


@settings(max_examples=300, deadline=None)
@given(_detections(), _LENGTHS, st.sampled_from(CLOCKS))
def test_each_event_and_each_good_second_is_in_exactly_one_segment(whole: EventList, length: float, clock: str) -> None:
    by = Segmentation(length, "wall" if clock == "wall" else "good")
    pieces = cut(whole, by)
    # Energies are the events' numbers, in the order of their times.
    np.testing.assert_array_equal(np.concatenate([piece.energy for piece in pieces]), whole.energy)
    times = np.concatenate([piece.time + (piece.t_ref - whole.t_ref) for piece in pieces])
    np.testing.assert_allclose(times, whole.time, rtol=0, atol=1e-9)
    assert sum(piece.gti.ontime for piece in pieces) == pytest.approx(whole.gti.ontime, rel=1e-12)
    assert sum(piece.exposure for piece in pieces) == pytest.approx(whole.exposure, rel=1e-12)
    if whole.background is None:
        assert all(piece.background is None for piece in pieces)
    else:
        backgrounds = [piece.background for piece in pieces if piece.background is not None]
        assert len(backgrounds) == len(pieces)
        np.testing.assert_array_equal(np.concatenate([b.energy for b in backgrounds]), whole.background.energy)
        assert all(b.scale == whole.background.scale for b in backgrounds)
    for piece in pieces:
        assert piece.gti.start[0] == 0
        assert np.all(piece.gti.contains(piece.time))
        assert piece.background is None or np.all(piece.gti.contains(piece.background.time))
        assert piece.exposure == pytest.approx(0.9 * piece.gti.ontime)
        assert piece.t_ref_mjd == pytest.approx(whole.t_ref_mjd + (piece.t_ref - whole.t_ref) / 86400, abs=1e-10)
        assert (piece.source_id, piece.bands, piece.flags) == (whole.source_id, whole.bands, whole.flags)


@settings(max_examples=300, deadline=None)
@given(_detections(), _LENGTHS)
def test_segments_of_wall_time_are_the_windows_that_their_numbers_say(whole: EventList, length: float) -> None:
    pieces = cut(whole, Segmentation(length, "wall"))
    assert pieces
    for piece in pieces:
        number = int(piece.detection_id.removeprefix("chandra:1:acis:s:s"))
        first = piece.t_ref - whole.t_ref
        assert number * length - 1e-9 <= first < (number + 1) * length + 1e-9
        assert first + piece.duration <= (number + 1) * length + 1e-9
    numbers = [piece.detection_id for piece in pieces]
    assert numbers == sorted(set(numbers))
    # A window that is missing had no good time.
    middles = whole.gti.start + (whole.gti.stop - whole.gti.start) / 2
    said = {int(name[-4:]) for name in numbers}
    assert {int(t // length) for t in middles} - said <= {int(t // length) for t in middles if abs(t % length) < 1e-9}


@settings(max_examples=300, deadline=None)
@given(_detections(), _LENGTHS)
def test_segments_of_good_time_are_all_as_long_but_the_last(whole: EventList, length: float) -> None:
    pieces = cut(whole, Segmentation(length, "good"))
    *full, last = [piece.gti.ontime for piece in pieces]
    np.testing.assert_allclose(full, length, rtol=1e-9)
    assert 0 < last <= length * (1 + 1e-9)
    assert [piece.detection_id[-6:] for piece in pieces] == [f":s{i:04d}" for i in range(len(pieces))]
    for one, next_one in pairwise(pieces):
        assert one.t_ref + one.duration <= next_one.t_ref + 1e-9


@settings(max_examples=100, deadline=None)
@given(_detections(), st.sampled_from(CLOCKS))
def test_a_length_that_nothing_reaches_leaves_one_segment(whole: EventList, clock: str) -> None:
    (only,) = cut(whole, Segmentation(1e5, "wall" if clock == "wall" else "good"))
    assert only.detection_id.endswith(":s0000")
    np.testing.assert_array_equal(only.time, whole.time)
    assert (only.t_ref, only.gti.ontime) == (whole.t_ref, whole.gti.ontime)
    assert only.exposure == pytest.approx(whole.exposure, rel=1e-12)


# Edges ---------------------------------------------------------------------------------------------------------------


def _split(gti: list[tuple[float, float]], times: list[float], by: Segmentation) -> list[tuple[str, list[float]]]:
    pieces = cut(detection(gti, times), by)
    return [(p.detection_id[-4:], (p.time + p.t_ref - 5000).tolist()) for p in pieces]


def test_an_event_on_an_edge_in_good_time_is_the_later_segments() -> None:
    expected = [("0000", [0, 9.5]), ("0001", [10, 19.5]), ("0002", [20, 25])]
    assert _split([(0, 25)], [0, 9.5, 10, 19.5, 20, 25], Segmentation(10, "wall")) == expected
    assert _split([(0, 25)], [0, 9.5, 10, 19.5, 20, 25], Segmentation(10, "good")) == expected


def test_an_event_on_an_edge_at_the_end_of_a_good_time_is_the_earlier_segments() -> None:
    assert _split([(0, 10), (12, 20)], [10, 12], Segmentation(10, "wall")) == [("0000", [10]), ("0001", [12])]
    assert _split([(0, 10), (12, 20)], [10, 12], Segmentation(10, "good")) == [("0000", [10]), ("0001", [12])]


def test_an_event_on_an_edge_where_a_good_time_begins_is_the_later_segments() -> None:
    assert _split([(0, 8), (10, 20)], [8, 10], Segmentation(10, "wall")) == [("0000", [8]), ("0001", [10])]
    # On the clock of good time the segment goes on until 12.
    assert _split([(0, 8), (10, 20)], [8, 10, 12], Segmentation(10, "good")) == [("0000", [8, 10]), ("0001", [12])]


def test_numbers_of_windows_without_good_time_are_left_out() -> None:
    pieces = _split([(0, 5), (31, 35)], [1, 32], Segmentation(10, "wall"))
    assert pieces == [("0000", [1]), ("0003", [32])]
    assert _split([(0, 5), (31, 35)], [1, 32], Segmentation(5, "good")) == [("0000", [1]), ("0001", [32])]


def test_segments_without_events_are_there_too() -> None:
    assert _split([(0, 30)], [25], Segmentation(10, "wall")) == [("0000", []), ("0001", []), ("0002", [25])]


def test_a_remainder_of_rounding_errors_is_no_segment() -> None:
    assert len(cut(detection([(0, 0.1 * 3)], [0.05]), Segmentation(0.1, "wall"))) == 3
    assert len(cut(detection([(0, 0.1), (1, 1.1), (2, 2.1)], [0.05]), Segmentation(0.1, "good"))) == 3


@pytest.mark.parametrize("clock", CLOCKS)
def test_segments_without_number_are_refused_before_memory_goes(clock: str) -> None:
    by = Segmentation(7.0, "wall" if clock == "wall" else "good")
    tracemalloc.start()
    with pytest.raises(RefusedInput, match="142857143 segments of 7 s") as refused:
        cut(detection([(0, 1e9)], [3.0]), by)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert refused.value.reason == "too_many_segments"


# Through the reader --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from(CLOCKS),
    st.sampled_from([3.0, 20.0, 28.8, 1e4]),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_the_account_balances(
    tmp_path_factory: pytest.TempPathFactory, n: int, clock: str, length: float, min_events: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    times = generator.uniform(990, 1110, n)
    columns = {"time": times, "pi": generator.integers(1, 700, n)}
    gti = {"GTI": [(1000, 1030), (1050, 1100)]}
    file = write_event_file(tmp_path_factory.getbasetemp() / "segments.fits", columns=columns, gti=gti)
    kev = (columns["pi"] - 0.5) * 0.0146
    good = ((times >= 1000) & (times <= 1030)) | ((times >= 1050) & (times <= 1100))
    usable = np.sort(times[good & (kev >= 0.5) & (kev <= 7)])
    assume(len(usable))
    by = Segmentation(length, "wall" if clock == "wall" else "good")
    reading = read(file, ReadOptions(segments=by, min_events=min_events))
    assert reading.n_in == n == sum(map(len, reading.detections)) + sum(reading.dropped.values())
    assert tuple(reading.dropped) == CAUSES
    elapsed = usable - 1000
    if clock == "good":
        elapsed = np.where(usable > 1040, elapsed - 20, elapsed)
    counts = np.bincount((elapsed // length).astype(int))
    assert [len(piece) for piece in reading.detections] == [c for c in counts if c >= min_events]
    assert reading.dropped["too_few"] == sum(c for c in counts if c < min_events)
    names = [f"chandra:10027:acis:M82:s{i:04d}" for i, c in enumerate(counts) if c >= min_events]
    assert [piece.detection_id for piece in reading.detections] == names
    assert {piece.file for piece in reading.detections} <= {str(file)}


def test_too_few_events_count_without_segments_too(tmp_path: Path) -> None:
    file = write_event_file(tmp_path / "a.fits")
    reading = read(file, ReadOptions(min_events=11))
    assert (reading.detections, reading.n_in, reading.dropped["too_few"]) == ([], 10, 10)
    assert len(read(file, ReadOptions(min_events=10)).detections) == 1
