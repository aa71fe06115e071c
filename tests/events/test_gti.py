"""Good times by detector, through the reader, against a judgement of each event by itself."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_files import GOOD_PI, write_event_file
from lexray.errors import RefusedInput
from lexray.events.reader import ReadResult, read, read_events

DETECTOR_COLUMN = {"chandra": "ccd_id", "xmm": "ccdnr", "erosita": "tm_nr"}
Intervals = Sequence[tuple[float, float]]


def write(
    path: Path,
    mission: str,
    gti: Mapping[str, Intervals],
    times: Sequence[float],
    detectors: Sequence[int] | None,
    gti_headers: Mapping[str, Mapping[str, Any]] | None = None,
    **header: Any,
) -> Path:
    columns: dict[str, Any] = {"time": np.array(times, dtype=float), "pi": np.full(len(times), GOOD_PI[mission])}
    if detectors is not None:
        columns[DETECTOR_COLUMN[mission]] = np.array(detectors, dtype="i2")
    return write_event_file(path, mission, columns, gti, header, gti_headers=gti_headers)


def kept(reading: ReadResult) -> list[float]:
    """Times of the events that were kept, on the file's own clock."""
    return sorted((reading.events.time + reading.events.t_ref).round(6).tolist())


# Mission by mission --------------------------------------------------------------------------------------------------


def test_chandras_chips_have_their_own_good_times_by_ccd_id(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.fits",
        "chandra",
        # The first one's name has another chip's number: the keyword counts.
        {"GTI2": [(1000, 1050)], "GTI7": [(1040, 1100)]},
        [1010, 1010, 1045, 1045, 1090, 1090, 1090],
        [3, 7, 3, 7, 3, 7, 5],
        gti_headers={"GTI2": {"CCD_ID": 3}, "GTI7": {"CCD_ID": 7}},
    )
    reading = read(file)
    assert kept(reading) == [1010, 1045, 1045, 1090]
    assert reading.dropped["outside_gti"] == 3
    assert reading.events.gti.ontime == 100


def test_a_chip_without_events_observed_no_source(tmp_path: Path) -> None:
    gti = {"GTI3": [(900, 1050)], "GTI7": [(1040, 1100)]}
    events = read_events(write(tmp_path / "a.fits", "chandra", gti, [1045, 1090], [7, 7], DTCOR=0.5))
    assert (events.t_ref, events.gti.ontime, events.exposure) == (1040, 60, 30)


def test_xmms_standard_good_times_are_by_ccd_and_a_flare_filters_for_all(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.fits",
        "xmm",
        {"STDGTI04": [(1000, 1100)], "STDGTI05": [(1000, 1030), (1060, 1100)], "GTI00003": [(1020, 1080)]},
        [1010, 1010, 1025, 1025, 1050, 1050, 1070, 1070, 1090, 1050],
        [4, 5, 4, 5, 4, 5, 4, 5, 4, 6],
        LIVETI04=90.0,
        ONTIME04=100.0,
        LIVETI05=56.0,
        ONTIME05=70.0,
    )
    reading = read(file)
    assert kept(reading) == [1025, 1025, 1050, 1070, 1070]
    assert reading.events.gti.ontime == 60
    # Three events in 60 s of CCD 4 and two in 30 s of CCD 5: 3/7 of the area lies on the one, 4/7 on the other.
    assert reading.events.exposure == pytest.approx(3 / 7 * 60 * 0.9 + 4 / 7 * 30 * 0.8)


def test_a_field_keeps_the_events_of_chips_that_saw_little_of_it(tmp_path: Path) -> None:
    chips = [1] * 50 + [2]
    gti: dict[str, Intervals] = {"STDGTI01": [(1000, 1100)], "STDGTI02": [(1100, 1200)]}
    reading = read(write(tmp_path / "a.fits", "xmm", gti, [*range(1020, 1070), 1150], chips))
    assert kept(reading)[-1] == 1150
    assert reading.events.gti.ontime == 200


