"""A telescope's effective area on axis, its vignetting and its point-spread function.

Numbers of a mission's documents, for observations that come without an ARF. They hold for the standard mode and filter
and know nothing of chip gaps, bad columns or support structures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lexray.array_types import Float64s


@dataclass(frozen=True)
class PointSpread:
    """Point-spread function of King's form, PSF(r) ∝ [1 + (r / r_c)²]^(−β).

    The share of it within r is 1 − [1 + (r / r_c)²]^(1 − β).

    Attributes
    ----------
    core : float
        r_c on axis, arcsec.
    slope : float
        β, above 1.
    growth : float
        arcsec by which r_c is larger 10′ off axis; it grows with the square of the angle.
    """

    core: float
    slope: float
    growth: float = 0.0

    def encircled(self, radius: float, off_axis: float = 0.0) -> float:
        """Share of a point source's photons within a circle.

        Parameters
        ----------
        radius : float
            arcsec.
        off_axis : float
            arcmin.
        """
        core = self.core + self.growth * (off_axis / 10) ** 2
        return float(1 - (1 + (radius / core) ** 2) ** (1 - self.slope))


@dataclass(frozen=True)
class Optics:
    """One telescope with its detector.

    Attributes
    ----------
    curve : tuple of (float, float)
        Energy in keV, increasing, and effective area in cm² on axis with the whole point-spread function; straight
        lines between, nothing outside.
    vignetting : tuple of (float, float, float, float)
        For each of some energies in keV: θ₀ in arcmin, α and β of the share [1 + (θ / θ₀)^α]^(−β) that is left at
        the off-axis angle θ; straight lines between energies, the nearest outside.
    spread : PointSpread or None
        None for a telescope without images.
    field : float
        Off-axis angle in arcmin up to which this is known.
    document : str
        Where it is from, and how accurate it is.
    transmission : callable or None
        Share that is left of the area at an epoch, energies in keV f8[N] and MJD -> f8[N].
    """

    curve: tuple[tuple[float, float], ...]
    vignetting: tuple[tuple[float, float, float, float], ...]
    spread: PointSpread | None
    field: float
    document: str
    transmission: Callable[[Float64s, float], Float64s] | None = None

    def effective_area(self, energy: Float64s, mjd: float, off_axis: float, aperture: float) -> Float64s:
        """Effective area for a point source in a circular aperture.

        Parameters
        ----------
        energy : f8[N]
            keV.
        mjd : float
            Epoch; NaN where it is not known, which makes the area NaN where it matters.
        off_axis : float
            arcmin.
        aperture : float
            Radius in arcsec, infinite for all of the source's photons.

        Returns
        -------
        f8[N]
            cm².
        """
        energies, areas = self._curve
        area = np.interp(energy, energies, areas, left=0.0, right=0.0)
        energies, scale, power, slope = self._vignetting
        area *= np.interp(energy, energies, (1 + (off_axis / scale) ** power) ** -slope)
        if self.transmission is not None:
            area *= self.transmission(energy, mjd)
        if self.spread is not None:
            area *= self.spread.encircled(aperture, off_axis)
        return np.asarray(area)

    @cached_property
    def _curve(self) -> Float64s:
        return np.array(self.curve).T

    @cached_property
    def _vignetting(self) -> Float64s:
        return np.array(self.vignetting).T
