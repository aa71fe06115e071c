"""Bins that are as narrow as the events in them allow."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64s = NDArray[np.float64]
#: No bin is narrower than this share of the whole, however many events crowd in one place.
_FINEST = 2.0**-16


def adaptive_bins(position: ArrayLike, low: float, high: float, min_counts: int, finest: float = 0.0) -> Float64s:
    """Edges of bins between `low` and `high` that were halved while each half would hold `min_counts` on average.

    How many events there are decides whether a bin is halved, and never where they are: bins that end at every n-th
    event would give rates too high by 1/n in all of them. What is left of that is a choice near the threshold, where
    the bins that fluctuate upwards are the ones that are halved. A half may turn out empty: that is where nothing was.

    Parameters
    ----------
    position : array_like, f8[N]
        Of the events, in any order; those outside are not looked at.
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
