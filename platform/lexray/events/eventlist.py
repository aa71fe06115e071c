"""Photons of one detection with the times in which they could have been seen."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lexray.array_types import Bools, Float32s, Float64s


@dataclass(frozen=True)
class GoodTimeIntervals:
    """Sorted, disjoint, non-empty intervals in which the instrument observed.

    Parameters
    ----------
    start, stop : array_like, f8[G]
        In seconds. Empty and backward intervals are dropped, overlapping and touching ones merged.
    """

    start: Float64s
    stop: Float64s

    def __init__(self, start: ArrayLike, stop: ArrayLike) -> None:
        begin, end = (np.atleast_1d(np.asarray(ends, dtype=np.float64)) for ends in (start, stop))
        if begin.shape != end.shape or begin.ndim != 1:
            raise ValueError(f"start and stop must be equally long, got {begin.shape} and {end.shape}")
        good = np.isfinite(begin) & np.isfinite(end) & (end > begin)
        order = np.argsort(begin[good], kind="stable")
        begin, end = begin[good][order], end[good][order]
        if len(begin):
            latest = np.maximum.accumulate(end)
            first = np.concatenate([[True], begin[1:] > latest[:-1]])
            begin, end = begin[first], latest[np.concatenate([first[1:], [True]])]
        object.__setattr__(self, "start", begin)
        object.__setattr__(self, "stop", end)

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def ontime(self) -> float:
        """Sum of the intervals' lengths, in seconds."""
        return float(np.sum(self.stop - self.start))

    @cached_property
    def elapsed(self) -> Float64s:
        """Good time that has elapsed before each interval and after the last, f8[G + 1], in seconds."""
        return np.concatenate([[0.0], np.cumsum(self.stop - self.start)])

    def contains(self, time: ArrayLike) -> Bools:
        """Whether each time lies in an interval; both ends count."""
        t = np.asarray(time, dtype=np.float64)
        if not len(self):
            return np.zeros(t.shape, dtype=bool)
        i = np.searchsorted(self.start, t, side="right") - 1
        return np.asarray((i >= 0) & (t <= self.stop[np.maximum(i, 0)]))

    def good_time_before(self, time: ArrayLike) -> Float64s:
        """Good time elapsed until each time, in seconds; the clock that stops in gaps."""
        t = np.asarray(time, dtype=np.float64)
        if not len(self):
            return np.zeros(t.shape)
        i = np.maximum(np.searchsorted(self.start, t, side="right") - 1, 0)
        return np.asarray(self.elapsed[i] + np.clip(t - self.start[i], 0.0, (self.stop - self.start)[i]))

    def time_at(self, good: ArrayLike) -> Float64s:
        """When each amount of good time, in seconds, has elapsed; the inverse of `good_time_before` inside intervals.

        At the end of an interval the answer is that end, not the start of the next one.
        """
        g = np.asarray(good, dtype=np.float64)
        i = np.clip(np.searchsorted(self.elapsed, g, side="left") - 1, 0, len(self) - 1)
        return np.asarray(self.start[i] + (g - self.elapsed[i]))

    def exposure(self, edges: ArrayLike) -> Float64s:
        """Good time in each cell between consecutive `edges`, in seconds."""
        return np.diff(self.good_time_before(edges))

    def shift(self, offset: float) -> "GoodTimeIntervals":
        """The intervals moved by `offset` seconds."""
        return GoodTimeIntervals(self.start + offset, self.stop + offset)

    def intersect(self, other: "GoodTimeIntervals") -> "GoodTimeIntervals":
        """Times that are good in both."""
        edges = np.unique(np.concatenate([self.start, self.stop, other.start, other.stop]))
        middle = (edges[:-1] + edges[1:]) / 2
        both = self.contains(middle) & other.contains(middle)
        return GoodTimeIntervals(edges[:-1][both], edges[1:][both])


