"""The published PPAD against a derivation of its loss and gradient in NumPy, written out here by hand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders import photons
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.resnet.decoder import ResnetDecoder, positional_encoding
from lexray.models.autodecoders.resnet.loss import (
    Arrivals,
    ResnetPenaltyWeights,
    arrivals,
    integral,
    latent_norm,
    log_likelihood,
    log_rates,
    losses,
    photon_term,
    total_variation,
)
from lexray.models.autodecoders.resnet.training import ResnetSettings, fit_latents, gains, log_prob
from lexray.models.autodecoders.sampler import InMemoryParts
from lexray.models.autodecoders.trainer import AutodecoderTrainer

Array = NDArray[np.float64]
SCALE = 28_800.0
SMALL = ResnetSettings(latent_dim=3, width=16, blocks=2, octaves=4, n_steps=48, fit_steps=40, fit_learning_rate=0.05)


def source(time: list[float], band: list[int], gti: list[tuple[float, float]] | None = None) -> Photons:
    """One detection in three bands; times in units of 28.8 ks."""
    gti = [(0.0, 1.0)] if gti is None else gti
    scaled = [(a * SCALE, b * SCALE) for a, b in gti]
    return photons([np.asarray(time) * SCALE], [band], scaled, n_bands=3)


def random_source(seed: int, n: int, gti: list[tuple[float, float]] | None = None) -> Photons:
    random = np.random.default_rng(seed)
    time = np.sort(random.uniform(0, 1, 4 * n + 20))
    inside = np.any([(time >= a) & (time <= b) for a, b in (gti or [(0.0, 1.0)])], axis=0)
    chosen = np.sort(random.choice(time[inside], n, replace=False))
    return source(chosen.tolist(), random.integers(0, 3, n).tolist(), gti)


# --- the derivation in NumPy ------------------------------------------------------------------------------------------


@dataclass
class Derivation:
    """Loss of one detection by the paper, and its derivatives by hand.

    The names of the weights are those of the authors' code; nothing of Lexray's is used.
    """

    weights: Mapping[str, Array]
    octaves: int
    blocks: int

    def forward(self, z: Array, t: Array) -> tuple[Array, list[Array]]:
        """Log-rates y[Q, B], and what the backward pass needs."""
        w = self.weights
        columns = [t]
        for k in range(self.octaves):
            columns += [np.sin(np.pi * 2**k * t), np.sin(np.pi * 2**k * t + np.pi / 2)]
        x = np.column_stack([np.tile(z, (len(t), 1)), *columns])
        h = x @ w["decoder.lin_in.weight"].T + w["decoder.lin_in.bias"]
        kept = [x]
        for i in range(self.blocks):
            u = np.maximum(h, 0) @ w[f"decoder.blocks.{i}.fc_0.weight"].T + w[f"decoder.blocks.{i}.fc_0.bias"]
            kept += [h, u]
            h = h + np.maximum(u, 0) @ w[f"decoder.blocks.{i}.fc_1.weight"].T + w[f"decoder.blocks.{i}.fc_1.bias"]
        kept.append(h)
        return np.maximum(h, 0) @ w["decoder.lin_out.weight"].T + w["decoder.lin_out.bias"], kept

    def backward(self, dy: Array, kept: list[Array]) -> dict[str, Array]:
        """dL/d weights and dL/dz (as 'latent'), given dL/dy[Q, B]."""
        w = self.weights
        h = kept[-1]
        gradient = {"decoder.lin_out.weight": dy.T @ np.maximum(h, 0), "decoder.lin_out.bias": dy.sum(0)}
        dh = (dy @ w["decoder.lin_out.weight"]) * (h > 0)
        for i in reversed(range(self.blocks)):
            name = f"decoder.blocks.{i}"
            h, u = kept[1 + 2 * i], kept[2 + 2 * i]
            gradient[f"{name}.fc_1.weight"] = dh.T @ np.maximum(u, 0)
            gradient[f"{name}.fc_1.bias"] = dh.sum(0)
            du = (dh @ w[f"{name}.fc_1.weight"]) * (u > 0)
            gradient[f"{name}.fc_0.weight"] = du.T @ np.maximum(h, 0)
            gradient[f"{name}.fc_0.bias"] = du.sum(0)
            dh = dh + (du @ w[f"{name}.fc_0.weight"]) * (h > 0)
        gradient["decoder.lin_in.weight"] = dh.T @ kept[0]
        gradient["decoder.lin_in.bias"] = dh.sum(0)
        gradient["latent"] = (dh @ w["decoder.lin_in.weight"]).sum(0)[: -(1 + 2 * self.octaves)]
        return gradient

    def __call__(
        self, z: Array, t: Array, band: Array, mesh: Array, weight: Array
    ) -> tuple[dict[str, float], dict[str, Array]]:
        """Terms of the loss by name, and the gradient of their weighted sum."""
        y, kept = self.forward(z, t)
        y_mesh, kept_mesh = self.forward(z, mesh)
        one_hot = np.eye(3)[band.astype(int)]
        rate, rate_mesh = np.exp(y), np.exp(y_mesh)
        variation, by_rate = mean_change(rate)
        variation_mesh, by_rate_mesh = mean_change(rate_mesh)
        terms = {
            "photons": (one_hot * y).sum(),
            "integral": (weight[:, None] * rate_mesh).sum(),
            "variation": variation + variation_mesh,
            "latent": (z**2).sum(),
        }
        terms["loss"] = -terms["photons"] + terms["integral"] + 10 * terms["variation"] + terms["latent"]
        gradient = self.backward(-one_hot + 10 * by_rate * rate, kept)
        of_mesh = self.backward((weight[:, None] + 10 * by_rate_mesh) * rate_mesh, kept_mesh)
        gradient = {name: gradient[name] + of_mesh[name] for name in gradient}
        gradient["latent"] = gradient["latent"] + 2 * z
        return terms, gradient


def mean_change(rate: Array) -> tuple[float, Array]:
    """Mean of |Δλ| and its derivative by λ."""
    derivative = np.zeros_like(rate)
    if len(rate) < 2:
        return 0.0, derivative
    change = np.diff(rate, axis=0)
    derivative[1:] += np.sign(change) / change.size
    derivative[:-1] -= np.sign(change) / change.size
    return float(np.abs(change).mean()), derivative


def authors_state(
    seed: int = 0, width: int = 16, blocks: int = 2, octaves: int = 4, latent_dim: int = 3, n: int = 5
) -> dict[str, torch.Tensor]:
    """A state as a checkpoint of the authors' code holds it, of weights that are nowhere 0."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=g, dtype=torch.float64)

    entering = latent_dim + 1 + 2 * octaves
    state = {
        "latent": draw(n, latent_dim),
        "code._freqs": (torch.pi * 2.0 ** torch.arange(octaves)).repeat_interleave(2).reshape(1, 1, -1),
        "code._phases": torch.tensor([0.0, torch.pi / 2]).repeat(octaves).reshape(1, 1, -1),
        "decoder.lin_in.weight": draw(width, entering, scale=(1 / entering) ** 0.5),
        "decoder.lin_in.bias": draw(width, scale=0.1),
        "decoder.lin_out.weight": draw(3, width, scale=(1 / width) ** 0.5),
        "decoder.lin_out.bias": draw(3),
    }
    for i in range(blocks):
        for layer in ("fc_0", "fc_1"):
            state[f"decoder.blocks.{i}.{layer}.weight"] = draw(width, width, scale=(1 / width) ** 0.5)
            state[f"decoder.blocks.{i}.{layer}.bias"] = draw(width, scale=0.1)
    return state


