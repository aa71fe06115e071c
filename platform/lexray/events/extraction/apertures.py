"""Extract sources from a field: which events belong to each source, and which measure its background.

An event belongs to at most one source, so that no photon counts twice and the counts of a file add up. Where apertures
overlap it belongs to the source whose centre is nearest in units of its radius; a small source on top of a much larger
one, a pulsar in its nebula, keeps its whole aperture, which in those units would belong to the larger.

The background is an annulus around the source with all its neighbours cut out, as in CIAO's `roi` and SAS's `region`
(concentric with the source, from once to three times its radius there). Ours begins at twice the radius, since the
wings of the point spread function reach over an aperture that holds 90 % of the light, and is widened where chip edges
or neighbours leave too little. What counts is exposed area: `lexray.events.extraction.exposed_area`.

All areas are shares of fixed patterns of points (sunflower heads), so the same field gives the same numbers on every
run. A share is good to about 0.5 % of the shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.spatial import cKDTree

from lexray.array_types import Bools, Float64s, Int64s
from lexray.errors import ConfigError, RefusedInput
from lexray.events.extraction.exposed_area import ExposedArea
from lexray.events.extraction.regions import PixelShape, parse_region
from lexray.events.extraction.source_table import SourceTable
from lexray.events.extraction.wcs import Plane

#: The background's annulus in units of the aperture's radius: where it begins, ends, and how far it is widened at most.
INNER, OUTER, WIDEST = 2.0, 5.0, 12.0
#: It ends this far out at least, arcsec: small apertures in a sharp image have few background events around them.
LEAST_OUTER_ARCSEC = 10.0
#: It is widened until its exposed area is so many times the source's; where that fails the source is 'crowded'.
AREA_RATIO = 10.0
#: Below this ratio the background is not measured.
_LEAST_RATIO = 1.0
#: A neighbour is cut out of the background with its radius enlarged by this.
_CUT = 1.5
#: An aperture this much larger that holds a source's centre is what the source lies upon, not a neighbour.
_LARGER = 3.0
#: Exposed share of an aperture below which it lies at an edge.
_WHOLE = 0.98
#: A source with less than this share of its aperture, after edges and neighbours, is not measured.
_LEAST_SHARE = 0.01
_SOURCE_POINTS, _BACKGROUND_POINTS = 1024, 2048
#: Points along a side of the grid over a shape that is no circle.
_SHAPE_GRID = 48
#: A region in a source table may reach this far from its position, degrees.
_REGION_REACH = 0.25
#: Whether places in sky pixels were exposed: `ExposedArea.contains`, or everywhere.
Exposed: TypeAlias = Callable[[Float64s, Float64s], Bools]


@dataclass(frozen=True)
class Aperture:
    """One source's events in a field, and its background's.

    Attributes
    ----------
    source : int
        Place in the source table; 0 where regions of the file's own were applied.
    x, y, radius : float
        Of a circle that holds the aperture, sky pixels.
    events, background : i8[n], i8[m]
        Places of the source's and of its background's events in the field's, increasing.
    scale : float
        Exposed area of the background's region over that of the aperture; NaN where there is no background.
    area_fraction : float
        Share of the aperture that is exposed and not a neighbour's.
    flags : tuple of str
        'edge' (part of the aperture is unexposed), 'overlap' (it shares area with a neighbour's), 'crowded' (its
        background is smaller than wanted), 'no_background'.
    """

    source: int
    x: float
    y: float
    radius: float
    events: Int64s
    background: Int64s
    scale: float
    area_fraction: float
    flags: tuple[str, ...]


def extract(
    x: Float64s, y: Float64s, plane: Plane, sources: SourceTable, coverage: ExposedArea | None
) -> list[Aperture]:
    """Every source that lies in a field, with its events and its background's.

    Parameters
    ----------
    x, y : f8[N]
        Sky pixels of the field's events; those that are not finite are in no aperture.
    plane : Plane
        Where the pixels lie on the sky.
    sources : SourceTable
        May cover the whole sky.
    coverage : ExposedArea or None
        The exposed part of the field; None where it is unknown and the whole field counts as exposed.

    Returns
    -------
    list of Aperture
        In the table's order: sources of which some aperture is exposed, not all of it eaten by neighbours. What one
        source gets does not depend on the order of the table.

    Raises
    ------
    ConfigError
        Where a region of the source table cannot be applied to this field.
    """
    seen = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(seen) or not len(sources):
        return []
    points = np.stack([x[seen], y[seen]], axis=1).astype(np.float64)
    field = _Field.of(sources, _candidates(points, plane, sources), plane)
    if not len(field):
        return []
    events = cKDTree(points, balanced_tree=False)
    owned = field.owned(events)
    exposed = _everywhere if coverage is None else coverage.contains
    covered = exposed(points[:, 0], points[:, 1])
    found = []
    for k in range(len(field)):
        (seen_share, own_share), area, overlaps = _measure_source(field, k, exposed)
        if own_share < _LEAST_SHARE or (coverage is None and not len(owned[k])):
            continue
        outer, ratio = _measure_background(field, k, exposed, area, LEAST_OUTER_ARCSEC / plane.pixel_arcsec)
        near = _within(events, field.centre[k], outer)
        near = near[covered[near]]
        background = near[~field.cut(k, outer, points[near].T)]
        circle = (*field.centre[k].tolist(), float(field.radius[k]))
        shares = seen_share, own_share
        found.append(_aperture(int(field.source[k]), circle, seen[owned[k]], seen[background], ratio, shares, overlaps))
    return sorted(found, key=lambda aperture: aperture.source)


def apply_regions(
    x: Float64s, y: Float64s, source: PixelShape, background: PixelShape | None, coverage: ExposedArea | None
) -> Aperture:
    """A single source's events and background by regions that came with the file.

    Parameters
    ----------
    x, y : f8[N]
        Sky pixels of the file's events.
    source : PixelShape
    background : PixelShape or None
        None where there is no region for it: then all of the file that is farther from the source than twice its
        extent, which is right for a file that was cut out around the source.
    coverage : ExposedArea or None
        See `extract`.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    # The outline of a few events is smaller than the cut-out they lie in.
    exposed = coverage.contains if coverage is not None and coverage.measured else _everywhere
    inside = finite & source.contains(x, y)
    grid = source.grid(4 * _SHAPE_GRID)
    share = float(np.mean(exposed(*grid)))
    if background is not None:
        around = finite & background.contains(x, y)
        points = background.grid(8 * _SHAPE_GRID)
        area = background.area * float(np.mean(exposed(*points))) if len(points[0]) else 0.0
    else:
        centre, clear = source.centre, INNER * source.extent
        around = finite & (np.hypot(x - centre[0], y - centre[1]) > clear)
        area = 0.0 if not np.any(around) else _area_outside(x[finite], y[finite], centre, clear, exposed)
    around &= exposed(x, y) & ~inside
    ratio = area / (source.area * share) if share else 0.0
    circle = (*source.centre, source.extent)
    return _aperture(0, circle, np.flatnonzero(inside), np.flatnonzero(around), ratio, (share, share), overlaps=False)


