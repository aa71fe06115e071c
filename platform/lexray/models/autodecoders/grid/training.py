"""Fitting the `grid` autodecoder: one latent per detection and one decoder for all, no encoder.

Latents belong to detections and have an Adam state of their own; they are updated where they are owned and never
communicated. Only the decoder's gradients are summed over workers, so that communication does not grow with the number
of sources.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from lexray.models.autodecoders.background import with_background
from lexray.models.autodecoders.grid.decoder import FreeCurves, GridDecoder, total_variation
from lexray.models.autodecoders.learner import Schedule, cosine, setting
from lexray.models.autodecoders.likelihood import (
    PRIOR_COUNTS,
    Cells,
    cell_log_integrals,
    cells,
    level,
    profile_log_likelihood,
)
from lexray.models.autodecoders.photons import Photons

#: Detections fitted at once; enough to fill a core, little enough to stay in its cache's reach.
_BATCH = 256
#: Detections whose Jacobians are in memory at once: 200 KB each.
_JACOBIANS = 32
#: Standard deviation of a latent's numbers over a training.
_LATENT_SPREAD = 0.3
#: Of the errors of log-rates in units of their estimated standard deviation: Student's degrees of freedom, and scale.
_DEGREES, _HALF_WIDTH = 4, 0.79


@dataclass(frozen=True)
class GridPenaltyWeights:
    """Weights of the penalties, relative to the log-likelihood in nats.

    Attributes
    ----------
    tv_mean, tv_deviation : float
        Total variation of the log-rate's mean over the bands, and of the bands' deviations from it.
    latent : float
        Squared norm of the latent.
    """

    tv_mean: float = setting(0.5, "total variation of the log-rate's mean over the bands", ge=0)
    tv_deviation: float = setting(20.0, "total variation of each band's deviation from that mean", ge=0)
    latent: float = setting(0.02, "squared norm of the latent", ge=0)

    def stiffer(self, factor: float) -> GridPenaltyWeights:
        """With `factor` on both penalties of total variation."""
        return GridPenaltyWeights(factor * self.tv_mean, factor * self.tv_deviation, self.latent)


#: Of a detection that is fitted alone.
FREE = GridPenaltyWeights(tv_mean=4.0, tv_deviation=20.0, latent=0.0)


def losses(decoder: nn.Module, latent: Tensor, data: Cells, penalties: GridPenaltyWeights) -> Tensor:
    """Penalised negative log-likelihood of each detection, levels profiled out.

    Parameters
    ----------
    decoder : GridDecoder or FreeCurves
    latent : f[N, D]
    data : Cells
        N detections.
    penalties : GridPenaltyWeights

    Returns
    -------
    f[N]
        In nats. Divide a sum of these by a number of photons, never a mean over detections by another: a source's
        penalty must not depend on its company.
    """
    mean, deviation = decoder(latent)
    mean, deviation = mean.float(), deviation.float()
    fit = profile_log_likelihood(mean[:, None] + deviation, data)
    roughness = penalties.tv_mean * total_variation(mean) + penalties.tv_deviation * total_variation(deviation).sum(1)
    return roughness + penalties.latent * latent.square().sum(1) - fit


class LatentTable:
    """Latents of N detections with Adam moments and step counts a row.

    Only the rows of a batch move in a step; torch's own optimisers would decay every row's moments in each.

    Parameters
    ----------
    n : int
    dim : int
        D.
    betas : tuple of float
        Adam's decay rates.
    device : torch.device, optional
    """

    def __init__(
        self, n: int, dim: int, betas: tuple[float, float] = (0.9, 0.99), device: torch.device | None = None
    ) -> None:
        self.value = torch.zeros(n, dim, device=device)
        self.first = torch.zeros(n, dim, device=device)
        self.second = torch.zeros(n, dim, device=device)
        self.steps = torch.zeros(n, device=device)
        self.betas = betas

    def __len__(self) -> int:
        return len(self.value)

    def step(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """One Adam step of the rows `rows`, i8[M], along `gradient`, f[M, D]."""
        b1, b2 = self.betas
        self.steps[rows] += 1
        self.first[rows] = first = b1 * self.first[rows] + (1 - b1) * gradient
        self.second[rows] = second = b2 * self.second[rows] + (1 - b2) * gradient.square()
        n = self.steps[rows][:, None]
        direction = (first / (1 - b1**n)) / ((second / (1 - b2**n)).sqrt() + 1e-8)
        self.value[rows] -= learning_rate * direction

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint."""
        return {"value": self.value, "first": self.first, "second": self.second, "steps": self.steps}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        self.value, self.first, self.second, self.steps = (
            state[name].clone() for name in ("value", "first", "second", "steps")
        )


