"""Regions as astronomers write them, as shapes in a file's own sky pixels.

Two forms. Text, as DS9 and CIAO write it: ``fk5; circle(10:00:00,+2:00:00,5")-circle(...)``. And FITS REGION tables
(McDowell & Rots 1998, ASC-FITS-REGION-1.0), as the Chandra Source Catalog has them next to each source's events. The
geometry is that of the `regions` package. Its reader of FITS tables is not used: it forgets which shapes are excluded
in tables that number their components, which are Chandra's.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy import units as u
from regions import (
    CircleAnnulusPixelRegion,
    CirclePixelRegion,
    EllipsePixelRegion,
    PixCoord,
    PixelRegion,
    PolygonPixelRegion,
    RectanglePixelRegion,
    Regions,
    SkyRegion,
)

from lexray.array_types import Bools, Float64s
from lexray.errors import RefusedInput, one_line
from lexray.events.extraction.wcs import Plane
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import Buffer, Hdu, Header, scan

#: `regions` counts pixels from 0, FITS and the events from 1.
_FIRST_PIXEL = 1.0
#: Points along a side of the grid that measures shapes which have no closed form: their areas are then good to some
#: 0.1 %.
_GRID = 512
#: A region, which counts pixels from 0, and whether its inside is meant or its outside.
Element = tuple[PixelRegion, bool]


@dataclass(frozen=True)
class PixelShape:
    """An area of the sky, in sky pixels of one file.

    Attributes
    ----------
    components : tuple of tuple of Element
        The shape is the union of the components, a component the intersection of its elements.
    """

    components: tuple[tuple[Element, ...], ...]

    def __post_init__(self) -> None:
        if not self.components or not all(any(included for _, included in c) for c in self.components):
            raise RefusedInput(
                "bad_region", "a region that only excludes has no end: name a shape that it is cut out of"
            )

    def contains(self, x: Float64s, y: Float64s) -> Bools:
        """Whether places lie inside, b1 of the shape of `x` and `y` (sky pixels, the first being 1)."""
        at = PixCoord(np.asarray(x, dtype=np.float64) - _FIRST_PIXEL, np.asarray(y, dtype=np.float64) - _FIRST_PIXEL)
        found = np.zeros(np.shape(x), dtype=bool)
        for component in self.components:
            inside = np.ones(np.shape(x), dtype=bool)
            for region, included in component:
                inside &= region.contains(at) == included
            found |= inside
        return found

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """Lowest and highest x, lowest and highest y of a box around the shape, sky pixels."""
        boxes = []
        for component in self.components:
            own = np.array([_box(region) for region, included in component if included])
            boxes.append([own[:, 0].max(), own[:, 1].min(), own[:, 2].max(), own[:, 3].min()])
        low_x, high_x, low_y, high_y = np.array(boxes).T + _FIRST_PIXEL
        return float(low_x.min()), float(high_x.max()), float(low_y.min()), float(high_y.max())

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of `bounds`, sky pixels."""
        low_x, high_x, low_y, high_y = self.bounds
        return (low_x + high_x) / 2, (low_y + high_y) / 2

    @cached_property
    def extent(self) -> float:
        """Radius of a circle about `centre` that holds the shape, pixels."""
        low_x, high_x, low_y, high_y = self.bounds
        only = self.components[0][0][0] if len(self.components) == 1 else None
        if isinstance(only, CirclePixelRegion | CircleAnnulusPixelRegion):
            return _radius(only)
        if isinstance(only, EllipsePixelRegion):
            return float(max(only.width, only.height)) / 2
        return float(np.hypot(high_x - low_x, high_y - low_y)) / 2

    @cached_property
    def area(self) -> float:
        """Square pixels: in closed form for a single region, else by a grid of 512 × 512 points (to some 0.1 %)."""
        if len(self.components) == 1 and len(self.components[0]) == 1:
            return float(self.components[0][0][0].area)
        low_x, high_x, low_y, high_y = self.bounds
        return len(self.grid(_GRID)[0]) * (high_x - low_x) * (high_y - low_y) / _GRID**2

    def grid(self, points: int) -> tuple[Float64s, Float64s]:
        """The points inside the shape of a regular grid over its bounds: the same on every call.

        Parameters
        ----------
        points : int
            Along each side of the bounds.

        Returns
        -------
        x, y : f8[P]
            Sky pixels.
        """
        low_x, high_x, low_y, high_y = self.bounds
        steps = (np.arange(points) + 0.5) / points
        x, y = np.meshgrid(low_x + steps * (high_x - low_x), low_y + steps * (high_y - low_y))
        inside = self.contains(x, y)
        return x[inside], y[inside]


