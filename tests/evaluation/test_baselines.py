"""What a model has to beat, and the simulator it is compared on: each against a derivation or a count of its own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize

from builders import event_list
from lexray.evaluation import gregory_loredo
from lexray.evaluation.baselines import constant_rate
from lexray.evaluation.cells import N_CELLS, as_rate_model, count_in_cells, mean_gain, shape_gain
from lexray.evaluation.count_bins import COUNT_BINS, count_bin_of
from lexray.evaluation.heldout import PiecewiseRate, gain, score, score_models, thin
from lexray.evaluation.intervals import coverage
from lexray.evaluation.kernel import FLOORS, GaussianKernel
from lexray.evaluation.total_variation import TotalVariationFit
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.inference.autodecoder import photons_of
from lexray.simulation.population import BANDS, DURATION, LIGHT_CURVE_TYPES, SimulatedPopulation, simulate

GAPPY = GoodTimeIntervals([0, 9_000, 20_000], [5_000, 16_000, DURATION])


def events_at(time: np.ndarray, gti: GoodTimeIntervals | None = None) -> EventList:
    return event_list(time, gti=gti or GoodTimeIntervals(0, DURATION), bands=BANDS)


# --- the simulator


def test_kinds_come_in_equal_shares_and_gaps_in_a_third(population: SimulatedPopulation) -> None:
    assert np.bincount(population.light_curve_type).tolist() == [200] * len(LIGHT_CURVE_TYPES)
    gaps = population.photons.gti_offsets.diff().numpy() - 1
    assert abs((gaps > 0).mean() - 1 / 3) < 4 * math.sqrt(2 / 9 / 1600)
    assert gaps.max() == 4
    lost = 1 - population.photons.ontime.numpy()[gaps > 0] / DURATION
    assert 0.05 <= lost.min() < 0.07
    assert 0.38 < lost.max() <= 0.40
    np.testing.assert_allclose(population.photons.duration, DURATION)


def test_counts_and_bands_are_as_the_true_rate_expects(population: SimulatedPopulation) -> None:
    """Photons by band against λ integrated over good time by the event lists' own machinery: χ² of 4,800 Poissons."""
    events = population.event_lists()
    expected = np.array([population.rate(i).expected(e.gti) for i, e in enumerate(events)])
    counts = population.photons.counts.numpy()
    pull = (counts - expected) / np.sqrt(np.maximum(expected, 1e-9))
    bright = expected > 20
    assert abs(pull[bright].mean()) < 4 / math.sqrt(bright.sum())
    assert abs((pull[bright] ** 2).mean() - 1) < 4 * math.sqrt(2 / bright.sum())
    total = np.log(expected.sum(axis=1))
    assert total.mean() == pytest.approx(math.log(300), abs=4 * 0.7 / 40)
    assert total.std() == pytest.approx(0.7, abs=4 * 0.7 / math.sqrt(3200))
    # One component of a flat Dirichlet in three is Beta(1, 2): mean 1/3, variance 1/18.
    assert population.share.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.03)
    assert population.share.var(axis=0) == pytest.approx([1 / 18] * 3, abs=0.01)


def test_times_follow_the_true_rate_and_lie_in_good_time(population: SimulatedPopulation) -> None:
    """Each photon's share of the integrated rate before it is uniform: Kolmogorov–Smirnov, kind by kind."""
    events = population.event_lists()
    for kind in range(len(LIGHT_CURVE_TYPES)):
        shares = []
        for i in np.flatnonzero(population.light_curve_type == kind):
            e, rate = events[i], population.rate(i)
            assert e.gti.contains(e.time).all()
            edges = np.unique(np.concatenate([rate.edges, e.gti.start, e.gti.stop]))
            middle = (edges[:-1] + edges[1:]) / 2
            level = rate.rate.sum(axis=0)[np.searchsorted(rate.edges, middle, side="right") - 1]
            grown = np.concatenate([[0], np.cumsum(level * e.gti.exposure(edges))])
            shares.append(np.interp(e.time, edges, grown) / grown[-1])
        uniform = np.sort(np.concatenate(shares))
        distance = np.abs(uniform - (np.arange(len(uniform)) + 0.5) / len(uniform)).max()
        assert distance < 1.95 / math.sqrt(len(uniform)), LIGHT_CURVE_TYPES[kind]  # 0.1 % of draws are further off


