"""A source above its background, simulated: its level is not biased, the background's flares are not its own."""

import numpy as np
import pytest
import torch

from builders import photons
from lexray.models.autodecoders.background import background_regions, with_background
from lexray.models.autodecoders.grid.training import free_log_shape
from lexray.models.autodecoders.likelihood import cell_log_integrals, cells, level
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons

DURATION = 10_000.0
GAPS = np.array([[0.0, 3100.0], [4500.0, 7000.0], [9050.0, DURATION]])


def drawn(
    random: np.random.Generator, n: int, counts: float, flare: float = 0.0
) -> tuple[list[np.ndarray], torch.Tensor]:
    """Photon times of `n` regions: steady ones, and `flare` more on average from 45 to 60 % of the observation."""
    times = []
    for _ in range(n):
        steady = random.uniform(0, DURATION, random.poisson(counts))
        time = np.concatenate([steady, random.uniform(0.45, 0.6, random.poisson(flare)) * DURATION])
        inside = ((time[:, None] >= GAPS[:, 0]) & (time[:, None] <= GAPS[:, 1])).any(1)
        times.append(np.sort(time[inside]))
    return times, torch.tensor([0, *map(len, times)]).cumsum(0)


def regions(source: list[np.ndarray], background: list[np.ndarray] | None, scale: float) -> Photons:
    """Detections of one band with these photons in the source's region and in the background's."""
    n = len(source)
    behind = BackgroundPhotons.none(n)
    if background is not None:
        time = torch.from_numpy(np.concatenate(background))
        offsets = torch.tensor([0, *map(len, background)]).cumsum(0)
        behind = BackgroundPhotons(time, torch.zeros(len(time), dtype=torch.int64), offsets, torch.full((n,), scale))
    return photons(source, gti=[(a, b) for a, b in GAPS], background=behind)


