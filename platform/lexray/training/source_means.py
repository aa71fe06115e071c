"""From rows of detections to one vector a source."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def source_means(
    source_ids: Sequence[str], rows: NDArray[Any], *, unit: bool = False
) -> tuple[list[str], NDArray[np.float32]]:
    """One vector a source: the mean of its detections' vectors, brought back to unit norm where `unit` is set.

    Returns
    -------
    list of str, length S
        Sources, sorted.
    f4[S, D]
    """
    names, inverse = np.unique(np.asarray(source_ids, dtype=object).astype(str), return_inverse=True)
    total = np.zeros((len(names), rows.shape[1]))
    np.add.at(total, inverse, rows)
    mean = total / np.bincount(inverse, minlength=len(names))[:, None]
    if unit:
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return [str(name) for name in names], mean.astype(np.float32)
