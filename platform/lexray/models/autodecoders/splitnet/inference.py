"""What a trained `splitnet` says of new detections: one pass of its network, and no fit."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv, ndtr, stdtrit
from torch import Tensor

from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.reconstructor import Encoding, Reconstructor, at_bins
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

    data: BinnedPhotons
    found: Estimate


class SplitnetReconstructor(Reconstructor[_Read]):
    """A trained `splitnet`.

    Parameters
    ----------
    settings : SplitnetSettings
    network : SplitNet
    device : torch.device
    """

    def __init__(self, settings: SplitnetSettings, network: SplitNet, device: torch.device) -> None:
        self._device = device
        self._network = network.to(device).eval().requires_grad_(False)
        self.name = f"splitnet-{settings.width}w-{settings.blocks}b"
        self.n_bands = settings.n_bands
        self.n_features = network.times.n_features + settings.spectral_features

    def passes(self, photons: Photons) -> Iterator[tuple[Tensor, _Read]]:
        """See `Reconstructor.passes`."""
        groups, size, _ = bin_photons(photons)
        for k, data in groups.items():
            rows = (size == k).nonzero()[:, 0]
            for some in pieces(len(rows), max(1, _CELLS_AT_ONCE // k)):
                chosen = data.select(some).to(self._device)
                yield rows[some], _Read(chosen, estimate(self._network, chosen.seen()))

    def encoding(self, seen: _Read) -> Encoding:
        """Pooled features and the spectrum's, side by side, f4[N, F]."""
        features = torch.cat([seen.found.features, seen.found.spectral_features], dim=1)
        nll, misfit = _fit_of(seen.data, seen.found)
        return Encoding(features.cpu(), nll.float().cpu(), misfit.float().cpu())

    def rates(self, seen: _Read, bins: int, level: float | None) -> Tensor:
        """See `Reconstructor.rates`; bounds are central, of a Gamma distribution with heavier tails."""
        log_rate = _log_rate(seen)
        curves = [log_rate]
        if level is not None:
            mean = log_rate + seen.found.shift.log()
            half_width = stdtrit(_FREEDOM, (1 + level) / 2) * ((_FREEDOM - 2) / _FREEDOM) ** 0.5
            for deviations in (-half_width, half_width):
                curves.append(mean + log_gamma_quantile(seen.found.variance, float(ndtr(deviations))))
        exposure = seen.data.exposure.cpu()
        return torch.stack([at_bins(curve.cpu(), bins, centred=True, exposure=exposure).exp() for curve in curves])


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
