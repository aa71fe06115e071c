"""Each detection fitted alone, with no model of what detections are like: a free log-rate under a penalty.

The rate is constant within each of 256 cells; the sum of its absolute changes (total variation) keeps it from following
every photon. This is the baseline that shows what an autodecoder learned from other detections.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lexray.evaluation.cells import N_CELLS, CellCounts, count_in_cells, mean_gain
from lexray.models.autodecoders.learner import cosine
from lexray.models.autodecoders.photons import Photons, pieces

#: Penalties that `TotalVariation.best` tries; an infinite one on the deviations leaves all bands one shape.
MEAN_WEIGHTS = (1.0, 1.5, 2.2, 3.2, 4.5, 6.5)
DEVIATION_WEIGHTS = (2.0, 4.0, 8.0, math.inf)
#: Boxes of CELLS/4, CELLS/8 … 1 cells add up to the log-rate: large ones let whole plateaus move in one step.
_LEVELS = tuple(2**k for k in range(2, N_CELLS.bit_length()))
_BATCH_SIZE = 256


def _mean_and_deviations(boxes: list[Tensor], n_bands: int) -> tuple[Tensor, Tensor]:
    """Mean over the bands f[N, CELLS], and the bands' deviations from it f[N, B, CELLS]."""
    curve = sum((4 / b.shape[-1]) ** 0.5 * b.repeat_interleave(N_CELLS // b.shape[-1], -1) for b in boxes[1:])
    curve = curve + boxes[0].repeat_interleave(N_CELLS // boxes[0].shape[-1], -1)
    mean, own = curve[:, 0], curve[:, 1:]
    if not own.shape[1]:
        return mean, torch.zeros(1).expand(len(mean), n_bands, N_CELLS)
    return mean, own - own.mean(1, keepdim=True)


@dataclass(frozen=True)
class TotalVariationFit:
    """Maximum of log L − mean · TV(m) − deviation · Σ_b TV(d_b) with log-rates m + d_b, Σ_b d_b = 0.

    Attributes
    ----------
    mean, deviation : float
        Penalties in nats a unit of log-rate; an infinite one on the deviations leaves one shape for all bands.
    steps : int
        Of Adam, the learning rate falling along a cosine.
    learning_rate : float
    """

    mean: float
    deviation: float
    steps: int = 200
    learning_rate: float = 0.1

    def __call__(self, photons: Photons) -> Tensor:
        """Log-shapes f4[N, B, CELLS]."""
        fitted = [self._fit(count_in_cells(photons.select(some))) for some in pieces(len(photons), _BATCH_SIZE)]
        return torch.cat([torch.zeros(0, photons.n_bands, N_CELLS), *fitted])

    def objective(self, mean: Tensor, deviation: Tensor, data: CellCounts) -> Tensor:
        """What is minimised, f[N] in nats: mean f[N, CELLS], deviation f[N, B, CELLS]; levels are profiled out."""
        shape = mean[:, None] + deviation
        level = torch.logsumexp(shape + data.log_exposure[:, None], -1)
        loss = (data.counts.sum(-1) * level).sum(1) - (data.counts * shape).sum((1, 2))
        loss = loss + self.mean * mean.diff().abs().sum(-1)
        if math.isfinite(self.deviation):
            loss = loss + self.deviation * deviation.diff().abs().sum((1, 2))
        return loss

    def _fit(self, data: CellCounts) -> Tensor:
        n, n_bands, _ = data.counts.shape
        rows = 1 + n_bands if math.isfinite(self.deviation) else 1
        boxes = [torch.zeros(n, rows, level, requires_grad=True) for level in _LEVELS]
        optimizer = torch.optim.Adam(boxes, betas=(0.9, 0.99))
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = self.learning_rate * cosine(step, self.steps, warmup_steps=0)
            optimizer.zero_grad()
            torch.autograd.backward(self.objective(*_mean_and_deviations(boxes, n_bands), data).sum())
            optimizer.step()
        with torch.no_grad():
            mean, deviation = _mean_and_deviations(boxes, n_bands)
            return mean[:, None] + deviation

    @staticmethod
    def best(training: Photons, seed: int = 0) -> "TotalVariationFit":
        """Penalties with the highest held-out gain on the training's detections: the mean's first, then the other."""

        def chosen(candidates: list[TotalVariationFit]) -> TotalVariationFit:
            return max(candidates, key=lambda fit: mean_gain(fit, training, seed))

        shared = chosen([TotalVariationFit(mean, math.inf) for mean in MEAN_WEIGHTS])
        return chosen([TotalVariationFit(shared.mean, deviation) for deviation in DEVIATION_WEIGHTS])