@pytest.mark.parametrize(("said", "flagged"), [(100.0, False), (60.0, False), (160.0, False), (130.0, True)])
def test_a_header_may_speak_of_any_chip_but_not_of_another_observation(
    tmp_path: Path, said: float, flagged: bool
) -> None:
    gti: dict[str, Intervals] = {"STDGTI01": [(1000, 1100)], "STDGTI02": [(1100, 1160)]}
    file = write(tmp_path / "a.fits", "xmm", gti, [1020, 1150], [1, 2], ONTIME=said)
    assert ("exposure_mismatch" in read(file).events.flags) is flagged


def test_evselects_good_times_belong_to_the_ccd_of_their_component(tmp_path: Path) -> None:
    subspace = {
        "DSTYP1": "CCDNR", "DSVAL1": "4", "DSTYP2": "TIME", "DSVAL2": "TABLE", "DSREF2": ":GTI00003",
        "2DSVAL1": "5", "2DSREF2": ":GTI00103",
    }  # fmt: skip
    gti = {
        "STDGTI04": [(1000, 1100)],
        "STDGTI05": [(1000, 1100)],
        "GTI00003": [(1000, 1020)],
        "GTI00103": [(1050, 1100)],
    }
    file = write(tmp_path / "a.fits", "xmm", gti, [1010, 1010, 1060, 1060], [4, 5, 4, 5], **subspace)
    assert kept(read(file)) == [1010, 1060]
    assert read(file).events.gti.ontime == 70


def test_erositas_exposure_is_the_mean_over_its_seven_telescopes(tmp_path: Path) -> None:
    starts = {n: 1000 + 5 * n for n in range(1, 8)}
    gti: dict[str, Intervals] = {f"GTI{n}": [(start, 1100)] for n, start in starts.items()}
    gti |= {f"FLAREGTI{n}": [(0, 1080), (1090, 2000)] for n in starts if n != 7}  # module 7 was left out by the filter
    live = {f"DEADC{n}": 0.9 + n / 100 for n in starts}
    times, modules = [1006, 1006, 1085, 1095, 1095], [1, 2, 3, 4, 7]
    reading = read(write(tmp_path / "a.fits", "erosita", gti, times, modules, **live))
    assert kept(reading) == [1006, 1095]
    expected = sum((1080 - starts[n] + 10) * live[f"DEADC{n}"] for n in range(1, 7)) / 7
    assert reading.events.exposure == pytest.approx(expected)
    assert reading.events.gti.ontime == 1080 - starts[1] + 10


@pytest.mark.parametrize("mission", DETECTOR_COLUMN)
def test_without_the_detectors_column_a_time_is_good_if_any_observed(tmp_path: Path, mission: str) -> None:
    name = {"chandra": "GTI", "xmm": "STDGTI0", "erosita": "GTI"}[mission]
    gti = {f"{name}3": [(1000, 1010)], f"{name}7": [(1020, 1030)]}
    reading = read(write(tmp_path / "a.fits", mission, gti, [1005, 1015, 1025], None))
    assert kept(reading) == [1005, 1025]
    assert reading.events.gti.ontime == 20


def test_without_the_detectors_column_no_event_lies_outside_all_detectors_good_times(tmp_path: Path) -> None:
    """Module 1 observed while only module 2's flare filter says so, which is no good time of either."""
    gti = {"GTI1": [(0, 10)], "FLAREGTI1": [(0, 5)], "GTI2": [(20, 30)], "FLAREGTI2": [(0, 30)]}
    events = read_events(write(tmp_path / "a.fits", "erosita", gti, [2, 7, 25], None))
    assert (events.time + events.t_ref).tolist() == [2, 25]
    assert np.all(events.gti.contains(events.time))