def test_shapes_are_what_their_names_say(population: SimulatedPopulation) -> None:
    shape = np.exp(population.log_rate.astype(np.float64))
    by_kind = {name: shape[population.light_curve_type == i] for i, name in enumerate(LIGHT_CURVE_TYPES)}
    assert np.all(by_kind["steady"] == 1)
    assert 3 < by_kind["flare"].max(axis=1).max() <= 20
    low = by_kind["eclipse"].min(axis=1)
    assert low.max() <= 0.30 + 1e-6
    share = (by_kind["eclipse"] < 0.5).mean(axis=1)
    assert 0.049 < share.min() < share.max() < 0.251
    depth = by_kind["periodic"].max(axis=1) - 1
    assert 0.4 - 0.05 < depth.min() < depth.max() <= 0.95 + 1e-6
    factor = by_kind["step"][:, -1]
    assert 0.2 <= factor.min() < 0.25 < 4 < factor.max() <= 5 + 1e-6
    assert np.all(np.diff(by_kind["decay"], axis=1) < 0)
    # 1/f amplitudes: the first harmonic's power is k² times the k-th's, on average over 200 population.
    power = (np.abs(np.fft.rfft(np.log(by_kind["red_noise"]), axis=1)) ** 2).mean(axis=0)
    assert power[1] / power[10] == pytest.approx(100, rel=0.5)
    assert power[25] < 1e-6 * power[1]


def test_the_same_seed_gives_the_same_sources() -> None:
    one, two, other = simulate(16, 5), simulate(16, 5), simulate(16, 6)
    assert torch.equal(one.photons.time, two.photons.time)
    assert not torch.equal(one.photons.time[:100], other.photons.time[:100])
    chosen = one.select([3, 1])
    assert torch.equal(chosen.photons.time[: chosen.photons.offsets[1]], torch.from_numpy(one.event_lists()[3].time))
    np.testing.assert_array_equal(chosen.rate(1).rate, one.rate(1).rate)


# --- gains on cells


def test_gain_of_a_shape_is_the_difference_of_two_scores(population: SimulatedPopulation) -> None:
    some = population.select(range(40))
    pairs = [thin(e) for e in some.event_lists()]
    fits, helds = zip(*pairs, strict=True)
    model = TotalVariationFit(3.0, 8.0, steps=20)
    rates = as_rate_model(model)(fits)
    by_hand = [
        score(rate, fit, held) - score(constant_rate(fit), fit, held)
        for rate, (fit, held) in zip(rates, pairs, strict=True)
    ]
    on_cells = shape_gain(model(photons_of(fits, 3)), count_in_cells(photons_of(helds, 3)))
    np.testing.assert_allclose(on_cells, by_hand, rtol=1e-4, atol=1e-3)


# --- the kernel


@pytest.mark.parametrize("gti", [GoodTimeIntervals(0, DURATION), GAPPY], ids=["whole", "gaps"])
def test_kernel_of_a_steady_source_is_flat_up_to_gaps_and_ends(gti: GoodTimeIntervals) -> None:
    time = gti.time_at(np.linspace(0, gti.ontime, 4000))
    shape = GaussianKernel(0.03, 0.01)(photons_of([events_at(time, gti)], 3))[0, 0]
    seen = gti.exposure(np.linspace(0, DURATION, N_CELLS + 1)) > 0
    assert float(shape[seen].max() - shape[seen].min()) < 0.02


def test_kernel_is_the_weighted_mean_of_the_counts() -> None:
    """One photon: its kernel over the kernel's good time around each cell, by a sum written out."""
    kernel = GaussianKernel(0.05, 0.1)
    shape = kernel(photons_of([events_at(np.array([10_000.0]), GAPPY)], 3))[0, 0].exp().numpy()
    centre = (np.arange(N_CELLS) + 0.5) / N_CELLS
    exposure = GAPPY.exposure(np.linspace(0, DURATION, N_CELLS + 1)) / DURATION
    at = int(10_000 / DURATION * N_CELLS)
    raw = np.array([
        math.exp(-0.5 * ((c - centre[at]) / 0.05) ** 2)
        / sum(x * math.exp(-0.5 * ((c - d) / 0.05) ** 2) for x, d in zip(exposure, centre, strict=True))
        for c in centre
    ])  # fmt: skip
    mean = np.average(raw, weights=exposure)
    np.testing.assert_allclose(shape, 0.9 * raw / mean + 0.1, rtol=1e-5)


