"""Training on known rates: what is drawn of them, and what the loss says of an estimate, against scipy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from lexray.models.autodecoders.learner import keyed_generator
from lexray.models.autodecoders.splitnet.known_rates import (
    KnownRateLearner,
    KnownRates,
    KnownRateSettings,
    draw_photons,
)
from lexray.models.autodecoders.splitnet.loss import rate_loss, timing_gain
from lexray.models.autodecoders.splitnet.network import Estimate
from lexray.models.autodecoders.splitnet.thinning import BatchBySize
from lexray.simulation.wide_population import WidePopulation


@pytest.fixture(scope="module")
def rates() -> KnownRates:
    """160 detections of 64 cells."""
    return WidePopulation(5)(0)


def estimate_of(rate: torch.Tensor, exposure: torch.Tensor, variance: float) -> Estimate:
    """One that says `rate`, counts a full cell, with a relative variance."""
    level = (rate * exposure[:, None]).sum(-1)
    none = torch.zeros(len(rate), 1)
    return Estimate(
        rate / level[..., None],
        level,
        torch.zeros_like(rate),
        torch.full_like(rate, variance),
        torch.ones_like(rate),
        none,
        none,
        none,
    )


def test_photons_are_drawn_from_the_rates(rates: KnownRates) -> None:
    drawn = [draw_photons(rates, keyed_generator(i)) for i in range(20)]
    expected = 20 * (rates.expected + rates.contamination)
    assert float(sum(one.counts.sum() for one in drawn)) == pytest.approx(float(expected.sum()), rel=0.01)
    chi2 = (sum(one.counts for one in drawn) - expected).square() / expected.clamp(min=1e-9)
    assert float(chi2[expected > 5].mean()) == pytest.approx(1.0, abs=0.1)
    for one in drawn:
        assert torch.equal(one.energies.sum(1), one.counts.sum((1, 2)))
        assert (one.counts.sum(1)[rates.exposure == 0] == 0).all()
    known = ~rates.scale.isnan()
    region = torch.stack([one.background[known].sum((1, 2)) for one in drawn]).sum(0)
    mean = 20 * (rates.contamination.sum((1, 2)) * rates.scale)[known]
    assert float(((region - mean) / mean.sqrt()).square().mean()) == pytest.approx(1.0, abs=0.5)
    assert not any(one.background[~known].any() for one in drawn)


@pytest.mark.parametrize("variance", [0.01, 0.3, 2.0])
def test_the_loss_of_a_known_rate_is_that_of_the_gamma_distribution(variance: float) -> None:
    random = np.random.default_rng(1)
    said = random.gamma(3.0, 1.0, (2, 3, 64))
    truth = said * np.exp(
        min(variance**0.5, 0.5) * random.normal(size=said.shape)
    )  # near enough for no cell to be damped
    exposure = random.uniform(0.1, 1.0, (2, 64))
    exposure[:, 60:] = 0.0
    found = estimate_of(*(torch.tensor(value, dtype=torch.float32) for value in (said, exposure)), variance)
    loss = rate_loss(found, torch.tensor(exposure, dtype=torch.float32), torch.tensor(truth, dtype=torch.float32))
    # The density of the rate over the estimate, of which only what depends on the truth alone is left out.
    by_hand = stats.gamma.logpdf(truth / said, 1 / variance, scale=variance) + np.log(truth / said)
    expected = -np.average(by_hand, weights=np.broadcast_to(exposure[:, None], truth.shape), axis=(1, 2))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_a_cell_that_is_far_off_does_not_outweigh_all_others() -> None:
    rate, exposure = torch.ones(1, 3, 64), torch.ones(1, 64)
    near, far = rate.clone(), rate.clone()
    near[0, 0, 0], far[0, 0, 0] = 5.0, 5e6
    losses = [rate_loss(estimate_of(rate, exposure, 1e-3), exposure, truth).item() for truth in (rate, near, far)]
    assert losses[0] < losses[1] < losses[2] < 5.0


def test_a_density_that_vanishes_gives_a_finite_loss_and_gradient() -> None:
    rate, exposure = torch.ones(1, 3, 64), torch.ones(1, 64)
    exposure[:, 60:] = 0.0
    found = estimate_of(rate, exposure, 0.1)
    density = found.density.clone()
    density[..., :4] = density[..., 60:] = 0.0
    shift = torch.ones_like(rate, requires_grad=True)
    loss = rate_loss(replace(found, density=density, shift=shift), exposure, rate)
    torch.autograd.backward(loss.sum())
    assert loss.isfinite().all()
    assert shift.grad is not None
    assert shift.grad.isfinite().all()


def test_no_estimate_gains_more_than_the_truth(rates: KnownRates) -> None:
    """What is predicted is the expected counts: by Gibbs' inequality the true rate does best."""
    some = rates.map(lambda value: value[:40])
    some = replace(some, contamination=torch.zeros_like(some.contamination))
    rate = (some.expected / some.exposure.clamp(min=1e-6)[:, None]).clamp(min=1e-6)
    truth = timing_gain(estimate_of(rate, some.exposure, 1.0), some.exposure, some.expected)
    assert (truth >= -1e-3 * some.expected.sum((1, 2))).all()
    noise = torch.randn(rate.shape, generator=keyed_generator(3))
    other = timing_gain(estimate_of(rate * (0.3 * noise).exp(), some.exposure, 1.0), some.exposure, some.expected)
    assert (other < truth).all()


def test_losses_do_not_depend_on_the_company(rates: KnownRates) -> None:
    learner = KnownRateSettings(width=8).learner()
    assert isinstance(learner, KnownRateLearner)
    sample = learner.draw(rates, torch.arange(6), keyed_generator(4))
    ((k, one),) = sample.items()
    together = learner.losses(sample, None)
    for i in range(6):
        row = torch.tensor([i])
        alone = one.map(lambda value, row=row: value[row])
        found = learner.losses(BatchBySize({k: replace(alone, row=torch.tensor([0]))}), None)
        assert found.item() == pytest.approx(together[i].item(), rel=1e-3, abs=1e-2)
    both = BatchBySize.concatenate([sample, learner.draw(WidePopulation(5)(1), torch.arange(2), keyed_generator(5))])
    assert learner.losses(both, None).shape == (8,)
    torch.testing.assert_close(learner.losses(both, None)[:6], together, rtol=1e-3, atol=1e-2)
