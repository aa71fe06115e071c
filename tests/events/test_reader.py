"""Reading event files: missions' conventions, accounting of events, refusals."""

import gzip
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.time import Time, TimeDelta
from hypothesis import given, settings
from hypothesis import strategies as st

import lexray
from event_files import with_keyword, write_event_file
from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands, EventList, GoodTimeIntervals
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.reader import ReadResult, read, read_events

CHANNEL_KEV = 0.0146


# Real files ----------------------------------------------------------------------------------------------------------


def test_real_chandra_field(real_events: Path) -> None:
    events = lexray.read_events(real_events / "chandra_test.fits")
    assert events.detection_id == "chandra:10027:acis:M82"
    assert events.source_id == "M82"
    assert set(events.flags) == {"whole_field", "overflow", "exposure_mismatch"}
    assert events.gti.ontime == pytest.approx(945.336, abs=1e-3)
    assert events.exposure == pytest.approx(events.gti.ontime * 0.90694721567205)
    assert events.frame_time == pytest.approx(0.44104)
    assert (events.ra, events.dec) == (148.959167, 69.679722)
    assert (events.timesys, events.timeref) == ("TT", "local")


def test_energy_from_pi_is_the_energy_column_within_a_channel(real_events: Path) -> None:
    given_energy, from_pi = (read_events(real_events / f"chandra_{kind}.fits") for kind in ("test", "noener_test"))
    np.testing.assert_array_equal(given_energy.time, from_pi.time)
    assert np.max(np.abs(given_energy.energy - from_pi.energy)) <= CHANNEL_KEV


def test_real_overflow_is_dropped_though_energy_is_given(real_events: Path) -> None:
    assert read(real_events / "chandra_test.fits").dropped["overflow"] == 202


@pytest.mark.parametrize(
    ("name", "detection_id", "n_gti", "ontime"),
    [
        ("ngc300nicer_bary.evt", "nicer:1034200101:xti:NGC_300_ULX1", 8, 1535.924),
        ("J0218_nicer_2070030405_cleanfilt_cut_bary.evt", "nicer:2070030405:xti:PSR_J0218+4232", 42, 6724.435),
        ("monol_testA.evt", "nustar:00000000001:fpma:Fake X-1", 1, 1025.0),
    ],
)
def test_real_barycentred_files(real_events: Path, name: str, detection_id: str, n_gti: int, ontime: float) -> None:
    events = read_events(real_events / name)
    assert events.detection_id == detection_id
    assert len(events.gti) == n_gti
    assert events.gti.start[0] == 0
    assert events.exposure == pytest.approx(ontime, abs=1e-3)
    assert (events.timesys, events.timeref) == ("TDB", "barycentred")
    assert np.isnan(events.frame_time)


def test_reference_time_is_astropys(real_events: Path) -> None:
    events = read_events(real_events / "ngc300nicer_bary.evt")
    reference = Time(56658, 0.000777592592592593, format="mjd", scale="tdb") + TimeDelta(events.t_ref, format="sec")
    assert events.t_ref_mjd == pytest.approx(reference.mjd, abs=2e-11)  # an MJD in double precision is good to 1 µs


@pytest.mark.parametrize("scale", ["TT", "TDB", "TAI", "UTC"])
def test_a_day_with_a_leap_second_is_as_long_as_astropy_says(tmp_path: Path, scale: str) -> None:
    """From the beginning of 31 December 2016, whose last minute had 61 s in UTC, to 12:00 of the next day."""
    begin = 36 * 3600.0
    columns = {"time": [begin + 1.0], "pi": [100]}
    header = {"TIMESYS": scale, "MJDREF": 57753.0}
    gti = {"GTI": [(begin, begin + 9)]}
    events = read_events(write_event_file(tmp_path / "a.fits", "chandra", columns, gti, header))
    expected = Time(57753.0, format="mjd", scale=scale.lower()) + TimeDelta(begin, format="sec")
    assert events.t_ref_mjd == pytest.approx(expected.mjd, abs=1e-9)
    assert (events.t_ref_mjd == 57754.5) is (scale != "UTC")


def test_unknown_mission_is_never_guessed_at(real_events: Path) -> None:
    with pytest.raises(RefusedInput, match="babasone") as refused:
        read_events(real_events / "nomission.evt")
    assert refused.value.reason == "unknown_mission"