def test_the_best_kernel_is_the_best_of_those_tried_and_gains(population: SimulatedPopulation) -> None:
    training = population.photons.select(torch.arange(200))
    best = GaussianKernel.best(training)
    assert mean_gain(best, training, 0) > max(
        mean_gain(GaussianKernel(best.width * f, best.floor), training, 0) for f in (0.5, 2)
    )
    assert best.floor in FLOORS
    new = population.select(range(200, 500))
    rates: dict[str, object] = {
        "constant": lambda fits: [constant_rate(e) for e in fits],
        "kernel": as_rate_model(best),
        "narrow": as_rate_model(GaussianKernel(best.width / 8, best.floor)),
    }
    scores = score_models(new.event_lists(), rates)  # type: ignore[arg-type]
    held = [s.n_held for s in scores]
    found = {
        name: gain([s.log_likelihood[name] for s in scores], [s.log_likelihood["constant"] for s in scores], held)
        for name in rates
    }
    assert found["kernel"] > 0.1
    assert found["kernel"] > found["narrow"]


# --- the fit of each source alone


def test_shared_shape_is_a_taut_string() -> None:
    """Without deviations the exact maximum is known: the shortest path in a tube around the cumulative counts.

    Stationarity says that counts less expected ones, summed up to any cell, lie within ± the penalty, and touch it
    where the rate steps: upwards at −, downwards at +.
    """
    generator = np.random.default_rng(0)
    time = np.concatenate([generator.uniform(0, 10_000, 300), generator.uniform(10_000, DURATION, 100)])
    photons = photons_of([events_at(time)], 3)
    fit = TotalVariationFit(4.0, math.inf, steps=3000, learning_rate=0.03)
    shape = fit(photons)[0, 0].double()
    data = count_in_cells(photons)
    counts = data.counts[0].sum(0).double()
    expected = counts.sum() * torch.softmax(shape, 0)
    excess = (counts - expected).cumsum(0)[:-1]
    assert float(excess.abs().max()) < 4.0 + 0.4
    step = shape.diff()
    # A step down, λ before above λ after, takes all of the penalty's force, and it is where it was put.
    assert int(step.argmin()) == pytest.approx(10_000 / DURATION * N_CELLS, abs=3)
    assert float(excess[step.argmin()]) == pytest.approx(4.0, abs=0.4)
    assert float(shape[0] - shape[-1]) == pytest.approx(math.log(300 / 10_000 / (100 / 18_800)), abs=0.25)


def test_fit_agrees_with_a_general_optimiser() -> None:
    """Its objective, against scipy's maximum of the same thing written out in NumPy on a detection with a gap."""
    generator = np.random.default_rng(3)
    time = GAPPY.time_at(generator.uniform(0, GAPPY.ontime, 200) ** 1.5 / GAPPY.ontime**0.5)
    photons = photons_of([events_at(time, GAPPY)], 3)
    data = count_in_cells(photons)
    fit = TotalVariationFit(3.0, 6.0, steps=400)
    shape = fit(photons)
    ours = float(fit.objective(shape.mean(1), shape - shape.mean(1, keepdim=True), data)[0])

    blocks = 16  # a coarser rate cannot do better than all cells, and comes close
    counts = data.counts[0].numpy().reshape(3, blocks, -1).sum(-1)
    exposure = data.exposure[0].numpy().reshape(blocks, -1).sum(-1)

    def penalised(u: np.ndarray) -> float:
        curve = u.reshape(3, blocks)
        mean = curve.mean(axis=0)
        level = np.log((exposure * np.exp(curve)).sum(axis=1))
        smooth = np.sqrt(np.diff(mean) ** 2 + 1e-6).sum() * 3.0
        smooth += np.sqrt(np.diff(curve - mean, axis=1) ** 2 + 1e-6).sum() * 6.0
        return float((counts.sum(axis=1) * level).sum() - (counts * curve).sum() + smooth)

    best = minimize(penalised, np.zeros(3 * blocks), method="L-BFGS-B", options={"maxiter": 3000, "maxfun": 10**6}).fun
    flat = penalised(np.zeros(3 * blocks))
    assert ours < best + 0.01 * abs(flat - best)
    assert best < flat - 5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.sampled_from([math.inf, 8.0]))
def test_hardly_any_photons_give_a_finite_rate(n: int, deviation: float) -> None:
    events = [events_at(np.linspace(100, 4_000, n), GAPPY)]
    for model in (TotalVariationFit(3.0, deviation, steps=10), GaussianKernel(0.02, 0.1)):
        (rate,) = as_rate_model(model)(events)
        assert rate.rate.shape == (3, N_CELLS)
        assert np.isfinite(rate.at_level([n, 0, 0], GAPPY).log_likelihood(events[0]))


