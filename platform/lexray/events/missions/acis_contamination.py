"""What grows on ACIS's optical blocking filters, and how much it absorbs by epoch and energy.

The layer's optical depth is τ(E, t) = τ₀(t) μ(E, t), with μ = 1 at 0.66 keV. What it is made of has changed, so μ has a
shape of the first years and one of the later ones.

Sources: τ₀ at the chips' middle and the first shape are the Chandra X-ray Center's contamination model of CALDB 4.5
(``acisD1999-08-13contamN0007``), good until 2012. The later shape, and τ₀ at the beginning of 2018, are the ratio of
its effective areas at ACIS-I's aim point for the proposers' Cycles 0 and 19 (3.3, lowered to 3.0 because CALDB's later
models found that one's ACIS-I too thick: https://cxc.cfa.harvard.edu/ciao/why/acisqecontamN0011.html). Since then the
layer kept growing (https://cxc.harvard.edu/caldb/downloads/Release_notes/CALDB_v4.10.2.html), here by 0.2 a year.
τ₀ is good to some 0.05 until 2012, 0.3 until 2018 and 0.6 since, which is 2 %, 12 % and 25 % of the area at 1 keV.
"""

import numpy as np

from lexray.array_types import Float64s

#: Year and τ₀.
_YEARS, _DEPTHS = np.array((
    (1999.6, 0.0), (2000.0, 0.10), (2001.0, 0.27), (2002.0, 0.39), (2003.0, 0.48), (2004.0, 0.54), (2006.0, 0.645),
    (2008.0, 0.70), (2010.0, 0.80), (2012.0, 0.92), (2018.0, 3.0), (2028.0, 5.0),
)).T  # fmt: skip
#: keV, μ until 2010, μ from 2018.
_ENERGIES, _EARLY_SHAPE, _LATE_SHAPE = np.array((
    (0.30, 5.01, 2.52), (0.40, 2.60, 1.47), (0.50, 1.69, 0.97), (0.53, 1.53, 0.93), (0.56, 1.49, 1.58),
    (0.60, 1.26, 1.25), (0.66, 1.0, 1.0), (0.69, 1.12, 1.0), (0.70, 1.02, 1.09), (0.80, 0.67, 0.71),
    (0.90, 0.466, 0.519), (1.0, 0.335, 0.403), (1.2, 0.182, 0.258), (1.5, 0.085, 0.147), (1.8, 0.049, 0.093),
    (2.2, 0.027, 0.053), (2.5, 0.019, 0.038), (3.0, 0.011, 0.023), (4.0, 0.005, 0.005), (10.0, 0.0, 0.0),
)).T  # fmt: skip
_EARLY, _LATE = 2010.0, 2018.0


def transmission(energy: Float64s, mjd: float) -> Float64s:
    """Share of the photons that the layer lets through, exp(−τ), f8[N], at energies in keV, f8[N], and an epoch.

    NaN where the epoch is NaN.
    """
    year = 2000.0 + (mjd - 51544.5) / 365.25  # since J2000
    share = np.clip((year - _EARLY) / (_LATE - _EARLY), 0.0, 1.0)
    shape = np.interp(energy, _ENERGIES, (1 - share) * _EARLY_SHAPE + share * _LATE_SHAPE)
    return np.asarray(np.exp(-np.interp(year, _YEARS, _DEPTHS) * shape))