def _aperture(
    source: int,
    circle: tuple[float, float, float],
    events: Int64s,
    background: Int64s,
    ratio: float,
    shares: tuple[float, float],
    overlaps: bool,
) -> Aperture:
    """An aperture, without its background where that is too small to be measured.

    `shares` are of the aperture: what is exposed, and what of that is no neighbour's.
    """
    exposed, own = shares
    states = {
        "edge": exposed < _WHOLE,
        "overlap": overlaps,
        "crowded": ratio < AREA_RATIO,
        "no_background": ratio < _LEAST_RATIO,
    }
    flags = tuple(flag for flag, raised in states.items() if raised)
    if ratio < _LEAST_RATIO:
        background, ratio = background[:0], float("nan")
    return Aperture(source, *circle, events, background, ratio, own, flags)


def _area_outside(x: Float64s, y: Float64s, centre: tuple[float, float], clear: float, exposed: Exposed) -> float:
    """Exposed area of the box around the events that is farther than `clear` from a place, square pixels."""
    n = 8 * _SHAPE_GRID
    steps = (np.arange(n) + 0.5) / n
    at_x, at_y = np.meshgrid(np.min(x) + steps * np.ptp(x), np.min(y) + steps * np.ptp(y))
    far = np.hypot(at_x - centre[0], at_y - centre[1]) > clear
    return float(np.mean(far & exposed(at_x, at_y)) * np.ptp(x) * np.ptp(y))


def _everywhere(x: Float64s, y: Float64s) -> Bools:
    return np.ones(np.shape(x), dtype=bool)


def _candidates(points: Float64s, plane: Plane, sources: SourceTable) -> Int64s:
    """Sources that could reach into the field, or be neighbours of one that does."""
    ra, dec, degrees = plane.field(points[:, 0], points[:, 1])
    reach = np.where(np.isfinite(sources.radius), sources.radius / 3600, _REGION_REACH)
    # A source reaches in by its radius; its background, and so the neighbours that matter, by a dozen times that.
    return sources.near(ra, dec, degrees + (1 + _CUT) * float(np.max(reach, initial=0.0)))