def test_no_detections_are_no_rates() -> None:
    assert as_rate_model(GaussianKernel(0.02, 0.1))([]) == []


# --- Gregory and Loredo's odds


@pytest.mark.parametrize("n", [7, 60])
def test_two_bins_are_an_integral_over_their_heights(n: int) -> None:
    """O_2 at each phase is ∫ f^n₁ (1 − f)^n₂ df · 2^n, here by quadrature, averaged over eight phases."""
    generator = np.random.default_rng(n)
    phase = np.sort(generator.beta(2, 4, n))
    each = []
    for shift in np.arange(8) / 16:
        first = int(np.count_nonzero(((phase - shift) % 1) < 0.5))
        value, _ = quad(lambda f, k=first: (2 * f) ** k * (2 * (1 - f)) ** (n - k), 0, 1, epsabs=0, limit=200)
        each.append(value)
    assert gregory_loredo.log_odds_of_bins(phase, 2) == pytest.approx(math.log(np.mean(each)), abs=1e-6)


def test_many_bins_are_a_mean_over_drawn_heights() -> None:
    """O_m as the mean of Π (m f_j)^n_j over heights drawn from a flat Dirichlet."""
    phase = np.sort(np.random.default_rng(2).uniform(0, 1, 12))
    generator = np.random.default_rng(3)
    heights = generator.dirichlet(np.ones(5), 200_000)
    each = []
    for shift in np.arange(8) / 40:
        cell = (((phase - shift) % 1) * 5).astype(int)
        each.append(np.exp(np.log(5 * heights[:, cell]).sum(axis=1)).mean())
    assert gregory_loredo.log_odds_of_bins(phase, 5) == pytest.approx(math.log(np.mean(each)), abs=0.05)


def test_odds_of_steady_sources_are_one_on_average_and_of_flares_large() -> None:
    """A Bayes factor's mean under the simpler model is one, and it exceeds k in at most one of k draws.

    Of few photons, since with many the mean is made by draws that are too rare to be met.
    """
    generator = np.random.default_rng(4)
    few = 10 ** np.array([gregory_loredo.log10_odds(events_at(generator.uniform(0, DURATION, 5))) for _ in range(3000)])
    assert few.mean() == pytest.approx(1, abs=4 * few.std() / math.sqrt(3000))
    many = 10 ** np.array(
        [gregory_loredo.log10_odds(events_at(generator.uniform(0, DURATION, 60))) for _ in range(300)]
    )
    assert np.mean(many > 10) < 0.1
    assert np.median(many) < 0.2
    flaring = np.concatenate([generator.uniform(0, DURATION, 60), generator.uniform(9_000, 10_000, 60)])
    assert gregory_loredo.log10_odds(events_at(flaring)) > 5


def test_odds_do_not_take_a_gap_for_variability() -> None:
    good = np.random.default_rng(5).uniform(0, GAPPY.ontime, 500)
    assert gregory_loredo.log10_odds(events_at(GAPPY.time_at(good), GAPPY)) < 0
    # The same photons, if the gaps had been watched: certainly variable.
    assert gregory_loredo.log10_odds(events_at(GAPPY.time_at(good))) > 20


@pytest.mark.parametrize("n", [0, 1, 2])
def test_odds_of_hardly_any_photons_say_nothing(n: int) -> None:
    assert abs(gregory_loredo.log10_odds(events_at(np.linspace(100, 4_000, n)))) < 0.5


# --- groups and intervals


def test_bins_of_counts_hold_their_lower_edge() -> None:
    names = list(COUNT_BINS)
    assert [names[b] for b in count_bin_of([0, 9, 10, 29, 30, 2999, 3000, 10**7])] == [
        "below_10", "below_10", "10_30", "10_30", "30_100", "1000_3000", "from_3000", "from_3000",
    ]  # fmt: skip


def test_coverage_counts_good_time_and_bands() -> None:
    edges = np.array([0.0, 10.0, 20.0, 30.0, 40.0])
    truth = PiecewiseRate(edges, np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]]))
    coarse = np.array([0.0, 20.0, 40.0])
    low = PiecewiseRate(coarse, np.array([[0.5, 3.5], [0.5, 0.5]]))
    high = PiecewiseRate(coarse, np.array([[1.5, 9.0], [2.0, 2.0]]))
    # Band 0 is covered in the first and the last quarter, band 1 always; the last quarter is not good time.
    found = coverage([truth], [(low, high)], [GoodTimeIntervals(0, 30)])
    assert found.tolist() == pytest.approx([(1 + 0 + 0 + 3) / 6])