@pytest.mark.parametrize(
    ("mission", "gti", "detectors"),
    [
        ("erosita", {"GTI1": [(1000, 1100)], "FLAREGTI2": [(1000, 1100)]}, [1, 2]),
        ("xmm", {"STDGTI04": [(1000, 1010)], "GTI00003": [(1050, 1060)]}, [4, 4]),
        ("chandra", {"GTI3": [(1100, 1000)], "GTI7": []}, [3, 7]),
    ],
)
def test_where_no_detector_has_good_time_the_file_is_refused(
    tmp_path: Path, mission: str, gti: dict[str, Intervals], detectors: list[int]
) -> None:
    with pytest.raises(RefusedInput) as refused:
        read(write(tmp_path / "a.fits", mission, gti, [1005, 1055], detectors))
    assert refused.value.reason == "no_gti"


def test_an_extension_of_no_rows_at_the_files_end_is_no_good_time(tmp_path: Path) -> None:
    file = write(tmp_path / "a.fits", "chandra", {"GTI3": [(1000, 1100)], "GTI7": []}, [1005, 1006], [3, 7])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - len(content) % 2880])
    assert kept(read(file)) == [1005]


# Clocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "start", "stop"),
    [
        ({}, 1000.0, 1100.0),
        ({"MJDREF": 50814.0}, 1000.0, 1100.0),
        ({"MJDREF": 50815.0}, 1000.0 - 86400, 1100.0 - 86400),
        ({"MJDREFI": 50813, "MJDREFF": 0.5}, 1000.0 + 43200, 1100.0 + 43200),
        ({"TIMEZERO": 300.0}, 700.0, 800.0),
        ({"TIMEUNIT": "d"}, 1000.0 / 86400, 1100.0 / 86400),
        ({"TIMEUNIT": "d", "TIMEZERO": 1.0}, 1000.0 / 86400 - 1, 1100.0 / 86400 - 1),
    ],
)
def test_good_times_on_a_clock_of_their_own(tmp_path: Path, own: dict[str, Any], start: float, stop: float) -> None:
    times = [999.9, 1000.1, 1099.9, 1100.1]
    file = write(tmp_path / "a.fits", "chandra", {"GTI": [(start, stop)]}, times, None, gti_headers={"GTI": own})
    reading = read(file)
    assert reading.dropped["outside_gti"] == 2
    assert reading.events.gti.ontime == pytest.approx(100, abs=1e-5)
    np.testing.assert_allclose(reading.events.time, [0.1, 99.9], atol=1e-5)
    assert reading.events.t_ref_mjd == pytest.approx(50814 + 1000 / 86400, abs=1e-9)


def test_good_times_of_a_file_whose_events_have_a_zero_point(tmp_path: Path) -> None:
    """What the extension does not say is as in the events table, its own zero goes before it."""
    for own, start in (({}, 0.0), ({"TIMEZERO": 1000.0}, 0.0), ({"TIMEZERO": 0.0}, 1000.0)):
        gti = {"GTI": [(start, start + 100)]}
        headers = {"GTI": own}
        events = read_events(
            write(tmp_path / "a.fits", "chandra", gti, [5.0], None, gti_headers=headers, TIMEZERO=1000.0)
        )
        assert (events.t_ref, events.time.tolist(), events.gti.ontime) == (1000.0, [5.0], 100.0)


@pytest.mark.parametrize("stop", [1e10, 1e18, 1e300])
def test_good_times_of_a_century_are_damage(tmp_path: Path, stop: float) -> None:
    with pytest.raises(RefusedInput, match="longer than any mission") as refused:
        read(write(tmp_path / "a.fits", "chandra", {"GTI": [(1000, stop)]}, [1005], None))
    assert refused.value.reason == "bad_gti"


# Each event by itself ------------------------------------------------------------------------------------------------

#: Names of extensions of each mission's kinds: for one detector, and for all.
NAMES = {
    "chandra": [("GTI", "GTI{}", None)],
    "xmm": [("STDGTI", "STDGTI{:02d}", "STDGTI"), ("GTI", None, "GTI00003")],
    "erosita": [("GTI", "GTI{}", "GTI"), ("FLAREGTI", "FLAREGTI{}", "FLAREGTI")],
}
# Whole seconds and detectors 1 to 3: few enough that everything meets everything.
_INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(-3, 25)), max_size=3).map(
    lambda pairs: [(float(start), float(start + long)) for start, long in pairs]
)