def _radius(region: CirclePixelRegion | CircleAnnulusPixelRegion) -> float:
    return float(region.radius if isinstance(region, CirclePixelRegion) else region.outer_radius)


def _box(region: PixelRegion) -> tuple[float, float, float, float]:
    """Exact bounds of a region; `regions` rounds its own to whole pixels, which are coarse for small sources."""
    if isinstance(region, PolygonPixelRegion):
        x, y = region.vertices.x, region.vertices.y
        return float(np.min(x)), float(np.max(x)), float(np.min(y)), float(np.max(y))
    x, y = float(region.center.x), float(region.center.y)
    if isinstance(region, CirclePixelRegion | CircleAnnulusPixelRegion):
        wide = high = _radius(region)
    else:
        a, b, turn = region.width / 2, region.height / 2, region.angle.to_value(u.rad)
        across, along = abs(np.cos(turn)), abs(np.sin(turn))
        if isinstance(region, EllipsePixelRegion):
            wide, high = np.hypot(a * across, b * along), np.hypot(a * along, b * across)
        else:
            wide, high = a * across + b * along, a * along + b * across
    return x - wide, x + wide, y - high, y + high


# DS9 and CIAO text ---------------------------------------------------------------------------------------------------

_FRAMES = {"icrs": "icrs", "fk5": "fk5", "j2000": "fk5", "galactic": "galactic", "physical": "image"}
#: Shapes by the names of both, and how many numbers each takes; a box may leave out its angle.
_SHAPES = {
    "circle": ("circle", (3,)),
    "ellipse": ("ellipse", (5,)),
    "box": ("box", (4, 5)),
    "rotbox": ("box", (5,)),
    "annulus": ("annulus", (4,)),
    "polygon": ("polygon", tuple(range(6, 2001, 2))),
}
_SHAPE = re.compile(r"\s*(?P<sign>[-+*!&|\s]*)(?P<name>[a-z]+)\s*\((?P<numbers>[^()]*)\)\s*")
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[\"'dr]?|[+-]?\d+[:h]\d+[:m]\d+(\.\d*)?s?|[+-]?\d+d\d+m\d+(\.\d*)?s"
)
_EXCLUDING = ("-", "!", "-!", "*!", "&!")


#: One shape of a text: frame and text as `regions` takes them, and whether it is part of the region or cut out.
_Term = tuple[str, str, bool]


def check_region(text: str) -> None:
    """Make sure that a region's text can be read, without a file to apply it to.

    Raises
    ------
    RefusedInput
        'bad_region'.
    """
    _terms(text)


def parse_region(text: str, plane: Plane) -> PixelShape:
    """Shape of a region in DS9's or CIAO's text form.

    The shape is the union of the shapes named less all that are excluded (``-circle(...)``, ``!circle(...)``). Taken
    are circle, ellipse, box (rotbox), annulus and polygon, in ICRS, FK5 (J2000), galactic or physical coordinates,
    these being the file's X and Y. Without a word for the frame, positions with units or colons are ICRS and plain
    numbers physical, as in CIAO. DS9's 'image' coordinates count the pixels of a binned image and are refused, and so
    are intersections.

    Parameters
    ----------
    text : str
        Parts are divided by newlines or semicolons; comments and properties (``# color=red``) do not count.
    plane : Plane
        Of the file.

    Raises
    ------
    RefusedInput
        'bad_region', saying which part is not understood.
    """
    elements = [(_region(frame, shape, plane), included) for frame, shape, included in _terms(text)]
    outside = [element for element in elements if not element[1]]
    return PixelShape(tuple((element, *outside) for element in elements if element[1]))


def _terms(text: str) -> list[_Term]:
    frame, terms = "", []
    for raw in re.split(r"[\n;]", text):
        part = raw.partition("#")[0].strip().lower()
        if not part or part.startswith("global"):
            continue
        if part in _FRAMES:
            frame = _FRAMES[part]
            continue
        if part.isalnum():
            raise RefusedInput("bad_region", f"coordinates '{part}' are not read, only {', '.join(_FRAMES)}")
        position = 0
        while position < len(part):
            found = _SHAPE.match(part, position)
            if found is None:
                raise RefusedInput("bad_region", f"cannot read {part[position:][:60]!r}; a region reads circle(x,y,r)")
            terms.append(_term(found, frame))
            position = found.end()
    if not any(included for _, _, included in terms):
        raise RefusedInput("bad_region", f"{text[:60]!r} names no shape")
    return terms


