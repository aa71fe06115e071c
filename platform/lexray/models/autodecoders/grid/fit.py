"""Fits of new detections, the decoder held fixed: nothing is learnt from others while it goes on."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.grid.decoder import FreeCurves
from lexray.models.autodecoders.grid.loss import GridPenaltyWeights, losses
from lexray.models.autodecoders.latents import LatentTable
from lexray.models.autodecoders.learner import cosine
from lexray.models.autodecoders.likelihood import Cells

#: Of a detection that is fitted alone: penalties, Adam steps and their rate.
_FREE = GridPenaltyWeights(tv_mean=4.0, tv_deviation=20.0, latent=0.0)
_FREE_STEPS, _FREE_LEARNING_RATE = 60, 0.2


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