# Conventions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mission", "pi", "kev"),
    [("chandra", 69, 1.0001), ("nicer", 675, 6.75), ("nustar", 210, 10.0), ("nustar", 35, 3.0), ("nicer", 50, 0.5)],
)
def test_energy_of_a_channel(tmp_path: Path, mission: str, pi: int, kev: float) -> None:
    file = write_event_file(tmp_path / "a.evt", mission, {"TIME": [1001.0], "PI": [pi]})
    assert read_events(file).energy == pytest.approx([kev])


@pytest.mark.parametrize(("unit", "value"), [("eV", 1500.0), ("keV", 1.5), ("", 1500.0)])
def test_energy_column_goes_before_pi_and_keeps_its_unit(tmp_path: Path, unit: str, value: float) -> None:
    columns = {"time": [1001.0], "energy": [value], "pi": [400]}
    file = write_event_file(tmp_path / "a.fits", columns=columns, units={"energy": unit})
    assert read_events(file).energy == pytest.approx([1.5])


@pytest.mark.parametrize(
    ("time", "pi", "gti", "table"), [("TIME", "PI", "GTI", "EVENTS"), ("Time", "Pi", "gti", "Events")]
)
def test_names_in_any_case(tmp_path: Path, time: str, pi: str, gti: str, table: str) -> None:
    file = write_event_file(
        tmp_path / "a.fits", columns={time: [1001.0], pi: [100]}, gti={gti: [(1000, 1010)]}, extension=table
    )
    assert len(read_events(file)) == 1


def test_null_values_of_integer_columns_are_no_energies(tmp_path: Path) -> None:
    columns = {"TIME": [1001.0, 1002.0], "PI": np.array([150, -32768], dtype="i2")}
    file = write_event_file(tmp_path / "a.evt", "nicer", columns, header={"TNULL2": -32768})
    assert read(file).dropped["invalid_energy"] == 1


@pytest.mark.parametrize(
    ("gti", "expected"),
    [
        ({"GTI": [(1050, 1060), (1000, 1020), (1010, 1030), (1040, 1035)]}, [(0, 30), (50, 60)]),
        ({"GTI3": [(1000, 1020)], "GTI7": [(1010, 1040)]}, [(0, 40)]),
        ({"STDGTI": [(1000, 1100)], "GTI": [(990, 1010), (1090, 1200)]}, [(0, 10), (90, 100)]),
    ],
    ids=["overlapping and backward", "one kind is merged", "kinds are intersected"],
)
def test_good_times(tmp_path: Path, gti: dict[str, Any], expected: list[tuple[float, float]]) -> None:
    events = read_events(write_event_file(tmp_path / "a.fits", gti=gti))
    assert list(zip(events.gti.start, events.gti.stop, strict=True)) == expected
    assert events.t_ref == 1000


def test_time_zero_and_unit_of_days(tmp_path: Path) -> None:
    file = write_event_file(
        tmp_path / "a.fits",
        columns={"time": [1.5], "pi": [100]},
        gti={"GTI": [(1.0, 2.0)]},
        header={"TIMEUNIT": "d", "TIMEZERO": 10.0},
    )
    events = read_events(file)
    assert events.time == pytest.approx([43200.0])
    assert events.t_ref_mjd == pytest.approx(50814.0 + 11.0)


@pytest.mark.parametrize(
    ("mission", "header", "fraction"),
    [
        ("chandra", {"DTCOR": 0.9}, 0.9),
        ("chandra", {"DTCOR": None, "ONTIME": 200.0, "LIVETIME": 150.0}, 0.75),
        ("chandra", {"DTCOR": 0.0}, 1.0),
        ("nustar", {"LIVETIME": 80.0}, 0.8),
        ("nustar", {"LIVETIME": 500.0}, 1.0),
        ("nicer", {}, 1.0),
    ],
)
def test_exposure_is_good_time_times_live_fraction(
    tmp_path: Path, mission: str, header: dict[str, Any], fraction: float
) -> None:
    events = read_events(write_event_file(tmp_path / "a.fits", mission, header=header))
    assert events.exposure == pytest.approx(100.0 * fraction)


