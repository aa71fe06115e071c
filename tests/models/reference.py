"""The likelihood once more, in float64 and one detection at a time, as on paper: what the fast one must equal.

It shares no code with `lexray.models.autodecoders.likelihood`: the integrals over good time are sums over the pieces
between knots and interval ends, in closed form, however many intervals fall between two knots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64s = NDArray[np.float64]
Rate = Callable[[Float64s], Float64s]
#: Gauss–Legendre points on each piece of good time, for rates without a closed integral.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def piecewise_linear(knots: ArrayLike, log_rate: ArrayLike) -> Rate:
    """Rate in ct/s whose logarithm is linear between `knots`, in seconds."""
    at, value = np.asarray(knots, dtype=np.float64), np.asarray(log_rate, dtype=np.float64)
    return lambda t: np.asarray(np.exp(np.interp(t, at, value)))


def integral(rate: Rate, good_time: Sequence[tuple[float, float]], breaks: ArrayLike = ()) -> float:
    """Integral of a rate over good time, by quadrature.

    Parameters
    ----------
    rate : callable
        Seconds to ct/s.
    good_time : sequence of (start, stop)
        In seconds.
    breaks : f8[K]
        Where the rate or its slope jumps.
    """
    total = 0.0
    for a, b in pieces(good_time, breaks):
        t = (a + b) / 2 + (b - a) / 2 * _POINTS
        total += float((b - a) / 2 * np.sum(_WEIGHTS * rate(t)))
    return total


def integral_of_exponential(slope: float, log_rate: float, good_time: Sequence[tuple[float, float]]) -> float:
    """Integral of exp(log_rate + slope · t) over good time, in closed form."""
    if slope == 0:
        return float(np.exp(log_rate) * sum(b - a for a, b in good_time))
    return float(np.exp(log_rate) * sum(np.exp(slope * b) - np.exp(slope * a) for a, b in good_time) / slope)


def pieces(good_time: Sequence[tuple[float, float]], breaks: ArrayLike) -> list[tuple[float, float]]:
    """Good time cut at `breaks`."""
    cuts = np.asarray(breaks, dtype=np.float64)
    found = []
    for a, b in good_time:
        edges = [a, *cuts[(cuts > a) & (cuts < b)].tolist(), b]
        found += [(x, y) for x, y in pairwise(edges) if y > x]
    return found


def log_likelihood(
    time: Sequence[Float64s], rate: Sequence[Rate], good_time: Sequence[tuple[float, float]], breaks: ArrayLike = ()
) -> float:
    """Log-likelihood of photons in several bands.

    Parameters
    ----------
    time : sequence of f8[P_b]
        Arrival times by band, in seconds.
    rate : sequence of callable
        Of each band, in ct/s.
    good_time, breaks
        As in `integral`.

    Returns
    -------
    float
        In nats.
    """
    total = 0.0
    for t, of in zip(time, rate, strict=True):
        total += float(np.sum(np.log(of(np.asarray(t, dtype=np.float64))))) - integral(of, good_time, breaks)
    return total
