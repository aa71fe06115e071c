"""The filter in frequency of `splitnet`, against sums written out, and on signals that are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.models.autodecoders.splitnet.frequency_filter import FrequencyFilter

CELLS = 256


def layout(random: np.random.Generator, n_segments: int) -> tuple[torch.Tensor, float]:
    """Middles of cells over the duration, and the cells' width over it, of segments with gaps between."""
    gap = np.r_[0.0, random.exponential(1.0, n_segments - 1)]
    of = np.sort(random.integers(0, n_segments, CELLS))
    begin = np.arange(CELLS) + 60 * gap.cumsum()[of]
    duration = begin[-1] + 1
    return torch.from_numpy((begin + 0.5) / duration).float()[None], 1 / duration


def through(excess: np.ndarray, mean: np.ndarray, middle: torch.Tensor, width: float) -> tuple[np.ndarray, float]:
    torch.manual_seed(0)
    with torch.no_grad():
        values = [torch.from_numpy(value).float()[None] for value in (excess, mean)]
        curves, evidence = FrequencyFilter()(*values, middle, torch.tensor([width], dtype=torch.float32))
    return np.sinh(curves[0].numpy()), float(evidence)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_the_most_probable_sinusoid_is_the_sum_over_frequencies_written_out(seed: int, n_segments: int) -> None:
    """In float64, cell by cell and frequency by frequency, at the times that the grid has."""
    random = np.random.default_rng(seed)
    middle, width = layout(random, n_segments)
    mean = np.full(CELLS, 10 ** random.uniform(-1, 1))
    phase = 2 * np.pi * random.uniform(2, 40) * middle.numpy()[0] + random.uniform(0, 6)
    excess = random.poisson(mean * (1 + random.uniform(0, 0.9) * np.sin(phase))) - mean
    curves, evidence = through(excess, mean, middle, width)

    time = np.floor(middle.double().numpy()[0] * 4 * CELLS + 1e-3) / (4 * CELLS)
    frequency = np.arange(2, CELLS + 1) / 2
    transform = (excess * np.exp(-2j * np.pi * frequency[:, None] * time)).sum(1)
    log_likelihood = np.where(frequency * width < 0.55, np.abs(transform) ** 2 / mean.sum(), -np.inf)
    weight = np.exp(log_likelihood - log_likelihood.max())
    assert evidence == pytest.approx(min(6, (np.log(weight.mean()) + log_likelihood.max()) / 5), abs=1e-3)
    wave = 2 / mean.sum() * (transform[:, None] * np.exp(2j * np.pi * frequency[:, None] * time)).real
    expected = (weight / weight.sum()) @ wave
    np.testing.assert_allclose(curves[0], expected, atol=2e-3 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("cycles", [3.5, 20.0, 60.0, 110.0])
@pytest.mark.parametrize("n_segments", [1, 3])
def test_a_sinusoid_in_a_few_hundred_photons_is_found(cycles: float, n_segments: int) -> None:
    random = np.random.default_rng(int(cycles))
    middle, width = layout(random, n_segments)
    modulation = 0.8 * np.sin(2 * np.pi * cycles * middle.numpy()[0])  # so many in the time with its gaps
    mean = np.full(CELLS, 2.0)
    curves, evidence = through(random.poisson(mean * (1 + modulation)) - mean, mean, middle, width)
    assert evidence > 3
    assert np.corrcoef(curves[0], modulation)[0, 1] > 0.9
    assert curves[0].std() == pytest.approx(modulation.std(), rel=0.3)


def test_a_steady_source_has_no_evidence_for_one() -> None:
    middle, width = layout(np.random.default_rng(0), 1)
    mean = np.full(CELLS, 1.0)
    found = [through(np.random.default_rng(i).poisson(mean) - mean, mean, middle, width)[1] for i in range(100)]
    assert np.mean(np.array(found) < 1) > 0.95  # odds below e⁵


def test_cells_in_any_order_give_the_same_curves() -> None:
    random = np.random.default_rng(2)
    middle, width = layout(random, 4)
    mean, order = np.full(CELLS, 1.0), random.permutation(CELLS)
    excess = random.poisson(mean) - mean
    curves, evidence = through(excess, mean, middle, width)
    turned, same = through(excess[order], mean, middle[:, order], width)
    assert same == pytest.approx(evidence, abs=1e-5)
    np.testing.assert_allclose(turned, curves[:, order], atol=1e-4)


def test_without_photons_nothing_is_seen() -> None:
    middle, width = layout(np.random.default_rng(3), 2)
    curves, evidence = through(np.zeros(CELLS), np.zeros(CELLS), middle, width)
    assert np.isfinite(curves).all()
    assert np.abs(curves).max() < 1e-6
    assert evidence == pytest.approx(0.0, abs=1e-4)
