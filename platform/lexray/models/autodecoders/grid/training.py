"""Training of the `grid` autodecoder: one latent per detection and one decoder for all, no encoder.

New detections are fitted with the decoder held fixed: nothing is learnt from others while it goes on.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.background import with_background
from lexray.models.autodecoders.grid.decoder import FreeCurves, GridDecoder
from lexray.models.autodecoders.grid.loss import GridPenaltyWeights, losses
from lexray.models.autodecoders.latents import LatentTable
from lexray.models.autodecoders.learner import Schedule, cosine
from lexray.models.autodecoders.likelihood import Cells, cells, level, profile_log_likelihood
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.settings import setting

#: Detections fitted at once; enough to fill a core, little enough to stay in its cache's reach.
FITTED_AT_ONCE = 256
#: Of a detection that is fitted alone: penalties, Adam steps and their rate.
_FREE = GridPenaltyWeights(tv_mean=4.0, tv_deviation=20.0, latent=0.0)
_FREE_STEPS, _FREE_LEARNING_RATE = 60, 0.2


@dataclass(frozen=True)
class FittedDetections:
    """N detections after their fit.

    Attributes
    ----------
    photons : Photons
    data : Cells
        What was fitted to, of these.
    latent : f[N, D]
    log_rate : f4[N, B, K]
        At the knots, per unit of scaled time, gaps included.
    """

    photons: Photons
    data: Cells
    latent: Tensor
    log_rate: Tensor


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

    def learner(self) -> "GridLearner":
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
        self.settings, self.latent_dim = settings, settings.latent_dim
        self.network: nn.Module = settings.decoder() if network is None else network

    def prepare(self, photons: Photons) -> Cells:
        """Photons and good time on knots, with the expected background where it is known."""
        parts = [self._prepare(photons.select(rows)) for rows in pieces(len(photons), FITTED_AT_ONCE)]
        return Cells.concatenate(parts or [cells(photons, self.settings.n_knots)])

    def _prepare(self, photons: Photons) -> Cells:
        return with_background(cells(photons, self.settings.n_knots), photons, free_log_shape)

    def draw(self, data: Cells, rows: Tensor, generator: torch.Generator) -> Cells:
        """Detections `rows`; nothing is random about them."""
        return data.select(rows)

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
        for rows in pieces(len(fit), FITTED_AT_ONCE):
            fitted = self.fit_detections(fit.select(rows), start)
            rest = self._prepare(held.select(rows))
            constant = profile_log_likelihood(torch.zeros_like(fitted.log_rate), rest)
            gains.append((profile_log_likelihood(fitted.log_rate, rest) - constant).double())
        return torch.cat(gains)

    def fit_detections(self, photons: Photons, start: Tensor | None) -> FittedDetections:
        """Rates of detections, the decoder held fixed.

        Parameters
        ----------
        photons : Photons
            N detections.
        start : f[D] or f[N, D], optional
            Where the latents' search begins; at 0 if left out.
        """
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
        return FittedDetections(photons, data, latent, shape + level(shape, data)[..., None])


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
    table = LatentTable(start.expand(len(data), -1).clone())
    rows = torch.arange(len(data), device=start.device)
    for step in range(steps):
        latent = table.value.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(decoder, latent, data, penalties).sum(), latent)
        table.step(rows, gradient, learning_rate * cosine(step, steps, warmup_steps=0))
    return table.value


def free_log_shape(data: Cells) -> Tensor:
    """Log-shape of each detection's rate under the penalties alone, nothing learnt from others: f4[N, B, K].

    Parameters
    ----------
    data : Cells
        N detections.
    """
    _, n_bands, n_knots = data.hat_counts.shape
    curves = FreeCurves(n_bands, n_knots)
    latent = fit_latents(
        curves,
        data,
        _FREE,
        start=torch.zeros(curves.latent_dim),
        steps=_FREE_STEPS,
        learning_rate=_FREE_LEARNING_RATE,
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
