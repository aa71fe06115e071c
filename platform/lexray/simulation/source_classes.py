"""Eight classes of X-ray sources: what distinguishes their brightness, spectra, variability and distances.

The classes are those of Chandra sources whose nature the literature settles (Yang et al. 2022, arXiv:2206.13656). The
numbers are chosen by hand to overlap as real classes do; they follow the sources named at each class, not a fit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lexray.simulation.spectra import Spectrum

Generator = np.random.Generator


def log_normal(generator: Generator, median: float, dex: float) -> float:
    """A log-normal number of this median and width in decades."""
    return float(median * 10 ** generator.normal(0.0, dex))


def truncated(generator: Generator, mean: float, sd: float, low: float, high: float) -> float:
    """A normal number between `low` and `high`, by rejection."""
    while True:
        value = float(generator.normal(mean, sd))
        if low <= value <= high:
            return value


def _agn(generator: Generator) -> Spectrum:
    """Power law of photon index ~1.8, a third of them obscured (Nandra & Pounds 1994; Ueda et al. 2014)."""
    obscured = generator.random() < 0.35
    nh = log_normal(generator, 3.5, 0.4) if obscured else log_normal(generator, 0.04, 0.3)
    soft_excess = not obscured and generator.random() < 0.25
    return Spectrum(
        nh=nh,
        gamma=truncated(generator, 1.8, 0.2, 1.2, 2.6),
        kt_bb=float(generator.uniform(0.09, 0.16)) if soft_excess else np.nan,
        bb_share=float(generator.uniform(0.1, 0.35)) if soft_excess else 0.0,
        line_share=float(generator.uniform(0.01, 0.05)) if obscured else 0.0,
    )


@dataclass(frozen=True)
class SourceClass:
    """Priors of one class. Widths, `…_dex`, are standard deviations in decades.

    A log-normal prior is given by its median and its width.

    Attributes
    ----------
    name : str
    share : float
        Of the archive's sources.
    counts_median, counts_dex : float
        Of an observation's expected events.
    kinds : mapping
        Probability of each kind of variability.
    between_dex : float
        Scatter of the flux between observations.
    distance, distance_dex : float
        Of the distance in kpc.
    spectrum : callable
        Draws a spectrum.
    softness : float
        How much more the soft band takes part in the modulation than the hard one; below one where the hard band does.
    fast_share : float
        Share of the periodic sources whose period is seconds to minutes.
    """

    name: str
    share: float
    counts_median: float
    counts_dex: float
    kinds: Mapping[str, float]
    between_dex: float
    distance: float
    distance_dex: float
    spectrum: Callable[[Generator], Spectrum]
    softness: float = 1.0
    fast_share: float = 0.0

    def draw_counts(self, generator: Generator) -> float:
        """Expected events of an observation of mean length, 10 to 5,000."""
        low, high = np.log10((10.0, 5000.0))
        return float(10 ** truncated(generator, np.log10(self.counts_median), self.counts_dex, low, high))

    def draw_distance(self, generator: Generator) -> tuple[float, float]:
        """Distance in kpc and redshift (NaN inside the Galaxy and its neighbours)."""
        if self.name != "AGN":
            return float(log_normal(generator, self.distance, self.distance_dex)), float("nan")
        z = float(np.clip(log_normal(generator, 0.5, 0.35), 0.01, 4.0))
        # Second-order luminosity distance, H0 = 70 km/s/Mpc, q0 = −0.55: within a tenth of flat ΛCDM up to z ~ 1.
        return 299792.458 / 70.0 * z * (1 + 0.775 * z) * 1e3, z


def _two_plasmas(
    generator: Generator,
    nh: tuple[float, float],
    cool: tuple[float, float],
    hot: tuple[float, float],
    hot_share: tuple[float, float],
) -> Spectrum:
    """Column density and temperatures by median and width in decades, the hotter plasma's share between two limits."""
    drawn = [log_normal(generator, *prior) for prior in (nh, cool, hot)]
    return Spectrum(nh=drawn[0], kt=drawn[1], kt_hot=drawn[2], hot_share=float(generator.uniform(*hot_share)))


def _yso(generator: Generator) -> Spectrum:
    """Two plasmas behind the cloud the star was born in (Getman et al. 2005, Orion)."""
    return _two_plasmas(generator, (1.0, 0.35), (0.8, 0.08), (2.9, 0.13), (0.5, 0.9))


def _low_mass_star(generator: Generator) -> Spectrum:
    """Two cooler plasmas of a nearby corona, hardly absorbed (Güdel 2004)."""
    return _two_plasmas(generator, (0.012, 0.35), (0.3, 0.08), (0.95, 0.10), (0.2, 0.65))


