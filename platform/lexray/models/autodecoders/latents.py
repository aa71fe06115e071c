"""Latents of detections, which move where they are owned and are never communicated."""

import torch
from torch import Tensor

from lexray.models.autodecoders.learner import keyed_generator
from lexray.models.autodecoders.sampler import LATENTS

#: Standard deviation of latents before their first step.
_LATENT_SPREAD = 0.1


class LatentTable:
    """Latents of N detections with Adam moments and step counts a row.

    Only the rows of a batch move in a step; torch's own optimisers would decay every row's moments in each.

    Parameters
    ----------
    value : f[N, D]
        Where the latents begin; it is changed in place.
    betas : tuple of float
        Adam's decay rates.
    """

    def __init__(self, value: Tensor, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.value, self.betas = value, betas
        self.first, self.second = torch.zeros_like(value), torch.zeros_like(value)
        self.steps = torch.zeros(len(value), device=value.device)

    @classmethod
    def drawn(cls, seed: int, part: int, n: int, dim: int) -> "LatentTable":
        """Latents of a part's `n` detections before their first step."""
        return cls(_LATENT_SPREAD * torch.randn(n, dim, generator=keyed_generator(seed, LATENTS, part)))

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
