"""The grid autodecoder: what its decoder can draw, what training makes of it, and its public face."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders import BANDS, ENERGIES, event_list
from lexray.errors import LexrayError
from lexray.events.arrow import to_table
from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals
from lexray.inference.autodecoder import Autodecoder, load_autodecoder
from lexray.inference.photons import photons_of, photons_of_table
from lexray.models.autodecoders.grid.decoder import GridDecoder, multiscale_hats, total_variation
from lexray.models.autodecoders.grid.loss import GridPenaltyWeights, losses
from lexray.models.autodecoders.grid.training import fit_latents
from lexray.models.autodecoders.latents import LatentTable
from lexray.models.autodecoders.likelihood import cells
from lexray.models.autodecoders.trainer import AutodecoderTrainer


def flaring_source(seed: int, n: int = 300, duration: float = 20_000.0) -> EventList:
    """A source ten times brighter within one quarter of the observation, seen with a gap in a third of the cases."""
    random = np.random.default_rng(seed)
    quarter = random.integers(4)
    bright = random.uniform(quarter / 4, (quarter + 1) / 4, random.poisson(10 / 13 * n))
    steady = random.uniform(0, 1, random.poisson(3 / 13 * n))
    time = np.sort(np.concatenate([bright, steady])) * duration
    gti = GoodTimeIntervals([0.0], [duration])
    if seed % 3 == 0:
        gti = GoodTimeIntervals([0.0, 0.45 * duration], [0.3 * duration, duration])
    time = time[gti.contains(time)]
    energy = random.choice(ENERGIES, len(time))
    return event_list(time, energy, gti, detection_id=f"d{seed:03d}", source_id=f"s{seed:03d}")


@pytest.fixture(scope="module")
def model(trained_grid: AutodecoderTrainer) -> Autodecoder:
    result = trained_grid.result()
    return Autodecoder(trained_grid.settings, result["network"], result["mean_latent"])


def test_the_basis_holds_straight_lines_and_single_knots() -> None:
    basis = multiscale_hats(16).double().numpy()
    for target in (np.linspace(-1, 2, 16), np.eye(16)[5]):
        coefficients = np.linalg.lstsq(basis.T, target)[0]  # the hats of all levels are more than they need to be
        np.testing.assert_allclose(basis.T @ coefficients, target, atol=1e-5)


@pytest.mark.parametrize("n_knots", [0, 2, 3, 12, 100])
def test_knots_must_be_a_power_of_two(n_knots: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        multiscale_hats(n_knots)


def test_deviations_of_the_bands_have_no_common_part() -> None:
    mean, deviation = GridDecoder(4, 3, 16, 8)(torch.randn(5, 4))
    assert mean.shape == (5, 16)
    assert deviation.shape == (5, 3, 16)
    assert torch.allclose(deviation.mean(1), torch.zeros(5, 16), atol=1e-6)


def test_total_variation_of_a_step_is_its_height() -> None:
    assert total_variation(torch.tensor([[0.0, 0.0, 2.0, 2.0, -1.0]])).tolist() == [5.0]


def test_a_sources_loss_does_not_depend_on_its_company() -> None:
    data = cells(photons_of([flaring_source(i) for i in range(4)], 3), 16)
    decoder, latent = GridDecoder(4, 3, 16, 8), torch.randn(4, 4)
    together = losses(decoder, latent, data, GridPenaltyWeights())
    alone = [losses(decoder, latent[i : i + 1], data.select(torch.tensor([i])), GridPenaltyWeights()) for i in range(4)]
    # A loss is a difference of terms of some tens in float32: where they cancel, their rounding (1e-6 of each) is left.
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_only_the_rows_of_a_batch_move_and_as_adam_moves_them() -> None:
    table, reference = LatentTable(torch.zeros(3, 2)), torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=0.1, betas=table.betas)
    for gradient in ([1.0, -2.0], [0.5, 4.0], [-3.0, 0.1]):
        reference.grad = torch.tensor(gradient)
        adam.step()
        table.step(torch.tensor([1]), torch.tensor([gradient]), 0.1)
    assert torch.allclose(table.value[1], reference, atol=1e-6)
    assert table.value[[0, 2]].eq(0).all()


def test_steady_sources_are_not_made_to_vary(trained_grid: AutodecoderTrainer) -> None:
    gti, energy = GoodTimeIntervals([0.0], [1e4]), np.full(200, 1.0, np.float32)
    steady = [
        EventList(f"c{i}", f"c{i}", np.sort(np.random.default_rng(i).uniform(0, 1e4, 200)), energy, gti, BANDS, 1e4)
        for i in range(40)
    ]
    fit, held = photons_of(steady, 3).thin(0.8, torch.Generator().manual_seed(0))
    gain = trained_grid.learner.gains(fit, held, trained_grid.mean_latent()).sum() / len(held.time) / np.log(2)
    assert abs(float(gain)) < 0.1


def test_the_rate_is_high_where_the_flare_is_and_integrates_to_the_counts(model: Autodecoder) -> None:
    for seed in (1000, 1001, 1002):  # the first and the last are seen through a gap
        source = flaring_source(seed)
        ((edges, rate),) = model.rates([source], bins=256)
        counts = np.bincount(source.band, minlength=3)
        expected = (rate * source.gti.exposure(edges)).sum(1)
        assert expected == pytest.approx(counts + 0.5, rel=0.02)
        total = rate.sum(0)
        assert total.max() > 3 * np.median(total)
        assert np.quantile(source.time, 0.05) < edges[total.argmax()] < np.quantile(source.time, 0.95)


def test_encoding_does_not_depend_on_company_or_order(model: Autodecoder) -> None:
    sources = [flaring_source(2000 + i) for i in range(5)]
    together = model.encode(sources)
    assert together.latent.shape == (5, model.latent_dim)
    assert together.log_rate.shape == (5, 3)
    reversed_order = model.encode(sources[::-1])
    np.testing.assert_allclose(together.latent, reversed_order.latent[::-1], atol=2e-3)
    alone = model.encode(sources[2:3])
    np.testing.assert_allclose(together.latent[2], alone.latent[0], atol=2e-3)


def test_log_rates_and_likelihood_are_in_physical_units(model: Autodecoder) -> None:
    source = flaring_source(2000)
    encoded = model.encode([source])
    counts = np.bincount(source.band, minlength=3)
    assert np.exp(encoded.log_rate[0]) == pytest.approx((counts + 0.5) / source.gti.ontime, rel=1e-4)
    ((edges, rate),) = model.rates([source], bins=2048)
    cell = np.minimum(np.searchsorted(edges, source.time, side="right") - 1, 2047)
    by_hand = (rate * source.gti.exposure(edges)).sum() - np.log(rate[source.band, cell]).sum()
    assert encoded.nll[0] == pytest.approx(by_hand, rel=1e-3)


def test_a_band_or_a_source_without_photons_is_encoded(model: Autodecoder) -> None:
    gti = GoodTimeIntervals([0.0], [1000.0])
    empty = EventList("e", "e", np.zeros(0), np.zeros(0, np.float32), gti, BANDS, 1000.0)
    one = EventList("o", "o", np.array([500.0]), np.array([1.0], np.float32), gti, BANDS, 1000.0)
    encoded = model.encode([empty, one])
    assert np.isfinite(encoded.latent).all()
    assert np.isfinite(encoded.nll).all()
    assert np.isfinite(model.rate(empty)[1]).all()
    assert model.encode([]).latent.shape == (0, model.latent_dim)


def test_what_cannot_be_encoded_is_refused_by_name(model: Autodecoder) -> None:
    gti = GoodTimeIntervals([0.0], [1000.0])
    none = np.zeros(0), np.zeros(0, np.float32)
    with pytest.raises(LexrayError, match="two-bands: has 2 energy bands, expected 3"):
        model.encode([EventList("two-bands", "s", *none, gti, Bands((0.5, 2.0, 7.0)), 1000.0)])
    with pytest.raises(LexrayError, match="dark: has no good time"):
        model.encode([EventList("dark", "s", *none, GoodTimeIntervals([], []), BANDS, 0.0)])


def test_saved_and_loaded_it_answers_the_same(model: Autodecoder, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = load_autodecoder(tmp_path)
    sources = [flaring_source(3000 + i) for i in range(3)]
    np.testing.assert_array_equal(model.encode(sources).latent, again.encode(sources).latent)
    assert again.name == model.name
    with pytest.raises(LexrayError, match="no autodecoder here"):
        load_autodecoder(tmp_path / "absent")


def test_fitting_lowers_the_loss_of_every_source(model: Autodecoder) -> None:
    data = cells(photons_of([flaring_source(4000 + i) for i in range(8)], 3), model.settings.n_knots)
    assert model.start is not None
    start = model.start.expand(8, -1)
    fitted = fit_latents(model.network, data, model.settings.penalties, start=start, steps=60, learning_rate=0.1)
    before, after = (losses(model.network, z, data, model.settings.penalties) for z in (start, fitted))
    assert (after < before).all()


def test_event_lists_and_their_table_give_the_same_photons() -> None:
    gti = GoodTimeIntervals([0.0, 50.0], [20.0, 100.0])
    times, energies = np.array([1.0, 60.0]), np.array([1.0, 3.0], np.float32)
    background = Background(np.array([2.0, 3.0]), np.array([1.0, 9.0], np.float32), 3.0)
    events = [
        EventList("a", "a", times, energies, gti, BANDS, 60.0, background=background),
        EventList("b", "b", times[:1], energies[:1], gti, BANDS, 70.0, area=(1.0, 2.0, 3.0), frame_time=3.2),
    ]
    one, other = photons_of(events, 3), photons_of_table(to_table(events), 3)
    for name in ("time", "band", "offsets", "gti_start", "gti_stop", "energy", "energy_range", "live", "area"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), equal_nan=True)
    assert one.frame_time.isnan().tolist() == [True, False]
    for photons in (one, other):  # the second background photon lies in no band
        assert photons.background.time.tolist() == [2.0]
        assert photons.background.offsets.tolist() == [0, 1, 1]
        assert photons.background.known.tolist() == [True, False]
