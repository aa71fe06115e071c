"""What a trained autodecoder of any kind does with detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lexray.models.photons import Photons


@dataclass(frozen=True)
class Encoding:
    """Representations of N detections.

    Attributes
    ----------
    features : f4[N, F]
    nll : f4[N]
        Negative log-likelihood of the photons under the rate reconstructed from them, in nats.
    misfit : f4[N]
        How much less probable the photons' times are under it than times drawn from it are on average, in nats.
    """

    features: Tensor
    nll: Tensor
    misfit: Tensor


class Reconstructor(Protocol):
    """A trained autodecoder on ragged photons. All are on the CPU, whatever device the work is done on."""

    @property
    def name(self) -> str:
        """Kind and sizes, as the `latents` table names it."""
        ...

    @property
    def n_bands(self) -> int:
        """B."""
        ...

    @property
    def n_features(self) -> int:
        """F."""
        ...

    @property
    def n_steps(self) -> int:
        """Optimiser steps that a new detection takes."""
        ...

    def encode(self, photons: Photons) -> Encoding:
        """Representation of each detection."""
        ...

    def rates(self, photons: Photons, bins: int) -> Tensor:
        """Reconstructed rates, f8[N, B, bins] in ct/s of good time.

        At the centres of equal bins from 0 to the end of the last good time, gaps included: what would have been seen.
        Where a background region is known, of the source without its background.
        """
        ...

    def intervals(self, photons: Photons, bins: int, level: float) -> tuple[Tensor, Tensor] | None:
        """Bounds, f8[N, B, bins] each, between which the rate lies with probability `level`; None if not estimated."""
        ...


def at_bins(log_rate: Tensor, bins: int, *, centred: bool) -> Tensor:
    """Log-rates between their samples, linearly, at the centres of equal bins: f8[N, B, bins].

    Parameters
    ----------
    log_rate : f[N, B, K]
    bins : int
    centred : bool
        Whether the samples are at the centres of K cells; else they are at knots from the first moment to the last.
    """
    k = log_rate.shape[-1]
    position = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    x = (position * k - 0.5).clamp(0, k - 1) if centred else position * (k - 1)
    left = x.floor().long().clamp(max=k - 2)
    values = log_rate.double()
    return torch.lerp(values[..., left], values[..., left + 1], (x - left).expand_as(values[..., left]))
