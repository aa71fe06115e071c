"""Effective area by band: closed forms, ARFs, and what missions' documents say of their telescopes."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import assume, given
from hypothesis import strategies as st

from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.extraction.effective_area import PHOTON_INDEX, arf_area, band_area, nominal_area
from lexray.events.fits.headers import scan
from lexray.events.missions import Instrument, mission_of

SOFT = Bands((0.5, 1.2, 2.0, 7.0))
_EPOCH = 57000.0

_EDGES = st.lists(st.floats(0.1, 20.0), min_size=2, max_size=6, unique=True).map(sorted)
_AREAS = st.lists(st.floats(0.0, 2000.0), min_size=3, max_size=30)


# Means over bands ----------------------------------------------------------------------------------------------------


@given(_EDGES, st.floats(0.0, 1e4), st.integers(1, 50))
def test_a_flat_curve_gives_itself(edges: list[float], area: float, n_bins: int) -> None:
    assume(np.all(np.diff(edges) > 1e-3))
    bounds = np.linspace(0.05, 25.0, n_bins + 1)
    found = band_area(bounds[:-1], bounds[1:], np.full(n_bins, area), Bands(tuple(edges)))
    assert found == pytest.approx((area,) * (len(edges) - 1), rel=1e-9)


def test_an_area_that_grows_with_energy_gives_the_power_laws_mean_energy() -> None:
    bounds = np.geomspace(0.3, 12.0, 20_001)
    found = band_area(bounds[:-1], bounds[1:], (bounds[:-1] + bounds[1:]) / 2, SOFT)

    def moment(power: float, low: float, high: float) -> float:
        return float((high ** (power + 1) - low ** (power + 1)) / (power + 1))

    expected = [
        moment(1 - PHOTON_INDEX, low, high) / moment(-PHOTON_INDEX, low, high)
        for low, high in zip(SOFT.edges, SOFT.edges[1:], strict=False)
    ]
    assert found == pytest.approx(expected, rel=1e-6)


@given(_AREAS)
def test_the_mean_over_a_band_is_that_over_photons_drawn_from_it(areas: list[float]) -> None:
    bounds = np.linspace(0.5, 2.0, len(areas) + 1)
    share = (np.arange(20_000) + 0.5) / 20_000
    power = 1 - PHOTON_INDEX
    energies = (0.5**power + share * (2.0**power - 0.5**power)) ** (
        1 / power
    )  # evenly spaced in the law's distribution
    seen = np.array(areas)[np.searchsorted(bounds, energies, side="right") - 1]
    (found,) = band_area(bounds[:-1], bounds[1:], areas, Bands((0.5, 2.0)))
    assert found == pytest.approx(seen.mean(), rel=1e-3, abs=0.2)
    assert min(areas) - 1e-9 <= found <= max(areas) + 1e-9


def test_where_the_curve_ends_the_area_is_none() -> None:
    found = band_area([1.0], [2.0], [100.0], Bands((0.5, 1.0, 2.0, 4.0)))
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(100.0)
    (half,) = band_area([1.0], [2.0], [100.0], Bands((1.0, 4.0)))
    power = 1 - PHOTON_INDEX
    assert half == pytest.approx(100 * (1 - 2**power) / (1 - 4**power))


# ARFs ----------------------------------------------------------------------------------------------------------------


def _arf(
    low: Sequence[float] = (0.3, 1.0),
    high: Sequence[float] = (1.0, 8.0),
    area: Sequence[float] = (200.0, 400.0),
    energy_unit: str = "keV",
    area_unit: str = "cm**2",
    name: str = "SPECRESP",
) -> bytes:
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("ENERG_LO", "1E", unit=energy_unit, array=low),
            fits.Column("ENERG_HI", "1E", unit=energy_unit, array=high),
            fits.Column("SPECRESP", "1E", unit=area_unit, array=area),
        ],
        name=name,
    )
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(written)
    return written.getvalue()


def test_an_arf_is_read() -> None:
    assert arf_area(_arf(), Bands((0.5, 1.0, 2.0))) == pytest.approx((200.0, 400.0))


@pytest.mark.parametrize("unit", ["cm**2", "cm^2", "cm2", "CM 2", ""])
def test_units_of_area_as_missions_write_them(unit: str) -> None:
    assert arf_area(_arf(area_unit=unit), Bands((1.0, 2.0))) == pytest.approx((400.0,))


def test_energies_in_ev() -> None:
    content = _arf(low=(300.0, 1000.0), high=(1000.0, 8000.0), energy_unit="eV")
    assert arf_area(content, Bands((0.5, 1.0, 2.0))) == pytest.approx((200.0, 400.0))


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("no_arf", _arf(name="MATRIX")),
        ("bad_unit", _arf(area_unit="m**2")),
        ("bad_unit", _arf(energy_unit="Angstrom")),
        ("bad_arf", _arf(low=(1.0, 8.0), high=(0.3, 1.0))),
        ("bad_arf", _arf(area=(np.nan, 1.0))),
        ("bad_arf", _arf(area=(-5.0, 1.0))),
        ("truncated", _arf()[:4000]),
        ("not_fits", b"SPECRESP"),
    ],
)
def test_what_is_no_arf_is_refused(reason: str, content: bytes) -> None:
    with pytest.raises(RefusedInput) as refused:
        arf_area(content, SOFT)
    assert refused.value.reason == reason


# Instruments ---------------------------------------------------------------------------------------------------------


def _instrument(telescope: str, instrument: str, **more: Any) -> Instrument:
    hdu = fits.BinTableHDU.from_columns([fits.Column("TIME", "1D", array=[0.0])])
    hdu.header.update({"TELESCOP": telescope, "INSTRUME": instrument, **more})
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(written)
    header = scan(written.getvalue())[1].header
    return mission_of(header).instrument(header)


ACIS_I = _instrument("CHANDRA", "ACIS", DETNAM="ACIS-01236")
ACIS_S = _instrument("CHANDRA", "ACIS", DETNAM="ACIS-235678")
HRC = _instrument("CHANDRA", "HRC", DETNAM="HRC-I")
PN, MOS = _instrument("XMM", "EPN"), _instrument("XMM", "EMOS2")
NUSTAR, NICER, SWIFT = _instrument("NuSTAR", "FPMA"), _instrument("NICER", "XTI"), _instrument("SWIFT", "XRT")
EROSITA = _instrument("eROSITA", "MERGED", OBS_MODE="POINTING")
ALL = {
    "acis-i": ACIS_I,
    "acis-s": ACIS_S,
    "hrc": HRC,
    "pn": PN,
    "mos": MOS,
    "nustar": NUSTAR,
    "nicer": NICER,
    "swift": SWIFT,
    "erosita": EROSITA,
}
IMAGING = [name for name in ALL if name != "nicer"]


def _area(
    instrument: Instrument, bands: Bands, mjd: float = _EPOCH, off_axis: float = 0.0, aperture: float = np.inf
) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = nominal_area(instrument, bands, mjd, off_axis, aperture)
    assert found is not None
    return np.array(found)


def _at(instrument: Instrument, kev: float, mjd: float = _EPOCH, off_axis: float = 0.0) -> float:
    return float(_area(instrument, Bands((0.98 * kev, 1.02 * kev)), mjd, off_axis)[0])


def _year(year: float) -> float:
    return 51544.5 + (year - 2000) * 365.25


@pytest.mark.parametrize(
    ("instrument", "kev", "document", "within"),
    [
        (PN, 1.0, 1227, 0.10),  # XMM-Newton Users Handbook, table 1
        (MOS, 1.0, 922 / 2, 0.25),  # likewise, of both, thin filter, at launch
        (NICER, 1.5, 1900, 0.05),  # NICER Mission Guide
        (NUSTAR, 9.0, 847 / 2, 0.20),  # Harrison et al. 2013, table 2, of both, before the detectors
        (SWIFT, 1.5, 125, 0.10),  # Burrows et al. 2005, Space Sci. Rev. 120, 165
        (EROSITA, 1.49, 7 * 365, 0.10),  # Predehl et al. 2021, seven mirrors, before filters and detectors
        (EROSITA, 8.05, 7 * 24.9, 0.30),  # likewise
    ],
)
def test_on_axis_areas_are_those_of_the_handbooks(
    instrument: Instrument, kev: float, document: float, within: float
) -> None:
    assert _at(instrument, kev) == pytest.approx(document, rel=within)


@pytest.mark.parametrize(
    ("instrument", "kev", "off_axis", "left"),
    [
        (NUSTAR, 10.0, 5.0, 0.5),  # Harrison et al. 2013, table 2: half the response across 10′ and 6′
        (NUSTAR, 68.0, 3.0, 0.5),
        (ACIS_I, 1.5, 10.0, 0.82),  # Proposers' Observatory Guide, figure 4.5
        (PN, 1.5, 10.0, 0.63),  # Users Handbook, figure 13
    ],
)
def test_vignetting_is_that_of_the_handbooks(instrument: Instrument, kev: float, off_axis: float, left: float) -> None:
    assert _at(instrument, kev, off_axis=off_axis) / _at(instrument, kev) == pytest.approx(left, abs=0.03)


def test_erositas_area_averaged_over_its_field() -> None:
    """1,365 cm² at 1 keV (Predehl et al. 2021, table 1), over a field of 31′ radius."""
    angles = np.linspace(0.0, 31.0, 200)
    areas = [_at(EROSITA, 1.0, off_axis=angle) for angle in angles]
    assert np.average(areas, weights=angles) == pytest.approx(1365, rel=0.15)


@pytest.mark.parametrize(
    ("instrument", "radius", "share"),
    [
        # SAS, eupper, good to 5 % itself.
        (PN, 15, 0.71),
        (PN, 30, 0.88),
        (PN, 45, 0.93),
        (PN, 60, 0.95),
        (MOS, 15, 0.68),
        (MOS, 30, 0.83),
        (MOS, 45, 0.89),
        (MOS, 60, 0.92),
        (NUSTAR, 29, 0.50),  # half-power diameter of 58″
        (SWIFT, 47, 0.90),  # Moretti et al. 2005
        (EROSITA, 8, 0.50),  # half-energy width of 16″ on axis
        (HRC, 1.0, 0.90),
    ],
)
def test_an_aperture_holds_the_documents_share(instrument: Instrument, radius: float, share: float) -> None:
    ratio = _area(instrument, instrument.bands, aperture=radius) / _area(instrument, instrument.bands)
    assert ratio == pytest.approx(np.full(len(ratio), share), abs=0.02)


def test_chandra_blurs_off_axis() -> None:
    """90 % within 1″ + 10″ (θ / 10′)² (Hickox & Markevitch 2006)."""
    for off_axis in (0.0, 5.0, 10.0):
        whole = _area(ACIS_I, SOFT, off_axis=off_axis)
        part = _area(ACIS_I, SOFT, off_axis=off_axis, aperture=1 + 10 * (off_axis / 10) ** 2)
        assert part / whole == pytest.approx(np.full(3, 0.9), abs=0.002)


@given(st.sampled_from(list(ALL)), st.floats(0, 1), st.floats(0, 1))
def test_further_off_axis_there_is_less_area(name: str, one: float, other: float) -> None:
    instrument = ALL[name]
    assert instrument.optics is not None
    near, far = sorted((one * instrument.optics.field, other * instrument.optics.field))
    bands = instrument.bands
    assert np.all(_area(instrument, bands, off_axis=far) <= _area(instrument, bands, off_axis=near) * (1 + 1e-12))


@given(st.sampled_from(IMAGING), st.floats(0.1, 500), st.floats(0.1, 500))
def test_a_wider_aperture_has_more_area_and_never_more_than_all(name: str, one: float, other: float) -> None:
    instrument, (narrow, wide) = ALL[name], sorted((one, other))
    areas = [_area(instrument, instrument.bands, off_axis=2.0, aperture=r) for r in (narrow, wide, np.inf)]
    assert np.all(areas[0] <= areas[1] * (1 + 1e-12))
    assert np.all(areas[1] <= areas[2])
    assert np.all(areas[0] > 0)


@given(st.floats(1999, 2035), st.floats(1999, 2035))
def test_acis_only_ever_loses(one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert np.all(_area(ACIS_S, SOFT, _year(late)) <= _area(ACIS_S, SOFT, _year(early)) * (1 + 1e-12))


@pytest.mark.parametrize(
    ("instrument", "bands_cm2", "year", "within"),
    [
        # Band means of the CXC's own ARFs: ACIS-I for Cycles 0 and 19, ACIS-S of ObsIDs 9774 and 12845.
        (ACIS_I, (236.9, 550.1, 310.6), 1999.72, 0.03),
        (ACIS_I, (44.1, 335.0, 293.0), 2018.0, 0.25),
        (ACIS_S, (323.6, 633.9, 363.9), 2007.93, 0.05),
        (ACIS_S, (314.5, 633.0, 365.3), 2011.05, 0.08),
    ],
)
def test_acis_by_epoch(instrument: Instrument, bands_cm2: tuple[float, ...], year: float, within: float) -> None:
    assert _area(instrument, SOFT, _year(year)) == pytest.approx(np.array(bands_cm2), rel=within)


def test_contamination_takes_the_soft_band_first() -> None:
    left = _area(ACIS_I, SOFT, _year(2018)) / _area(ACIS_I, SOFT, _year(2000))
    assert left[0] < 0.4 < 0.55 < left[1] < 0.8 < 0.9 < left[2]


def test_acis_arrays_are_told_apart() -> None:
    def launch(**said: Any) -> float:
        return float(_area(_instrument("CHANDRA", "ACIS", **said), SOFT, _year(1999.6))[0])

    back_lit, front_lit = launch(DETNAM="ACIS-7"), launch(DETNAM="ACIS-0123")
    assert back_lit > 1.8 * front_lit
    assert launch(DETNAM="ACIS-012367") == front_lit
    assert launch(DETNAM="ACIS-012367", SIM_Z=-190.14) == back_lit
    assert launch(DETNAM="ACIS-7", SIM_Z=-233.59) == front_lit


def test_telescopes_add_up() -> None:
    one = _instrument("eROSITA", "TM4")
    five = _instrument("eROSITA", "MERGED", NINST=5)
    assert _area(five, one.bands) == pytest.approx(5 * _area(one, one.bands))


@pytest.mark.parametrize(
    ("instrument", "mjd", "off_axis", "aperture"),
    [
        (_instrument("CHANDRA", "ACIS"), _EPOCH, 0.0, 5.0),  # no word of which array
        (ACIS_S, np.nan, 0.0, 5.0),
        (PN, _EPOCH, np.nan, 5.0),
        (PN, _EPOCH, 40.0, 5.0),
        (PN, _EPOCH, 0.0, 0.0),
        (PN, _EPOCH, 0.0, np.nan),
        (_instrument("eROSITA", "MERGED", OBS_MODE="SURVEY"), _EPOCH, 0.0, 30.0),
    ],
)
def test_what_is_not_known_is_none(instrument: Instrument, mjd: float, off_axis: float, aperture: float) -> None:
    assert nominal_area(instrument, instrument.bands, mjd, off_axis, aperture) is None


def test_an_epoch_matters_for_acis_alone() -> None:
    for name, instrument in ALL.items():
        if not name.startswith("acis"):
            assert nominal_area(instrument, instrument.bands, np.nan, 0.0, np.inf) is not None


def test_a_band_above_the_curve_has_no_area() -> None:
    assert _area(ACIS_I, Bands((9.9, 10.0)))[0] > 0
    assert _area(ACIS_I, Bands((11.0, 12.0)))[0] == 0
