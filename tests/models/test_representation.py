"""What the representation keeps of a detection, and what it must not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import photons
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.representation import (
    SPECTRAL_CELLS,
    dimension,
    haar_power,
    represent,
    spectrum,
    variability,
)

# Columns of `variability` for 64 knots and 3 bands.
RMS, MEDIAN, FINEST, COARSEST, SKEWNESS, VARIATION, COLOUR = 0, 4, 8, 13, 14, 15, 16


def curves(shape: np.ndarray, n_bands: int = 3) -> torch.Tensor:
    """The same rate in every band, f8[1, B, K]."""
    return torch.log(torch.tensor(shape)).expand(1, n_bands, -1)


def with_energies(energies: list[list[float]], low: float = 0.5, high: float = 8.0) -> Photons:
    """Detections that differ in their photons' energies only."""
    times = [np.zeros(len(one)) for one in energies]
    return photons(times, n_bands=3, energies=energies, energy_range=(low, high))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_octaves_of_power_add_up_to_the_variance(seed: int) -> None:
    curve = np.random.default_rng(seed).normal(size=(2, 64))
    np.testing.assert_allclose(haar_power(torch.tensor(curve)).sum(1), curve.var(axis=1), rtol=1e-9)


def test_when_it_happened_and_how_bright_it_was_do_not_count() -> None:
    early, late = np.ones(64), np.ones(64)
    early[8:16], late[40:48] = 9.0, 9.0
    one = variability(curves(early))
    for other in (late, early[::-1].copy(), 100 * early):
        torch.testing.assert_close(variability(curves(other)), one)


def test_kinds_of_variability_are_told_apart() -> None:
    t = np.linspace(0, 1, 64, endpoint=False)
    flat, flare, dip = np.ones(64), np.ones(64), np.ones(64)
    flare[30:34], dip[28:36] = 20.0, 0.05
    fast, slow = 1 + 0.5 * np.sin(2 * np.pi * 16 * t), 1 + 0.5 * np.sin(2 * np.pi * t)
    flat_f, flare_f, dip_f, fast_f, slow_f = (variability(curves(c))[0] for c in (flat, flare, dip, fast, slow))
    assert flat_f[RMS] < slow_f[RMS] < flare_f[RMS]
    assert flat_f[RMS].item() == pytest.approx(np.log(0.01), abs=1e-4)
    assert flare_f[SKEWNESS] > 1 > -1 > dip_f[SKEWNESS]
    assert fast_f[COARSEST] < slow_f[COARSEST]
    assert fast_f[VARIATION] > slow_f[VARIATION]
    assert dip_f[MEDIAN] > flare_f[MEDIAN]


def test_a_change_of_colour_shows_in_the_bands_that_change() -> None:
    rate = torch.zeros(1, 3, 64)
    rate[0, 2, 32:] = 1.5
    steady, changing = variability(torch.zeros(1, 3, 64))[0], variability(rate)[0]
    assert (changing[COLOUR:] > steady[COLOUR:] + 3).all()
    assert changing[COLOUR + 2] > changing[COLOUR]


def test_the_spectrum_is_the_shares_of_photons_in_logarithmic_cells() -> None:
    found = spectrum(with_energies([[0.5, 0.51, 7.99, 8.0], []])).exp()
    expected = np.full(SPECTRAL_CELLS, 0.5)
    expected[[0, -1]] += 2
    np.testing.assert_allclose(found[0], expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(found[1], 1 / SPECTRAL_CELLS, rtol=1e-5)  # no photon says nothing


def test_its_length_is_what_tables_are_made_for() -> None:
    for n_knots in (16, 256):
        made = represent(torch.zeros(2, 3, n_knots), with_energies([[1.0], [1.0, 2.0]]))
        assert made.shape == (2, dimension(3, n_knots))
        assert torch.isfinite(made).all()
