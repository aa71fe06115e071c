"""Sky positions of events: the pixel-list WCS of event files."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import RefusedInput
from lexray.events.extraction.wcs import Plane
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import scan

PIXEL = 0.492 / 3600
#: Where fields are hardest: across RA 0, and around a pole.
FIELDS = [
    (148.9, 69.7),
    (0.0003, -5.2),
    (-0.0003, 5.2),
    (359.9997, 0.0),
    (37.95, 89.99),
    (200.0, -89.995),
    (12.0, 89.9999),
]


def header(ra: float, dec: float, **changes: Any) -> dict[str, Any]:
    """Keywords of a Chandra-like file whose second and third columns are X and Y; None takes one away."""
    said = {"RADESYS": "ICRS"}
    for number, kind, value, sign in ((2, "RA---TAN", ra, -1), (3, "DEC--TAN", dec, 1)):
        said |= {f"TCTYP{number}": kind, f"TCRVL{number}": value, f"TCUNI{number}": "deg"}
        said |= {f"TCRPX{number}": 4096.5, f"TCDLT{number}": sign * PIXEL}
    return {key: value for key, value in (said | changes).items() if value is not None}


def events_file(keywords: Mapping[str, Any]) -> bytes:
    columns = [fits.Column(name, "D", array=np.arange(3.0)) for name in ("time", "x", "y")]
    table = fits.BinTableHDU.from_columns(columns, name="EVENTS")
    table.header.update(keywords)
    out = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def plane(keywords: Mapping[str, Any]) -> Plane | None:
    content = events_file(keywords)
    return Plane.of(BinaryTable(scan(content)[1], content), "X", "y")


def known(keywords: Mapping[str, Any]) -> Plane:
    found = plane(keywords)
    assert found is not None
    return found


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_positions_are_the_gnomonic_projections(ra: float, dec: float) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.uniform(2000, 6000, (2, 50))
    east, north = np.radians((x - 4096.5) * -PIXEL), np.radians((y - 4096.5) * PIXEL)
    axis = SkyCoord(ra, dec, unit="deg")
    # A point of the tangent plane lies arctan(distance) from the axis, in the direction of its offset.
    expected = axis.directional_offset_by(np.arctan2(east, north) * u.rad, np.arctan(np.hypot(east, north)) * u.rad)
    positions = known(header(ra, dec)).to_sky(x, y)
    found = SkyCoord(*positions, unit="deg")
    assert np.max(found.separation(expected).arcsec) < 1e-4
    assert np.all((positions[0] >= 0) & (positions[0] < 360))
    back = known(header(ra, dec)).to_pixels(expected.ra.deg, expected.dec.deg)
    np.testing.assert_allclose(back, (x, y), atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0, 8192), st.floats(0, 8192))
def test_there_and_back(ra: float, dec: float, x: float, y: float) -> None:
    field = known(header(ra, dec))
    np.testing.assert_allclose(np.ravel(field.to_pixels(*field.to_sky(x, y))), (x, y), atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"TCROT3": 33.0},
        {"TPC2_2": 0.8, "TPC2_3": -0.6, "TPC3_2": 0.6, "TPC3_3": 0.8},
        {"TP2_3": 0.1},
        {"TCD2_2": -1e-4, "TCD2_3": 2e-5, "TCD3_2": 3e-5, "TCD3_3": 1.1e-4, "TCDLT2": None, "TCDLT3": None},
        {"TCDLT2": -2 * PIXEL, "TCROT3": -80.0},
        {"LONP2": 170.0},
    ],
    ids=["rotated", "PC", "PC in part", "CD", "oblong and rotated", "native pole"],
)
@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_linear_part_as_astropy_reads_it(changes: dict[str, Any]) -> None:
    keywords = header(30.0, 40.0, **changes)
    with fits.open(BytesIO(events_file(keywords))) as file:
        reference = WCS(file[1].header, keysel=["pixel"], colsel=[2, 3])
    pixels = np.random.default_rng(2).uniform(3000, 5000, (20, 2))
    np.testing.assert_allclose(known(keywords).to_sky(*pixels.T), reference.wcs_pix2world(pixels, 1).T, rtol=1e-10)


def test_xmms_own_keywords() -> None:
    keywords: dict[str, Any] = {"RADECSYS": "FK5", "EQUINOX": 2000.0, "TCTYP2": "RAWX"}
    for name, kind, value, sign in (("X", "RA---TAN", 10.0, -1), ("Y", "DEC--TAN", 20.0, 1)):
        keywords |= {f"REF{name}CTYP": kind, f"REF{name}CRVL": value, f"REF{name}CRPX": 25921, f"REF{name}CUNI": "deg"}
        keywords[f"REF{name}CDLT"] = sign * 0.05 / 3600
    field = known(keywords)
    assert field.pixel_arcsec == pytest.approx(0.05)
    expected = SkyCoord(10.0, 20.0, unit="deg", frame="fk5").icrs
    ra, dec = field.to_sky(25921.0, 25921.0)
    assert SkyCoord(ra[0], dec[0], unit="deg").separation(expected).arcsec < 1e-6


@pytest.mark.parametrize(
    ("changes", "frame"),
    [
        ({"RADESYS": "FK5", "EQUINOX": 2000.0}, "fk5"),
        ({"RADESYS": None, "EQUINOX": 2000.0}, "fk5"),
        ({"RADESYS": None}, "icrs"),
        ({"TCTYP2": "GLON-TAN", "TCTYP3": "GLAT-TAN"}, "galactic"),
    ],
)
def test_positions_are_icrs_whatever_the_file_has(changes: dict[str, Any], frame: str) -> None:
    field = known(header(83.6, 22.0, **changes))
    expected = SkyCoord(83.6, 22.0, unit="deg", frame=frame).icrs
    ra, dec = field.to_sky(4096.5, 4096.5)
    assert SkyCoord(ra[0], dec[0], unit="deg").separation(expected).arcsec < 1e-5
    np.testing.assert_allclose(np.ravel(field.to_pixels(expected.ra.deg, expected.dec.deg)), 4096.5, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"RADESYS": "FK4", "EQUINOX": 1950.0},
        {"TCRVL2": "unknown"},
        {"TCRPX3": None},
        {"TCDLT2": 0.0},
        {"TCDLT3": None},
        {"TCTYP3": "DETY"},
        {"TCTYP3": "RA---TAN"},
        {"TCTYP2": "RA---NIX", "TCTYP3": "DEC--NIX"},
        {"TCUNI2": "furlong"},
        {"TCD2_2": 0.0},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()),
)
def test_broken_keywords_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RefusedInput) as refused:
        plane(header(10.0, 20.0, **changes))
    assert refused.value.reason == "bad_wcs"
    assert "\n" not in str(refused.value)


def test_a_file_may_say_nothing_of_the_sky() -> None:
    assert plane({}) is None
    assert plane({"TCTYP2": "RAWX", "TCRPX2": 0, "TCRVL2": 0.0, "TCDLT2": 1.0, "RADECSYS": "FK5"}) is None


def test_behind_the_plane_there_are_no_pixels() -> None:
    x, y = known(header(148.9, 69.7)).to_pixels([148.9, 328.9, np.nan], [69.7, -69.7, 0.0])
    np.testing.assert_array_equal(np.isnan(x), [False, True, True])
    np.testing.assert_array_equal(np.isnan(y), [False, True, True])


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_the_circle_around_a_field_holds_it(ra: float, dec: float) -> None:
    field = known(header(ra, dec))
    x, y = np.random.default_rng(3).uniform(3000, 5200, (2, 500))
    centre_ra, centre_dec, radius = field.field(x, y)
    apart = SkyCoord(*field.to_sky(x, y), unit="deg").separation(SkyCoord(centre_ra, centre_dec, unit="deg"))
    assert np.max(apart.deg) <= radius < 1.1 * np.hypot(1100, 1100) * PIXEL


def test_the_brightest_pixel_of_m82_is_the_source_it_was_pointed_at(real_events: Path) -> None:
    content = (real_events / "chandra_test.fits").read_bytes()
    table = BinaryTable(next(hdu for hdu in scan(content) if hdu.name == "EVENTS"), content)
    field = Plane.of(table, "x", "y")
    assert field is not None
    counts, x, y = np.histogram2d(table.numbers("x"), table.numbers("y"), bins=400)
    i, j = np.unravel_index(np.argmax(counts), counts.shape)
    ra, dec = field.to_sky(x[i : i + 2].mean(), y[j : j + 2].mean())
    target = SkyCoord(table.header.number("RA_TARG"), table.header.number("DEC_TARG"), unit="deg")
    assert SkyCoord(ra[0], dec[0], unit="deg").separation(target).arcsec < 3