def decoder_of(state: Mapping[str, torch.Tensor]) -> ResnetDecoder:
    """A decoder of ours with the weights of theirs."""
    width, entering = state["decoder.lin_in.weight"].shape
    latent_dim, octaves = state["latent"].shape[1], state["code._freqs"].shape[-1] // 2
    assert entering == latent_dim + 1 + 2 * octaves
    blocks = len({name for name in state if name.endswith("fc_0.bias")})
    decoder = ResnetDecoder(latent_dim, 3, width, blocks, octaves).to(state["latent"].dtype)
    decoder.load_state_dict({our_name(name): value for name, value in state.items() if name.startswith("decoder.")})
    return decoder


OURS = {"lin_in": "enter", "lin_out": "leave", "fc_0": "first", "fc_1": "second"}


def our_name(authors: str) -> str:
    """The parameter of ours for one of theirs."""
    return ".".join(OURS.get(part, part) for part in authors.removeprefix("decoder.").split("."))


GAPS = [(0.0, 0.25), (0.5, 1.0)]
DETECTIONS = [
    random_source(1, 60),
    random_source(2, 7, GAPS),
    source([0.4], [2]),
    source([], []),
    random_source(3, 150),
]


def mesh_of(one: Photons, good_time: bool, steps: int) -> tuple[Array, Array]:
    """Mesh and trapezoid weights of one of `DETECTIONS`, whose gaps a multiple of 3 steps meets exactly."""
    time = one.time.numpy() / SCALE
    intervals = [(0.0, float(time.max(initial=0.0)))]
    if good_time:
        intervals = list(zip(one.gti_start.numpy() / SCALE, one.gti_stop.numpy() / SCALE, strict=True))
    total = sum(b - a for a, b in intervals)
    times, weights = [], []
    for a, b in intervals:
        n = round(steps * (b - a) / total) if total else 1
        times.append(np.linspace(a, b, n + 1))
        weights.append(np.full(n + 1, (b - a) / n))
        weights[-1][[0, -1]] /= 2
    return np.concatenate(times), np.concatenate(weights)


