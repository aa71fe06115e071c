"""Training the published Poisson process autodecoder, and latents of new detections (Song et al. 2025)."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.resnet.decoder import ResnetDecoder
from lexray.models.autodecoders.resnet.loss import (
    Arrivals,
    ResnetPenaltyWeights,
    arrivals,
    integral,
    log_likelihood,
    log_rates,
    losses,
    time_scale,
)
from lexray.models.settings import setting

#: Steps of the reported integral for each of the training's; one more makes them odd, so that no octave fits.
_FINER = 8


@dataclass(frozen=True)
class ResnetSettings(Schedule):
    """Parameters of a training; the defaults are the published ones but for `good_time`.

    Attributes
    ----------
    grad_clip_norm : float
        The published 10 is of the mean gradient of a detection; this is of a photon's, at 300 a detection.
    latent_dim, width, blocks, octaves : int
        Of the decoder.
    n_steps : int
        Of the integral, a detection.
    shortest : float
        Seconds that are one unit of scaled time; longer detections take their own duration.
    good_time : bool
        Whether the rate is integrated over good time only, in training on a mesh that is shifted at random. False, as
        published: from 0 to the last photon, on a fixed mesh.
    fit_steps, fit_learning_rate : int, float
        Adam steps for new detections, the decoder held fixed, and their rate.
    penalties : ResnetPenaltyWeights
    """

    epochs: int = 600
    batch_size: int = 16
    learning_rate: float = 1e-5
    latent_learning_rate: float = 1e-4
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0 / 300.0
    patience: int = 0
    latent_dim: int = setting(8, "numbers in a latent", ge=1)
    width: int = setting(512, "hidden units of a layer", ge=1)
    blocks: int = setting(5, "residual blocks", ge=1)
    octaves: int = setting(12, "octaves of the positional encoding of time", ge=1)
    n_steps: int = setting(2_048, "steps of the rate's integral, a detection", ge=2)
    shortest: float = setting(28_800.0, "seconds that are one unit of scaled time", gt=0)
    good_time: bool = setting(True, "integrate over good time only; as published, up to the last photon")
    fit_steps: int = setting(400, "optimiser steps for the latent of a new detection", ge=1)
    fit_learning_rate: float = setting(0.01, "learning rate of these steps", gt=0)
    penalties: ResnetPenaltyWeights = field(default_factory=ResnetPenaltyWeights)

    def rate_factor(self, step: int, total: int) -> float:
        """1: the published rates are constant, but for halvings after 50 epochs without a lower loss."""
        return 1.0

    def decoder(self) -> ResnetDecoder:
        """A decoder of these sizes, its weights drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return ResnetDecoder(self.latent_dim, self.n_bands, self.width, self.blocks, self.octaves)

    def learner(self) -> "ResnetLearner":
        """A model of these settings, its weights drawn from `seed`."""
        return ResnetLearner(self)

    def arrivals(self, photons: Photons, generator: torch.Generator | None = None) -> Arrivals:
        """Detections as the loss takes them; `generator` shifts the mesh where that is not as published."""
        return arrivals(
            photons,
            good_time=self.good_time,
            n_steps=self.n_steps,
            shortest=self.shortest,
            generator=generator if self.good_time else None,
        )


class ResnetLearner:
    """The published autodecoder as the trainer sees it.

    Parameters
    ----------
    settings : ResnetSettings
    """

    model_type = "resnet"

    def __init__(self, settings: ResnetSettings) -> None:
        self.settings, self.latent_dim = settings, settings.latent_dim
        self.network: nn.Module = settings.decoder()

    def prepare(self, photons: Photons) -> Photons:
        """The photons as they are."""
        return photons

    def draw(self, data: Photons, rows: Tensor, generator: torch.Generator) -> Arrivals:
        """Detections `rows`, their mesh shifted at random."""
        return self.settings.arrivals(data.select(rows), generator)

    def losses(self, sample: Arrivals, latent: Tensor | None) -> Tensor:
        """The published loss of each detection, f[M] in nats."""
        if latent is None:
            raise ValueError("resnet needs a latent for each detection")
        return losses(self.network, latent, sample, self.settings.penalties)

    def gains(self, fit: Photons, held: Photons, start: Tensor | None) -> Tensor:
        """Latents fitted to `fit` from `start`, and the gain of `held`, f8[N] in nats: see `gains`."""
        if start is None:
            raise ValueError("resnet needs the mean latent of its training")
        latent = fit_latents(self.network, fit, self.settings, start)
        return gains(self.network, latent, held, self.settings)