def fit_latents(
    decoder: nn.Module,
    data: Cells,
    penalties: GridPenaltyWeights,
    *,
    start: Tensor,
    steps: int,
    learning_rate: float,
) -> Tensor:
    """Latents of new detections, the decoder held fixed.

    Parameters
    ----------
    decoder : GridDecoder or FreeCurves
    data : Cells
        N detections.
    penalties : GridPenaltyWeights
    start : f[D] or f[N, D]
        Where the search begins, such as the mean latent of the training.
    steps : int
        Adam steps, the learning rate falling along a cosine.
    learning_rate : float

    Returns
    -------
    f[N, D]
    """
    n = len(data)
    table = LatentTable(n, start.shape[-1], device=start.device)
    table.value = start.expand(n, -1).clone()
    rows = torch.arange(n, device=start.device)
    for step in range(steps):
        latent = table.value.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(decoder, latent, data, penalties).sum(), latent)
        table.step(rows, gradient, learning_rate * cosine(step, steps, warmup_steps=0))
    return table.value


@dataclass(frozen=True)
class GridSettings(Schedule):
    """Parameters of the `grid` autodecoder. The defaults suit a few thousand detections; more need fewer epochs.

    Attributes
    ----------
    latent_dim, n_knots, width : int
        Of the decoder.
    fit_steps, fit_learning_rate : int, float
        Adam steps for new detections, the decoder held fixed, and their rate.
    fit_tv_weight : float
        Factor on the penalties of total variation in fits of new detections: a decoder learns more under weak ones,
        which hardly keep a single detection's rate from following its photons.
    single_detection_weight : float
        Share in a new detection's log-rate of what the penalties alone make of it (`free_log_shape`), 0 … 1: the
        decoder knows long patterns better, the free curve narrow ones. 0 leaves the decoder's.
    penalties : GridPenaltyWeights
    """

    latent_dim: int = setting(64, "numbers in a latent", ge=1)
    n_knots: int = setting(256, "knots of the rate in time; a power of two", ge=4)
    width: int = setting(256, "hidden units of a layer", ge=1)
    fit_steps: int = setting(80, "optimiser steps for the latent of a new detection", ge=1)
    fit_learning_rate: float = setting(0.2, "learning rate of these steps", gt=0)
    fit_tv_weight: float = setting(5.0, "factor on the total variations' penalties for a new detection", gt=0)
    single_detection_weight: float = setting(
        0.5, "share in a new detection's log-rate of its fit without the network", ge=0, le=1
    )
    penalties: GridPenaltyWeights = field(default_factory=GridPenaltyWeights)

    def decoder(self) -> GridDecoder:
        """A decoder of these sizes, its weights drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return GridDecoder(self.latent_dim, self.n_bands, self.n_knots, self.width)

    def learner(self) -> GridLearner:
        """A model of these settings, its weights drawn from `seed`."""
        return GridLearner(self)


class GridLearner:
    """The `grid` autodecoder for the trainer, and its fits of new detections.

    Parameters
    ----------
    settings : GridSettings
    network : GridDecoder, optional
        A trained decoder; a new one, drawn from the settings' seed, if left out.
    """

    model_type = "grid"

    def __init__(self, settings: GridSettings, network: GridDecoder | None = None) -> None:
        self.settings = settings
        self.network: nn.Module = settings.decoder() if network is None else network

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.settings.latent_dim

    def prepare(self, photons: Photons) -> Cells:
        """Photons and good time on knots, with the expected background where it is known."""
        parts = [self._prepare(photons.select(rows)) for rows in _batches(len(photons))]
        return Cells.concatenate(parts or [cells(photons, self.settings.n_knots)])

    def _prepare(self, photons: Photons) -> Cells:
        return with_background(cells(photons, self.settings.n_knots), photons, free_log_shape)

    def draw(self, data: Cells, rows: Tensor, generator: torch.Generator) -> Cells:
        """Detections `rows`; nothing is random about them."""
        return data.select(rows)

    def join(self, samples: Sequence[Cells]) -> Cells:
        """Slices of several parts as one batch."""
        return Cells.concatenate(samples)

    def to(self, sample: Cells, device: torch.device) -> Cells:
        """The same batch on a device."""
        return sample.to(device)

    def losses(self, sample: Cells, latent: Tensor | None) -> Tensor:
        """Penalised negative log-likelihood of each detection, f[M] in nats; see `losses`."""
        if latent is None:
            raise ValueError("the grid autodecoder needs a latent for each detection")
        return losses(self.network, latent, sample, self.settings.penalties)

    def gains(self, fit: Photons, held: Photons, start: Tensor | None) -> Tensor:
        """Log-likelihood of held-out photons over that of a constant source, levels profiled out: f8[N] in nats.

        A background region counts for both: what is compared is the source's shape.
        """
        gains = [torch.zeros(0, dtype=torch.float64)]
        for rows in _batches(len(fit)):
            fitted = self.fit_detections(fit.select(rows), start)
            rest = self._prepare(held.select(rows))
            constant = profile_log_likelihood(torch.zeros_like(fitted.log_rate), rest)
            gains.append((profile_log_likelihood(fitted.log_rate, rest) - constant).double())
        return torch.cat(gains)

    def fit(self, photons: Photons, start: Tensor | None) -> tuple[Tensor, Cells]:
        """Rates of detections, the decoder held fixed.

        Parameters
        ----------
        photons : Photons
            N detections.
        start : f[D] or f[N, D], optional
            Where the latents' search begins; at 0 if left out.

        Returns
        -------
        log_rate : f4[N, B, K]
            At the knots, per unit of scaled time, gaps included.
        data : Cells
            What it was fitted to.
        """
        fitted = self.fit_detections(photons, start)
        return fitted.log_rate, fitted.data

    def interval(self, photons: Photons, start: Tensor | None, probability: float = 0.68) -> tuple[Tensor, Tensor]:
        """Pointwise interval of each detection's log-rate.

        Parameters
        ----------
        photons : Photons
            N detections.
        start : f[D] or f[N, D], optional
            As in `fit`.
        probability : float
            Share of the true rates that lie within, over detections like the training's and over time.

        Returns
        -------
        lower, upper : f4[N, B, K]
            At the knots, per unit of scaled time.

        Notes
        -----
        The latent's covariance is that of a Gauss–Newton approximation: the inverse of its Fisher information plus the
        precision of the population's latents. It is carried to the log-rate by the decoder's Jacobian, and the level's
        variance is added. Errors are wider than Gaussian where rates jump: Student's t with 4 degrees of freedom, at a
        scale measured on simulations. It holds for a decoder of the default sizes that was trained on thousands of
        detections; one that cannot draw what it is shown does not know so, and its intervals are too narrow.
        """
        fitted = self.fit_detections(photons, start)
        spread = self.half_width(fitted, probability)
        return fitted.log_rate - spread, fitted.log_rate + spread

    def half_width(self, fitted: FittedDetections, probability: float) -> Tensor:
        """Half the width of the interval of each detection's log-rate, f4[N, B, K]; see `interval`."""
        quantile = _HALF_WIDTH * float(stdtrit(_DEGREES, 0.5 + probability / 2))
        parts = [torch.zeros_like(fitted.log_rate[:0])]
        with one_thread(), torch.no_grad():
            n = len(fitted.log_rate)
            for rows in torch.arange(n).tensor_split(max(1, math.ceil(n / _JACOBIANS))):
                log_rate, data = fitted.log_rate[rows], fitted.data.select(rows)
                parts.append(self._variance(fitted.latent[rows], log_rate, data).sqrt())
        return quantile * torch.cat(parts)

    def _variance(self, latent: Tensor, log_rate: Tensor, data: Cells) -> Tensor:
        """Of the log-rate at the knots, f4[N, B, K]."""

        def log_shape(one: Tensor) -> Tensor:
            mean, deviation = self.network(one[None])
            curves: Tensor = (mean[:, None] + deviation)[0]
            return curves

        jacobian: Tensor = vmap(jacfwd(log_shape))(latent).cpu()
        information = _information(log_rate, data)
        total = information.sum(-1, keepdim=True) + PRIOR_COUNTS
        # The level follows the counts, so that of a shape only its difference from its mean over the photons is left.
        jacobian = jacobian - ((information / total)[..., None] * jacobian).sum(-2, keepdim=True)
        flat = jacobian.flatten(1, 2)
        precision = (flat * information.flatten(1)[..., None]).transpose(1, 2) @ flat
        precision = precision + torch.eye(self.latent_dim) / _LATENT_SPREAD**2
        covariance = torch.linalg.inv(precision)
        variance: Tensor = ((jacobian @ covariance[:, None]) * jacobian).sum(-1).clamp(min=0.0) + 1 / total
        return variance

    def fit_detections(self, photons: Photons, start: Tensor | None) -> FittedDetections:
        """Fit latents of detections, the decoder held fixed; parameters as for `fit`."""
        s = self.settings
        start = torch.zeros(self.latent_dim) if start is None else start
        device = next(self.network.parameters()).device
        with one_thread():
            data = self._prepare(photons)
            latent = fit_latents(
                self.network,
                data.to(device),
                s.penalties.stiffer(s.fit_tv_weight),
                start=start.to(device),
                steps=s.fit_steps,
                learning_rate=s.fit_learning_rate,
            )
            with torch.no_grad():
                mean, deviation = self.network(latent)
            shape = (mean[:, None] + deviation).cpu()
            if s.single_detection_weight > 0:
                shape = torch.lerp(shape, free_log_shape(data), s.single_detection_weight)
        return FittedDetections(latent, shape + level(shape, data)[..., None], data)