def _term(found: re.Match[str], frame: str) -> _Term:
    sign, name = re.sub(r"\s", "", found["sign"]), found["name"]
    if sign not in ("", "+", "|", *_EXCLUDING):
        raise RefusedInput("bad_region", f"{sign!r} before {name}: shapes are joined by + and cut out by -, not else")
    if name not in _SHAPES:
        raise RefusedInput("bad_region", f"'{name}' is none of the shapes that are read: {', '.join(_SHAPES)}")
    shape, lengths = _SHAPES[name]
    numbers = [number.strip() for number in found["numbers"].split(",")]
    wrong = next((number for number in numbers if not _NUMBER.fullmatch(number)), None)
    if wrong is not None or len(numbers) not in lengths:
        what = f"{wrong!r} is no number" if wrong is not None else f"{len(numbers)} numbers, takes {lengths[0]}"
        raise RefusedInput("bad_region", f"{name}({found['numbers'][:60]}): {what}")
    if len(numbers) == 4 and shape == "box":
        numbers.append("0")
    if not frame:
        frame = "icrs" if any(re.search("[:hd]", number) for number in numbers[:2]) else "image"
    return frame, f"{shape}({','.join(numbers)})", sign not in _EXCLUDING


def _region(frame: str, shape: str, plane: Plane) -> PixelRegion:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what `regions` cannot read it skips with a warning
            (region,) = Regions.parse(f"{frame}\n{shape}", format="ds9")
            region = region.to_pixel(plane.wcs) if isinstance(region, SkyRegion) else region
            finite = np.all(np.isfinite(_box(region)))
    except Exception as error:
        raise RefusedInput("bad_region", f"{shape}: {one_line(error)}") from error
    if not finite or region.area <= 0:
        raise RefusedInput("bad_region", f"{shape} has no area here")
    return region


# FITS REGION tables --------------------------------------------------------------------------------------------------

_Row = dict[str, Float64s]
_MOST_ROWS = 10_000


def _centre(row: _Row) -> PixCoord:
    return PixCoord(row["X"][0] - _FIRST_PIXEL, row["Y"][0] - _FIRST_PIXEL)


def _box_between_corners(row: _Row) -> PixelRegion:
    (left, right), (low, high) = row["X"][:2] - _FIRST_PIXEL, row["Y"][:2] - _FIRST_PIXEL
    return RectanglePixelRegion(PixCoord((left + right) / 2, (low + high) / 2), right - left, high - low)


def _polygon(row: _Row) -> PixelRegion:
    # Tables are as wide as their longest polygon; shorter ones are filled up with NaN or their last vertex.
    known = np.isfinite(row["X"]) & np.isfinite(row["Y"])
    return PolygonPixelRegion(PixCoord(row["X"][known] - _FIRST_PIXEL, row["Y"][known] - _FIRST_PIXEL))


#: Elements by the words of ASC-FITS-REGION, section 3: circles by radius, ellipses by semi-axes, boxes by full widths.
_ELEMENTS: dict[str, Callable[[_Row], PixelRegion]] = {
    "CIRCLE": lambda row: CirclePixelRegion(_centre(row), row["R"][0]),
    "ANNULUS": lambda row: CircleAnnulusPixelRegion(_centre(row), row["R"][0], row["R"][1]),
    "ELLIPSE": lambda row: EllipsePixelRegion(_centre(row), 2 * row["R"][0], 2 * row["R"][1], row["ROTANG"][0] * u.deg),
    "BOX": lambda row: RectanglePixelRegion(_centre(row), row["R"][0], row["R"][1]),
    "ROTBOX": lambda row: RectanglePixelRegion(_centre(row), row["R"][0], row["R"][1], row["ROTANG"][0] * u.deg),
    "RECTANGLE": _box_between_corners,
    "POLYGON": _polygon,
}


