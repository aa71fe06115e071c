"""The Poisson process likelihood against closed forms, brute-force integration and simulation."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from builders import photons
from lexray.models.autodecoders.likelihood import (
    CellBackground,
    Cells,
    cell_counts,
    cells,
    level,
    log_integral,
    log_likelihood,
    profile_log_likelihood,
    source_counts,
)
from lexray.models.autodecoders.photons import Photons


def source(time: list[float], band: list[int], gti: list[tuple[float, float]], n_bands: int = 1) -> Photons:
    """One detection."""
    return photons([time], [band], gti, n_bands=n_bands)


GAPS = [(0.0, 310.0), (450.0, 700.0), (905.0, 1000.0)]


@pytest.mark.parametrize("gti", [[(0.0, 1000.0)], GAPS], ids=["whole", "with gaps"])
def test_a_constant_rate_has_its_closed_form(gti: list[tuple[float, float]]) -> None:
    time, rate = [3.0, 100.0, 500.0, 950.0], 0.02  # ct/s
    data = cells(source(time, [0] * 4, gti), 64)
    log_rate = torch.full((1, 1, 64), np.log(rate * 1000.0))
    ontime = sum(b - a for a, b in gti)
    expected = 4 * np.log(rate * 1000.0) - rate * ontime
    assert log_likelihood(log_rate, data).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("slope", [-8.0, -0.3, 0.0, 2.0, 30.0])
@pytest.mark.parametrize("gti", [[(0.0, 1000.0)], GAPS], ids=["whole", "with gaps"])
def test_an_exponential_rate_has_its_closed_form(slope: float, gti: list[tuple[float, float]]) -> None:
    """A log-rate linear in time lies in the model's space: only rounding may differ."""
    time = [3.0, 100.0, 500.0, 950.0]
    data = cells(source(time, [0] * 4, gti), 128)
    log_rate = (1.5 + slope * torch.linspace(0, 1, 128))[None, None]
    x = np.array(time) / 1000
    integral = sum(
        (b - a) / 1000 * np.exp(1.5)
        if slope == 0
        else np.exp(1.5) * (np.exp(slope * b / 1000) - np.exp(slope * a / 1000)) / slope
        for a, b in gti
    )
    expected = np.sum(1.5 + slope * x) - integral
    assert log_likelihood(log_rate, data).item() == pytest.approx(expected, rel=2e-5, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_integral_equals_a_numerical_one_in_float64(seed: int) -> None:
    """Random knots and gaps no shorter than a cell, against adaptive quadrature over the good time."""
    random = np.random.default_rng(seed)
    n_knots = 16
    knots = random.normal(0, 1.5, n_knots)
    edges = np.sort(random.choice(np.arange(1, 40), 4, replace=False)) / 40 + random.uniform(0, 1e-3)
    gti = [(0.0, edges[0]), (edges[1], edges[2]), (edges[3], 1.0)]
    # Two ends of good time in one cell are approximated: keep gaps and intervals longer than a cell.
    if np.min(np.diff(np.concatenate([[0], edges, [1]]))) < 2 / (n_knots - 1):
        return
    data = cells(source([], [], gti), n_knots)
    grid = np.linspace(0, 1, n_knots)

    def rate(t: float) -> float:
        return float(np.exp(np.interp(t, grid, knots)))

    expected = sum(quad(rate, a, b, points=grid[(grid > a) & (grid < b)], limit=200, epsabs=1e-12)[0] for a, b in gti)
    found = log_integral(torch.tensor(knots).float()[None, None], data.exposure, data.centre).exp().item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_photons_weigh_on_their_two_knots_as_linear_interpolation_does() -> None:
    random = np.random.default_rng(3)
    time, band = np.sort(random.uniform(0, 500, 300)), random.integers(0, 3, 300)
    data = cells(source(time.tolist(), band.tolist(), [(0.0, 500.0)], 3), 32)
    knots = random.normal(size=(3, 32))
    expected = sum(np.interp(time[band == b] / 500, np.linspace(0, 1, 32), knots[b]).sum() for b in range(3))
    found = (data.hat_counts[0] * torch.tensor(knots).float()).sum().item()
    assert found == pytest.approx(expected, rel=1e-4)
    assert data.counts[0].tolist() == pytest.approx(np.bincount(band, minlength=3).tolist(), rel=1e-5)


def test_the_profile_likelihood_is_the_likelihood_at_the_best_level() -> None:
    random = np.random.default_rng(5)
    data = cells(source(np.sort(random.uniform(0, 300, 50)).tolist(), [0] * 50, GAPS[:1], 1), 16)
    shape = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0))
    best = level(shape, data, prior_counts=0.0)
    at_best = log_likelihood(shape + best[..., None], data)
    for step in (-0.01, 0.01):
        assert log_likelihood(shape + best[..., None] + step, data) < at_best
    # log L(best) − profile = Σ_b n_b log n_b − n_b
    assert (at_best - profile_log_likelihood(shape, data)).item() == pytest.approx(50 * np.log(50) - 50, rel=1e-4)
    assert profile_log_likelihood(shape, data).item() == pytest.approx(
        profile_log_likelihood(shape + 7.0, data).item(), rel=1e-4
    )