@st.composite
def _good_times(draw: st.DrawFn) -> tuple[str, dict[str, Intervals], dict[tuple[str, int | None], Intervals]]:
    """A mission, its extensions, and the same by kind and detector."""
    mission = draw(st.sampled_from(list(NAMES)))
    extensions: dict[str, Intervals] = {}
    meaning: dict[tuple[str, int | None], Intervals] = {}
    for kind, of_one, of_all in NAMES[mission]:
        for detector in draw(st.sets(st.sampled_from([None, 1, 2, 3]))):
            pattern = of_all if detector is None else of_one
            if pattern is not None:
                meaning[kind, detector] = extensions[pattern.format(detector)] = draw(_INTERVALS)
    return mission, extensions, meaning


def _is_good(time: float, detector: int, meaning: Mapping[tuple[str, int | None], Intervals]) -> bool:
    """For every kind of good times, one that holds for the detector has the time in an interval.

    Where a file names detectors, one that it does not name never observed.
    """
    named = {whose for _, whose in meaning} - {None}
    return (not named or detector in named) and all(
        any(
            start <= time <= stop and start < stop
            for (of, whose), intervals in meaning.items()
            if of == kind and whose in (None, detector)
            for start, stop in intervals
        )
        for kind in {kind for kind, _ in meaning}
    )


#: Within every second that an interval may cover: all bounds are whole seconds.
_MIDDLES = np.arange(-1, 90) + 0.5


def _seeing(mission: str, good: list[tuple[float, int]], meaning: dict[tuple[str, int | None], Intervals]) -> set[int]:
    """Detectors that saw the source: of telescopes side by side all, of chips those with a tenth of its area."""
    named = {detector for _, detector in meaning if detector is not None}
    if mission == "erosita" or not named:
        return named
    found = {detector for _, detector in good}
    rates = {
        d: sum(of == d for _, of in good) / max(sum(_is_good(t, d, meaning) for t in _MIDDLES), 1e-3) for d in found
    }
    return {d for d, rate in rates.items() if rate >= 0.1 * sum(rates.values())}


@settings(max_examples=100, deadline=None)
@given(
    _good_times(),
    st.lists(st.tuples(st.integers(-4, 360).map(lambda n: n / 4), st.integers(1, 3)), min_size=1, max_size=30),
)
def test_every_event_is_judged_by_its_own_detector(
    good_times: tuple[str, dict[str, Intervals], dict[tuple[str, int | None], Intervals]],
    events: list[tuple[float, int]],
) -> None:
    mission, extensions, meaning = good_times
    good = [(time, detector) for time, detector in events if meaning and _is_good(time, detector, meaning)]
    seeing = _seeing(mission, good, meaning) if meaning else set()
    expected = sorted(t for t, _ in good if not seeing or any(_is_good(t, d, meaning) for d in seeing))
    times, detectors = zip(*events, strict=True)
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder) / "a.fits", mission, extensions, times, detectors)
        try:
            reading = read(file)
        except RefusedInput as refused:
            reason, reading = refused.reason, None
    if reading is None:
        assert expected == []
        assert reason in ({"no_gti"} if not meaning else {"no_gti", "no_events"})
        return
    assert kept(reading) == expected
    assert reading.dropped["outside_gti"] == len(events) - len(expected)
    # The detection's good time is all in which a detector observed that could have seen it.
    observed = [any(_is_good(t, d, meaning) for d in (seeing or {0})) for t in _MIDDLES]
    assert reading.events.gti.ontime == pytest.approx(sum(observed))
    np.testing.assert_array_equal(reading.events.gti.contains(_MIDDLES - reading.events.t_ref), observed)