def _high_mass_star(generator: Generator) -> Spectrum:
    """Soft plasma of wind shocks; some with a hotter one of confined or colliding winds (Nazé et al. 2011)."""
    hot = generator.random() < 0.3
    return Spectrum(
        nh=log_normal(generator, 0.5, 0.18),
        kt=log_normal(generator, 0.5, 0.12),
        kt_hot=log_normal(generator, 2.0, 0.10) if hot else np.nan,
        hot_share=float(generator.uniform(0.1, 0.4)) if hot else 0.0,
    )


def _neutron_star(generator: Generator) -> Spectrum:
    """Cooling surface or magnetosphere: black body, power law, mostly both (Kaspi et al. 2006)."""
    thermal = generator.random() < 0.6
    return Spectrum(
        nh=log_normal(generator, 0.2, 0.3),
        gamma=truncated(generator, 1.7, 0.3, 1.0, 2.6),
        kt_bb=float(generator.uniform(0.12, 0.4) if thermal else generator.uniform(0.1, 0.2)),
        bb_share=float(generator.uniform(0.65, 0.95) if thermal else generator.uniform(0.05, 0.3)),
    )


def _lmxb(generator: Generator) -> Spectrum:
    """Comptonised power law and a boundary layer of ~0.8 keV (Lin, Remillard & Homan 2007)."""
    return Spectrum(
        nh=log_normal(generator, 0.45, 0.3),
        gamma=truncated(generator, 1.9, 0.25, 1.2, 2.8),
        kt_bb=log_normal(generator, 0.8, 0.12),
        bb_share=float(generator.uniform(0.1, 0.55)),
    )


def _cataclysmic_variable(generator: Generator) -> Spectrum:
    """Plasma of the accretion shock, ~10 keV, with a fluorescent iron line (Mukai 2017)."""
    return Spectrum(
        nh=log_normal(generator, 0.15, 0.35),
        kt=log_normal(generator, 0.7, 0.10),
        kt_hot=float(np.clip(log_normal(generator, 10.0, 0.2), 3.0, 40.0)),
        hot_share=float(generator.uniform(0.85, 0.98)),
        line_share=float(generator.uniform(0.01, 0.04)),
    )


def _hmxb(generator: Generator) -> Spectrum:
    """Hard power law of an accreting pulsar behind its companion's wind (Walter et al. 2015)."""
    return Spectrum(
        nh=log_normal(generator, 2.5, 0.35),
        gamma=truncated(generator, 1.0, 0.25, 0.4, 1.8),
        line_share=float(generator.uniform(0.01, 0.06)),
    )


#: The archive's classes. Distances put the luminosities where the class is found: faint, mostly Galactic sources.
CLASSES: tuple[SourceClass, ...] = (
    # name, share, counts (median, dex), kinds, between_dex, distance (median, dex), spectrum, softness, fast_share
    SourceClass("AGN", 0.22, 220, 0.50, {"steady": 0.45, "red_noise": 0.48, "dip": 0.07}, 0.20, 1.0, 0.0, _agn, 1.1),
    SourceClass("YSO", 0.18, 260, 0.50, {"flare": 0.60, "steady": 0.25, "red_noise": 0.15}, 0.12, 0.45, 0.15,
                _yso, 0.8),
    SourceClass("LM-STAR", 0.13, 240, 0.50, {"flare": 0.55, "steady": 0.37, "periodic": 0.08}, 0.10, 0.09, 0.30,
                _low_mass_star, 0.8),
    SourceClass("HM-STAR", 0.10, 300, 0.45, {"steady": 0.80, "periodic": 0.20}, 0.04, 1.7, 0.20, _high_mass_star),
    SourceClass("NS", 0.09, 420, 0.50, {"steady": 0.50, "periodic": 0.50}, 0.02, 3.0, 0.25, _neutron_star, 0.9, 0.40),
    SourceClass("LMXB", 0.10, 600, 0.50,
                {"red_noise": 0.38, "dip": 0.25, "eclipse": 0.15, "flare": 0.07, "steady": 0.15},
                0.30, 8.0, 0.15, _lmxb, 1.2),
    SourceClass("CV", 0.09, 350, 0.45, {"periodic": 0.55, "eclipse": 0.15, "red_noise": 0.20, "steady": 0.10},
                0.18, 1.2, 0.30, _cataclysmic_variable, 1.3),
    SourceClass("HMXB", 0.09, 520, 0.50,
                {"periodic": 0.45, "red_noise": 0.20, "flare": 0.17, "dip": 0.06, "eclipse": 0.07, "steady": 0.05},
                0.35, 6.0, 0.25, _hmxb, 0.9, 0.35),
)  # fmt: skip


def class_at(u01: float) -> SourceClass:
    """Class whose share of [0, 1) holds `u01`."""
    edges = np.cumsum([c.share for c in CLASSES])
    return CLASSES[min(int(np.searchsorted(edges / edges[-1], u01, side="right")), len(CLASSES) - 1)]
