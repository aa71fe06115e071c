"""Counts of an event list in bins of energy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lexray.array_types import Float64s, Int64s
from lexray.events.adaptive_bins import adaptive_bins
from lexray.events.lightcurve import poisson_interval


@dataclass(frozen=True)
class CountSpectrum:
    """Counts in K bins of energy, as the detector saw them: neither its area nor its resolution is taken out.

    Attributes
    ----------
    edges : f8[K + 1]
        keV.
    counts : i8[K]
        Events.
    density, lower, upper : f8[K]
        Counts per keV and the ends of their error bar.
    """

    edges: Float64s
    counts: Int64s
    density: Float64s
    lower: Float64s
    upper: Float64s


def count_spectrum(energy: ArrayLike, low: float, high: float, min_counts: int = 20) -> CountSpectrum:
    """Count events in bins that are halved on a logarithmic scale (`lexray.events.adaptive_bins`).

    Parameters
    ----------
    energy : array_like, f8[N]
        keV.
    low, high : float
        Ends of the spectrum in keV; both count.
    min_counts : int
        A bin with twice as many is halved, down to 2 % of its energy: no X-ray CCD resolves less.
    """
    log_energy = np.log(np.asarray(energy, dtype=np.float64))
    edges = np.exp(adaptive_bins(log_energy, np.log(low), np.log(high), min_counts, finest=0.02))
    edges[0], edges[-1] = low, high
    return counted(energy, edges)


def counted(energy: ArrayLike, edges: Float64s) -> CountSpectrum:
    """As `count_spectrum`, in bins that are given."""
    # Energies are kept in float32: one at an edge must compare equal to the float32 nearest to it, as for `Bands`.
    single = edges.astype(np.float32).astype(np.float64)
    counts = np.histogram(np.asarray(energy, dtype=np.float64), single)[0]
    lower, upper = poisson_interval(counts)
    width = np.diff(edges)
    return CountSpectrum(edges, counts, counts / width, lower / width, upper / width)