@pytest.mark.parametrize(("said", "flagged"), [(90.0, False), (94.0, False), (80.0, True), (18279.0, True)])
def test_a_header_that_contradicts_the_good_times_is_flagged(tmp_path: Path, said: float, flagged: bool) -> None:
    events = read_events(write_event_file(tmp_path / "a.fits", header={"EXPOSURE": said}))
    assert ("exposure_mismatch" in events.flags) is flagged
    assert events.exposure == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("mission", "header", "source_id", "flags", "position"),
    [
        (
            "chandra",
            {"TIMEDEL": 0.4, "SRCNAME": "2CXO J0955", "RA_TARG": 1.0, "DEC_TARG": 2.0},
            "2CXO J0955",
            (),
            (1.0, 2.0),
        ),
        ("chandra", {"TIMEDEL": 0.4, "SOURCE": "X41.4+60"}, "X41.4+60", (), (148.9, 69.6)),
        ("chandra", {}, "M82", ("whole_field",), (148.9, 69.6)),
        ("chandra", {"OBJECT": None}, "acis_evt2", ("whole_field",), (148.9, 69.6)),
        ("nicer", {}, "NGC_300_ULX1", (), (13.77, -37.69)),
        ("nicer", {"OBJECT": None}, "J005504.8-374124", (), (13.77, -37.69)),
        ("nustar", {"RA_OBJ": 0.0, "DEC_OBJ": 0.0}, "Fake X-1", ("whole_field",), (np.nan, np.nan)),
    ],
)
def test_what_a_source_is_called(
    tmp_path: Path,
    mission: str,
    header: dict[str, Any],
    source_id: str,
    flags: tuple[str, ...],
    position: tuple[float, float],
) -> None:
    events = read_events(write_event_file(tmp_path / "acis_evt2.fits", mission, header=header))
    assert (events.source_id, events.flags) == (source_id, flags)
    np.testing.assert_equal((events.ra, events.dec), position)


def test_bands_of_ones_own(tmp_path: Path) -> None:
    file = write_event_file(tmp_path / "a.fits", columns={"time": [1001.0, 1002.0], "pi": [100, 400]})
    events = read_events(file, bands={"chandra": Bands((1.0, 2.0))})
    assert events.bands == Bands((1.0, 2.0))
    assert len(events) == 1


def test_gzip_reads_the_same(tmp_path: Path) -> None:
    plain = write_event_file(tmp_path / "a.fits")
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    a, b = read_events(plain), read_events(packed)
    np.testing.assert_array_equal(a.time, b.time)
    np.testing.assert_array_equal(a.energy, b.energy)


def test_importing_lexray_is_light() -> None:
    heavy = "import lexray, sys; sys.exit(bool({'torch', 'ray', 'fitsio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0


# Events that are broken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "cause", "n"),
    [
        ({"time": [np.nan, np.inf, -np.inf, 1001.0], "pi": [100] * 4}, "invalid_time", 3),
        ({"time": [-5.0, -1e300, 1001.0], "pi": [100] * 3}, "outside_gti", 2),
        ({"time": [1001.0] * 6, "energy": [np.nan, np.inf, -np.inf, -1500.0, 0.0, 1500.0]}, "invalid_energy", 5),
        ({"time": [1001.0] * 3, "energy": [1e300, 1e-300, 1500.0]}, "invalid_energy", 2),
        ({"time": [1001.0] * 3, "energy": [1e30, 9000.0, 1500.0]}, "outside_band", 2),
        ({"time": [1001.0] * 4, "pi": np.array([0, -7, -32768, 100], "i2")}, "invalid_energy", 3),
        ({"time": [1001.0] * 3, "pi": [1024, 1024, 100]}, "overflow", 2),
        # A cause that comes before another takes the event.
        ({"time": [np.nan, 0.0, 1001.0], "energy": [np.nan, 9000.0, 1500.0]}, "invalid_time", 1),
        ({"time": [0.0, 1001.0], "energy": [np.nan, 1500.0]}, "invalid_energy", 1),
        ({"time": [0.0, 1001.0], "energy": [9000.0, 1500.0]}, "outside_gti", 1),
    ],
)
def test_values_that_are_none_are_counted_and_left_out(
    tmp_path: Path, columns: dict[str, Any], cause: str, n: int
) -> None:
    reading = read(write_event_file(tmp_path / "a.fits", columns=columns))
    assert reading.dropped[cause] == n
    assert reading.n_in == len(columns["time"]) == sum(reading.dropped.values()) + 1
    assert reading.events.time.tolist() == [1.0]