@dataclass(frozen=True)
class FittedDetections:
    """N detections after their fit.

    Attributes
    ----------
    latent : f[N, D]
    log_rate : f4[N, B, K]
        At the knots, per unit of scaled time, gaps included.
    data : Cells
        What it was fitted to.
    """

    latent: Tensor
    log_rate: Tensor
    data: Cells


def _information(log_rate: Tensor, data: Cells) -> Tensor:
    """Fisher information of the log-rate at each knot, f4[N, B, K]: the source's expected counts where it is alone."""
    expected = cell_log_integrals(log_rate, data.exposure, data.centre).exp()
    known = data.background
    if known is not None:
        source = expected[known.rows]
        share = source / (source + known.expected).clamp(min=1e-20)
        expected = expected.index_copy(0, known.rows, source * share)
    half = expected / 2
    return torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0))


def free_log_shape(
    data: Cells, penalties: GridPenaltyWeights | None = None, steps: int = 60, learning_rate: float = 0.2
) -> Tensor:
    """Log-shape of each detection's rate under the penalties alone, nothing learnt from others: f4[N, B, K].

    Parameters
    ----------
    data : Cells
        N detections.
    penalties : GridPenaltyWeights, optional
        Those of `FREE`, if left out.
    steps, learning_rate : int, float
        Adam steps and their rate.
    """
    _, n_bands, n_knots = data.hat_counts.shape
    curves = FreeCurves(n_bands, n_knots)
    latent = fit_latents(
        curves,
        data,
        FREE if penalties is None else penalties,
        start=torch.zeros(curves.latent_dim),
        steps=steps,
        learning_rate=learning_rate,
    )
    mean, deviation = curves(latent)
    shape: Tensor = mean[:, None] + deviation
    return shape


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A fit is a hundred steps on small matrices: waiting for a second thread costs many times what it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(n: int) -> Iterator[Tensor]:
    for first in range(0, n, _BATCH):
        yield torch.arange(first, min(first + _BATCH, n))
