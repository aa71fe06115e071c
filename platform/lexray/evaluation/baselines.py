"""What a model has to beat: a constant rate, and Bayesian Blocks (Scargle et al. 2013, arXiv:1207.5578)."""

import numpy as np
from astropy.stats import bayesian_blocks as _bayesian_blocks

from lexray.array_types import Float64s
from lexray.evaluation.heldout import PiecewiseRate, counts_per_band
from lexray.events.eventlist import EventList

#: Photons' worth of the detection's mean spectrum mixed into each block's, see `bayesian_blocks`.
PRIOR_PHOTONS = 40.0


def constant_rate(events: EventList) -> PiecewiseRate:
    """One rate a band, n_b + ½ counts over the good time."""
    edges = np.array([0.0, events.duration])
    level = (counts_per_band(events).astype(np.float64) + 0.5) / events.gti.ontime
    return PiecewiseRate(edges, level[:, None])


def bayesian_blocks(events: EventList) -> PiecewiseRate:
    """Bayesian Blocks on the clock of good time, so that a gap is no drop of the rate.

    Blocks are found in all bands together, which sees more photons than each band alone and was the better of the two:
    held-out gain 0.226 against 0.184 bits/photon on 300 simulated sources of ~300 photons, 0.215 against 0.189 on a
    log-normal mix of 10 to 3,000. A block's spectrum is its own counts shrunk towards the whole detection's by
    `PRIOR_PHOTONS` photons: a block of 5 photons must not say that a band is dark.
    """
    counts = counts_per_band(events)
    good_time = events.gti.good_time_before(events.time)
    edges = _blocks(good_time, events.gti.ontime)
    n = np.stack([np.histogram(good_time[events.band == b], edges)[0] for b in range(len(counts))])
    share = (counts + 0.5) / (counts + 0.5).sum()
    spectrum = (n + PRIOR_PHOTONS * share[:, None]) / (n.sum(axis=0) + PRIOR_PHOTONS)
    rate = spectrum * np.maximum(n.sum(axis=0), 0.5) / np.diff(edges)
    elapsed = events.gti.time_at(edges)
    elapsed[0], elapsed[-1] = min(0.0, float(elapsed[0])), events.gti.stop[-1]
    return PiecewiseRate(elapsed, rate)


def _blocks(clock: Float64s, total: float) -> Float64s:
    """Edges of the blocks from 0 to `total`; astropy's reach only from the first photon to the last."""
    inner = _bayesian_blocks(clock, fitness="events")[1:-1] if len(np.unique(clock)) > 1 else np.zeros(0)
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < total)], [total]])