def contaminated(
    seed: int, n: int, counts: float, background: float, flare: float, scale: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photons of the source's region, a steady source with `counts` in it, and of the background's."""
    random = np.random.default_rng(seed)
    own, _ = drawn(random, n, counts)
    inside, _ = drawn(random, n, background, flare)
    beside, _ = drawn(random, n, background * scale, flare * scale)
    return [np.sort(np.concatenate(pair)) for pair in zip(own, inside, strict=True)], beside


@pytest.mark.parametrize(("counts", "background"), [(100.0, 30.0), (30.0, 100.0), (200.0, 0.0)])
def test_the_level_of_a_steady_source_is_not_biased(counts: float, background: float) -> None:
    """400 sources with gaps: the mean of what is fitted is what was simulated, within four times its error."""
    scale, good = 4.0, float(np.diff(GAPS).sum() / DURATION)
    photons = regions(*contaminated(1, 400, counts, background, 0.0, scale), scale)
    flat = torch.zeros(400, 1, 16)
    data = with_background(cells(photons, 16), photons, lambda region: torch.zeros_like(region.hat_counts))
    log_rate = flat + level(flat, data)[..., None]
    fitted = cell_log_integrals(log_rate, data.exposure, data.centre).exp().sum(-1)[:, 0]
    expected = counts * good
    # n_src − n_bkg/scale, and half a count of the prior.
    error = np.sqrt((expected + background * good * (1 + 1 / scale)) / 400)
    assert fitted.mean().item() == pytest.approx(expected + 0.5, abs=4 * error)
    by_difference = photons.counts[:, 0] - photons.background.offsets.diff() / scale
    assert (fitted - by_difference).median().item() == pytest.approx(0.5, abs=0.5)


def test_a_flare_of_the_background_alone_leaves_the_source_flat() -> None:
    scale = 5.0
    source, beside = contaminated(2, 40, 300.0, 60.0, 300.0, scale)
    photons = regions(source, beside, scale)
    data = with_background(cells(photons, 64), photons, free_log_shape)
    ignorant = cells(regions(source, None, scale), 64)
    flaring = torch.linspace(0, 1, 64).sub(0.525).abs() < 0.05
    quiet = torch.linspace(0, 1, 64) < 0.3

    def flare(shape: torch.Tensor) -> torch.Tensor:
        return shape[:, 0, flaring].mean(1) - shape[:, 0, quiet].mean(1)

    without, above = flare(free_log_shape(ignorant)), flare(free_log_shape(data))
    assert without.mean() > 1.0  # the region's flare is in every light curve of it
    # In a flare cell of 5 % of the time there are some 15 photons of the source above 100 of the background.
    assert above.mean().item() == pytest.approx(0.0, abs=0.15)
    assert (above.abs() < 0.7).float().mean() > 0.9


def test_a_flare_of_the_source_above_its_background_is_kept() -> None:
    random = np.random.default_rng(3)
    own, _ = drawn(random, 20, 200.0, 400.0)
    inside, _ = drawn(random, 20, 100.0)
    beside, _ = drawn(random, 20, 500.0)
    photons = regions([np.sort(np.concatenate(p)) for p in zip(own, inside, strict=True)], beside, 5.0)
    shape = free_log_shape(with_background(cells(photons, 64), photons, free_log_shape))[:, 0]
    rise = shape[:, 31:36].mean(1) - shape[:, :16].mean(1)
    truth = np.log((200 + 400 / 0.15) / 200)  # 2.67; a penalty takes some of it
    assert truth - 0.5 < rise.mean() < truth + 0.3
    blind = free_log_shape(
        cells(regions([np.sort(np.concatenate(p)) for p in zip(own, inside, strict=True)], None, 5.0), 64)
    )[:, 0]
    assert rise.mean() > (blind[:, 31:36].mean(1) - blind[:, :16].mean(1)).mean() + 0.1


def test_only_detections_with_a_background_region_are_treated_so() -> None:
    source, beside = contaminated(4, 3, 50.0, 20.0, 0.0, 2.0)
    mixed = Photons.concatenate([regions(source[:1], None, 2.0), regions(source[1:], beside[1:], 2.0)])
    data = with_background(cells(mixed, 32), mixed, free_log_shape)
    assert data.background is not None
    assert data.background.rows.tolist() == [1, 2]
    assert data.background.expected.sum((1, 2)).tolist() == pytest.approx([len(b) / 2.0 for b in beside[1:]], rel=1e-4)
    none = regions(source, None, 2.0)
    assert with_background(cells(none, 32), none, free_log_shape).background is None


def test_a_background_region_without_photons_takes_none_from_its_source() -> None:
    source, _ = contaminated(5, 2, 80.0, 0.0, 0.0, 2.0)
    photons = regions(source, [np.zeros(0), np.zeros(0)], 2.0)
    data = with_background(cells(photons, 32), photons, free_log_shape)
    assert data.background is not None
    assert data.background.expected.abs().max() == 0
    assert torch.isfinite(free_log_shape(data)).all()


def test_a_source_fainter_than_its_backgrounds_scatter_keeps_a_finite_rate() -> None:
    _, beside = contaminated(6, 2, 0.0, 50.0, 0.0, 2.0)
    photons = regions([np.zeros(0), np.array([10.0])], beside, 2.0)
    data = with_background(cells(photons, 32), photons, free_log_shape)
    shape = free_log_shape(data)
    rate = shape + level(shape, data)[..., None]
    assert torch.isfinite(rate).all()
    counts = cell_log_integrals(rate, data.exposure, data.centre).exp().sum(-1)
    assert (counts < 2).all()


def test_background_regions_are_detections_of_the_same_good_time() -> None:
    source, beside = contaminated(7, 2, 10.0, 10.0, 0.0, 3.0)
    photons = regions(source, beside, 3.0)
    own = background_regions(photons)
    assert own.time.tolist() == np.concatenate(beside).tolist()
    assert own.ontime.tolist() == photons.ontime.tolist()
    assert not own.background.known.any()