@dataclass(frozen=True)
class _Field:
    """The apertures of one field, in sky pixels, in the order of their names.

    Attributes
    ----------
    source : i8[S]
        Places in the source table.
    centre : f8[S, 2]
    radius : f8[S]
        Of a circle about the centre that holds the aperture, pixels; most apertures are that circle.
    shape : list of (PixelShape or None)
        None is the circle.
    depth : i8[S]
        How many much larger apertures hold this one's centre: deeper ones lie upon the others.
    tree : cKDTree
        Of the centres.
    """

    source: Int64s
    centre: Float64s
    radius: Float64s
    shape: list[PixelShape | None]
    depth: Int64s
    tree: Any

    @classmethod
    def of(cls, sources: SourceTable, chosen: Int64s, plane: Plane) -> "_Field":
        chosen = np.array(sorted(chosen.tolist(), key=lambda i: sources.source_id[i]), dtype=np.int64)
        x, y = plane.to_pixels(sources.ra[chosen], sources.dec[chosen])
        ahead = np.isfinite(x) & np.isfinite(y)
        chosen, centre = chosen[ahead], np.stack([x[ahead], y[ahead]], axis=1)
        radius = sources.radius[chosen] / plane.pixel_arcsec
        shapes = [_shape(sources, int(i), plane) for i in chosen]
        for k, shape in enumerate(shapes):
            if shape is not None:
                centre[k], radius[k] = shape.centre, shape.extent
        tree = cKDTree(centre)
        depth = np.zeros(len(chosen), np.int64)
        for k in np.argsort(-radius, kind="stable"):
            # The largest first, and few of them: only those that are much larger than the smallest can hold others.
            if radius[k] < _LARGER * radius.min():
                break
            inside = np.array(tree.query_ball_point(centre[k], radius[k]), dtype=np.int64)
            inside = inside[_LARGER * radius[inside] <= radius[k]]
            shape = shapes[k]
            if shape is not None:
                inside = inside[shape.contains(centre[inside, 0], centre[inside, 1])]
            depth[inside] += 1
        return cls(chosen, centre, radius, shapes, depth, tree)

    def __len__(self) -> int:
        return len(self.source)

    def contains(self, k: int, points: Float64s, enlarged: float = 1.0) -> Bools:
        """Whether points f8[2, P] lie in an aperture, or in it enlarged about its centre."""
        x, y = self.centre[k]
        inside: Bools = (points[0] - x) ** 2 + (points[1] - y) ** 2 <= (enlarged * self.radius[k]) ** 2
        shape = self.shape[k]
        if shape is not None and np.any(inside):
            offset = (points[:, inside] - self.centre[k][:, None]) / enlarged
            inside[inside] = shape.contains(offset[0] + x, offset[1] + y)
        return inside

    def _apart(self, k: int, points: Float64s) -> Float64s:
        """Distance of points f8[2, P] from a centre, in units of its radius."""
        return np.asarray(np.hypot(*(points - self.centre[k][:, None])) / self.radius[k])

    def owned(self, events: Any) -> list[Int64s]:
        """Events of each source, every event at most once: places in the tree's points, increasing."""
        members = events.query_ball_point(self.centre, self.radius, return_sorted=True)
        places = [np.array(member, dtype=np.int64) for member in members]
        for k, shape in enumerate(self.shape):
            if shape is not None:
                places[k] = places[k][self.contains(k, events.data[places[k]].T)]
        place, owner = np.concatenate(places), np.repeat(np.arange(len(self)), list(map(len, places)))
        apart = np.hypot(*(events.data[place] - self.centre[owner]).T) / self.radius[owner]
        order = np.lexsort((owner, apart, -self.depth[owner], place))
        place, owner = place[order], owner[order]
        first = np.diff(place, prepend=-1) != 0
        place, owner = place[first], owner[first]
        order = np.argsort(owner, kind="stable")
        return np.split(place[order], np.searchsorted(owner[order], np.arange(1, len(self))))

    def lost(self, k: int, points: Float64s) -> tuple[Bools, bool]:
        """Which points of an aperture are a neighbour's, and whether any neighbour shares area with it."""
        apart = self._apart(k, points)
        lost, overlaps = np.zeros(points.shape[1], dtype=bool), False
        for j in self._neighbours(k, self.radius[k], 1.0):
            shared = self.contains(j, points)
            overlaps |= bool(np.any(shared)) or (self.shape[k] is None and self.shape[j] is None)
            if self.depth[j] == self.depth[k]:
                other = self._apart(j, points)
                shared &= (other < apart) | ((other == apart) & (j < k))
            if self.depth[j] >= self.depth[k]:
                lost |= shared
        return lost, overlaps

    def cut(self, k: int, outer: float, points: Float64s) -> Bools:
        """Which points are not background of a source: too near to it, or in a neighbour's enlarged aperture."""
        cut: Bools = self._apart(k, points) <= INNER
        for j in self._neighbours(k, outer, _CUT):
            lies_upon_it = self.radius[j] >= _LARGER * self.radius[k] and self.contains(j, self.centre[k][:, None])[0]
            if not lies_upon_it:
                cut |= self.contains(j, points, _CUT)
        return cut

    def _neighbours(self, k: int, reach: float, enlarged: float) -> list[int]:
        """Other sources whose enlarged circles come within `reach` of a centre."""
        near = _within(self.tree, self.centre[k], reach + enlarged * float(self.radius.max()))
        apart = np.hypot(*(self.centre[near] - self.centre[k]).T)
        return [int(j) for j in near[apart < reach + enlarged * self.radius[near]] if j != k]


