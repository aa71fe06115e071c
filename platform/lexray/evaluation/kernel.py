"""The best Gaussian kernel of one width for all detections: density estimation, corrected for the exposure."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lexray.evaluation.cells import N_CELLS, count_in_cells, mean_gain
from lexray.models.autodecoders.photons import Photons

#: Widths and floors that `Kernel.best` tries.
WIDTHS = tuple(2.0 ** (-k / 2) for k in range(3, 15))
FLOORS = (0.01, 0.03, 0.1, 0.2)


@dataclass(frozen=True)
class GaussianKernel:
    """Counts over exposure, both smoothed with a Gaussian; bands share the shape.

    Dividing by the smoothed exposure corrects for gaps and for the ends alike, where plain smoothing loses what leaks
    out.

    Attributes
    ----------
    width : float
        Standard deviation as a share of the detection's duration.
    floor : float
        Share of a constant rate mixed in: the kernel's tails would give a photon far from all others no chance.
    """

    width: float
    floor: float

    def __call__(self, photons: Photons) -> Tensor:
        """Log-shapes f8[N, 1, CELLS]."""
        data = count_in_cells(photons)
        centre = (torch.arange(N_CELLS, dtype=torch.float64) + 0.5) / N_CELLS
        kernel = torch.exp(-0.5 * ((centre[:, None] - centre) / self.width).square())
        counts, exposure = data.counts.sum(1).double(), data.exposure.double()
        rate = (counts @ kernel) / (exposure @ kernel).clamp(min=1e-12)
        mean = (rate * exposure).sum(1, keepdim=True) / exposure.sum(1, keepdim=True)
        mixed = (1 - self.floor) * rate / mean.clamp(min=1e-12) + self.floor
        return mixed.log()[:, None]

    @staticmethod
    def best(training: Photons, seed: int = 0) -> "GaussianKernel":
        """Width and floor with the highest held-out gain on the training's detections."""
        candidates = [GaussianKernel(width, floor) for width in WIDTHS for floor in FLOORS]
        return max(candidates, key=lambda kernel: mean_gain(kernel, training, seed))
