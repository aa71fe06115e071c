"""Fitting the `grid` autodecoder: a latent a detection and one decoder for all, no encoder.

Latents belong to detections and have an Adam state of their own; they are updated where they are owned and never
communicated. Only the decoder's gradients are summed over workers, so that communication does not grow with the number
of sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lexray.models.grid import GridDecoder, total_variation
from lexray.models.likelihood import Cells, profile_log_likelihood


@dataclass(frozen=True)
class Penalties:
    """Weights beside the log-likelihood in nats.

    Attributes
    ----------
    tv_mean, tv_deviation : float
        Total variation of the log-rate's mean over the bands, and of the bands' deviations from it.
    latent : float
        Squared norm of the latent.
    """

    tv_mean: float = 1.5
    tv_deviation: float = 4.0
    latent: float = 0.02


def losses(decoder: GridDecoder, latent: Tensor, data: Cells, penalties: Penalties) -> Tensor:
    """Penalised negative log-likelihood of each detection, levels profiled out.

    Parameters
    ----------
    decoder : GridDecoder
    latent : f[N, D]
    data : Cells
        N detections.
    penalties : Penalties

    Returns
    -------
    f[N]
        In nats. Divide a sum of these by a number of photons, never a mean over detections by another: a source's
        penalty must not depend on its company.
    """
    mean, deviation = decoder(latent)
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
    """

    def __init__(self, n: int, dim: int, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.value = torch.zeros(n, dim)
        self.first = torch.zeros(n, dim)
        self.second = torch.zeros(n, dim)
        self.steps = torch.zeros(n)
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


def cosine(step: int, total: int, warm_up: int = 20) -> float:
    """Factor on a learning rate: a linear warm-up, then half a cosine down to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(total - warm_up, 1)))


def fit_latents(
    decoder: GridDecoder,
    data: Cells,
    penalties: Penalties,
    *,
    start: Tensor,
    steps: int,
    learning_rate: float,
) -> Tensor:
    """Latents of new detections, the decoder held fixed.

    Parameters
    ----------
    decoder : GridDecoder
    data : Cells
        N detections.
    penalties : Penalties
    start : f[D] or f[N, D]
        Where the search begins, such as the mean latent of the training.
    steps : int
        Adam steps, the learning rate falling along a cosine.
    learning_rate : float

    Returns
    -------
    f[N, D]
    """
    n = len(data.hat_counts)
    table = LatentTable(n, decoder.latent_dim)
    table.value = start.expand(n, -1).clone()
    rows = torch.arange(n)
    for step in range(steps):
        latent = table.value.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(decoder, latent, data, penalties).sum(), latent)
        table.step(rows, gradient, learning_rate * cosine(step, steps, warm_up=0))
    return table.value