@pytest.mark.parametrize("good_time", [False, True], ids=["published", "good time only"])
@pytest.mark.parametrize(
    ("sizes", "steps"),
    [({}, 48), ({"width": 512, "blocks": 5, "octaves": 12, "latent_dim": 8}, 192)],
    ids=["small", "published size"],
)
def test_loss_and_gradient_are_those_of_the_paper(sizes: dict[str, int], steps: int, good_time: bool) -> None:
    """Every term of every detection, their sum, and its gradient by the latents and by every parameter."""
    state = authors_state(**sizes)
    decoder, latent = decoder_of(state), state["latent"].clone().requires_grad_()
    data = arrivals(Photons.concatenate(DETECTIONS), good_time=good_time, n_steps=steps, shortest=SCALE)
    derivation = Derivation({k: v.numpy() for k, v in state.items()}, decoder.octaves, len(decoder.blocks))
    expected = [
        derivation(z, one.time.numpy() / SCALE, one.band.numpy(), *mesh_of(one, good_time, steps))
        for z, one in zip(state["latent"].numpy(), DETECTIONS, strict=True)
    ]

    photons, mesh = log_rates(decoder, latent, data)
    n = data.n
    found = {
        "photons": photon_term(photons, data.band, data.owner, n),
        "integral": integral(mesh.exp(), data.mesh_weight, data.mesh_owner, n),
        "variation": total_variation(mesh.exp(), data.mesh_owner, n) + total_variation(photons.exp(), data.owner, n),
        "latent": latent_norm(latent),
        "loss": losses(decoder, latent, data, ResnetPenaltyWeights(total_variation=10.0, latent=1.0)),
    }
    for name, values in found.items():
        assert values.tolist() == pytest.approx([terms[name] for terms, _ in expected], rel=1e-9, abs=1e-12), name

    # The published code minimises the mean over the batch.
    torch.autograd.backward(found["loss"].mean())
    assert latent.grad is not None
    by_latent = np.array([gradient["latent"] for _, gradient in expected]) / n
    np.testing.assert_allclose(latent.grad.numpy(), by_latent, rtol=1e-8, atol=1e-10)
    parameters = dict(decoder.named_parameters())
    theirs = [name for name in state if name.startswith("decoder.")]
    assert {our_name(name) for name in theirs} == parameters.keys()
    for name in theirs:
        gradient = parameters[our_name(name)].grad
        assert gradient is not None
        by_hand = sum(each[name] for _, each in expected) / n
        np.testing.assert_allclose(gradient.numpy(), by_hand, rtol=1e-7, atol=1e-10, err_msg=name)