def test_gradients_equal_finite_differences_in_float64() -> None:
    data = cells(source([10.0, 400.0, 930.0], [0, 1, 0], GAPS, 2), 8)
    shape = torch.randn(1, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: log_likelihood(u, data), (shape,), eps=1e-6, atol=1e-5)
    assert torch.autograd.gradcheck(lambda u: profile_log_likelihood(u, data), (shape,), eps=1e-6, atol=1e-5)


def test_a_source_seen_through_gaps_has_the_rate_of_one_seen_without() -> None:
    """Simulated at one steady rate; only the gaps differ. Poisson errors of ~1 % are allowed for five times over."""
    random = np.random.default_rng(11)
    rate = 10.0  # ct/s
    found = []
    for gti in ([(0.0, 1000.0)], GAPS):
        time = np.sort(random.uniform(0, 1000, random.poisson(rate * 1000)))
        inside = np.any([(time >= a) & (time <= b) for a, b in gti], axis=0)
        data = cells(source(time[inside].tolist(), [0] * int(inside.sum()), gti), 64)
        found.append((level(torch.zeros(1, 1, 64), data).exp() / 1000.0).item())
    assert found == pytest.approx([rate, rate], rel=0.06)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2)), max_size=6), min_size=1, max_size=6), st.data()
)
def test_selecting_and_concatenating_keep_every_detection_whole(
    detections: list[list[tuple[float, int]]], data: st.DataObject
) -> None:
    ones = [source([t for t, _ in d], [b for _, b in d], [(0.0, 100.0 + i)], 3) for i, d in enumerate(detections)]
    together = Photons.concatenate(ones)
    rows = data.draw(st.lists(st.integers(0, len(ones) - 1), max_size=8))
    chosen = together.select(torch.tensor(rows, dtype=torch.int64))
    assert len(chosen) == len(rows)
    assert chosen.duration.tolist() == [100.0 + i for i in rows]
    for i, row in enumerate(rows):
        mine = slice(int(chosen.offsets[i]), int(chosen.offsets[i + 1]))
        assert chosen.time[mine].tolist() == [t for t, _ in detections[row]]
        assert chosen.band[mine].tolist() == [b for _, b in detections[row]]


def test_thinning_parts_the_photons_and_keeps_the_good_time() -> None:
    random = np.random.default_rng(2)
    one = source(np.sort(random.uniform(0, 1000, 5000)).tolist(), [0] * 5000, GAPS)
    kept, rest = one.thin(0.8, torch.Generator().manual_seed(0))
    assert sorted([*kept.time.tolist(), *rest.time.tolist()]) == one.time.tolist()
    assert len(kept.time) == pytest.approx(4000, abs=5 * np.sqrt(5000 * 0.16))
    assert kept.ontime.tolist() == one.ontime.tolist() == rest.ontime.tolist() == pytest.approx([655.0])


@pytest.mark.parametrize("gti", [[(0.0, 1000.0)], GAPS], ids=["whole", "with gaps"])
@pytest.mark.parametrize("rate", ["constant", "linear", "exponential"])
def test_the_reference_has_the_closed_form_of_the_unbinned_likelihood(
    rate: str, gti: list[tuple[float, float]]
) -> None:
    time = np.array([3.0, 100.0, 305.0, 500.0, 950.0])
    spans = np.array(gti)
    log_rate, integral = {
        "constant": (np.full(5, np.log(0.02)), 0.02 * (spans[:, 1] - spans[:, 0]).sum()),
        "linear": (np.log(0.01 + 3e-5 * time), (0.01 * spans + 1.5e-5 * spans**2).dot([-1, 1]).sum()),
        "exponential": (np.log(0.05) - 0.004 * time, (0.05 / -0.004 * np.exp(-0.004 * spans)).dot([-1, 1]).sum()),
    }[rate]
    by_reference = {
        "constant": lambda t: np.full_like(t, 0.02),
        "linear": lambda t: 0.01 + 3e-5 * t,
        "exponential": lambda t: 0.05 * np.exp(-0.004 * t),
    }[rate]
    assert reference.log_likelihood([time], [by_reference], gti) == pytest.approx(log_rate.sum() - integral, rel=1e-9)