@given(st.permutations(range(12)))
def test_unsorted_times_are_sorted_with_their_energies_and_counted(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    times, pi = 1000.0 + np.array(order), 100 + np.array(order)
    file = write_event_file(tmp_path_factory.getbasetemp() / "unsorted.fits", columns={"time": times, "pi": pi})
    reading = read(file)
    assert reading.events.time.tolist() == list(range(12))
    np.testing.assert_allclose(reading.events.energy, (np.arange(100, 112) - 0.5) * CHANNEL_KEV, rtol=1e-6)
    assert reading.unsorted == sum(order[i + 1] < order[i] for i in range(11))
    assert ("unsorted" in reading.events.flags) == (reading.unsorted > 0)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_an_event_without_a_time_hides_no_disorder(tmp_path: Path, missing: float) -> None:
    """Found by a property test: neither neighbour of a NaN is smaller than it, and the file was lost."""
    file = write_event_file(tmp_path / "a.fits", columns={"time": [1010.0, missing, 1005.0], "pi": [100, 200, 300]})
    reading = read(file)
    assert reading.events.time.tolist() == [5.0, 10.0]
    np.testing.assert_allclose(reading.events.energy, (np.array([300, 100]) - 0.5) * CHANNEL_KEV, rtol=1e-6)
    assert (reading.unsorted, reading.dropped["invalid_time"]) == (1, 1)
    assert "unsorted" in reading.events.flags


def test_events_of_one_frame_stay_in_the_files_order(tmp_path: Path) -> None:
    columns = {"time": [1002.0, 1001.0, 1001.0, 1001.0], "pi": [100, 300, 200, 250]}
    events = read_events(write_event_file(tmp_path / "a.fits", columns=columns))
    np.testing.assert_allclose(events.energy, (np.array([300, 200, 250, 100]) - 0.5) * CHANNEL_KEV, rtol=1e-6)


@pytest.mark.parametrize(("key", "value"), [("OBI_NUM", "1E999"), ("TIMEDEL", "1E999"), ("DTCOR", "NaN")])
def test_keywords_that_are_no_finite_number_are_as_if_absent(tmp_path: Path, key: str, value: str) -> None:
    content = write_event_file(tmp_path / "a.fits", header={key: 0.5}).read_bytes()
    (tmp_path / "a.fits").write_bytes(with_keyword(key, value)(content))
    absent = read_events(write_event_file(tmp_path / "b.fits", header={key: None}))
    broken = read_events(tmp_path / "a.fits")
    assert broken.detection_id == absent.detection_id
    np.testing.assert_equal(
        (broken.exposure, broken.frame_time, broken.counts_per_frame),
        (absent.exposure, absent.frame_time, absent.counts_per_frame),
    )


@pytest.mark.parametrize(("mjdref", "mjd"), [(None, np.nan), (1e12, 1e12 + 1000 / 86400), (0.0, 1000 / 86400)])
def test_a_reference_that_no_calendar_has_is_taken_as_it_is(tmp_path: Path, mjdref: float | None, mjd: float) -> None:
    events = read_events(write_event_file(tmp_path / "a.fits", header={"MJDREF": mjdref, "TIMESYS": "UTC"}))
    np.testing.assert_equal(events.t_ref_mjd, mjd)


def test_good_times_that_hold_no_event_are_observed_all_the_same(tmp_path: Path) -> None:
    events = read_events(write_event_file(tmp_path / "a.fits", gti={"GTI": [(500, 600), (1000, 1100), (2000, 2050)]}))
    assert events.gti.ontime == 250
    assert events.t_ref == 500


@pytest.mark.parametrize("rows", [10**12, 2**63, 10**29])
@pytest.mark.parametrize("columns", [{"time": [1001.0], "pi": [100]}, None])
def test_rows_that_are_not_there_take_no_memory(tmp_path: Path, rows: int, columns: dict[str, Any] | None) -> None:
    file = write_event_file(tmp_path / "a.fits", columns=columns)
    content = file.read_bytes()
    file.write_bytes(with_keyword("NAXIS2", rows)(content).ljust(100_000, b"\0"))
    assert file.read_bytes()[: len(content)] != content
    tracemalloc.start()
    with pytest.raises(RefusedInput) as refused:
        read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason in {"truncated", "bad_structure"}
    assert peak < 2e6


def test_rows_of_no_width_take_no_memory_either(tmp_path: Path) -> None:
    content = write_event_file(tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(with_keyword("NAXIS1", 0)(with_keyword("NAXIS2", 10**12)(content)))
    with pytest.raises(RefusedInput) as refused:
        read(tmp_path / "a.fits")
    assert refused.value.reason == "bad_structure"


# Accounting ----------------------------------------------------------------------------------------------------------

# In steps of 1/64 s, which stay exact when a zero point is added: no event moves over an interval's end.
_TICKS = st.integers(-640, 70_000).map(lambda n: n / 64)
_LENGTHS = st.integers(1, 6400).map(lambda n: n / 64)
_INTERVALS = st.lists(st.builds(lambda start, long: (start, start + long), _TICKS, _LENGTHS), min_size=1, max_size=4)
_EVENT = st.tuples(_TICKS | st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(-5, 2000))
_KEV = {"chandra": lambda pi: (pi - 0.5) * 0.0146, "nicer": lambda pi: pi * 0.01, "nustar": lambda pi: pi * 0.04 + 1.6}
_RANGE = {"chandra": (0.5, 7.0), "nicer": (0.5, 7.0), "nustar": (3.0, 79.0)}


def _is_kept(mission: str, time: float, pi: int, gti: list[tuple[float, float]]) -> bool:
    """What the reader should do with one event, said again in the simplest words."""
    low, high = _RANGE[mission]
    in_band = low - 1e-6 <= _KEV[mission](pi) <= high + 1e-6 and not (mission == "chandra" and pi == 1024)
    return in_band and any(start <= time <= stop for start, stop in gti)


def _read_or_reason(file: Path) -> ReadResult | str:
    try:
        return read(file)
    except RefusedInput as refused:
        return refused.reason


@settings(max_examples=150, deadline=None)
@given(
    mission=st.sampled_from(list(_KEV)),
    events=st.lists(_EVENT, min_size=1, max_size=50),
    gti=_INTERVALS,
    zero=st.sampled_from([0, -1, 300_000_000]),
)
def test_every_event_is_kept_or_counted_once(
    mission: str, events: list[tuple[float, int]], gti: list[tuple[float, float]], zero: int
) -> None:
    times, channels = (np.array(values) for values in zip(*events, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.evt"
        write_event_file(file, mission, {"TIME": times, "PI": channels}, {"GTI": gti}, {"TIMEZERO": zero})
        reading = _read_or_reason(file)
    expected = sorted(time for time, pi in events if _is_kept(mission, time, pi, gti))
    if isinstance(reading, str):
        assert (reading, expected) == ("no_events", [])
        return
    kept = reading.events
    assert reading.n_in == len(events) == len(kept) + sum(reading.dropped.values())
    assert tuple(reading.dropped) == CAUSES
    assert reading.dropped["invalid_time"] == np.count_nonzero(~np.isfinite(times))
    np.testing.assert_allclose(kept.time + kept.t_ref - zero, expected, rtol=0, atol=2e-7)
    assert np.all(np.diff(kept.time) >= 0)
    assert np.all(kept.band >= 0)
    assert np.all(kept.gti.contains(kept.time))
    assert kept.gti.ontime == pytest.approx(GoodTimeIntervals(*zip(*gti, strict=True)).ontime, rel=1e-6)


# Refusals ------------------------------------------------------------------------------------------------------------

Maker = Callable[[Path], Path]


def _bytes(change: Callable[[bytes], bytes]) -> Maker:
    def make(path: Path) -> Path:
        path.write_bytes(change(write_event_file(path).read_bytes()))
        return path

    return make


def _file(**arguments: Any) -> Maker:
    return lambda path: write_event_file(path, **arguments)


REFUSALS: dict[str, tuple[str, Maker]] = {
    "missing file": ("no_such_file", lambda path: path),
    "no bytes": ("empty_file", _bytes(lambda content: b"")),
    "text": ("not_fits", _bytes(lambda content: b"time,energy\n1,2\n" * 500)),
    "short text": ("not_fits", _bytes(lambda content: b"hello")),
    "ends in the first header": ("truncated", _bytes(lambda content: content[:200])),
    "ends in the table's header": ("truncated", _bytes(lambda content: content[:4000])),
    "ends in the table": (
        "truncated",
        _bytes(lambda content: content[: content.index(b"END ", 2880) // 2880 * 2880 + 2900]),
    ),
    "ends in the gzip stream": ("truncated", _bytes(lambda content: gzip.compress(content)[:-200])),
    "damaged gzip": ("bad_gzip", _bytes(lambda content: gzip.compress(content)[:10] + b"\xff" * 500)),
    "claims 10^12 rows": ("truncated", _bytes(with_keyword("NAXIS2", 10**12))),
    "claims rows less than none": ("bad_structure", _bytes(with_keyword("NAXIS2", -1000))),
    "rows that are no number": ("bad_structure", _bytes(with_keyword("NAXIS2", "ten"))),
    "no events extension": ("no_events_table", _file(extension="PHOTONS")),
    "unknown mission": ("unknown_mission", _file(header={"TELESCOP": "babasone"})),
    "no mission": ("unknown_mission", _file(header={"TELESCOP": None})),
    "an instrument without energies": ("no_energies", _file(header={"INSTRUME": "HRC"})),
    "an unknown instrument": ("unknown_instrument", _file(header={"INSTRUME": "HETG"})),
    "no rows": ("no_events", _file(columns={"time": np.zeros(0), "pi": np.zeros(0, int)})),
    "all outside the good times": ("no_events", _file(gti={"GTI": [(0, 10)]})),
    "all outside the bands": ("no_events", _file(columns={"time": [1001.0], "pi": [5]})),
    "no good times": ("no_gti", _file(gti={})),
    "empty good times": ("no_gti", _file(gti={"GTI": [(1000, 1000), (30, 20)]})),
    "good times that never meet": ("no_gti", _file(gti={"GTI": [(1000, 1010)], "STDGTI": [(1020, 1030)]})),
    "no time": ("missing_column", _file(columns={"when": [1001.0], "pi": [100]})),
    "neither energy nor PI": ("missing_column", _file(columns={"time": [1001.0], "pha": [100]})),
    "time is text": ("bad_column", _file(columns={"time": ["noon"], "pi": [100]})),
    "several times a row": ("bad_column", _file(columns={"time": np.ones((3, 2)), "pi": [100] * 3})),
    "energy in joule": ("bad_unit", _file(columns={"time": [1001.0], "energy": [1.0]}, units={"energy": "J"})),
    "Fermi LAT": ("unsupported_mission", _file(header={"TELESCOP": "GLAST", "INSTRUME": "LAT"})),
    "RXTE": ("unsupported_mission", _file(header={"TELESCOP": "XTE", "INSTRUME": "PCA"})),
    "good times of a century": ("bad_gti", _file(gti={"GTI": [(1000, 1e18)]})),
    "grades of 64 bits": (
        "bad_column",
        _file(columns={"time": [1001.0], "pi": [100], "grade": np.array([2**63], "u8")}),
    ),
    "time in years": ("bad_unit", _file(header={"TIMEUNIT": "yr"})),
}


@pytest.mark.parametrize(("reason", "make"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_has_its_own_reason(tmp_path: Path, reason: str, make: Maker) -> None:
    with pytest.raises(RefusedInput) as refused:
        read_events(make(tmp_path / "a.fits"))
    assert refused.value.reason == reason
    assert refused.value.detail


def test_where_all_events_are_dropped_the_causes_are_named(tmp_path: Path) -> None:
    file = write_event_file(tmp_path / "a.fits", columns={"time": [1001.0, 0.0], "pi": [1024, 100]})
    with pytest.raises(RefusedInput, match="1 overflow, 1 outside_gti"):
        read_events(file)


def _same(a: EventList, b: EventList) -> bool:
    return np.array_equal(a.time, b.time) and np.array_equal(a.energy, b.energy) and a.exposure == b.exposure


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path, packed: bool) -> None:
    whole = write_event_file(tmp_path / "whole.fits", gti={"GTI": [(1000.0, 1100.0)]})
    content = gzip.compress(whole.read_bytes()) if packed else whole.read_bytes()
    expected, cut = read_events(whole), tmp_path / "cut.fits"
    for length in range(0, len(content), max(1, len(content) // 200)):
        cut.write_bytes(content[:length])
        found = _read_or_reason(cut)
        if isinstance(found, ReadResult):
            assert _same(found.events, expected)  # only padding was missing
        else:
            assert found in {"empty_file", "not_fits", "truncated", "no_gti", "no_events_table", "unreadable"}