def test_single_precision_has_the_same_loss_and_gradient_to_its_digits() -> None:
    state = authors_state(width=512, blocks=5, octaves=12, latent_dim=8)
    data = arrivals(Photons.concatenate(DETECTIONS), good_time=True, n_steps=192, shortest=SCALE)
    results = []
    for kind in (torch.float32, torch.float64):
        decoder = decoder_of({name: tensor.to(kind) for name, tensor in state.items()})
        latent = state["latent"].to(kind).requires_grad_()
        loss = losses(decoder, latent, data, ResnetPenaltyWeights())
        assert loss.dtype == kind
        torch.autograd.backward(loss.sum())
        assert latent.grad is not None
        results.append((loss.detach().double(), latent.grad.double()))
    (single, by_single), (double, by_double) = results
    assert single.tolist() == pytest.approx(double.tolist(), rel=1e-5)
    assert (by_single - by_double).norm() < 1e-5 * by_double.norm()


# --- the decoder ------------------------------------------------------------------------------------------------------


def test_a_new_decoder_has_the_published_sizes_and_identity_blocks() -> None:
    decoder = ResnetSettings().decoder()
    assert sum(p.numel() for p in decoder.parameters()) == 33 * 512 + 512 + 10 * (512 * 512 + 512) + 3 * 512 + 3
    x = torch.randn(4, 512)
    assert all(torch.equal(block(x), x) for block in decoder.blocks)


def test_encoding_is_the_time_then_sine_and_cosine_of_each_octave() -> None:
    coded = positional_encoding(torch.tensor([0.25], dtype=torch.float64), 3)[0]
    half = math.sqrt(0.5)
    assert coded.tolist() == pytest.approx([0.25, half, half, 1.0, 0.0, 0.0, -1.0], abs=1e-12)


def linear_decoder(slope: float, bias: list[float]) -> ResnetDecoder:
    """log λ_b(t) = slope · t + bias_b, whatever the latent."""
    decoder = ResnetDecoder(2, 3, 4, 1, 2).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.enter.weight[0, 2] = 1.0
        decoder.leave.weight[:, 0] = slope
        decoder.leave.bias[:] = torch.tensor(bias)
    return decoder


