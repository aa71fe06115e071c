"""What a trained autodecoder of any type does with detections."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lexray.models.autodecoders.compression import Compression
from lexray.models.autodecoders.photons import Photons

Seen = TypeVar("Seen")
#: Equal cells of a detection in which a model without cells of its own is scored.
_BINS = 256


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

    def put(self, rows: Tensor, other: "Encoding") -> None:
        """Write those of the detections `rows` in place."""
        self.features[rows], self.nll[rows], self.misfit[rows] = other.features, other.nll, other.misfit


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


class Reconstructor(ABC, Generic[Seen]):
    """A trained autodecoder on ragged photons. All are on the CPU, whatever device the work is done on.

    A model type says what one pass of its network, or one fit, tells of some detections (`passes`), and what follows
    from that for their representations and rates.

    Attributes
    ----------
    name : str
        Model type and sizes, as the `latents` table names it.
    n_bands : int
        B.
    n_features : int
        F.
    n_steps : int
        Optimiser steps that a new detection takes.
    has_bounds : bool
        Whether its rates have bounds.
    """

    name: str
    n_bands: int
    n_features: int
    n_steps: int = 0
    has_bounds: bool = True

    @abstractmethod
    def passes(self, photons: Photons) -> Iterator[tuple[Tensor, Seen]]:
        """Rows i8[M] of some detections at a time, until each was met once, and what was found of them."""

    @abstractmethod
    def encoding(self, seen: Seen) -> Encoding:
        """Representations of these detections."""

    @abstractmethod
    def rates(self, seen: Seen, bins: int, level: float | None) -> Tensor:
        """Their rates, and below them both bounds where there are any: f8[1 or 3, M, B, bins]."""

    def compressed(self, photons: Photons) -> "tuple[Reconstructor[Seen], Compression | None]":
        """The same with representations as short as detections of its training allow, and how; by default as it is."""
        return self, None

    def at_full_resolution(self, photons: Photons) -> list[tuple[Tensor, Tensor]]:
        """Rates of each detection in the cells that the model has of it.

        Returns
        -------
        list of (edges f8[C + 1] in seconds since the detection's start, rate f8[B, C] in ct/s of good time)
        """
        found = self.reconstruct(photons, _BINS).rate
        edges = torch.linspace(0.0, 1.0, _BINS + 1, dtype=torch.float64) * photons.duration[:, None]
        return list(zip(edges, found, strict=True))

    def encode(self, photons: Photons) -> Encoding:
        """Representation of each detection."""
        encoding = self._no_encoding(len(photons))
        for rows, seen in self.passes(photons):
            encoding.put(rows, self.encoding(seen))
        return encoding

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
        rates = self._no_rates(len(photons), bins, level)
        for rows, seen in self.passes(photons):
            rates[:, rows] = self.rates(seen, bins, level)
        return Reconstruction(*rates)

    def encode_and_reconstruct(
        self, photons: Photons, bins: int, level: float | None = None
    ) -> tuple[Encoding, Reconstruction]:
        """What `encode` and `reconstruct` return, from one pass of the network or one fit."""
        encoding, rates = self._no_encoding(len(photons)), self._no_rates(len(photons), bins, level)
        for rows, seen in self.passes(photons):
            encoding.put(rows, self.encoding(seen))
            rates[:, rows] = self.rates(seen, bins, level)
        return encoding, Reconstruction(*rates)

    def _no_encoding(self, n: int) -> Encoding:
        return Encoding(torch.empty(n, self.n_features), torch.empty(n), torch.empty(n))

    def _no_rates(self, n: int, bins: int, level: float | None) -> Tensor:
        n_curves = 1 if level is None or not self.has_bounds else 3
        return torch.empty(n_curves, n, self.n_bands, bins, dtype=torch.float64)


def at_bins(log_rate: Tensor, bins: int) -> Tensor:
    """Log-rates in equal bins, f8[N, B, bins], of log-rates at knots from the first moment to the last.

    Between the knots they are linear; of wider bins they are means.

    Parameters
    ----------
    log_rate : f[N, B, K]
    bins : int
    """
    values, k = log_rate.double(), log_rate.shape[-1] - 1
    if bins < k:
        return _means(((values[..., :-1] + values[..., 1:]) / 2).exp(), bins).log()
    x = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins * k
    left = x.floor().long().clamp(max=k - 1)
    return torch.lerp(values[..., left], values[..., left + 1], (x - left).expand_as(values[..., left]))


def _means(rate: Tensor, bins: int) -> Tensor:
    """Means over bins, f8[N, B, bins], of rates f8[N, B, K] in cells."""
    k = rate.shape[-1]
    share = torch.arange(bins + 1, dtype=torch.float64) / bins * k
    left = share.floor().long().clamp(max=k - 1)
    until = torch.nn.functional.pad(rate.cumsum(-1), (1, 0))
    return torch.lerp(until[..., left], until[..., left + 1], (share - left).expand_as(until[..., left])).diff() * (
        bins / k
    )


def misfit(rate: Tensor, expected: Tensor, counts: Tensor) -> Tensor:
    """See `Encoding.misfit`: of rates, expected counts and counts f[N, B, K] in cells, whatever the rates' unit."""
    share = expected / expected.sum(-1, keepdim=True)
    typical = counts.sum(-1, keepdim=True) * share
    return ((typical - counts) * rate.clamp(min=1e-300).log()).sum((1, 2)).float()
