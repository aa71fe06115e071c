"""X-ray spectra as ACIS would count them: emission models, absorption, effective area, energy resolution.

Everything lives on one energy grid of 10 eV, whose edges include the default bands' 0.5, 1.2, 2.0 and 7.0 keV. The
models are approximations with the right dependence on their parameters, made for simulation and not for fitting.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lexray.array_types import Float64s

#: Bin edges in keV, f8[971].
ENERGY_EDGES: Float64s = np.arange(30, 1001) / 100.0
#: Bin centres in keV, f8[970].
ENERGY: Float64s = (ENERGY_EDGES[1:] + ENERGY_EDGES[:-1]) / 2
#: The zones that events are drawn in: below the bands, the three bands, above them (keV).
ZONE_EDGES = (0.3, 0.5, 1.2, 2.0, 7.0, 10.0)
#: First bin of each zone, and one past the last.
ZONE_BINS = np.searchsorted(ENERGY_EDGES, np.array(ZONE_EDGES) - 1e-9)
_ERG_PER_KEV = 1.602177e-9
_IN_BAND = slice(int(ZONE_BINS[1]), int(ZONE_BINS[4]))

# Morrison & McCammon 1983 (ApJ 270, 119), table 2: σ(E) = (c0 + c1 E + c2 E²) / E³ × 1e-24 cm² per hydrogen atom.
_ABSORPTION = np.array(
    [
        (0.284, 78.1, 18.8, 4.3),
        (0.400, 71.4, 66.8, -51.4),
        (0.532, 95.5, 145.8, -61.1),
        (0.707, 308.9, -380.6, 294.0),
        (0.867, 120.6, 169.3, -47.7),
        (1.303, 141.3, 146.8, -31.5),
        (1.840, 202.7, 104.7, -17.0),
        (2.471, 342.7, 18.7, 0.0),
        (3.210, 352.2, 18.7, 0.0),
        (4.038, 433.9, -2.4, 0.75),
        (7.111, 629.0, 30.9, 0.0),
        (8.331, 701.2, 25.2, 0.0),
    ]
)

# A smooth stand-in for the HRMA's and ACIS-I's effective area on axis early in the mission (keV, cm²), read by eye off
# the figures of the Chandra Proposers' Observatory Guide; the fall above 2 keV is the mirrors' iridium edge.
_AREA = np.array(
    [
        (0.3, 15.0),
        (0.5, 90.0),
        (0.7, 220.0),
        (1.0, 420.0),
        (1.5, 610.0),
        (2.0, 540.0),
        (2.2, 390.0),
        (3.0, 370.0),
        (4.0, 350.0),
        (5.0, 300.0),
        (6.0, 225.0),
        (7.0, 120.0),
        (8.0, 50.0),
        (10.0, 8.0),
    ]
)

# Strongest lines of a plasma at solar abundances between 0.5 and 7 keV: energy (keV), temperature of the ion's peak
# emission (keV), photons relative to one another. Fe L stands as three groups.
_LINES = np.array(
    [
        (0.574, 0.18, 1.00),
        (0.654, 0.28, 1.00),
        (0.826, 0.45, 1.20),
        (0.922, 0.35, 0.50),
        (0.960, 0.70, 1.20),
        (1.022, 0.55, 0.50),
        (1.130, 1.10, 0.60),
        (1.352, 0.60, 0.30),
        (1.472, 0.90, 0.22),
        (1.865, 0.90, 0.25),
        (2.006, 1.40, 0.17),
        (2.461, 1.40, 0.10),
        (6.680, 5.00, 0.16),
        (6.960, 9.00, 0.07),
    ]
)


def cross_section(energy: Float64s) -> Float64s:
    """Photoelectric cross-section of cold interstellar matter.

    Parameters
    ----------
    energy : f8[E]
        keV, 0.284 to 10.

    Returns
    -------
    f8[E]
        cm² per hydrogen atom, after Morrison & McCammon (1983).
    """
    row = _ABSORPTION[np.searchsorted(_ABSORPTION[:, 0], energy, side="right") - 1]
    return np.asarray((row[..., 1] + row[..., 2] * energy + row[..., 3] * energy**2) / energy**3 * 1e-24)


def power_law(gamma: float) -> Float64s:
    """Photons per keV of a power law with photon index `gamma`, f8[E], any norm."""
    return np.asarray(ENERGY**-gamma)


def black_body(kt: float) -> Float64s:
    """Photons per keV of a black body of temperature `kt` keV, f8[E], any norm."""
    return np.asarray(ENERGY**2 / np.expm1(ENERGY / kt))


def emission_line(energy: float) -> Float64s:
    """Photons per keV of a narrow line at `energy` keV, f8[E], any norm."""
    return np.asarray((np.arange(len(ENERGY)) == np.searchsorted(ENERGY_EDGES, energy)).astype(np.float64))


def plasma(kt: float) -> Float64s:
    """Photons per keV of an optically thin thermal plasma of temperature `kt` keV, f8[E], any norm.

    Bremsstrahlung with a Gaunt factor of (kT/E)^0.4, and lines whose emissivity is log-normal about the ion's own
    temperature, the lines' share falling with temperature as in collisional equilibrium. The lines keep one bin: the
    detector broadens them.
    """
    continuum = np.exp(-ENERGY / kt) / ENERGY * (kt / ENERGY) ** 0.4
    emissivity = _LINES[:, 2] * np.exp(-0.5 * (np.log(kt / _LINES[:, 1]) / 0.6) ** 2)
    lines = np.zeros_like(ENERGY)
    np.add.at(lines, np.searchsorted(ENERGY_EDGES, _LINES[:, 0]) - 1, emissivity)
    # Share of the energy that lines carry: most of it below 1 keV, a tenth at 5 keV.
    share = 1 / (1 + (kt / 0.9) ** 1.3)
    return np.asarray((1 - share) * _unit_energy(continuum) + share * _unit_energy(lines))


def _unit_energy(photons: Float64s) -> Float64s:
    """The same spectrum with one unit of energy between 0.5 and 7 keV."""
    return photons / max(float(np.sum((photons * ENERGY)[_IN_BAND])), 1e-300)


_HALF_WIDTH = 36  # bins on either side that an event may move: 4 σ at 10 keV


def _redistribution() -> Float64s:
    """Probability that a photon of bin i − half … i + half is measured in bin i, f8[E, 2·half + 1]."""
    offset = np.arange(-_HALF_WIDTH, _HALF_WIDTH + 1) * 0.01
    # Standard deviation of the measured energy in keV: about 95 eV of full width at 1.5 keV, 150 eV at 5.9 keV.
    sigma = 0.030 + 0.0057 * np.clip(ENERGY[:, None] + offset, 0.05, None)
    return np.asarray(0.01 / (np.sqrt(2 * np.pi) * sigma) * np.exp(-0.5 * (offset / sigma) ** 2))


_REDISTRIBUTION = _redistribution()
_CROSS_SECTION = cross_section(ENERGY)
#: cm², of telescope and detector together, smooth.
_EFFECTIVE_AREA = np.exp(np.interp(np.log(ENERGY), np.log(_AREA[:, 0]), np.log(_AREA[:, 1])))


@dataclass(frozen=True)
class Spectrum:
    """An absorbed spectrum of up to four components; a component without its parameter is absent.

    Attributes
    ----------
    nh : float
        Column density in 1e22 cm⁻².
    gamma : float
        Photon index of a power law.
    kt, kt_hot : float
        Temperatures of two plasmas, keV.
    kt_bb : float
        Temperature of a black body, keV.
    hot_share, bb_share : float
        The hot plasma's and the black body's shares of the unabsorbed energy flux between 0.5 and 7 keV.
    line_share : float
        The same for a fluorescent iron line at 6.4 keV.
    """

    nh: float
    gamma: float = np.nan
    kt: float = np.nan
    kt_hot: float = np.nan
    kt_bb: float = np.nan
    hot_share: float = 0.0
    bb_share: float = 0.0
    line_share: float = 0.0

    def emitted(self) -> Float64s:
        """Photons per keV before absorption, f8[E], of unit energy between 0.5 and 7 keV."""
        main = (power_law, self.gamma) if np.isfinite(self.gamma) else (plasma, self.kt)
        components = (
            (1.0 - self.hot_share - self.bb_share - self.line_share, *main),
            (self.hot_share, plasma, self.kt_hot),
            (self.bb_share, black_body, self.kt_bb),
            (self.line_share, emission_line, 6.4),
        )
        present = [
            share * _unit_energy(photons(parameter))
            for share, photons, parameter in components
            if share and np.isfinite(parameter)
        ]
        return _unit_energy(sum(present, np.zeros_like(ENERGY)))

    def counts(self) -> tuple[Float64s, float, float]:
        """What ACIS counts of it.

        Returns
        -------
        counts : f8[E]
            Measured events a bin, one event in all between 0.5 and 7 keV.
        absorbed, unabsorbed : float
            Energy flux between 0.5 and 7 keV, as observed and as emitted, in erg cm⁻² for one such event.
        """
        emitted = self.emitted()
        arriving = emitted * np.exp(-self.nh * 1e22 * _CROSS_SECTION)
        detected = np.pad(arriving * _EFFECTIVE_AREA, _HALF_WIDTH)
        windows = np.lib.stride_tricks.sliding_window_view(detected, 2 * _HALF_WIDTH + 1)
        measured = np.einsum("ij,ij->i", windows, _REDISTRIBUTION)
        events = float(np.sum(measured[_IN_BAND]))
        absorbed = float(np.sum((arriving * ENERGY)[_IN_BAND])) * _ERG_PER_KEV / events
        unabsorbed = float(np.sum((emitted * ENERGY)[_IN_BAND])) * _ERG_PER_KEV / events
        return measured / events, absorbed, unabsorbed

    def parameters(self) -> dict[str, float]:
        """Every parameter by name; NaN where its component is absent."""
        return {f.name: float(getattr(self, f.name)) for f in fields(self)}


def zone_shares(counts: Float64s) -> Float64s:
    """Events in each zone of `ZONE_EDGES`, f8[5], of a spectrum counted in bins."""
    return np.asarray(np.add.reduceat(counts, ZONE_BINS[:-1]))


def draw_energies(counts: Float64s, zone: NDArray[np.integer], generator: np.random.Generator) -> NDArray[np.float32]:
    """Energies of events whose zone is known.

    Parameters
    ----------
    counts : f8[E]
        Measured spectrum.
    zone : int[N]
        Zone of each event.
    generator : numpy.random.Generator
        Advanced by N numbers.

    Returns
    -------
    f4[N]
        eV, inside the zone also after rounding to float32.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    low, high = cumulative[ZONE_BINS[zone]], cumulative[ZONE_BINS[zone + 1]]
    energy = np.interp(low + generator.random(len(zone)) * (high - low), cumulative, ENERGY_EDGES) * 1000
    edges = np.array(ZONE_EDGES, dtype=np.float32) * np.float32(1000)
    last = np.nextafter(edges[1:], np.float32(0))
    return np.asarray(np.clip(energy.astype(np.float32), edges[zone], last[zone]))
