"""Missions' conventions: energies, good times, screens bit by bit as their documents say, modes, refusals, bands."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import Header, scan
from lexray.events.missions import (
    MISSIONS,
    GoodTimes,
    Instrument,
    Mission,
    bands_by_mission,
    bands_of,
    mission_of,
    screens,
)

#: What the header of each mission's files says.
HEADERS: dict[str, dict[str, Any]] = {
    "acis": {"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "DETNAM": "ACIS-7"},
    "hrc-i": {"TELESCOP": "CHANDRA", "INSTRUME": "HRC", "DETNAM": "HRC-I"},
    "hrc-s": {"TELESCOP": "CHANDRA", "INSTRUME": "HRC", "DETNAM": "HRC-S"},
    "pn": {"TELESCOP": "XMM", "INSTRUME": "EPN", "DATAMODE": "IMAGING", "SUBMODE": "PrimeFullWindow"},
    "mos1": {"TELESCOP": "XMM", "INSTRUME": "EMOS1", "DATAMODE": "IMAGING"},
    "mos2": {"TELESCOP": "XMM", "INSTRUME": "EMOS2", "DATAMODE": "IMAGING"},
    "nustar": {"TELESCOP": "NuSTAR", "INSTRUME": "FPMB"},
    "nicer": {"TELESCOP": "NICER", "INSTRUME": "XTI"},
    "swift": {"TELESCOP": "SWIFT", "INSTRUME": "XRT", "DATAMODE": "PHOTON"},
    "swift-wt": {"TELESCOP": "SWIFT", "INSTRUME": "XRT", "DATAMODE": "WINDOWED"},
    "erosita": {"TELESCOP": "eROSITA", "INSTRUME": "MERGED"},
}


def _table(columns: list[fits.Column], said: dict[str, Any], name: str = "EVENTS") -> BinaryTable:
    """A table as a mission writes it, read back from its bytes."""
    hdu = fits.BinTableHDU.from_columns(columns, name=name)
    hdu.header.update(said)
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(written)
    content = written.getvalue()
    return BinaryTable(scan(content)[1], content)


def _header(**said: Any) -> Header:
    return _table([fits.Column("TIME", "1D", array=[0.0])], said).header


def _instrument(of: str, **more: Any) -> Instrument:
    header = _header(**{**HEADERS[of], **more})
    return mission_of(header).instrument(header)


def _kept(of: str, table: BinaryTable) -> list[int]:
    """Rows that all screens of an instrument keep which the table has the columns for."""
    keep = np.ones(table.rows, dtype=bool)
    for screen in _instrument(of).screens:
        if screen.column in table:
            keep &= screen.keep(table)
    return [int(row) for row in np.flatnonzero(keep)]


# Energies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "pi", "kev"),
    [
        ("acis", 69, 1.0001),
        ("pn", 1500, 1.5),
        ("mos1", 6400, 6.4),
        ("nustar", 0, 1.6),
        ("nustar", 210, 10.0),
        ("nicer", 675, 6.75),
        ("swift", 150, 1.5),
        ("swift-wt", 150, 1.5),
        ("erosita", 2300, 2.3),
    ],
)
def test_energy_of_a_channel(of: str, pi: float, kev: float) -> None:
    instrument = _instrument(of)
    assert instrument.channels is not None
    assert instrument.kev(np.array([pi], dtype=float)) == pytest.approx([kev])


@settings(deadline=None)
@given(st.floats(0.1, 14.9))
def test_acis_energy_is_within_half_a_channel(kev: float) -> None:
    channel = np.floor(kev / 0.0146) + 1  # as the CIAO dictionary defines PI
    instrument = _instrument("acis")
    assert instrument.channels is not None
    assert abs(instrument.kev(np.array([channel]))[0] - kev) <= 0.0073 + 1e-9


def test_hrc_measures_no_energies_and_knows_one_band_of_chandras() -> None:
    hrc = _instrument("hrc-i")
    assert hrc.channels is None
    assert hrc.bands == _instrument("acis").bands


@pytest.mark.parametrize("of", HEADERS)
def test_default_bands_lie_where_the_instrument_measures(of: str) -> None:
    instrument = _instrument(of)
    low, high = instrument.energy_range
    assert low <= instrument.bands.edges[0] < instrument.bands.edges[-1] <= high


@pytest.mark.parametrize("of", HEADERS)
def test_every_rule_has_its_document(of: str) -> None:
    instrument = _instrument(of)
    for document in (instrument.document, *(screen.document for screen in instrument.screens)):
        assert "https://" in document
    assert bool(instrument.pile_up_document) == np.isfinite(instrument.pile_up_rate)


# Good times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "name", "said", "expected"),
    [
        ("acis", "GTI7", {"CCD_ID": 7}, GoodTimes("GTI", 7)),
        ("acis", "GTI", {"CCD_ID": 0}, GoodTimes("GTI", 0)),
        ("acis", "GTI3", {}, GoodTimes("GTI", 3)),
        ("acis", "GTI", {}, GoodTimes("GTI")),
        ("acis", "REGION", {}, None),
        ("hrc-i", "GTI", {}, GoodTimes("GTI")),
        ("pn", "STDGTI04", {}, GoodTimes("STDGTI", 4)),
        ("mos1", "STDGTI07", {}, GoodTimes("STDGTI", 7)),
        ("pn", "BADPIX04", {}, None),
        ("erosita", "GTI5", {}, GoodTimes("GTI", 5)),
        ("erosita", "FLAREGTI5", {}, GoodTimes("FLAREGTI", 5)),
        ("erosita", "DEADCOR5", {}, None),
        ("nicer", "GTI", {}, GoodTimes("GTI")),
        ("nicer", "GTI_FILT", {}, GoodTimes("GTI_FILT")),
        ("nustar", "GTI", {}, GoodTimes("GTI")),
        ("swift", "STDGTI", {}, GoodTimes("STDGTI")),
        ("swift", "TIMES", {"HDUCLAS1": "GTI"}, GoodTimes("TIMES")),
        ("swift", "BADPIX", {"HDUCLAS1": "BADPIX"}, None),
    ],
)
def test_good_times(of: str, name: str, said: dict[str, Any], expected: GoodTimes | None) -> None:
    assert _instrument(of).good_times(name, _header(**said), _header(**HEADERS[of])) == expected


#: An EPIC list that evselect filtered: two CCDs, each with the intersection of its good times and the filter's.
_SUBSPACE = {
    "DSTYP1": "CCDNR",
    "DSVAL1": "1",
    "2DSVAL1": "4",
    "3DSVAL1": "12:12",
    "DSTYP2": "TIME",
    "DSVAL2": "TABLE",
    "DSREF2": ":GTI00006",
    "2DSREF2": ":GTI00106",
    "3DSREF2": ":GTI00206",
}


@pytest.mark.parametrize(
    ("name", "ccd"), [("GTI00006", 1), ("GTI00106", 4), ("GTI00206", 12), ("GTI00306", None), ("GTI", None)]
)
def test_epic_good_times_of_a_filtered_list_belong_to_the_ccd_of_their_component(name: str, ccd: int | None) -> None:
    events = _header(**HEADERS["pn"], **_SUBSPACE)
    assert _instrument("pn").good_times(name, _header(), events) == GoodTimes("GTI", ccd)


def test_epic_good_times_without_a_subspace_hold_for_all() -> None:
    assert _instrument("pn").good_times("GTI00006", _header(), _header(**HEADERS["pn"])) == GoodTimes("GTI")


@pytest.mark.parametrize(
    ("of", "said", "detector", "fraction"),
    [
        ("acis", {"DTCOR": 0.9}, 7, 0.9),
        ("acis", {"LIVETIME": 80.0, "ONTIME": 160.0}, 7, 0.5),
        ("pn", {"LIVETI04": 60.0, "ONTIME04": 100.0, "LIVETI05": 95.0, "ONTIME05": 100.0}, 4, 0.6),
        ("pn", {"LIVETI04": 60.0, "LIVETIME": 90.0}, 4, 0.6),
        ("pn", {"LIVETI04": 60.0, "LIVETIME": 90.0}, 5, 0.9),
        ("pn", {"LIVETI04": 60.0, "LIVETIME": 90.0, "ONTIME": 120.0}, None, 0.75),
        ("erosita", {"DEADC3": 0.99, "DEADC5": 0.5}, 3, 0.99),
        ("erosita", {"DEADC": 0.8}, 3, 0.8),
        ("swift", {"DEADC": 1.0}, None, 1.0),
        ("nustar", {"DEADC": 0.97, "LIVETIME": 1.0}, None, 0.97),
        ("nustar", {"LIVETIME": 500.0}, None, 1.0),
        ("nicer", {}, None, 1.0),
    ],
)
def test_live_fraction_over_100_s(of: str, said: dict[str, Any], detector: int | None, fraction: float) -> None:
    assert _instrument(of).live_fraction(_header(**said), 100.0, detector) == pytest.approx(fraction)


# Frames and pile-up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "said", "seconds"),
    [
        ("acis", {"TIMEDEL": 3.2}, 3.2),
        ("acis", {}, np.nan),
        ("hrc-i", {"TIMEDEL": 1.6e-5}, np.nan),
        ("pn", {"FRMTIME": 73}, 0.073),
        ("mos1", {"FRMTIME": 2600}, 2.6),
        ("mos2", {"TIMEDEL": 1.0}, np.nan),
        ("swift", {"TIMEDEL": 2.507}, 2.507),
        ("swift", {}, 2.5073),
        ("swift-wt", {}, 1.7791e-3),
        ("erosita", {}, 0.05),
        ("erosita", {"FRAMETIM": 50.0}, 0.05),
        ("nicer", {"TIMEDEL": 4e-8}, np.nan),
        ("nustar", {"TIMEDEL": 1e-4}, np.nan),
    ],
)
def test_length_of_a_frame(of: str, said: dict[str, Any], seconds: float) -> None:
    assert _instrument(of).frame_time(_header(**said)) == pytest.approx(seconds, nan_ok=True)


def test_at_the_pile_up_rate_of_acis_five_per_cent_of_events_are_of_several_photons() -> None:
    rate = _instrument("acis").pile_up_rate
    photons = np.random.default_rng(1).poisson(rate, 2_000_000)
    events = photons[photons > 0]
    assert np.mean(events > 1) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    ("of", "rate", "frame"),
    [("pn", 2.0, 0.0734), ("mos1", 0.5, 2.6), ("swift", 0.5, 2.5073), ("swift-wt", 100, 0.00178)],
)
def test_pile_up_rates_are_the_documents_counts_per_second(of: str, rate: float, frame: float) -> None:
    instrument = _instrument(of)
    assert instrument.piled_up(1.1 * rate * frame)
    assert not instrument.piled_up(0.9 * rate * frame)


def test_telescopes_share_the_photons_that_pile_up() -> None:
    one, all_seven = _instrument("erosita", INSTRUME="TM3"), _instrument("erosita")
    assert one.piled_up(0.3)
    assert not all_seven.piled_up(0.3)
    assert not _instrument("nustar").piled_up(1e9)


# Screens -------------------------------------------------------------------------------------------------------------


def _of_bits(column: str, rows: list[set[int]], width: int, said: dict[str, Any]) -> BinaryTable:
    """Rows with these bits set, counted from the left and from 1, as FITS does."""
    bits = np.array([[n in row for n in range(1, width + 1)] for row in rows])
    return _table([fits.Column(column, f"{width}X", array=bits)], said)


#: Bits that reject an event, counted as the document does: from the left and from 1, or from the right and from 0.
_FROM_LEFT = {
    ("acis", "status", 32): set(range(1, 33)),
    # No trigger (7, 8), shield (13), bad region … (17 to 20), PHA ratio (21), no signal (22), grid ratio (23), ADC sum
    # (24), out of sequence (26), flatness (27, 28), saturation (29, 30), H-test (31, 32); not PI > 255 (25).
    ("hrc-i", "status", 32): {7, 8, 13, *range(17, 25), *range(26, 33)},
    # Of these HRC-S applies neither the PHA-ratio nor the H-test.
    ("hrc-s", "status", 32): {7, 8, 13, *range(17, 21), 22, 23, 24, *range(26, 31)},
    ("swift", "status", 16): set(range(1, 17)),
    ("swift-wt", "status", 16): set(range(1, 17)),
}
_FROM_RIGHT = {
    # Bad, disabled, user's bad pixel (0 to 2), hot pixel (5), cuts in depth, baseline, prior, reset (7 to 11), PI out
    # of range (12), and three that mean nothing.
    ("nustar", "status", 16): {0, 1, 2, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15},
}


@pytest.mark.parametrize(("of", "column", "width"), [*_FROM_LEFT, *_FROM_RIGHT])
def test_status_bit_by_bit(of: str, column: str, width: int) -> None:
    key = (of, column, width)
    rejects = _FROM_LEFT[key] if key in _FROM_LEFT else {width - bit for bit in _FROM_RIGHT[key]}
    table = _of_bits(column, [set(), *({n} for n in range(1, width + 1))], width, HEADERS[of])
    assert _kept(of, table) == [n for n in range(width + 1) if n not in rejects]


def test_nicer_keeps_events_of_the_slow_chain_that_nothing_speaks_against() -> None:
    # From the right: undershoot and overshoot resets and forced triggers (0–2), fast chain (3), slow chain (4).
    flags = {
        "slow": {4},
        "both": {4, 3},
        "fast alone": {3},
        "overshoot": {4, 1},
        "undershoot": {4, 0},
        "forced": {4, 2},
    }
    table = _of_bits("EVENT_FLAGS", [{8 - bit for bit in bits} for bits in flags.values()], 8, HEADERS["nicer"])
    assert _kept("nicer", table) == [0, 1]


@pytest.mark.parametrize(
    ("of", "rejects"),
    [
        ("pn", set(range(32))),
        ("mos1", {13, 15, 16, 17, 19, 21, 22, 25, 26, 28, 29, 30}),  # #XMMEA_EM, 0x766ba000
        ("mos2", {13, 15, 16, 17, 19, 21, 22, 25, 26, 28, 29, 30}),
        ("erosita", {12, 13, 14, 15, 29, 30, 31}),  # 0xE000F000
    ],
)
def test_flag_bit_by_bit(of: str, rejects: set[int]) -> None:
    flags = np.array([0, *(1 << bit for bit in range(32))], dtype=np.uint32).view(np.int32)  # bit 31 reads as negative
    table = _table([fits.Column("FLAG", "1J", array=flags)], HEADERS[of])
    assert _kept(of, table) == [0, *(bit + 1 for bit in range(32) if bit not in rejects)]


@pytest.mark.parametrize(
    ("of", "column", "good"),
    [
        ("acis", "grade", {0, 2, 3, 4, 6}),
        ("pn", "PATTERN", set(range(5))),
        ("mos1", "PATTERN", set(range(13))),
        ("nustar", "GRADE", set(range(27))),
        ("swift", "GRADE", set(range(13))),
        ("swift-wt", "GRADE", set(range(3))),
        ("erosita", "PAT_TYP", {1, 2, 3, 4}),
    ],
)
def test_grades(of: str, column: str, good: set[int]) -> None:
    table = _table([fits.Column(column, "1I", array=np.arange(-5, 40))], HEADERS[of])
    assert {row - 5 for row in _kept(of, table)} == good


def test_erosita_drops_the_pixels_beside_an_events_main_one() -> None:
    table = _table([fits.Column("PI", "1E", array=[1500.0, -1500.0, 300.0, -1.0])], HEADERS["erosita"])
    assert _kept("erosita", table) == [0, 2]


def test_a_screen_says_which_column_it_needs() -> None:
    table = _table([fits.Column("TIME", "1D", array=[1.0, 2.0])], {})
    for of in HEADERS:
        for screen in _instrument(of).screens:
            with pytest.raises(RefusedInput) as refused:
                screen.keep(table)
            assert refused.value.reason == "missing_column"
            assert screen.column == screen.column.lower()
            assert f"'{screen.column}'" in refused.value.detail
            assert screen.cause in {"grade", "flag", "status"}


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=20), st.text("01x", min_size=16, max_size=16))
def test_a_pattern_of_bits_is_compared_sign_by_sign(values: list[int], pattern: str) -> None:
    written = np.array([[sign == "1" for sign in f"{value:016b}"] for value in values])
    table = _table([fits.Column("status", "16X", array=written)], {})
    expected = [all(p in ("x", s) for p, s in zip(pattern, f"{v:016b}", strict=True)) for v in values]
    assert screens.matches("status", pattern)(table).tolist() == expected


def test_a_pattern_is_of_the_lowest_bits() -> None:
    table = _table([fits.Column("status", "1B", array=np.array([0b01000000, 0b00000001, 0b0], dtype=np.uint8))], {})
    assert screens.matches("status", "0000")(table).tolist() == [True, False, True]
    assert screens.matches("status", 32 * "0")(table).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("chandra_test.fits", "chandra/acis"),
        ("ngc300nicer_bary.evt", "nicer/xti"),
        ("J0218_nicer_2070030405_cleanfilt_cut_bary.evt", "nicer/xti"),
        ("monol_testA.evt", "nustar/fpma"),
    ],
)
def test_real_cleaned_files_lose_nothing_to_screens(real_events: Path, name: str, of: str) -> None:
    content = (real_events / name).read_bytes()
    hdus = scan(content)
    (events,) = (BinaryTable(hdu, content) for hdu in hdus if hdu.name == "EVENTS")
    header = events.header.over(hdus[0].header)
    instrument = mission_of(header).instrument(header)
    assert f"{instrument.mission}/{instrument.name}" == of
    applied = [screen for screen in instrument.screens if screen.column in events]
    assert all(np.all(screen.keep(events)) for screen in applied)
    assert len(applied) == (0 if "nustar" in of else 1)


# Which mission, instrument and mode ----------------------------------------------------------------------------------


def _refusal(**said: Any) -> RefusedInput:
    header = _header(**said)
    with pytest.raises(RefusedInput) as refused:
        mission_of(header).instrument(header)
    return refused.value


@pytest.mark.parametrize(
    ("telescope", "instrument", "words"),
    [
        ("GLAST", "LAT", "gamma rays"),
        ("GLAST", "GBM", "GBM"),
        ("XTE", "PCA", "raw modes"),
        ("INTEGRAL", "IBIS", "coded mask"),
        ("AGILE", "GRID", "gamma rays"),
        ("HITOMI", "SXS", "docs/missions.md"),
        ("XRISM", "RESOLVE", "docs/missions.md"),
    ],
)
def test_missions_that_cannot_be_read_are_refused_by_name(telescope: str, instrument: str, words: str) -> None:
    refused = _refusal(TELESCOP=telescope, INSTRUME=instrument)
    assert refused.reason == "unsupported_mission"
    assert words in refused.detail
    assert telescope in refused.detail


@pytest.mark.parametrize("said", [{"TELESCOP": "babasone"}, {}])
def test_unknown_missions_are_not_guessed(said: dict[str, Any]) -> None:
    refused = _refusal(**said)
    assert refused.reason == "unknown_mission"
    assert "CHANDRA" in refused.detail


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"TELESCOP": "XMM", "INSTRUME": "RGS1"}, "unknown_instrument"),
        ({"TELESCOP": "SWIFT", "INSTRUME": "BAT"}, "unknown_instrument"),
        ({"TELESCOP": "CHANDRA"}, "unknown_instrument"),
        ({**HEADERS["pn"], "DATAMODE": "TIMING"}, "unsupported_mode"),
        ({**HEADERS["pn"], "SUBMODE": "FastBurst"}, "unsupported_mode"),
        ({**HEADERS["mos1"], "SUBMODE": "FastUncompressed"}, "unsupported_mode"),
        ({**HEADERS["swift"], "DATAMODE": "PILEDUP"}, "unsupported_mode"),
        ({**HEADERS["swift"], "DATAMODE": "LOWRATE"}, "unsupported_mode"),
    ],
)
def test_instruments_and_modes_that_are_not_read(said: dict[str, Any], reason: str) -> None:
    assert _refusal(**said).reason == reason


def test_telescop_in_any_case() -> None:
    assert {mission_of(_header(TELESCOP=name)).name for name in ("eROSITA", "erosita", "EROSITA")} == {"erosita"}


def test_how_many_of_erositas_telescopes_a_file_holds() -> None:
    assert _instrument("erosita").telescopes == 7
    assert _instrument("erosita", NINST=5).telescopes == 5
    assert _instrument("erosita", INSTRUME="TM6").telescopes == 1
    assert {_instrument("erosita", INSTRUME=f"TM{n}").name for n in range(1, 8)} == {"erosita"}


def test_mission_and_instrument_names_fit_the_registry() -> None:
    for name, mission in MISSIONS.items():
        assert isinstance(mission, Mission)
        assert mission.name == name
        assert {instrument.mission for instrument in mission.instruments.values()} == {name}
        assert mission.telescope == mission.telescope.upper()
        assert all(key == key.upper() for key in mission.instruments)


# Bands ---------------------------------------------------------------------------------------------------------------


def test_the_most_specific_bands_win() -> None:
    chosen = bands_by_mission({"chandra": [0.5, 2, 7], "chandra/hrc": [0.5, 7]})
    assert bands_of(_instrument("hrc-i"), chosen) == Bands((0.5, 7))
    assert bands_of(_instrument("acis"), chosen) == Bands((0.5, 2, 7))
    assert bands_of(_instrument("pn"), chosen) == _instrument("pn").bands


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ({"rosat": [0.5, 2]}, "no mission 'rosat'"),
        ({"xmm/rgs": [0.5, 2]}, "no instrument 'xmm/rgs'; of xmm: pn, mos1, mos2"),
        ({"nustar": [0.5, 2]}, "nustar/fpma measures from 3 to 79 keV"),
        ({"xmm": [0.5, 14]}, "xmm/mos1 measures from 0.15 to 12 keV"),
        ({"nicer": [2, 1]}, "band edges must increase"),
        ({"nicer": [2]}, "two at least"),
    ],
)
def test_bands_that_cannot_be(edges: dict[str, list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bands_by_mission(edges)


def test_what_one_instrument_measures_its_mission_need_not() -> None:
    assert bands_by_mission({"xmm/pn": [0.5, 14]}) == {"xmm/pn": Bands((0.5, 14))}
