"""The `grid` autodecoder as the trainer and its users meet it: losses, fits of new detections, background, gaps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders import photons
from lexray.models.autodecoders.grid.decoder import FreeCurves
from lexray.models.autodecoders.grid.inference import half_width
from lexray.models.autodecoders.grid.loss import GridPenaltyWeights, losses
from lexray.models.autodecoders.grid.training import GridLearner, GridSettings, free_log_shape
from lexray.models.autodecoders.likelihood import Cells, cells, log_integral
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.simulation.population import simulate


@pytest.fixture(scope="module")
def trained(trained_grid: AutodecoderTrainer) -> tuple[GridLearner, torch.Tensor]:
    """The shared learner and its mean latent."""
    start = trained_grid.mean_latent()
    assert start is not None
    assert isinstance(trained_grid.learner, GridLearner)
    return trained_grid.learner, start


def with_background(photons: Photons, seed: int, counts: float, flare: float, scale: float = 4.0) -> Photons:
    """The detections above a background: `counts` photons a band, `flare` more of them in a tenth of the time."""
    generator = np.random.default_rng(seed)

    def drawn(expected: float, flaring: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        times, bands, owners = [], [], []
        for i in range(len(photons)):
            mine = slice(int(photons.gti_offsets[i]), int(photons.gti_offsets[i + 1]))
            spans = torch.stack([photons.gti_start[mine], photons.gti_stop[mine]], 1).numpy()
            n, extra = generator.poisson(expected, 3), generator.poisson(flaring, 3)
            band = np.concatenate([np.repeat(np.arange(3), n), np.repeat(np.arange(3), extra)])
            at = np.concatenate([generator.uniform(0, 1, n.sum()), generator.uniform(0.4, 0.5, extra.sum())])
            time = at * float(photons.duration[i])
            inside = ((time[:, None] >= spans[:, 0]) & (time[:, None] < spans[:, 1])).any(1)
            times.append(time[inside])
            bands.append(band[inside])
            owners.append(np.full(int(inside.sum()), i))
        return tuple(torch.from_numpy(np.concatenate(x)) for x in (times, bands, owners))  # type: ignore[return-value]

    time, band, owner = drawn(counts, flare)
    inside = [torch.cat(pair) for pair in ((photons.time, time), (photons.band, band), (photons.owner, owner))]
    order = torch.argsort(inside[2], stable=True)
    offsets = torch.cat(
        [torch.zeros(1, dtype=torch.int64), torch.bincount(inside[2], minlength=len(photons)).cumsum(0)]
    )
    time, band, owner = drawn(counts * scale, flare * scale)
    region = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(owner, minlength=len(photons)).cumsum(0)])
    return replace(
        photons,
        time=inside[0][order],
        band=inside[1][order],
        energy=torch.ones(len(order)),
        offsets=offsets,
        background=BackgroundPhotons(time, band, region, torch.full((len(photons),), scale)),
    )


def steady(n: int, counts: float, seed: int) -> Photons:
    """Detections of a constant rate without gaps, the bands alike."""
    generator = np.random.default_rng(seed)
    duration = 20_000.0
    per = [generator.poisson(counts) for _ in range(n)]
    ends = np.cumsum(per)[:-1]
    time, band = generator.uniform(0, duration, sum(per)), generator.integers(0, 3, sum(per))
    return photons(np.split(time, ends), np.split(band, ends), [(0.0, duration)], n_bands=3)


def test_what_it_learnt_predicts_held_out_photons_of_new_sources(trained: tuple[GridLearner, torch.Tensor]) -> None:
    learner, start = trained
    new = simulate(200, 2)
    fit, held = new.photons.thin(0.8, torch.Generator().manual_seed(0))
    gains = learner.gains(fit, held, start)
    assert gains.shape == (200,)
    assert gains.dtype == torch.float64
    bits = float(gains.sum() / len(held.time) / np.log(2))
    assert bits > 0.12  # the true rates' is about 0.25
    variable = torch.from_numpy(new.light_curve_type != 0)
    assert gains[variable].mean() > 3 * gains[~variable].mean().abs()


def test_the_fitted_rate_times_exposure_is_the_number_of_photons(trained: tuple[GridLearner, torch.Tensor]) -> None:
    learner, start = trained
    photons = simulate(60, 3).photons
    fitted = learner.fit_detections(photons, start)
    log_rate, data = fitted.log_rate, fitted.data
    expected = log_integral(log_rate, data.exposure, data.centre).exp()
    torch.testing.assert_close(expected, photons.counts.float() + 0.5, rtol=1e-3, atol=1e-3)


def test_a_loss_does_not_depend_on_the_company_nor_on_where_it_comes_in_a_batch() -> None:
    settings = GridSettings(latent_dim=16, n_knots=64, width=64)
    learner = settings.learner()
    plain = simulate(6, 4).photons
    mixed = Photons.concatenate(
        [plain.select(torch.arange(3)), with_background(plain.select(torch.arange(3, 6)), 0, 20, 30)]
    )
    data = learner.prepare(mixed)
    latent = torch.randn(6, settings.latent_dim, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator()
    rows = torch.tensor([4, 0, 5, 2])
    batch = Cells.concatenate([learner.draw(data, rows[:1], generator), learner.draw(data, rows[1:], generator)])
    together = learner.losses(batch.to(torch.device("cpu")), latent[rows])
    alone = [learner.losses(data.select(row[None]), latent[row][None]) for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-3)
    # Without a region beside it, a detection's loss is that of its photons' hat counts alone.
    fast = losses(
        learner.network, latent[:1], cells(plain.select(torch.tensor([0])), settings.n_knots), GridPenaltyWeights()
    )
    torch.testing.assert_close(alone[1], fast)


def test_a_detection_is_fitted_the_same_beside_ones_with_background(trained: tuple[GridLearner, torch.Tensor]) -> None:
    learner, start = trained
    photons = simulate(4, 5).photons
    alone = learner.fit_detections(photons.select(torch.tensor([0, 1])), start).log_rate
    mixed = [photons.select(torch.tensor([0, 1])), with_background(photons.select(torch.tensor([2, 3])), 0, 10, 10)]
    beside = learner.fit_detections(Photons.concatenate(mixed), start).log_rate
    torch.testing.assert_close(beside[:2], alone, rtol=1e-3, atol=1e-2)


def test_a_flare_of_the_background_alone_leaves_the_source_flat(trained: tuple[GridLearner, torch.Tensor]) -> None:
    learner, start = trained
    above = with_background(steady(40, 400.0, 6), 7, 10.0, 60.0)
    blind = replace(above, background=BackgroundPhotons.none(40))
    flaring = (torch.linspace(0, 1, 64) > 0.41) & (torch.linspace(0, 1, 64) < 0.49)
    quiet = torch.linspace(0, 1, 64) < 0.3

    def flare(photons: Photons) -> torch.Tensor:
        rate = learner.fit_detections(photons, start).log_rate.exp().sum(1)
        return (rate[:, flaring].mean(1) / rate[:, quiet].mean(1)).log()

    assert flare(blind).mean() > 0.8  # 180 photons on top of 40
    assert flare(above).mean().item() == pytest.approx(0.0, abs=0.15)
    fitted = learner.fit_detections(above, start)
    log_rate, data = fitted.log_rate, fitted.data
    counts = log_integral(log_rate, data.exposure, data.centre).exp().sum()
    assert counts.item() == pytest.approx(40 * 400, rel=0.03)


def test_intervals_hold_steady_rates_as_often_as_they_say(trained: tuple[GridLearner, torch.Tensor]) -> None:
    """A decoder trained on 400 detections draws steady sources well enough; other kinds need a whole training."""
    learner, start = trained
    fitted = learner.fit_detections(steady(80, 300.0, 11), start)
    truth = np.log(100.0)  # of each band, per unit of scaled time
    covered = []
    for probability in (0.68, 0.95):
        half = half_width(learner.network, fitted, probability)
        covered.append(float(((fitted.log_rate - truth).abs() < half).float().mean()))
    assert 0.55 < covered[0] < 0.85
    assert 0.88 < covered[1] < 1.0


def test_intervals_hold_the_rate_and_widen_where_less_is_known(trained: tuple[GridLearner, torch.Tensor]) -> None:
    learner, start = trained
    bright, faint = steady(12, 3000.0, 12), steady(12, 60.0, 13)
    contaminated = with_background(faint, 14, 100.0, 0.0)

    def width(photons: Photons, probability: float = 0.68) -> float:
        half = half_width(learner.network, learner.fit_detections(photons, start), probability)
        assert (half > 0).all()
        return float(2 * half.mean())

    assert width(bright) < 0.5 * width(faint)
    assert width(faint) < 0.9 * width(contaminated)
    assert width(faint) < 0.6 * width(faint, 0.95)


def test_empty_bands_and_detections_of_no_or_one_photon_are_fitted(trained: tuple[GridLearner, torch.Tensor]) -> None:
    learner, start = trained
    photons = Photons.concatenate([steady(1, 0.0, 0), steady(1, 200.0, 1)])
    one = photons.keep((photons.band == 0) & (torch.arange(len(photons.time)) < 100))
    single = photons.keep(torch.arange(len(photons.time)) == 7)
    for few in (photons, one, single):
        log_rate = learner.fit_detections(few, start).log_rate
        assert torch.isfinite(log_rate).all()
        assert torch.isfinite(learner.gains(few, few, start)).all()


def test_a_lone_fit_finds_a_step_and_leaves_a_steady_source_flat() -> None:
    flat = free_log_shape(cells(steady(20, 300.0, 8), 64))
    assert flat.std(-1).mean() < 0.15  # the mean of 300 photons in halves scatters by 0.12
    photons = steady(20, 2000.0, 9)
    # A fifth of the second half's photons is kept.
    kept = (photons.time < 10_000.0) | (torch.rand(len(photons.time), generator=torch.Generator().manual_seed(0)) < 0.2)
    stepped = free_log_shape(cells(photons.keep(kept), 64))
    height = stepped[..., :28].mean(-1) - stepped[..., 36:].mean(-1)
    assert height.mean().item() == pytest.approx(np.log(5), abs=0.1)


def test_free_curves_part_into_a_mean_and_deviations_from_it() -> None:
    curves = FreeCurves(3, 16)
    mean, deviation = curves(torch.randn(5, curves.latent_dim, generator=torch.Generator().manual_seed(0)))
    assert mean.shape == (5, 16)
    torch.testing.assert_close(deviation.mean(1), torch.zeros(5, 16), atol=1e-5, rtol=0)
