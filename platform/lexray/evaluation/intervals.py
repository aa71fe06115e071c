"""Intervals of reconstructed rates, and how often the truth lies within."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lexray.evaluation.heldout import PiecewiseRate
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.inference.autodecoder import Autodecoder

#: Lower and upper bound of a rate.
RateInterval = tuple[PiecewiseRate, PiecewiseRate]


def rate_intervals(model: Autodecoder, events: Sequence[EventList], level: float) -> list[RateInterval] | None:
    """Interval of each detection's rate in every cell that holds the truth with probability `level`.

    None where this model type gives none.
    """
    intervals = model.rate_intervals(events, level=level)
    if intervals is None:
        return None
    return [(PiecewiseRate(edges, low), PiecewiseRate(edges, high)) for edges, low, high in intervals]


def coverage(
    truth: Sequence[PiecewiseRate], intervals: Sequence[RateInterval], gti: Sequence[GoodTimeIntervals]
) -> NDArray[np.float64]:
    """Share of each detection's good time and bands at which the true rate lies within its interval, f8[N].

    The truth is taken at the middle of its own cells, so that they may be finer or coarser than the intervals'.
    """
    shares = np.empty(len(truth))
    for i, (rate, (low, high), good) in enumerate(zip(truth, intervals, gti, strict=True)):
        middle = (rate.edges[:-1] + rate.edges[1:]) / 2
        cell = np.clip(np.searchsorted(low.edges, middle, side="right") - 1, 0, low.rate.shape[1] - 1)
        within = (low.rate[:, cell] <= rate.rate) & (rate.rate <= high.rate[:, cell])
        shares[i] = np.average(within.mean(axis=0), weights=good.exposure(rate.edges))
    return shares
