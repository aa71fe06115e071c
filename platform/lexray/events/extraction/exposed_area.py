"""Which part of a field the detector saw, estimated from the field's own events.

The areas of apertures and of background regions are areas of the sky that the detector looked at: a chip's edge or a
gap between chips cuts both. Observatories publish exposure maps for this; where only the event file is at hand, the
events themselves say where the detector was, the better the more there are.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay, QhullError

from lexray.array_types import Bools, Float64s, Int64s

#: Events that a window of ordinary background should hold: of 36, fewer than half come by chance once in 2,000 times.
_EVENTS_A_WINDOW = 36.0
#: Cells along a window's side: the window is moved over the field by cells.
_FINE = 3
#: Fewer occupied windows than this draw no outline: the field is too sparse for a map.
_LEAST_WINDOWS = 150
#: Windows along a side at most, which no field needs unless it has 10⁷ events or positions that lie absurdly far out.
_MOST_WINDOWS = 1024
#: Cells along the longer side of a map that is drawn from the events' outline alone.
_OUTLINE_CELLS = 256
#: Side, in windows, of the neighbourhood that says what a window ought to hold.
_NEIGHBOURHOOD = 9
#: A window's middle is unexposed below this share of what it ought to hold: half, so that edges have no bias.
_SHARE = 0.5
#: A region's background is expected at no less than this share of the field's, which may be of front- and of
#: back-illuminated chips.
_FAINTEST = 0.3


@dataclass(frozen=True)
class ExposedArea:
    """Map of the exposed part of a field, in cells.

    Attributes
    ----------
    x, y : float
        Lower corner of the first cell, sky pixels.
    width, height : float
        Of a cell, sky pixels; nearly alike, a whole number of them filling the events' bounding box.
    exposed : b1[rows, columns]
        By y and x.
    measured : bool
        Whether the map shows gaps and edges, to about half a cell; False where it is the outline of the events only.
    """

    x: float
    y: float
    width: float
    height: float
    exposed: Bools
    measured: bool

    @classmethod
    def of(cls, x: Float64s, y: Float64s) -> "ExposedArea | None":
        """Map of the field in which these events were seen.

        A window as large as is needed for the median one to hold 36 events is moved over the field in thirds of its
        side. A place is unexposed if the window around it holds less than half of what its neighbourhood's upper
        quartile promises, but never for being fainter than half the field's median: a bright, extended source is not
        surrounded by gaps. Holes smaller than the window are chance and are closed; edges and gaps are lines.

        How sure that is: an edge is drawn to about a fifth of a window, without bias; a gap narrower than half a window
        is missed, a wider one shows. With 10⁶ events over four ACIS chips a window is 12 pixels (6″) wide, and the gaps
        of 11″ show; with 10⁵ it is 40 pixels, and areas across a gap are up to 30 % too large. Exposure counts as
        present or absent: vignetting and dithered edges do not. Where there are too few events for 150 windows, about
        5,500, every place inside the events' convex hull counts as exposed, which is right for one chip or a cut-out
        and too generous for a mosaic of chips.

        Parameters
        ----------
        x, y : f8[N]
            Sky pixels; those that are not finite are ignored.

        Returns
        -------
        ExposedArea or None
            None where fewer than three events, or all on one line, outline nothing.
        """
        finite = np.isfinite(x) & np.isfinite(y)
        x, y = np.asarray(x[finite], dtype=np.float64), np.asarray(y[finite], dtype=np.float64)
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return None
        side = _window_size(x, y)
        if side is None:
            return cls._of_outline(x, y)
        fine, (width, height) = _count(x, y, side, _FINE)
        rows, columns = fine.shape[0] // _FINE, fine.shape[1] // _FINE
        windows = fine.reshape(rows, _FINE, columns, _FINE).sum(axis=(1, 3))
        if np.count_nonzero(windows) < _LEAST_WINDOWS:
            return cls._of_outline(x, y)
        usual = float(np.median(windows[windows > 0]))
        near = ndimage.percentile_filter(windows, 75, size=_NEIGHBOURHOOD, mode="constant")
        wanted = _SHARE * np.clip(near, _FAINTEST * usual, usual)
        around = ndimage.uniform_filter(fine.astype(np.float64), _FINE, mode="constant") * _FINE**2
        # Sums of whole numbers, but for rounding in the filter.
        exposed = np.rint(around) >= np.repeat(np.repeat(wanted, _FINE, axis=0), _FINE, axis=1)
        square = np.ones((_FINE, _FINE), dtype=bool)
        closed = ndimage.binary_erosion(ndimage.binary_dilation(exposed, square), square, border_value=1)
        return cls(float(np.min(x)), float(np.min(y)), width, height, closed, measured=True)

    @classmethod
    def _of_outline(cls, x: Float64s, y: Float64s) -> "ExposedArea | None":
        """The convex hull of the events, drawn in fine cells."""
        points = np.stack([x, y], axis=1)
        try:
            hull = Delaunay(points[ConvexHull(points).vertices])
        except QhullError:
            return None
        low, size = points.min(axis=0), np.ptp(points, axis=0)
        columns, rows = np.ceil(_OUTLINE_CELLS * size / np.max(size)).astype(int)
        width, height = size / (columns, rows)
        at_x, at_y = np.meshgrid(low[0] + (np.arange(columns) + 0.5) * width, low[1] + (np.arange(rows) + 0.5) * height)
        inside = hull.find_simplex(np.stack([at_x, at_y], axis=-1)) >= 0
        return cls(float(low[0]), float(low[1]), float(width), float(height), inside, measured=False)

    def contains(self, x: Float64s, y: Float64s) -> Bools:
        """Whether places were exposed, b1 of the shape of `x` and `y` (sky pixels)."""
        rows, columns = self.exposed.shape
        column = np.floor((x - self.x) / self.width)
        row = np.floor((y - self.y) / self.height)
        known = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        place = (np.where(known, index, 0).astype(np.int64) for index in (row, column))
        return np.asarray(known & self.exposed[tuple(place)])


def _window_size(x: Float64s, y: Float64s) -> float | None:
    """Side of a window of which the median occupied one holds `_EVENTS_A_WINDOW`; None where that is out of reach."""
    width, height = np.ptp(x), np.ptp(y)
    finest = max(width, height) / _MOST_WINDOWS
    side = max(float(np.sqrt(width * height * _EVENTS_A_WINDOW / len(x))), finest)
    for _ in range(6):  # a bright source makes the first guess too fine; each turn mends it by a factor of five or more
        if min(width, height) < side:
            return None
        counts, _ = _count(x, y, side, 1)
        usual = float(np.median(counts[counts > 0]))
        if abs(usual - _EVENTS_A_WINDOW) <= 2:
            break
        side = max(side * float(np.sqrt(_EVENTS_A_WINDOW / usual)), finest)
    return side


def _count(x: Float64s, y: Float64s, side: float, parts: int) -> tuple[Int64s, tuple[float, float]]:
    """Events in each cell, i8[rows, columns], and a cell's width and height.

    Windows of about a size fill the events' bounding box, and each is divided into `parts` cells along either side.
    """

    def index(values: Float64s) -> tuple[Int64s, int, float]:
        cells = parts * max(1, round(float(np.ptp(values)) / side))
        size = float(np.ptp(values)) / cells
        return np.minimum(((values - np.min(values)) / size).astype(np.int64), cells - 1), cells, size

    (column, columns, width), (row, rows, height) = index(x), index(y)
    return np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns), (width, height)