def test_the_reference_agrees_with_its_own_closed_form() -> None:
    def rate(t: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-2.0 + 0.003 * t))

    closed = reference.integral_of_exponential(0.003, -2.0, GAPS)
    assert reference.integral(rate, GAPS, np.linspace(0, 1000, 7)) == pytest.approx(closed, rel=1e-12)
    assert reference.integral_of_exponential(0.0, -2.0, GAPS) == pytest.approx(np.exp(-2.0) * 655.0, rel=1e-12)


def above_background(seed: int, n_bands: int = 2, n_knots: int = 8) -> Cells:
    """A detection with counts drawn above a background, in good time with gaps; float64."""
    random = np.random.default_rng(seed)
    data = cells(source([], [], GAPS, n_bands), n_knots)
    expected = torch.tensor(random.uniform(0, 4, (1, n_bands, n_knots - 1))) * (data.exposure > 0)
    counts = torch.poisson(expected + 3 * (data.exposure > 0), generator=torch.Generator().manual_seed(seed))
    hats = torch.zeros(1, n_bands, n_knots, dtype=torch.float64)
    hats[..., 0] = counts.sum(-1)
    return Cells(
        hats, data.exposure.double(), data.centre.double(), CellBackground(torch.tensor([0]), counts, expected)
    )


def test_gradients_above_a_background_equal_finite_differences_in_float64() -> None:
    data = above_background(4)
    shape = torch.randn(1, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: log_likelihood(u, data), (shape,), eps=1e-6, atol=1e-5)
    assert torch.autograd.gradcheck(lambda u: profile_log_likelihood(u, data), (shape,), eps=1e-6, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 300.0), st.floats(0.0, 300.0), st.sampled_from([0.05, 0.5]))
def test_the_level_above_a_background_is_the_most_likely_one(
    seed: int, n_source: float, n_background: float, prior: float
) -> None:
    random = np.random.default_rng(seed)
    share, behind = (torch.tensor(random.dirichlet(np.full(12, 0.3)))[None, None] for _ in range(2))
    expected = n_background * behind
    counts = torch.tensor(random.poisson(n_source * share + expected), dtype=torch.float64)
    found = source_counts(share, counts, expected, prior)

    def score(total: torch.Tensor) -> float:
        mean = (total[..., None] * share + expected).clamp(min=1e-300)
        region = total + expected.sum(-1)
        pull = prior * (0.1 * total.log() + 0.9 * region.log())
        return float(torch.xlogy(counts, mean).sum() + (pull - total).sum())

    best = score(found)
    assert torch.isfinite(found).all()
    for factor in (0.5, 0.97, 1.03, 2.0):
        assert score(found * factor) < best + 1e-9


def test_without_background_photons_the_two_paths_agree() -> None:
    """A background region that saw nothing: the same likelihood, but for photons known by their cell only."""
    random = np.random.default_rng(12)
    one = source(np.sort(random.uniform(0, 300, 200)).tolist(), [0] * 200, GAPS[:1])
    data = cells(one, 256)
    nothing = CellBackground(torch.tensor([0]), cell_counts(one, 255), torch.zeros(1, 1, 255))
    beside = Cells(data.hat_counts, data.exposure, data.centre, nothing)
    curve = torch.sin(torch.linspace(0, 9, 256))[None, None]
    torch.testing.assert_close(level(curve, data), level(curve, beside), rtol=1e-4, atol=1e-4)
    # Within a cell the log-rate changes by up to 9/255: ±0.01 for each of 200 photons, at random.
    torch.testing.assert_close(log_likelihood(curve, data), log_likelihood(curve, beside), rtol=0, atol=0.5)
    gain, same = (profile_log_likelihood(5 * curve, d) - profile_log_likelihood(0 * curve, d) for d in (data, beside))
    torch.testing.assert_close(gain, same, rtol=0, atol=2.5)
    assert gain.abs().item() > 25


def test_selected_and_joined_cells_keep_every_background() -> None:
    ones = [above_background(seed) for seed in range(4)]
    without = Cells(ones[1].hat_counts, ones[1].exposure, ones[1].centre)
    together = Cells.concatenate([ones[0], without, ones[2], ones[3]])
    chosen = together.select(torch.tensor([3, 1, 0]))
    shape = torch.randn(3, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    alone = [profile_log_likelihood(shape[i : i + 1], d) for i, d in enumerate([ones[3], without, ones[0]])]
    torch.testing.assert_close(profile_log_likelihood(shape, chosen), torch.cat(alone))
    assert together.select(torch.tensor([1])).background is None
