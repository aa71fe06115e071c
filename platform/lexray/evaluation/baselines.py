"""What a model has to beat: a constant rate, and Bayesian Blocks (Scargle et al. 2013, arXiv:1207.5578)."""

import numpy as np
from astropy.stats import bayesian_blocks as _bayesian_blocks

from lexray.array_types import Float64s
from lexray.evaluation.heldout import PiecewiseRate, counts_per_band
from lexray.events.eventlist import EventList, GoodTimeIntervals

#: Probability that a block begins where nothing changes; astropy's default.
FALSE_ALARM = 0.05
#: Photons' worth of the detection's mean spectrum mixed into each block's, see `bayesian_blocks`.
PRIOR_PHOTONS = 40.0


def constant_rate(events: EventList) -> PiecewiseRate:
    """One rate a band, n_b + ½ counts over the good time."""
    edges = np.array([0.0, events.duration])
    level = (counts_per_band(events).astype(np.float64) + 0.5) / events.gti.ontime
    return PiecewiseRate(edges, level[:, None])


def bayesian_blocks(events: EventList, *, pooled: bool = True, false_alarm: float = FALSE_ALARM) -> PiecewiseRate:
    """Bayesian Blocks on the clock of good time, so that a gap is no drop of the rate.

    Parameters
    ----------
    events : EventList
        One detection.
    pooled : bool
        Find blocks in all bands together, which sees more photons; else in each band alone. Pooled is the default
        since it was the better of the two: held-out gain 0.226 against 0.184 bits/photon on 300 simulated sources of
        ~300 photons, 0.215 against 0.189 on a log-normal mix of 10 to 3,000. A pooled block's spectrum is its own
        counts shrunk towards the whole detection's by `PRIOR_PHOTONS` photons: a block of 5 photons must not say that a
        band is dark.
    false_alarm : float
        `p0` of astropy.
    """
    counts = counts_per_band(events)
    good_time = events.gti.good_time_before(events.time)
    total = events.gti.ontime
    band = events.band
    if pooled:
        edges = _blocks(good_time, total, false_alarm)
        n = np.stack([np.histogram(good_time[band == b], edges)[0] for b in range(len(counts))])
        share = (counts + 0.5) / (counts + 0.5).sum()
        spectrum = (n + PRIOR_PHOTONS * share[:, None]) / (n.sum(axis=0) + PRIOR_PHOTONS)
        rate = spectrum * np.maximum(n.sum(axis=0), 0.5) / np.diff(edges)
    else:
        each = [_blocks(good_time[band == b], total, false_alarm) for b in range(len(counts))]
        edges = np.unique(np.concatenate(each))
        rate = np.stack([_density(good_time[band == b], blocks, edges) for b, blocks in enumerate(each)])
    return PiecewiseRate(_good_time_to_elapsed(edges, events.gti), rate)


def _blocks(clock: Float64s, total: float, false_alarm: float) -> Float64s:
    """Edges of the blocks from 0 to `total`; astropy's reach only from the first photon to the last."""
    inner = np.zeros(0)
    if len(np.unique(clock)) > 1:
        inner = _bayesian_blocks(clock, fitness="events", p0=false_alarm)[1:-1]
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < total)], [total]])


def _density(clock: Float64s, blocks: Float64s, edges: Float64s) -> Float64s:
    """Rate of one band's blocks on the finer cells of all bands' edges."""
    rate = np.maximum(np.histogram(clock, blocks)[0], 0.5) / np.diff(blocks)
    middle = (edges[:-1] + edges[1:]) / 2
    rate_in_cells: Float64s = rate[np.searchsorted(blocks, middle, side="right") - 1]
    return rate_in_cells


def _good_time_to_elapsed(clock: Float64s, gti: GoodTimeIntervals) -> Float64s:
    """Times since `t_ref` at which the clock of good time shows `clock`; gaps fall between two cells' photons."""
    elapsed = np.concatenate([[0.0], np.cumsum(gti.stop - gti.start)])
    i = np.clip(np.searchsorted(elapsed, clock, side="right") - 1, 0, len(gti) - 1)
    wall: Float64s = gti.start[i] + (clock - elapsed[i])
    wall[0], wall[-1] = min(0.0, float(wall[0])), gti.stop[-1]
    return wall