def _measure_source(field: _Field, k: int, exposed: Exposed) -> tuple[tuple[float, float], float, bool]:
    """Of an aperture: the exposed share and the share that is exposed and its own, that as square pixels, and whether
    any neighbour shares area with it."""
    shape = field.shape[k]
    if shape is None:
        points = field.centre[k][:, None] + field.radius[k] * _SUNFLOWER
        area = float(np.pi * field.radius[k] ** 2)
    else:
        points = np.stack(shape.grid(_SHAPE_GRID))
        area = shape.area
    seen = exposed(points[0], points[1])
    lost, overlaps = field.lost(k, points)
    if not len(seen):
        return (0.0, 0.0), 0.0, overlaps
    share = float(np.mean(seen & ~lost))
    return (float(np.mean(seen)), share), share * area, overlaps


def _measure_background(
    field: _Field, k: int, exposed: Exposed, source_area: float, least_outer: float
) -> tuple[float, float]:
    """How far the annulus reaches, widened until it is large enough or as wide as it may be, and its exposed area over
    the source's."""
    inner = INNER * float(field.radius[k])

    def free(outer: float) -> Float64s:
        """Exposed area over the source's, summed from the inner circle outwards over rings of equal area, f8[rings]."""
        # They cover the annulus evenly.
        points = field.centre[k][:, None] + _DIRECTIONS * np.sqrt(inner**2 + _SHARES * (outer**2 - inner**2))
        good = exposed(points[0], points[1]) & ~field.cut(k, outer, points)
        return np.cumsum(good) / len(good) * np.pi * (outer**2 - inner**2) / source_area

    outer = max(OUTER * float(field.radius[k]), least_outer)
    widest = max(WIDEST * float(field.radius[k]), least_outer)
    ratio = free(outer)[-1]
    if ratio < AREA_RATIO and outer < widest:
        # A little more than is wanted, since the narrower annulus is measured anew.
        enough = np.searchsorted(free(widest), 1.05 * AREA_RATIO)
        share = min(1.0, (enough + 1) / _BACKGROUND_POINTS)
        outer = float(np.sqrt(inner**2 + share * (widest**2 - inner**2)))
        ratio = free(outer)[-1]
    return outer, float(ratio)


def _sunflower(n: int) -> Float64s:
    """`n` points that cover the unit disc evenly, f8[2, n] (Vogel 1979, Math. Biosci. 44, 179)."""
    turn, radius = np.arange(n) * np.pi * (3 - np.sqrt(5)), np.sqrt((np.arange(n) + 0.5) / n)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)])


_SUNFLOWER = _sunflower(_SOURCE_POINTS)
_DIRECTIONS = _sunflower(_BACKGROUND_POINTS) / np.hypot(*_sunflower(_BACKGROUND_POINTS))
_SHARES = (np.arange(_BACKGROUND_POINTS) + 0.5) / _BACKGROUND_POINTS


def _within(tree: Any, centre: Float64s, radius: float) -> Int64s:
    """Places of a tree's points within a circle, increasing."""
    return np.array(tree.query_ball_point(centre, radius, return_sorted=True), dtype=np.int64)


def _shape(sources: SourceTable, i: int, plane: Plane) -> PixelShape | None:
    text = sources.region[i]
    if text is None:
        return None
    try:
        return parse_region(text, plane)
    except RefusedInput as refused:
        raise ConfigError(f"region of source '{sources.source_id[i]}': {refused.detail}") from refused
