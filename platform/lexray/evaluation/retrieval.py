"""Does a text find its source, and a source its text? Ranks, recall and what chance would give."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lexray.evaluation.heldout import interval_95

#: Two similarities nearer than this are a tie: float64 dot products of equal rows may differ in the last digits.
_TIE_TOLERANCE = 1e-9


def ranks(queries: ArrayLike, targets: ArrayLike) -> NDArray[np.int64]:
    """Rank of each query's own target among all of them, 1 the best.

    Parameters
    ----------
    queries, targets : f4[N, E]
        Unit norm; row i of one belongs to row i of the other.

    Returns
    -------
    i8[N]
        Ties count against: of targets that are equally near, one's own comes last. So a space that has collapsed to a
        point ranks everything N and gains nothing.
    """
    q, t = np.asarray(queries, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if q.shape != t.shape or q.ndim != 2:
        raise ValueError(f"queries and targets must pair up row by row, got {q.shape} and {t.shape}")
    similarity = q @ t.T
    own = np.diagonal(similarity)[:, None]
    # One's own is among those at least as near as itself, which makes the count a rank that starts at 1.
    return np.asarray(np.count_nonzero(similarity >= own - _TIE_TOLERANCE, axis=1), dtype=np.int64)


def cutoff(n: int, percent: float) -> int:
    """How many of `n` targets make up `percent` of them; at least one."""
    return max(1, int(np.ceil(n * percent / 100 - 1e-9)))


def recall_at(rank: ArrayLike, k: int) -> float:
    """Share of queries whose own target is among the best `k`."""
    found = np.asarray(rank) <= k
    return float(found.mean()) if found.size else 0.0


def chance(n: int) -> dict[str, float]:
    """What ranks drawn at random would give over `n` pairs."""
    if n == 0:
        return dict.fromkeys(("recall_at_1pct", "recall_at_5pct", "recall_at_10", "median_rank"), 0.0)
    return {
        "recall_at_1pct": cutoff(n, 1) / n,
        "recall_at_5pct": cutoff(n, 5) / n,
        "recall_at_10": min(10, n) / n,
        "median_rank": (n + 1) / 2,
    }


def summarise(rank: ArrayLike, seed: int = 0, n_bootstrap: int = 2000) -> dict[str, float]:
    """Recall and median rank over N pairs, retrieved in one direction.

    Parameters
    ----------
    rank : i8[N]
        As `ranks` gives them.
    seed, n_bootstrap : int
        Of the bootstrap over the queries.

    Returns
    -------
    dict
        The figures of `chance`; of each, ``NAME_low`` and ``NAME_high`` bound 95 % of the bootstrap's draws.

    Raises
    ------
    ValueError
        If there are no pairs.
    """
    r = np.asarray(rank)
    n = len(r)
    if n == 0:
        raise ValueError("no pairs to retrieve")
    cut = {"recall_at_1pct": cutoff(n, 1), "recall_at_5pct": cutoff(n, 5), "recall_at_10": 10}
    drawn = r[np.random.default_rng(seed).integers(0, n, size=(n_bootstrap, n))]
    values = {name: recall_at(r, k) for name, k in cut.items()} | {"median_rank": float(np.median(r))}
    draws_of = {name: (drawn <= k).mean(axis=1) for name, k in cut.items()} | {"median_rank": np.median(drawn, axis=1)}
    for name, sample in draws_of.items():
        values[f"{name}_low"], values[f"{name}_high"] = interval_95(sample)
    return values