def read_region_table(hdu: Hdu, content: Buffer) -> PixelShape:
    """Shape in a FITS REGION table: rows of one COMPONENT intersect, components unite, ``!`` excludes.

    Parameters
    ----------
    hdu : Hdu
        One of `lexray.events.fits.headers.scan`.
    content : bytes or memoryview
        The file.

    Raises
    ------
    RefusedInput
        'bad_region' for shapes that are not read here or have no area; 'missing_column', 'bad_structure'.
    """
    table = BinaryTable(hdu, content)
    if table.rows > _MOST_ROWS:
        raise RefusedInput("bad_region", f"{table.name} has {table.rows} shapes, no source's region has {_MOST_ROWS}")
    shapes = [text.strip().upper() for text in table.texts("SHAPE")]
    columns = {name: table.vectors(name) for name in ("X", "Y")}
    for name, default in (("R", 2), ("ROTANG", 1)):  # polygons alone need neither
        columns[name] = table.vectors(name) if name in table else np.zeros((table.rows, default))
    numbers = table.integers("COMPONENT") if "COMPONENT" in table else np.zeros(table.rows, np.int64)
    components: dict[int, list[Element]] = {}
    for i, shape in enumerate(shapes):
        build = _ELEMENTS.get(shape.lstrip("!"))
        if build is None:
            raise RefusedInput("bad_region", f"row {i + 1} of {table.name} is {shape!r}, which is not read here")
        try:
            region = build({name: values[i] for name, values in columns.items()})
            good = np.all(np.isfinite(_box(region))) and region.area > 0
        except (ValueError, IndexError) as error:
            raise RefusedInput("bad_region", f"row {i + 1} of {table.name}, {shape}: {one_line(error)}") from error
        if not good:
            raise RefusedInput("bad_region", f"row {i + 1} of {table.name}, {shape}, has no area")
        components.setdefault(int(numbers[i]), []).append((region, not shape.startswith("!")))
    return PixelShape(tuple(tuple(elements) for elements in components.values()))


# The Chandra Source Catalog ------------------------------------------------------------------------------------------

#: Extensions that hold a source's region: the one that the properties are measured in, else 90 % of the broad band's,
#: or HRC's, light.
_SOURCE_REGIONS = ("SRCREG", "ECF90REGB", "ECF90REGW")
_PER_SOURCE = re.compile(r"(?P<stem>(?s:.*/)?(acis|hrc)f\w+_r\d{4,5})_regevt(?P<end>3\.fits(\.gz)?)")
#: acisfJ1348473p263535_002N029_r0012_regevt3.fits
_STACK = re.compile(r"(acis|hrc)fJ\d{6,7}[pm]\d{6}_\d{3}N\d{3}")


def csc_regions(content: Buffer) -> tuple[PixelShape, PixelShape | None]:
    """Source and background region in a Chandra Source Catalog `reg3` file.

    Parameters
    ----------
    content : bytes or memoryview
        The file, uncompressed.

    Returns
    -------
    source : PixelShape
        SRCREG; where there is none, as the catalog's release 2.1 documents it for single observations, the ellipse of
        90 % of the broad band's counts (ECF90REGB; HRC: ECF90REGW).
    background : PixelShape or None
        BKGREG, with the neighbours excluded; None where the file has none.

    Raises
    ------
    RefusedInput
        'no_region' where the file has no source region; 'bad_region', and all that `scan` refuses.

    Notes
    -----
    https://cxc.cfa.harvard.edu/csc/data_products/persrc/obs/reg3.html and …/stk/reg3.html
    """
    tables = {hdu.name: hdu for hdu in reversed(scan(content)) if hdu.is_table}
    source = next((tables[name] for name in _SOURCE_REGIONS if name in tables), None)
    if source is None:
        found = ", ".join(sorted(tables)) or "no table"
        raise RefusedInput("no_region", f"none of {', '.join(_SOURCE_REGIONS)} is in the region file; it has {found}")
    background = tables.get("BKGREG")
    return read_region_table(source, content), None if background is None else read_region_table(background, content)


def region_file_of(event_file: str) -> str | None:
    """Name of the region file next to a Chandra Source Catalog event file.

    >>> region_file_of("a/acisf14031_000N028_r0016_regevt3.fits.gz")
    'a/acisf14031_000N028_r0016_reg3.fits.gz'

    Returns
    -------
    str or None
        None where the name is not of a per-source event file (`regevt3`).
    """
    found = _PER_SOURCE.fullmatch(event_file)
    return None if found is None else f"{found['stem']}_reg{found['end']}"


def is_stacked(header: Header, event_file: str) -> bool:
    """Whether a file mixes the events of several observations, whose times then are no light curve.

    The Chandra Source Catalog names its stacks by position (``acisfJ1348473p263535_002…``); CIAO's merged files say
    so in OBS_ID, and others list theirs there.

    Parameters
    ----------
    header : Header
        Of the events.
    event_file : str
        The file's name.
    """
    observations = header.text("OBS_ID")
    several = len([part for part in re.split(r"[,;\s]+", observations) if part]) > 1
    return bool(_STACK.match(event_file.rpartition("/")[2])) or observations.lower() == "merged" or several
