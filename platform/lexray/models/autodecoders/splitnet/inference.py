"""What a trained `splitnet` says of new detections: one pass of its network, and no fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv, ndtr, stdtrit
from torch import Tensor

from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.reconstructor import Encoding, Reconstruction, at_bins
from lexray.models.autodecoders.splitnet.binning import BinnedPhotons, bin_photons
from lexray.models.autodecoders.splitnet.network import LOG_VARIANCE, Estimate, SplitNet, estimate
from lexray.models.autodecoders.splitnet.training import SplitnetSettings

#: Degrees of freedom of the Student's t whose standardised quantiles stand for the normal ones in intervals. The Gamma
#: distribution has the right variance, but rates are mostly better known than that, and at edges far worse: with this
#: number intervals of 68 % and of 95 % both hold what they promise, on simulations (decision record 8).
_FREEDOM = 7
#: Cells of time that are read at once, over all detections of a batch.
_CELLS_AT_ONCE = 65_536


@dataclass(frozen=True)
class _Read:
    """Some detections of one number of cells, and what the network says of them."""

    rows: Tensor
    data: BinnedPhotons
    found: Estimate


class SplitnetReconstructor:
    """A trained `splitnet`.

    Parameters
    ----------
    settings : SplitnetSettings
    network : SplitNet
    device : torch.device
    """

    n_steps = 0

    def __init__(self, settings: SplitnetSettings, network: SplitNet, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.network = network.to(device).eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """'splitnet' and its channels."""
        return f"splitnet-{self.settings.width}w-{self.settings.blocks}b"

    @property
    def n_bands(self) -> int:
        """B."""
        return self.settings.n_bands

    @property
    def n_features(self) -> int:
        """F: pooled over time, and the spectrum's."""
        return self.network.times.n_features + self.settings.spectral_features

    def encode(self, photons: Photons) -> Encoding:
        """Pooled features and the spectrum's, side by side, f4[N, F]."""
        encoding = self._empty_encoding(len(photons))
        for read in self._read(photons):
            _write_encoding(encoding, read)
        return encoding

    def reconstruct(self, photons: Photons, bins: int, level: float | None = None) -> Reconstruction:
        """See `Reconstructor.reconstruct`; bounds are central, of a Gamma distribution with heavier tails."""
        rates = self._empty_rates(len(photons), bins, level)
        for read in self._read(photons):
            _write_rates(rates, read, bins, level)
        return Reconstruction(*rates)

    def encode_and_reconstruct(
        self, photons: Photons, bins: int, level: float | None = None
    ) -> tuple[Encoding, Reconstruction]:
        """See `Reconstructor.encode_and_reconstruct`."""
        encoding, rates = self._empty_encoding(len(photons)), self._empty_rates(len(photons), bins, level)
        for read in self._read(photons):
            _write_encoding(encoding, read)
            _write_rates(rates, read, bins, level)
        return encoding, Reconstruction(*rates)

    def _empty_encoding(self, n: int) -> Encoding:
        return Encoding(torch.empty(n, self.n_features), torch.empty(n), torch.empty(n))

    def _empty_rates(self, n: int, bins: int, level: float | None) -> Tensor:
        return torch.empty(1 if level is None else 3, n, self.n_bands, bins, dtype=torch.float64)

    def _read(self, photons: Photons) -> Iterator[_Read]:
        groups, size, _ = bin_photons(photons)
        for k, data in groups.items():
            rows = (size == k).nonzero()[:, 0]
            for some in torch.split(torch.arange(len(rows)), max(1, _CELLS_AT_ONCE // k)):
                chosen = data.select(some).to(self.device)
                yield _Read(rows[some], chosen, estimate(self.network, chosen.seen()))


def _write_encoding(encoding: Encoding, read: _Read) -> None:
    features = torch.cat([read.found.features, read.found.spectral_features], dim=1)
    encoding.features[read.rows] = features.cpu()
    nll, misfit = _fit_of(read.data, read.found)
    encoding.nll[read.rows], encoding.misfit[read.rows] = nll.float().cpu(), misfit.float().cpu()


def _write_rates(rates: Tensor, read: _Read, bins: int, level: float | None) -> None:
    log_rate = _log_rate(read)
    rates[0, read.rows] = _in_bins(log_rate, read, bins)
    if level is not None:
        mean = log_rate + read.found.shift.log()
        half_width = stdtrit(_FREEDOM, (1 + level) / 2) * ((_FREEDOM - 2) / _FREEDOM) ** 0.5
        for bound, deviations in zip(rates[1:], (-half_width, half_width), strict=True):
            quantile = log_gamma_quantile(read.found.variance, float(ndtr(deviations)))
            bound[read.rows] = _in_bins(mean + quantile, read, bins)


def _fit_of(data: BinnedPhotons, found: Estimate) -> tuple[Tensor, Tensor]:
    """`nll` and `misfit` of each detection, f8[N], source and background together, of arrival times in seconds."""
    counts, exposure = data.counts().double(), data.exposure[:, None].double()
    source, background_rate = found.level[..., None] * found.density, found.contamination / exposure.clamp(min=1e-6)
    log_rate = (source + background_rate).log() - data.width.double().log()[:, None, None]
    expected = source * exposure + found.contamination
    seen = (counts * log_rate).sum((1, 2))
    # Of as many photons in each band as were seen, dealt over the cells as the rate says.
    share = expected / expected.sum(-1, keepdim=True)
    typical = (counts.sum(-1, keepdim=True) * share * log_rate).sum((1, 2))
    return expected.sum((1, 2)) - seen, typical - seen


def _in_bins(log_rate: Tensor, read: _Read, bins: int) -> Tensor:
    return at_bins(log_rate.cpu(), bins, centred=True, exposure=read.data.exposure.cpu()).exp()


def _log_rate(read: _Read) -> Tensor:
    """Log-rate of the source in each cell, f4[N, B, K] in log(ct/s)."""
    per_second = read.found.level / read.data.width[:, None]
    return per_second.log()[..., None] + read.found.density.clamp(min=1e-30).log()


def log_gamma_quantile(variance: Tensor, probability: float) -> Tensor:
    """Log of a quantile of the Gamma distribution of mean 1.

    Parameters
    ----------
    variance : f[…]
        Of the distribution.
    probability : float

    Notes
    -----
    Interpolated in the logarithm of the variance between quantiles computed exactly.
    """
    low, high = LOG_VARIANCE
    n = 512
    grid = np.exp(np.linspace(low, high, n))
    exact = np.log(np.maximum(gammaincinv(1 / grid, probability) * grid, 1e-30))
    table = torch.as_tensor(exact, dtype=variance.dtype, device=variance.device)
    x = (variance.log() - low) / (high - low) * (n - 1)
    left = x.floor().long().clamp(0, n - 2)
    return torch.lerp(table[left], table[left + 1], x - left)