def fit_latents(decoder: nn.Module, photons: Photons, settings: ResnetSettings, start: Tensor) -> Tensor:
    """Latents of new detections, the decoder held fixed: Adam from `start`, by `settings`.

    Parameters
    ----------
    decoder : nn.Module
        A `ResnetDecoder`.
    photons : Photons
        N detections.
    settings : ResnetSettings
    start : f[D] or f[N, D]
        As published, the mean latent of the training.

    Returns
    -------
    f[N, D]
        On the CPU, in the precision of `start`.
    """
    start = start.detach().expand(len(photons), -1)
    device = next(decoder.parameters()).device
    found = [start[:0].cpu()]
    for rows in pieces(len(photons), settings.batch_size):
        data = settings.arrivals(photons.select(rows)).to(device)
        # All rows move in each step, so that a dense Adam is one of their own for each.
        latent = start[rows].to(device, copy=True).requires_grad_()
        optimizer = torch.optim.Adam([latent], lr=settings.fit_learning_rate)
        for _ in range(settings.fit_steps):
            (latent.grad,) = torch.autograd.grad(losses(decoder, latent, data, settings.penalties).sum(), latent)
            optimizer.step()
        found.append(latent.detach().cpu())
    return torch.cat(found)


@torch.no_grad()
def log_prob(decoder: nn.Module, latent: Tensor, photons: Photons, settings: ResnetSettings) -> Tensor:
    """Unbinned log-probability of the photons under each detection's rate during its good time.

    Parameters
    ----------
    decoder : nn.Module
    latent : f[N, D]
    photons : Photons
        N detections.
    settings : ResnetSettings

    Returns
    -------
    f8[N]
        In nats, of arrival times in seconds.
    """
    per_second = photons.counts.sum(1) * time_scale(photons, settings.shortest).log()
    found = [
        log_likelihood(decoder, z, data).double().cpu() for z, data in _in_batches(decoder, latent, photons, settings)
    ]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *found]) - per_second


@torch.no_grad()
def gains(decoder: nn.Module, latent: Tensor, held: Photons, settings: ResnetSettings) -> Tensor:
    r"""Log-likelihood of photons over that of a constant rate, the levels of both profiled out.

    .. math:: \sum_j \left(\log\lambda_{b_j}(t_j) - \log \frac{\int_G \lambda_{b_j} dt}{\int_G dt}\right)

    Parameters as for `log_prob`.

    Returns
    -------
    f8[N]
        In nats.
    """
    found = [torch.zeros(0, dtype=torch.float64)]
    for z, data in _in_batches(decoder, latent, held, settings):
        photons, mesh = (log_rate.double() for log_rate in log_rates(decoder, z, data))
        rate = mesh.exp()
        of_band = torch.stack(
            [integral(one[:, None], data.mesh_weight, data.mesh_owner, data.n) for one in rate.unbind(1)], dim=1
        )
        ontime = integral(torch.ones_like(rate[:, :1]), data.mesh_weight, data.mesh_owner, data.n)
        mean = (of_band / ontime[:, None]).log()
        relative = photons.gather(1, data.band[:, None])[:, 0] - mean[data.owner, data.band]
        found.append(relative.new_zeros(data.n).index_add(0, data.owner, relative).cpu())
    return torch.cat(found)


def _in_batches(
    decoder: nn.Module, latent: Tensor, photons: Photons, settings: ResnetSettings
) -> Iterator[tuple[Tensor, Arrivals]]:
    """Latents and detections on the decoder's device; during good time, whatever the training did.

    What is reported must not rest on the mesh of the training: see `_FINER`.
    """
    device = next(decoder.parameters()).device
    judged = replace(settings, good_time=True, n_steps=_FINER * settings.n_steps + 1)
    for rows in pieces(len(photons), settings.batch_size):
        yield latent[rows].to(device), judged.arrivals(photons.select(rows)).to(device)
