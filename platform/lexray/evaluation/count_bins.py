"""Groups of detections in which a gain is reported in addition to the gain over all."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Name of each bin of counts, two a decade, and its lower and upper edge.
COUNT_BINS: dict[str, tuple[int, int | None]] = {
    "below_10": (0, 10),
    "10_30": (10, 30),
    "30_100": (30, 100),
    "100_300": (100, 300),
    "300_1000": (300, 1000),
    "1000_3000": (1000, 3000),
    "from_3000": (3000, None),
}


def count_bin_of(counts: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """Place in `COUNT_BINS` of each number of photons; an edge belongs to the bin above it."""
    edges = [high for _, high in COUNT_BINS.values() if high is not None]
    return np.searchsorted(edges, np.asarray(counts), side="right").astype(np.int64)
