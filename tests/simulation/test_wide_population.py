"""The wide population: as wide as it says, the same for the same seed, and its light curves as their kinds say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.events.missions import MISSIONS
from lexray.models.autodecoders.splitnet.binning import ENERGY_CELLS, SMALLEST_ARRAY, bin_photons, cells_for
from lexray.models.autodecoders.splitnet.known_rates import KnownRates
from lexray.simulation.good_time import LONGEST_DURATION, draw_good_times
from lexray.simulation.light_curves import KINDS, Moments, draw_shape
from lexray.simulation.wide_population import COUNTS, WidePopulation

MISSION_BANDS = {instrument.bands for mission in MISSIONS.values() for instrument in mission.instruments.values()}


@pytest.fixture(scope="module")
def parts() -> list[KnownRates]:
    """One part of each number of cells, from the fewest to the most."""
    population = WidePopulation(1)
    by_size = {population.size(part)[0]: part for part in range(population.n_parts(10_000))}
    return [population(by_size[k]) for k in sorted(by_size)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_good_times_are_disjoint_and_begin_at_zero(seed: int) -> None:
    start, stop = draw_good_times(np.random.default_rng(seed))
    assert start[0] == 0
    assert (stop > start).all()
    assert (start[1:] >= stop[:-1]).all()
    assert stop[-1] < 1.5 * LONGEST_DURATION


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_every_shape_is_finite_and_bounded(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    segment = np.sort(random.integers(0, 5, n))
    segment = np.unique(segment, return_inverse=True)[1]
    at = Moments(np.sort(random.uniform(0, 1e4, n)), segment, 1e4, 5e3)
    for kind in KINDS:
        shape = kind(at, random)
        assert shape.shape == (n,)
        assert np.isfinite(shape).all()
    assert np.abs(draw_shape(at, random)).max() <= 8


def test_red_noise_has_the_power_spectrum_that_it_says() -> None:
    """Of many draws over one full period, a straight line in log power over log frequency, between -0.5 and -2.5."""
    (red_noise,) = [kind for kind in KINDS if kind.__name__ == "_red_noise"]
    t = np.arange(4096) * 10.0
    at = Moments(t, np.zeros(4096, dtype=np.int64), 40_960.0, 40_960.0)
    power = np.mean([np.abs(np.fft.rfft(red_noise(at, np.random.default_rng(i)))) ** 2 for i in range(400)], axis=0)
    slope = np.polyfit(np.log(np.arange(1, 17)), np.log(power[1:17]), 1)[0]
    assert -2.5 < slope < -0.5


def test_the_population_is_as_wide_as_it_says(parts: list[KnownRates]) -> None:
    counts = torch.cat([part.expected.sum((1, 2)) for part in parts])
    assert counts.min() >= COUNTS[0] * 0.999
    assert counts.max() <= COUNTS[1] * 11.001  # with a background that cannot be told from the source
    assert counts.min() < 2 * COUNTS[0]
    assert counts.max() > COUNTS[1] / 2
    for part in parts:
        below = part.contamination.sum((1, 2)) / part.expected.sum((1, 2))
        assert (below == 0).any()
        assert 1 < below.max() < 10.01
        assert torch.equal(below > 0, ~part.scale.isnan())  # a background has a region beside it
        assert part.scale.isnan().any()
        torch.testing.assert_close(part.spectrum.sum(1), torch.ones(len(part)))
        assert ((part.gap > 0).any(1)).float().mean() > 0.2
        outside = (part.exposure == 0)[:, None].expand_as(part.expected)
        assert not part.expected[outside].any()
    assert {tuple(edge) for part in parts for edge in part.energy_range.tolist()} >= {(0.5, 7.0), (3.0, 79.0)}


def test_a_part_is_the_same_wherever_it_is_drawn(parts: list[KnownRates]) -> None:
    one, again, other = WidePopulation(1)(1), WidePopulation(1)(1), WidePopulation(2)(1)
    assert torch.equal(one.expected, again.expected)
    assert not torch.equal(one.expected, other.expected)
    assert WidePopulation(1).size(1) == (one.exposure.shape[1], len(one))
    assert sum(WidePopulation(1).size(p)[1] for p in range(WidePopulation.n_parts(20_000))) == pytest.approx(
        20_000, rel=0.1
    )


@pytest.mark.parametrize("part", [0, 1, 11])
def test_photons_are_those_of_the_rates(part: int) -> None:
    """Photons by band and cell against the rates of the same part, by another way than they were drawn."""
    population = WidePopulation(4)
    rates, photons = population(part), population.photons(part)
    ((k, _),) = bin_photons(photons, torch.full((len(photons),), population.size(part)[0]))[0].items()
    assert k == rates.exposure.shape[1]
    expected = (rates.expected + rates.contamination).sum(2)
    pull = ((photons.counts - expected) / expected.clamp(min=1e-9).sqrt())[expected > 20]
    assert abs(float(pull.mean())) < 4 / len(pull) ** 0.5
    assert float(pull.std()) == pytest.approx(1.0, abs=4 / (2 * len(pull)) ** 0.5)
    later = photons.time.diff()[photons.owner.diff() == 0]
    assert (later >= 0).all()
    edges = {(one.edges[0], one.edges[-1]): one.edges for one in MISSION_BANDS}
    for i in range(0, len(photons), 16):
        bands = np.float32(edges[tuple(round(edge, 3) for edge in photons.energy_range[i].tolist())])
        mine = slice(int(photons.offsets[i]), int(photons.offsets[i + 1]))
        found = np.searchsorted(bands, photons.energy[mine].numpy(), side="right") - 1
        assert np.array_equal(found, photons.band[mine].numpy())
    assert torch.equal(photons.background.known, ~rates.scale.isnan())
    # Cells are as many as so many photons, the background's among them, may have.
    total = (rates.expected + rates.contamination).sum((1, 2)).double()
    most = cells_for(photons.ontime, total, photons.frame_time.double())
    assert (most.clamp(min=SMALLEST_ARRAY) == k).double().mean() > 0.98  # but for rounding on the border
    # The spectrum is that of all photons, source and background: in each band their share.
    for i in range(0, len(photons), 16):
        bands = np.float32(edges[tuple(round(edge, 3) for edge in photons.energy_range[i].tolist())]).astype(float)
        cells = np.exp(np.linspace(np.log(bands[0]), np.log(bands[-1]), ENERGY_CELLS + 1))
        band = np.searchsorted(bands, np.sqrt(cells[1:] * cells[:-1])) - 1
        share = np.bincount(band, rates.spectrum[i].double().numpy(), photons.n_bands)
        np.testing.assert_allclose(share, expected[i] / expected[i].sum(), atol=1e-4)