@dataclass(frozen=True)
class Bands:
    """Adjacent energy bands.

    Parameters
    ----------
    edges : tuple of float
        In keV, increasing, one more than there are bands. A band holds its lower edge, the last its upper one too.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"band edges must increase and be two at least, got {self.edges}")

    def __len__(self) -> int:
        return len(self.edges) - 1

    def index(self, energy: ArrayLike) -> NDArray[np.int8]:
        """Band of each energy in keV, −1 outside all of them."""
        e = np.asarray(energy)
        # Energies are kept in float32: an edge must compare equal to the float32 nearest to it.
        *lower, last = np.asarray(self.edges, dtype=np.float32)
        band = np.full(e.shape, -1, dtype=np.int8)
        for edge in lower:
            band += e >= edge
        band[e > last] = -1
        return band

    def names(self) -> list[str]:
        """'0.5–1.2 keV' …"""
        return [f"{low:g}–{high:g} keV" for low, high in zip(self.edges, self.edges[1:], strict=False)]


@dataclass(frozen=True)
class Background:
    """Events of the detection's background region.

    Attributes
    ----------
    time : f8[M]
        Seconds since the detection's `t_ref`.
    energy : f4[M]
        keV.
    scale : float
        The region's area × exposure over the source's.
    """

    time: Float64s
    energy: Float32s
    scale: float


@dataclass(frozen=True)
class EventList:
    """One detection: a source in one observation.

    Attributes
    ----------
    time : f8[N]
        Arrival times in seconds since `t_ref`, sorted.
    energy : f4[N]
        keV.
    gti : GoodTimeIntervals
        In seconds since `t_ref`, so that the first starts at 0.
    bands : Bands
        The mission's energy bands; every event lies in one.
    exposure : float
        ontime × live fraction, in seconds.
    t_ref, t_ref_mjd : float
        Start of the first good time, in the mission's own seconds and as MJD in `timesys`.
    ra, dec : float
        Degrees, ICRS; NaN if unknown.
    frame_time : float
        Seconds; NaN where events are not framed.
    counts_per_frame : float
        Mean events a frame of all energies, good grades and statuses; NaN where events are not framed.
    area : tuple of float or None
        Effective area a band, cm².
    flags : tuple of str
        'whole_field', 'overflow', 'pile_up', 'edge', 'exposure_mismatch' …
    """

    detection_id: str
    source_id: str
    time: Float64s
    energy: Float32s
    gti: GoodTimeIntervals
    bands: Bands
    exposure: float
    mission: str = ""
    instrument: str = ""
    obs_id: str = ""
    object: str = ""
    ra: float = np.nan
    dec: float = np.nan
    t_ref: float = 0.0
    t_ref_mjd: float = np.nan
    timesys: str = ""
    timeref: str = ""
    frame_time: float = np.nan
    counts_per_frame: float = np.nan
    area: tuple[float, ...] | None = None
    background: Background | None = None
    flags: tuple[str, ...] = ()
    file: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.time.shape != self.energy.shape or self.time.ndim != 1:
            raise ValueError(f"time and energy must be equally long, got {self.time.shape} and {self.energy.shape}")
        if np.any(np.diff(self.time) < 0):
            raise ValueError(f"{self.detection_id}: times are not sorted")

    def __len__(self) -> int:
        return len(self.time)

    @cached_property
    def band(self) -> NDArray[np.int8]:
        """Band of each event, i1[N]."""
        return self.bands.index(self.energy)

    @property
    def duration(self) -> float:
        """End of the last good time since `t_ref`, in seconds."""
        return float(self.gti.stop[-1]) if len(self.gti) else 0.0

    def hardness_ratio(self, soft: int, hard: int) -> float:
        """(H − S)/(H + S) of the counts in two bands, each with half a count added so that it is always defined."""
        s, h = np.count_nonzero(self.band == soft) + 0.5, np.count_nonzero(self.band == hard) + 0.5
        return float((h - s) / (h + s))
