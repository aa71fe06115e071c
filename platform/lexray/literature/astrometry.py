"""Whether a source on the sky and an object of a catalogue are the same thing.

Position errors are taken as circular Gaussians. A radius that holds a share p of the true positions is then
r(p) = σ √(−2 ln(1 − p)), σ being the error of each coordinate: 39 % lie within σ, 95 % within 2.45 σ.
"""

import math
import warnings

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, angular_separation
from astropy.time import Time
from numpy.typing import NDArray

from lexray.array_types import Float64s

#: The share of the true positions within the radii that tables hold.
CONFIDENCE = 0.95
#: Radius in arcsec, and the share of the true positions within it, where nothing better is known of a source. Missions
#: that are absent are matched by name alone: NICER takes no images.
MISSION_ERRORS = {
    # The Chandra X-ray Center's absolute astrometric accuracy, within 3′ of the aimpoint
    # (https://cxc.harvard.edu/cal/ASPECT/celmon/).
    "chandra": (1.1, 0.90),
    # What remains in a field that was not shifted onto optical catalogues (Webb et al. 2020, A&A 641, A136), a radius
    # of √2 σ as its POSERR; faint sources have a statistical error of the same size on top of it.
    "xmm": (1.3, 1 - math.exp(-1)),
    # Moretti et al. 2006, A&A 448, L9.
    "swift": (3.5, 0.90),
    # Harrison et al. 2013, ApJ 770, 103.
    "nustar": (8.0, 0.90),
}
#: SIMBAD's positions are for this epoch.
_J2000 = Time(2000.0, format="jyear", scale="tt")


def radius_in_sigma(share: float) -> float:
    """Radius that holds a share of a circular Gaussian, in units of the error of one coordinate."""
    return math.sqrt(-2.0 * math.log1p(-share))


def to_confidence(radius: float, share: float) -> float:
    """Radius that holds `CONFIDENCE` of the true positions, from one that holds `share` of them."""
    return radius * radius_in_sigma(CONFIDENCE) / radius_in_sigma(share)


def mission_error(mission: str | None) -> float:
    """Radius in arcsec that holds `CONFIDENCE` of a mission's true positions; infinite where it takes no images."""
    return to_confidence(*MISSION_ERRORS.get(mission or "", (math.inf, CONFIDENCE)))


def p_chance(separation: Float64s, n_field: NDArray[np.int64] | Float64s, counting_radius: float) -> Float64s:
    """Probability that an unrelated object lies as near to a source as the one that was found.

    Unrelated objects that lie at random with a density n have the nearest within r with p = 1 − exp(−π r² n). The
    density is n = N / (π R²), from the N objects within R. The one that was found is among them though it may belong
    to the source: N is what N − 1 unrelated ones tell of the expected number (the mean of its Gamma distribution, all
    densities being equally likely before), and a field that holds nothing else is not one of density zero.

    Parameters
    ----------
    separation : f8[M]
        Arcsec.
    n_field : i8[M]
        Objects within `counting_radius` of each source, the one found included.
    counting_radius : float
        R in arcsec.

    Returns
    -------
    f8[M]
    """
    return -np.expm1(-np.maximum(n_field, 1) * (separation / counting_radius) ** 2)


def propagate_positions(
    ra: Float64s, dec: Float64s, pm_ra: Float64s, pm_dec: Float64s, mjd: Float64s
) -> tuple[Float64s, Float64s]:
    """Positions of J2000 at the time of an observation.

    Parameters
    ----------
    ra, dec : f8[M]
        Degrees, ICRS, epoch J2000.
    pm_ra, pm_dec : f8[M]
        Proper motion in mas/yr, that in right ascension with the cosine of the declination; NaN where unknown.
    mjd : f8[M]
        Of the observation; NaN where unknown.

    Returns
    -------
    ra, dec : f8[M]
        Unchanged where anything is unknown.
    """
    known = np.flatnonzero(np.isfinite(pm_ra) & np.isfinite(pm_dec) & np.isfinite(mjd))
    ra, dec = np.array(ra, dtype=float), np.array(dec, dtype=float)
    if not len(known):
        return ra, dec
    before = SkyCoord(
        ra[known] * u.deg,
        dec[known] * u.deg,
        pm_ra_cosdec=pm_ra[known] * u.mas / u.yr,
        pm_dec=pm_dec[known] * u.mas / u.yr,
        obstime=_J2000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ERFA says that it assumes a great distance where none is given
        after = before.apply_space_motion(new_obstime=Time(mjd[known], format="mjd", scale="tt"))
    ra[known], dec[known] = after.ra.deg, after.dec.deg
    return ra, dec


def separation(ra1: Float64s, dec1: Float64s, ra2: Float64s, dec2: Float64s) -> Float64s:
    """Arcsec between positions in degrees."""
    return np.asarray(np.degrees(angular_separation(*np.radians([ra1, dec1, ra2, dec2]))) * 3600)


def years_since_2000(mjd: float | None) -> float:
    """Julian years between J2000 and an observation; 0 where its time is unknown."""
    return 0.0 if mjd is None else (mjd - _J2000.mjd) / 365.25