@pytest.mark.parametrize("slope", [-4.0, 0.0, 3.0])
@pytest.mark.parametrize("gti", [[(0.0, 1.0)], [(0.0, 0.31), (0.45, 0.7), (0.905, 1.0)]], ids=["whole", "with gaps"])
def test_log_prob_and_gain_have_their_closed_form(slope: float, gti: list[tuple[float, float]]) -> None:
    time, band = [0.003, 0.1, 0.5, 0.95], [0, 1, 1, 2]
    one, bias = source(time, band, gti), [0.0, 1.0, -1.0]
    decoder, latent = linear_decoder(slope, bias), torch.zeros(1, 2, dtype=torch.float64)
    ontime = sum(b - a for a, b in gti)
    shape = ontime if slope == 0 else sum(math.exp(slope * b) - math.exp(slope * a) for a, b in gti) / slope
    expected = sum(slope * t + bias[b] for t, b in zip(time, band, strict=True))
    expected -= shape * sum(math.exp(b) for b in bias)
    published = replace(ResnetSettings(), good_time=False)  # what is reported is over good time nevertheless
    assert log_prob(decoder, latent, one, published).item() == pytest.approx(expected - 4 * math.log(SCALE), rel=1e-6)
    over_constant = sum(slope * t for t in time) - 4 * math.log(shape / ontime)
    assert gains(decoder, latent, one, published).item() == pytest.approx(over_constant, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("good_time", [True, False])
def test_a_constant_rate_seen_through_gaps_is_found_only_over_good_time(good_time: bool) -> None:
    one = random_source(5, 90, [(0.0, 0.2), (0.5, 0.6), (0.9, 1.0)])
    data = arrivals(one, good_time=good_time, n_steps=2_048, shortest=SCALE)
    decoder, latent = linear_decoder(0.0, [0.0, 0.0, 0.0]), torch.zeros(1, 2, dtype=torch.float64)
    optimizer = torch.optim.LBFGS([decoder.leave.bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = losses(decoder, latent, data, ResnetPenaltyWeights()).sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)
    last = float(one.time[-1]) / SCALE
    time = 0.4 if good_time else last
    rate = decoder.leave.bias.detach().exp()
    assert rate.tolist() == pytest.approx((one.counts[0] / time).tolist(), rel=1e-4)


def test_the_published_integral_ends_with_the_last_photon() -> None:
    data = arrivals(source([0.1, 0.6], [0, 1]), good_time=False, n_steps=10, shortest=SCALE)
    assert data.mesh_time.tolist() == pytest.approx(np.linspace(0, 0.6, 11).tolist())
    assert data.mesh_weight.tolist() == pytest.approx([0.03, *[0.06] * 9, 0.03])


def test_times_of_observations_longer_than_a_segment_stay_within_one() -> None:
    long = source([0.5, 3.9], [0, 1], [(0.0, 4.0)])
    assert arrivals(long, good_time=True, n_steps=8, shortest=SCALE).time.tolist() == pytest.approx([0.125, 0.975])
    short = source([0.01], [0], [(0.0, 0.02)])
    data = arrivals(short, good_time=True, n_steps=8, shortest=SCALE)
    assert data.time.tolist() == [pytest.approx(0.01)]
    assert data.mesh_time.max().item() == pytest.approx(0.02)


@st.composite
def detections(draw: st.DrawFn) -> list[Photons]:
    """A few detections, each with its own gaps; some without a photon or without good time."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.lists(st.integers(0, 1000), max_size=8, unique=True)))
        gti = [(a / 1000, b / 1000) for a, b in zip(edges[::2], edges[1::2], strict=False)]
        n = draw(st.integers(0, 12)) if gti else 0
        time = sorted(draw(st.sampled_from(gti))[0] + 1e-4 for _ in range(n))
        found.append(source(time, draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), gti))
    return found


@settings(max_examples=40, deadline=None)
@given(detections(), st.booleans())
def test_a_detections_loss_does_not_depend_on_its_company(ones: list[Photons], good_time: bool) -> None:
    chosen = replace(SMALL, good_time=good_time)
    learner = chosen.learner()
    latent = torch.randn(len(ones), 3, generator=torch.Generator().manual_seed(1))
    loss = learner.losses(chosen.arrivals(Photons.concatenate(ones)), latent)
    slices = [chosen.arrivals(one) for one in ones]
    alone = [learner.losses(one, latent[i : i + 1]) for i, one in enumerate(slices)]
    assert loss.isfinite().all()
    assert loss.tolist() == pytest.approx(torch.cat(alone).tolist(), rel=1e-4, abs=1e-4)
    assert learner.losses(Arrivals.concatenate(slices), latent).tolist() == loss.tolist()


@settings(max_examples=40, deadline=None)
@given(detections(), st.integers(1, 60), st.booleans())
def test_the_mesh_weighs_all_good_time_and_nothing_else(ones: list[Photons], steps: int, shifted: bool) -> None:
    photons, none = Photons.concatenate(ones), torch.zeros(len(ones), dtype=torch.float64)
    generator = torch.Generator().manual_seed(steps) if shifted else None
    data = arrivals(photons, good_time=True, n_steps=steps, shortest=SCALE, generator=generator)
    weighed = none.index_add(0, data.mesh_owner, data.mesh_weight)
    assert (weighed * SCALE).tolist() == pytest.approx(photons.ontime.tolist(), rel=1e-9)
    start, stop = photons.gti_start / SCALE, photons.gti_stop / SCALE
    inside = (data.mesh_time[:, None] >= start - 1e-12) & (data.mesh_time[:, None] <= stop + 1e-12)
    assert (inside & (data.mesh_owner[:, None] == photons.gti_owner)).any(1).all()
    if not shifted:  # then a straight line is integrated exactly
        moment = none.index_add(0, data.mesh_owner, data.mesh_weight * data.mesh_time)
        expected = none.index_add(0, photons.gti_owner, (stop**2 - start**2) / 2)
        assert moment.tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def resonant_decoder() -> ResnetDecoder:
    """log λ = 8 (|sin 16πt| − 1): low where the sixteenths of the scaled time are, high between them."""
    decoder = ResnetDecoder(2, 3, 4, 1, 5).double()
    fifth_sine = 2 + 1 + 2 * 4
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.enter.weight[:2, fifth_sine] = torch.tensor([1.0, -1.0])  # relu(s) + relu(−s) = |s|
        decoder.leave.weight[:, :2] = 8.0
        decoder.leave.bias[:] = -8.0
    return decoder


def test_a_rate_that_hides_between_the_meshs_points_gains_nothing() -> None:
    """On a mesh of sixteenths the octave's sine vanishes: an integral there misses nearly all of the rate."""
    random = np.random.default_rng(8)
    one = source(np.sort(random.uniform(0, 1, 400)).tolist(), [0] * 400)
    decoder, latent = resonant_decoder(), torch.zeros(1, 2, dtype=torch.float64)
    chosen = replace(SMALL, n_steps=16)
    true = float(np.exp(8 * (np.abs(np.sin(np.linspace(0, np.pi, 100_001))) - 1)).mean()) * 3

    def expected_photons(generator: torch.Generator | None) -> float:
        data = chosen.arrivals(one, generator)
        _, mesh = log_rates(decoder, latent, data)
        return integral(mesh.exp(), data.mesh_weight, data.mesh_owner, 1).item()

    generator = torch.Generator().manual_seed(0)
    assert expected_photons(None) < 0.01 * true
    # One draw's standard deviation is about the rate's own mean: 5 % of it for the mean of 400.
    assert np.mean([expected_photons(generator) for _ in range(400)]) == pytest.approx(true, rel=0.25)
    assert gains(decoder, latent, one, chosen).item() < 0


@pytest.mark.parametrize("good_time", [True, False])
@pytest.mark.parametrize("one", [source([], []), source([0.5], [1]), source([], [], [])], ids=["0", "1", "no exposure"])
def test_hardly_any_photons_give_finite_losses_gradients_and_latents(one: Photons, good_time: bool) -> None:
    settings_ = replace(SMALL, good_time=good_time)
    learner = settings_.learner()
    latent = torch.ones(1, 3, requires_grad=True)
    loss = learner.losses(settings_.arrivals(one), latent)
    torch.autograd.backward(loss.sum())
    assert latent.grad is not None
    assert loss.isfinite().all()
    assert latent.grad.isfinite().all()
    assert fit_latents(learner.network, one, settings_, torch.ones(3)).isfinite().all()
    held = learner.gains(one, source([], [], []), torch.zeros(3))
    assert held.tolist() == [0.0]


def test_more_photons_than_are_decoded_at_once_have_the_same_likelihood() -> None:
    n = 70_000
    one = source(np.linspace(0, 1, n).tolist(), [0, 1] * (n // 2))
    decoder = ResnetDecoder(2, 3, 4, 1, 2).double()
    torch.nn.init.normal_(decoder.blocks[0].second.weight, generator=torch.Generator().manual_seed(3))
    latent = torch.randn(1, 2, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(4))
    data = arrivals(one, good_time=True, n_steps=100, shortest=SCALE)

    at_photons = decoder(latent.expand(n, -1), data.time)
    at_mesh = decoder(latent.expand(101, -1), data.mesh_time)
    expected = at_photons[torch.arange(n), data.band].sum() - (at_mesh.exp() * data.mesh_weight[:, None]).sum()
    by_latent, by_weight = torch.autograd.grad(expected, (latent, decoder.enter.weight))
    found = log_likelihood(decoder, latent, data).sum()
    gradient = torch.autograd.grad(found, (latent, decoder.enter.weight))
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(gradient[0], by_latent, rtol=1e-8)
    assert torch.allclose(gradient[1], by_weight, rtol=1e-8)


# --- training and new detections --------------------------------------------------------------------------------------


def flaring(seed: int) -> Photons:
    """200 photons, seven in ten of them within the first or the last quarter."""
    random = np.random.default_rng(seed)
    bright = random.uniform(0, 0.25, 140) + 0.75 * (seed % 2)
    time = np.sort(np.concatenate([bright, random.uniform(0, 1, 60)]))
    return source(time.tolist(), random.integers(0, 3, 200).tolist())


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_fitting_a_latent_lowers_the_loss_and_does_not_touch_the_decoder(precision: torch.dtype) -> None:
    photons = Photons.concatenate([flaring(i) for i in range(6)])
    decoder = decoder_of({name: t.to(precision) for name, t in authors_state().items()})
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    start = torch.zeros(3, dtype=precision)
    chosen = replace(SMALL, batch_size=4)
    found = fit_latents(decoder, photons, chosen, start)
    assert found.dtype == precision
    data = chosen.arrivals(photons)
    assert (
        losses(decoder, found, data, ResnetPenaltyWeights())
        < losses(decoder, start.expand(6, -1), data, ResnetPenaltyWeights())
    ).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in decoder.state_dict().items())
    alone = fit_latents(decoder, photons.select(torch.tensor([5])), chosen, start)
    assert torch.allclose(alone, found[5:], atol=1e-3)


def test_trained_on_flares_it_predicts_those_of_new_detections() -> None:
    chosen = replace(SMALL, width=32, fit_steps=60, fit_learning_rate=0.1)
    learner = chosen.learner()
    data = learner.prepare(Photons.concatenate([flaring(i) for i in range(32)]))
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(32, 3, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([*learner.network.parameters(), latent], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(learner.losses(learner.draw(data, torch.arange(32), generator), latent).mean())
        optimizer.step()
    fit, held = Photons.concatenate([flaring(1000 + i) for i in range(20)]).thin(0.8, generator)
    gain = learner.gains(fit, held, latent.detach().mean(0))
    assert gain.shape == (20,)
    # The true rate's gain is 0.7 log2(0.775/0.25) + 0.3 log2 … ≈ 0.5 bits a photon.
    assert float(gain.sum()) / len(held.time) / math.log(2) > 0.25


def test_without_a_learning_rate_the_latents_alone_move() -> None:
    """The second of the published stages."""
    parts = InMemoryParts({part: Photons.concatenate([flaring(8 * part + i) for i in range(8)]) for part in range(4)})
    chosen = replace(SMALL, epochs=1, batch_size=8, learning_rate=0.0, latent_learning_rate=5e-2)
    trainer = AutodecoderTrainer(chosen, parts)
    latents = {part: table.value.clone() for part, table in trainer.latents.items()}
    trainer.run_epoch()
    for name, tensor in chosen.decoder().state_dict().items():
        assert torch.equal(tensor, trainer.network.state_dict()[name])
    assert all((table.value != latents[part]).all() for part, table in trainer.latents.items())


def test_mixed_precision_trains_on_more_photons_than_are_decoded_at_once() -> None:
    n = 70_000
    parts = InMemoryParts({0: source(np.linspace(0, 1, n).tolist(), [0, 1] * (n // 2))})
    losses_ = []
    for precision in ("float32", "bfloat16"):
        trainer = AutodecoderTrainer(replace(SMALL, precision=precision, batch_size=1), parts)
        losses_.append([trainer.run_step() for _ in range(2)])
        assert trainer.progress.skipped_steps == 0
    single, half = losses_
    assert half == pytest.approx(single, rel=0.02)
    assert half != single


def test_half_precision_stays_in_the_network() -> None:
    learner = SMALL.learner()
    data, latent = SMALL.arrivals(flaring(0)), torch.zeros(1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = learner.losses(data, latent)
    assert half.dtype == torch.float32
    assert half.item() != learner.losses(data, latent).item()
    assert half.item() == pytest.approx(learner.losses(data, latent).item(), rel=0.05)


def test_the_published_rates_are_constant() -> None:
    published = ResnetSettings()
    assert (published.learning_rate, published.latent_learning_rate, published.batch_size) == (1e-5, 1e-4, 16)
    assert published.rate_factor(0, 1000) == published.rate_factor(999, 1000) == 1.0
