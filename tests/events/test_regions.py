"""Regions in text and in FITS tables: where they lie, how large they are, what is refused."""

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import ICRS, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import RefusedInput
from lexray.events.extraction.regions import (
    PixelShape,
    check_region,
    csc_regions,
    is_stacked,
    parse_region,
    region_file_of,
)
from lexray.events.extraction.wcs import Plane
from lexray.events.fits.headers import Header

PIXEL_ARCSEC = 0.492
RNG = np.random.default_rng(8)


def plane_at(ra: float, dec: float) -> Plane:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [4096.5, 4096.5]
    wcs.wcs.cdelt = [-PIXEL_ARCSEC / 3600, PIXEL_ARCSEC / 3600]
    wcs.wcs.set()
    return Plane(wcs, ICRS(), PIXEL_ARCSEC)


PLANE = plane_at(150.0, 2.0)


def scattered(shape: PixelShape, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Places in a box twice as wide as the shape's bounds."""
    low_x, high_x, low_y, high_y = shape.bounds
    x = RNG.uniform(low_x - (high_x - low_x) / 2, high_x + (high_x - low_x) / 2, n)
    return x, RNG.uniform(low_y - (high_y - low_y) / 2, high_y + (high_y - low_y) / 2, n)


# Text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ra", [150.0, 0.0, 359.999])
@pytest.mark.parametrize("dec", [2.0, -89.98])
@pytest.mark.parametrize("text", ['circle({ra},{dec},5")', "circle({ra}d,{dec}d,0.0833333333')", 'circle({hms},5")'])
def test_a_circle_on_the_sky_holds_what_is_near_its_centre(ra: float, dec: float, text: str) -> None:
    centre = SkyCoord((ra + 0.01) % 360, dec, unit="deg")
    hms = centre.to_string("hmsdms", sep=":", precision=8).replace(" ", ",")
    plane = plane_at(ra, dec)
    shape = parse_region("icrs\n" + text.format(ra=centre.ra.deg, dec=centre.dec.deg, hms=hms), plane)
    x, y = scattered(shape)
    apart = SkyCoord(*plane.to_sky(x, y), unit="deg").separation(centre).arcsec
    clear = np.abs(apart - 5) > 0.002
    np.testing.assert_array_equal(shape.contains(x, y)[clear], apart[clear] < 5)
    assert shape.area * PIXEL_ARCSEC**2 == pytest.approx(np.pi * 25, rel=1e-3)
    assert shape.extent * PIXEL_ARCSEC == pytest.approx(5, rel=1e-3)


def rotated(x: np.ndarray, y: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from (4000, 4100) along axes turned by an angle."""
    dx, dy, turn = x - 4000, y - 4100, np.radians(degrees)
    return dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)


def in_ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along, across = rotated(x, y, 30)
    return (along / 20) ** 2 + (across / 10) ** 2 < 1


def in_box(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along, across = rotated(x, y, 25)
    return (np.abs(along) < 10) & (np.abs(across) < 4)


def in_circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.hypot(x - 4000, y - 4100) < radius


TEXTS: dict[str, Any] = {
    "physical;ellipse(4000,4100,20,10,30)": (in_ellipse, np.pi * 200),
    "box(4000,4100,20,8,25)": (in_box, 160.0),
    "rotbox(4000,4100,20,8,25) # color=red": (in_box, 160.0),
    "annulus(4000,4100,4,9)": (lambda x, y: in_circle(x, y, 9) & ~in_circle(x, y, 4), np.pi * 65),
    "# DS9\nglobal color=green\nphysical\npolygon(4000,4100,4010,4100,4000,4110)": (
        lambda x, y: (x > 4000) & (y > 4100) & (x - 4000 + y - 4100 < 10),
        50.0,
    ),
    "circle(4000,4100,9)-circle(4000,4100,4)": (
        lambda x, y: in_circle(x, y, 9) & ~in_circle(x, y, 4),
        np.pi * 65,
    ),
    "ellipse(4000,4100,20,10,30) * !circle(4000,4100,4)": (
        lambda x, y: in_ellipse(x, y) & ~in_circle(x, y, 4),
        np.pi * 184,
    ),
    "physical\ncircle(4000,4100,9)\n+box(4100,4100,10,10,0)\n-circle(4000,4100,4)": (
        lambda x, y: (in_circle(x, y, 9) & ~in_circle(x, y, 4)) | ((np.abs(x - 4100) < 5) & (np.abs(y - 4100) < 5)),
        np.pi * 65 + 100,
    ),
}


@pytest.mark.parametrize("text", TEXTS)
def test_shapes_in_pixels(text: str) -> None:
    inside, area = TEXTS[text]
    shape = parse_region(text, PLANE)
    x, y = scattered(shape)
    np.testing.assert_array_equal(shape.contains(x, y), inside(x, y))
    assert shape.area == pytest.approx(area, rel=5e-3)
    low_x, high_x, low_y, high_y = shape.bounds
    x, y = RNG.uniform(low_x - 50, high_x + 50, 20000), RNG.uniform(low_y - 50, high_y + 50, 20000)
    held = inside(x, y)
    assert np.all((x[held] >= low_x) & (x[held] <= high_x) & (y[held] >= low_y) & (y[held] <= high_y))
    assert np.all(np.hypot(x[held] - shape.centre[0], y[held] - shape.centre[1]) <= shape.extent)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 50), st.floats(0.5, 50), st.floats(0, 360))
def test_a_grid_measures_an_area(a: float, b: float, angle: float) -> None:
    shape = parse_region(f"ellipse(4000,4100,{a},{b},{angle})", PLANE)
    low_x, high_x, low_y, high_y = shape.bounds
    measured = len(shape.grid(128)[0]) / 128**2 * (high_x - low_x) * (high_y - low_y)
    # A thin, slanted ellipse fills little of its bounds.
    assert measured == pytest.approx(np.pi * a * b, rel=0.01, abs=0.002 * (high_x - low_x) * (high_y - low_y))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no shape"),
        ("-circle(1,2,3)", "names no shape"),
        ("circle(1,2)", "2 numbers, takes 3"),
        ("circle(1,2,x)", "'x' is no number"),
        ("pie(1,2,3,4,5,6)", "'pie' is none of the shapes"),
        ("image;circle(1,2,3)", "coordinates 'image' are not read"),
        ("fk4;circle(1,2,3)", "coordinates 'fk4' are not read"),
        ("circle(1,2,3)*box(1,2,3,4)", "'*' before box"),
        ("circle(1,2,3", "cannot read"),
        ("import os", "cannot read"),
        ("polygon(1,2,3,4)", "4 numbers"),
    ],
)
def test_texts_that_are_refused_without_a_file(text: str, says: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        check_region(text)
    assert refused.value.reason == "bad_region"
    assert says in refused.value.detail


@pytest.mark.parametrize(
    "text",
    ["circle(1,2,0)", "annulus(1,2,5,3)", 'circle(1,2,5")', 'icrs;circle(330,-2,5")', "polygon(1,1,2,2,3,3)"],
    ids=["no radius", "inside out", "arcsec in pixels", "behind the plane", "on a line"],
)
def test_regions_that_have_no_area_in_a_file_are_refused(text: str) -> None:
    check_region(text)
    with pytest.raises(RefusedInput) as refused:
        parse_region(text, PLANE)
    assert refused.value.reason == "bad_region"
    assert "\n" not in refused.value.detail


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="circleboxan(),-+!*#;\n'\"0123456789.dhm: fk5", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RefusedInput):
        assert parse_region(text, PLANE).area >= 0


# FITS tables ---------------------------------------------------------------------------------------------------------

Element = tuple[str, Sequence[float], Sequence[float], Sequence[float], float, int]


def region_file(**extensions: Sequence[Element]) -> bytes:
    """A region file: elements are shape, X, Y, R, ROTANG and COMPONENT."""
    units = [fits.PrimaryHDU()]
    for name, elements in extensions.items():
        width = max(len(element[1]) for element in elements)

        def padded(values: Sequence[float], size: int) -> list[float]:
            return [*values, *[values[-1] if len(values) else 0.0] * (size - len(values))]

        columns = [
            fits.Column("SHAPE", "16A", array=[element[0] for element in elements]),
            fits.Column("X", f"{width}D", unit="pixel", array=[padded(element[1], width) for element in elements]),
            fits.Column("Y", f"{width}D", unit="pixel", array=[padded(element[2], width) for element in elements]),
            fits.Column("R", "2D", unit="pixel", array=[padded(element[3], 2) for element in elements]),
            fits.Column("ROTANG", "D", unit="deg", array=[element[4] for element in elements]),
            fits.Column("COMPONENT", "J", array=[element[5] for element in elements]),
        ]
        units.append(fits.BinTableHDU.from_columns(columns, name=name))
    out = BytesIO()
    fits.HDUList(units).writeto(out)
    return out.getvalue()


SOURCE: Element = ("Ellipse", [4000], [4100], [20, 10], 30, 1)


def test_csc_source_and_background() -> None:
    source, background = csc_regions(
        region_file(
            SRCREG=[SOURCE],
            BKGREG=[
                ("Ellipse", [4000], [4100], [100, 50], 30, 1),
                ("!Ellipse", [4000], [4100], [20, 10], 30, 1),
                ("!Circle", [4060], [4135], [5, 0], 0, 1),
            ],
        )
    )
    assert background is not None
    x, y = scattered(background, 20000)
    np.testing.assert_array_equal(source.contains(x, y), in_ellipse(x, y))
    along, across = rotated(x, y, 30)
    around = ((along / 100) ** 2 + (across / 50) ** 2 < 1) & ~in_ellipse(x, y) & ~(np.hypot(x - 4060, y - 4135) < 5)
    np.testing.assert_array_equal(background.contains(x, y), around)
    assert source.area == pytest.approx(np.pi * 200)
    assert background.area == pytest.approx(np.pi * (5000 - 200 - 25), rel=2e-3)
    assert source.centre == pytest.approx((4000, 4100))
    assert source.extent == pytest.approx(20)


def test_components_unite_and_elements_intersect() -> None:
    shape, _ = csc_regions(
        region_file(
            SRCREG=[
                ("Circle", [4000], [4100], [10, 0], 0, 1),
                ("Rotbox", [4000], [4100], [30, 4], 90, 1),
                ("Polygon", [4050, 4060, 4060, 4050], [4100, 4100, 4110, 4110], [0, 0], 0, 2),
                ("Rectangle", [4100, 4108], [4100, 4104], [0, 0], 0, 3),
                ("Annulus", [4200], [4100], [3, 5], 0, 4),
            ]
        )
    )
    x, y = scattered(shape, 60000)
    slit = (np.abs(x - 4000) < 2) & (np.hypot(x - 4000, y - 4100) < 10)
    square = (np.abs(x - 4055) < 5) & (np.abs(y - 4105) < 5)
    oblong = (np.abs(x - 4104) < 4) & (np.abs(y - 4102) < 2)
    ring = (np.hypot(x - 4200, y - 4100) < 5) & (np.hypot(x - 4200, y - 4100) > 3)
    np.testing.assert_array_equal(shape.contains(x, y), slit | square | oblong | ring)


def test_an_observations_regions_of_release_2_1() -> None:
    other: Element = ("Ellipse", [1], [1], [2, 2], 0, 1)
    source, background = csc_regions(region_file(ECF90REGH=[other], ECF90REGB=[SOURCE], ECF90REGS=[other]))
    assert source.centre == pytest.approx((4000, 4100))
    assert background is None


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ([("Pie", [1], [1], [2, 3], 0, 1)], "bad_region"),
        ([("Circle", [1], [1], [0, 0], 0, 1)], "bad_region"),
        ([("Circle", [np.nan], [1], [1, 0], 0, 1)], "bad_region"),
        ([("!Circle", [1], [1], [2, 0], 0, 1)], "bad_region"),
        ([("Circle", [1], [1], [2, 0], 0, 1), ("!Circle", [1], [1], [1, 0], 0, 2)], "bad_region"),
        ([("Rectangle", [1], [1], [1, 1], 0, 1)], "bad_region"),
    ],
    ids=["unread shape", "no radius", "no position", "only excluded", "a component only excludes", "half a rectangle"],
)
def test_tables_that_are_refused(elements: Sequence[Element], reason: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        csc_regions(region_file(SRCREG=elements))
    assert refused.value.reason == reason


def test_a_file_without_regions_is_refused() -> None:
    with pytest.raises(RefusedInput, match="it has NONE") as refused:
        csc_regions(region_file(NONE=[SOURCE]))
    assert refused.value.reason == "no_region"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 30_000), st.binary(min_size=1, max_size=40))
def test_any_bytes_are_read_or_refused(place: int, octets: bytes) -> None:
    content = bytearray(GOOD_FILE)
    place = place % len(content)
    content[place : place + len(octets)] = octets
    with suppress(RefusedInput):
        assert csc_regions(bytes(content))[0].area >= 0


GOOD_FILE = region_file(SRCREG=[SOURCE], BKGREG=[("Circle", [4000], [4100], [90, 0], 0, 1)])


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event_file", "region"),
    [
        ("acisf14031_000N028_r0016_regevt3.fits", "acisf14031_000N028_r0016_reg3.fits"),
        ("s3://b/acisf01575_001N001_e1_r0001_regevt3.fits.gz", "s3://b/acisf01575_001N001_e1_r0001_reg3.fits.gz"),
        ("/d/hrcf00461_000N021_r0002_regevt3.fits", "/d/hrcf00461_000N021_r0002_reg3.fits"),
        ("acisf14031_000N028_evt3.fits", None),
        ("nu80002092002A01_cl.evt", None),
    ],
)
def test_name_of_the_region_file(event_file: str, region: str | None) -> None:
    assert region_file_of(event_file) == region


@pytest.mark.parametrize(
    ("name", "obs_id", "stacked"),
    [
        ("acisfJ1348473p263535_002N029_r0012_regevt3.fits", "14031", True),
        ("d/hrcfJ0000123m010203_001N021_r0001_regevt3.fits.gz", "", True),
        ("acisf14031_000N028_r0016_regevt3.fits", "14031", False),
        ("merged_evt.fits", "Merged", True),
        ("x.fits", "1575,1576", True),
        ("x.fits", "", False),
        ("x.fits", "0123700101", False),
    ],
)
def test_files_that_mix_observations(name: str, obs_id: str, stacked: bool) -> None:
    card = f"OBS_ID  = '{obs_id}'".ljust(80)
    assert is_stacked(Header({"OBS_ID": card}), name) is stacked
