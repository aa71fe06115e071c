"""Adaptive binning: bins are halved as long as each half would hold enough events."""

import numpy as np
from numpy.typing import ArrayLike

from lexray.array_types import Float64s

#: No bin is narrower than this share of the whole, however many events crowd in one place.
_FINEST = 2.0**-16


def adaptive_bins(position: ArrayLike, low: float, high: float, min_counts: int, finest: float = 0.0) -> Float64s:
    """Edges of bins between `low` and `high`, halved while each half would hold `min_counts` on average.

    Only the number of events in a bin decides whether it is halved, not where they lie: bins that end at every n-th
    event would give rates too high by 1/n. A small bias remains near the threshold, where the bins that fluctuate
    upwards are halved. A half may be empty.

    Parameters
    ----------
    position : array_like, f8[N]
        Positions of the events, in any order; those outside are ignored.
    low, high : float
        Ends.
    min_counts : int
        A bin with twice as many is halved.
    finest : float
        No bin becomes narrower than this.

    Returns
    -------
    f8[T + 1]
        From `low` to `high`, increasing.
    """
    sorted_position = np.sort(np.asarray(position, dtype=np.float64))
    finest = max(finest, (high - low) * _FINEST)
    waiting, edges = [(low, high)], [low]
    while waiting:
        begin, end = waiting.pop()
        first, last = np.searchsorted(sorted_position, [begin, end])
        if last - first >= 2 * min_counts and (end - begin) / 2 >= finest:
            middle = (begin + end) / 2
            waiting += [(middle, end), (begin, middle)]  # the earlier half is taken next
        else:
            edges.append(end)
    return np.array(edges)
