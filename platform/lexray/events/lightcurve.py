"""Light curves: counts in bins of time, with each bin's good time and errors that hold for few counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from lexray.array_types import Float64s, Int64s
from lexray.events.adaptive_bins import adaptive_bins
from lexray.events.eventlist import EventList


@dataclass(frozen=True)
class LightCurve:
    """Counts in T bins of time and B bands.

    Attributes
    ----------
    start, stop : f8[T]
        Ends of the bins in seconds since `t_ref`.
    exposure : f8[T]
        Good time in each bin, in seconds; never 0. Dead time within it is not taken off.
    counts : i8[B, T]
        Events.
    rate, lower, upper : f8[B, T]
        counts / exposure and the ends of its error bar, in ct/s of good time.
    """

    start: Float64s
    stop: Float64s
    exposure: Float64s
    counts: Int64s
    rate: Float64s
    lower: Float64s
    upper: Float64s

    def __len__(self) -> int:
        return len(self.start)


def light_curve(events: EventList, edges: ArrayLike | None = None, min_counts: int = 20) -> LightCurve:
    """Count a detection's events in bins of time.

    Parameters
    ----------
    events : EventList
        Of B bands.
    edges : array_like, f8[K + 1], optional
        Edges of adjacent bins in seconds since `t_ref`, increasing. Bins without good time are left out. Events at the
        last edge belong to the last bin.
    min_counts : int
        Without edges, bins are made by halving the stretches between gaps on the clock of good time, while a half would
        hold so many events of all bands on average (`lexray.events.adaptive_bins`), and no further than two frames.

    Returns
    -------
    LightCurve
        All events lie in one of the bins where no edges are given.

    Raises
    ------
    ValueError
        If the edges do not increase.
    """
    if edges is None:
        start, stop = _in_adaptive_bins(events, min_counts)
    else:
        given = np.asarray(edges, dtype=np.float64)
        if given.ndim != 1 or len(given) < 2 or np.any(np.diff(given) <= 0):
            raise ValueError(f"edges must increase and be two at least, got {given.shape}")
        start, stop = given[:-1], given[1:]
    exposure = events.gti.good_time_before(stop) - events.gti.good_time_before(start)
    seen = exposure > 0
    start, stop, exposure = start[seen], stop[seen], exposure[seen]
    counts = np.array([_count(events.time[events.band == b], start, stop) for b in range(len(events.bands))])
    lower, upper = poisson_interval(counts)
    return LightCurve(start, stop, exposure, counts, counts / exposure, lower / exposure, upper / exposure)


def background_rate(events: EventList, curve: LightCurve) -> Float64s | None:
    """Rate that the background adds to all bands together in a curve's bins, f8[T] ct/s; None if it is not known."""
    if events.background is None or not np.isfinite(events.background.scale) or events.background.scale <= 0:
        return None
    return _count(events.background.time, curve.start, curve.stop) / (curve.exposure * events.background.scale)


#: Probability of the errors: that of one Gaussian standard deviation.
_ONE_SIGMA = 0.682689492137086


def poisson_interval(counts: ArrayLike, level: float = _ONE_SIGMA) -> tuple[Float64s, Float64s]:
    """Central interval of the mean that gave these counts (Garwood 1936; eqs. 7 and 8 of Gehrels 1986, ApJ 303, 336).

    Parameters
    ----------
    counts : array_like, i8[...]
    level : float
        Probability that the interval holds the mean, at least; that of one Gaussian standard deviation if not given.

    Returns
    -------
    lower, upper : f8[...]
        0 and 1.84 of no counts.
    """
    n = np.asarray(counts, dtype=np.float64)
    tail = (1 - level) / 2
    lower = np.where(n > 0, chi2.ppf(tail, 2 * np.maximum(n, 1)) / 2, 0.0)
    return lower, np.asarray(chi2.ppf(1 - tail, 2 * n + 2) / 2)


def _count(time: Float64s, start: Float64s, stop: Float64s) -> Int64s:
    """Times in each of disjoint, sorted bins; one at a bin's end is in the next bin, if that begins there."""
    if not len(start):
        return np.zeros(0, dtype=np.int64)
    which = np.searchsorted(start, time, side="right") - 1
    inside = (which >= 0) & (time <= stop[np.maximum(which, 0)])
    return np.bincount(which[inside], minlength=len(start))


def _in_adaptive_bins(events: EventList, min_counts: int) -> tuple[Float64s, Float64s]:
    gti = events.gti
    if not len(gti):
        return np.zeros(0), np.zeros(0)
    # Gaps shorter than this share of the whole do not end a bin; their time counts as lost all the same.
    firsts = np.flatnonzero(np.append(True, gti.start[1:] - gti.stop[:-1] > 0.005 * events.duration))
    lasts = np.append(firsts[1:], len(gti)) - 1
    finest = 2 * events.frame_time if np.isfinite(events.frame_time) else 0.0
    # On the clock of good time an interval begins where the last one ended.
    clock = gti.elapsed
    elapsed = gti.good_time_before(events.time)
    starts, stops = [], []
    for first, last in zip(firsts, lasts, strict=True):
        # An event at the end of a stretch has the clock's reading of the next one's begin: it is told by its time.
        own = (events.time >= gti.start[first]) & (events.time <= gti.stop[last])
        inner = adaptive_bins(elapsed[own], clock[first], clock[last + 1], min_counts, finest)[1:-1]
        interval = np.searchsorted(clock, inner, side="right") - 1
        cuts = gti.start[interval] + (inner - clock[interval])
        starts.append(np.concatenate([gti.start[first : first + 1], cuts]))
        stops.append(np.concatenate([cuts, gti.stop[last : last + 1]]))
    return np.concatenate(starts), np.concatenate(stops)
