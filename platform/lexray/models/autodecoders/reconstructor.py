"""What a trained autodecoder of any type does with detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons


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


@dataclass(frozen=True)
class Reconstruction:
    """Rates of N detections in M equal bins, in ct/s of good time, gaps included: what would have been seen.

    Attributes
    ----------
    rate : f8[N, B, M]
    lower, upper : f8[N, B, M] or None
        None where they were not asked for, or are not estimated.
    """

    rate: Tensor
    lower: Tensor | None = None
    upper: Tensor | None = None


class Reconstructor(Protocol):
    """A trained autodecoder on ragged photons. All are on the CPU, whatever device the work is done on."""

    @property
    def name(self) -> str:
        """Model type and sizes, as the `latents` table names it."""
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

    def reconstruct(self, photons: Photons, bins: int, level: float | None = None) -> Reconstruction:
        """Rates in equal bins from 0 to the end of the last good time.

        Parameters
        ----------
        photons : Photons
            N detections. Where a background region is known, the rates are of the source without its background.
        bins : int
        level : float, optional
            Probability with which each bin's rate lies between the bounds; without it there are none.
        """
        ...

    def encode_and_reconstruct(
        self, photons: Photons, bins: int, level: float | None = None
    ) -> tuple[Encoding, Reconstruction]:
        """What `encode` and `reconstruct` return, from one pass of the network or one fit."""
        ...


def at_bins(log_rate: Tensor, bins: int, *, centred: bool, exposure: Tensor | None = None) -> Tensor:
    """Log-rates in equal bins, f8[N, B, bins]: between their samples, linearly, or of means over wider bins.

    Parameters
    ----------
    log_rate : f[N, B, K]
    bins : int
    centred : bool
        Whether the samples are at the centres of K cells; else they are at knots from the first moment to the last.
    exposure : f[N, K], optional
        Good time in each cell, as a share of the cell, which weighs the means: with it they give the expected counts.
    """
    values, k = log_rate.double(), log_rate.shape[-1]
    if bins < (k if centred else k - 1):
        cells = values if centred else (values[..., :-1] + values[..., 1:]) / 2
        return _means(cells.exp(), bins, exposure).log()
    position = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    x = (position * k - 0.5).clamp(0, k - 1) if centred else position * (k - 1)
    left = x.floor().long().clamp(max=k - 2)
    return torch.lerp(values[..., left], values[..., left + 1], (x - left).expand_as(values[..., left]))


def _means(rate: Tensor, bins: int, exposure: Tensor | None) -> Tensor:
    """Weighted means over bins, f8[N, B, bins], of rates f8[N, B, K] in cells; without good time, plain ones."""
    weight = torch.ones_like(rate[:, :1]) if exposure is None else exposure[:, None].double() + 1e-6
    share = torch.arange(bins + 1, dtype=torch.float64) / bins * rate.shape[-1]
    left = share.floor().long().clamp(max=rate.shape[-1] - 1)

    def total(values: Tensor) -> Tensor:
        until = torch.nn.functional.pad(values.cumsum(-1), (1, 0))
        return torch.lerp(until[..., left], until[..., left + 1], (share - left).expand_as(until[..., left])).diff()

    return total(rate * weight) / total(weight)


def misfit(rate: Tensor, expected: Tensor, counts: Tensor) -> Tensor:
    """See `Encoding.misfit`: of rates, expected counts and counts f[N, B, K] in cells, whatever the rates' unit."""
    share = expected / expected.sum(-1, keepdim=True)
    typical = counts.sum(-1, keepdim=True) * share
    return ((typical - counts) * rate.clamp(min=1e-300).log()).sum((1, 2)).float()
