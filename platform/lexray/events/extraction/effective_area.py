"""Effective area by energy band: from an observation's ARF, else from what is known of its instrument.

A rate in counts/s divided by it is a flux in photons cm⁻² s⁻¹, and two instruments' rates can be compared. The area
within a band depends on how photons are spread over it: the mean is over those of a power law of photon index 1.7,
N(E) ∝ E^(−1.7), the spectrum of an average X-ray source, which XMM-Newton's source catalogues assume too (Webb et al.
2020, A&A 641, A136). An index of 1.2 or 2.2 changes the mean over the default bands by some per cent.

An ARF is made for the very observation, source and aperture, and goes before `nominal_area`, which is good to some
10 to 20 %, as each instrument's `Optics.document` says, and knows of no chip gaps.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from lexray.array_types import Bools, Float64s
from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.fits.binary_table import BinaryTable, energies
from lexray.events.fits.headers import Buffer, scan
from lexray.events.missions import Instrument

PHOTON_INDEX = 1.7


def band_area(energ_lo: ArrayLike, energ_hi: ArrayLike, specresp: ArrayLike, bands: Bands) -> tuple[float, ...]:
    """Mean effective area in each band.

    Parameters
    ----------
    energ_lo, energ_hi : array_like, f8[N]
        The energy bins' bounds, keV; between bins and outside them the area is none.
    specresp : array_like, f8[N]
        Effective area in each bin, cm².
    bands : Bands

    Returns
    -------
    tuple of float
        cm²; NaN for a band in which there is no bin.
    """
    low, high, area = (np.asarray(values, dtype=np.float64) for values in (energ_lo, energ_hi, specresp))
    weights, covered = _weights(low, high, bands)
    return tuple(np.where(covered, weights @ area, np.nan).tolist())


def _weights(low: Float64s, high: Float64s, bands: Bands) -> tuple[Float64s, Bools]:
    """Share of each band's photons that is in each bin, f8[bands, N], and whether any is, b1[bands]."""
    edges = np.asarray(bands.edges)
    below, above = edges[:-1, None], edges[1:, None]
    photons = _photons(np.clip(low, below, above), np.clip(high, below, above))
    return photons / _photons(edges[:-1, None], edges[1:, None]), np.asarray(photons.any(axis=1))


def arf_area(content: Buffer, bands: Bands) -> tuple[float, ...]:
    """Mean effective area in each band, from an ARF.

    Parameters
    ----------
    content : bytes or memoryview
        The file, uncompressed (OGIP CAL/GEN/92-002: extension SPECRESP).
    bands : Bands

    Raises
    ------
    RefusedInput
        'no_arf' where the file has no such extension, 'missing_column', 'bad_unit', or 'bad_arf' where energies or
        areas are none; as `scan` where the file is broken.
    """
    hdus = scan(content)
    tables = [hdu for hdu in hdus if hdu.is_table and "SPECRESP" in (hdu.name, hdu.header.text("HDUCLAS2").upper())]
    if not tables:
        names = ", ".join(hdu.name or f"number {hdu.index}" for hdu in hdus[1:]) or "none"
        raise RefusedInput("no_arf", f"no extension SPECRESP with effective areas; extensions: {names}")
    table = BinaryTable(tables[0], content)
    low, high = (energies(table, name, default="keV") for name in ("energ_lo", "energ_hi"))
    area = table.numbers("specresp")
    unit = table.column("specresp").unit
    if unit.replace(" ", "").lower() not in ("", "cm2", "cm^2", "cm**2"):
        raise RefusedInput("bad_unit", f"column 'SPECRESP' is in {unit!r}, expected cm**2")
    if not (np.all(np.isfinite(area)) and np.all(area >= 0) and np.all((low >= 0) & (high > low))):
        raise RefusedInput("bad_arf", f"{table.name} has energy bins that run backward, or areas that are none")
    return band_area(low, high, area, bands)


def nominal_area(
    instrument: Instrument, bands: Bands, mjd: float, off_axis_arcmin: float, aperture_arcsec: float
) -> tuple[float, ...] | None:
    """Mean effective area in each band that an instrument had for a point source, from its mission's documents.

    Parameters
    ----------
    instrument : Instrument
        As `Mission.instrument` returns it, which knows the header's configuration.
    bands : Bands
    mjd : float
        Epoch; it matters for ACIS.
    off_axis_arcmin : float
        The source's angle from the optical axis.
    aperture_arcsec : float
        Radius of the circle that events are taken from; infinite for all.

    Returns
    -------
    tuple of float or None
        cm², of all telescopes in the file together; None where it is not known.
    """
    optics = instrument.optics
    if optics is None or not 0 <= off_axis_arcmin <= optics.field or not aperture_arcsec > 0:
        return None
    middle, weights = _steps(bands)
    area = instrument.telescopes * optics.effective_area(middle, mjd, off_axis_arcmin, aperture_arcsec)
    return tuple((weights @ area).tolist()) if np.all(np.isfinite(area)) else None


@lru_cache
def _steps(bands: Bands) -> tuple[Float64s, Float64s]:
    """Energies at which a curve is taken, f8[N], and their weights in each band's mean, f8[bands, N]."""
    # 200 steps are fine against the curves' edges. A bin across a band's edge would give one of them the other's mean.
    bounds = np.union1d(np.geomspace(bands.edges[0], bands.edges[-1], 201), bands.edges)
    return np.sqrt(bounds[:-1] * bounds[1:]), _weights(bounds[:-1], bounds[1:], bands)[0]


def _photons(low: Float64s, high: Float64s) -> Float64s:
    """Integral of E^(−Γ) from `low` to `high`."""
    power = 1 - PHOTON_INDEX
    return np.asarray((high**power - low**power) / power)
