r"""`splitnet`: a network that predicts photons held out from the rest, and needs no fit.

Thinning a Poisson process gives two independent processes of the same shape. So each time training meets a detection
its photons are split at random: a part goes in, and the network is scored on how it predicts the others; `training`
has the losses. With :math:`e_k` the exposure of cell k it writes a log-rate :math:`g_b(k)` but for its level, which
makes of a photon in band b the density

.. math:: f_b(k) = \frac{\exp g_b(k)}{\sum_l e_l \exp g_b(l)} .

What predicts held-out photons best over a population is the posterior mean of the rate under that population: there is
no penalty, and no fit.

A U-Net over cells of time makes g; what it pools over time is the detection's representation. A second head says how
sure g is, and a second branch does with the photons' energies what the first does with their times.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.photons import TensorFields

#: What the network's scalar inputs count from: 28.8 ks over 256 cells, and a typical effective area.
_USUAL_WIDTH, _USUAL_AREA = 112.5, 300.0  # s, cm²
#: The relative variance of a rate is kept between these.
LOG_VARIANCE = (-9.0, 4.0)
_LOG_SHIFT = (-5.0, 5.0)


@dataclass(frozen=True)
class NetworkInput(TensorFields):
    """What the network sees of N detections of K cells each.

    Attributes
    ----------
    counts : f4[N, B, K]
    exposure : f4[N, K]
        Good time in each cell, as a share of the cell: 0 in a gap.
    background : f4[N, B, K]
        Counts of the background region.
    scale : f4[N]
        Expected counts of the background in that region over those in the source's; NaN where there is no region.
    width : f4[N]
        Of a cell, in seconds.
    area : f4[N]
        Effective area in cm² times the live fraction, mean over the bands; NaN where unknown.
    energies : f4[N, E]
        Counts in logarithmic cells of energy.
    energy_range : f4[N, 2]
        Of these cells, in keV.
    """

    counts: Tensor
    exposure: Tensor
    background: Tensor
    scale: Tensor
    width: Tensor
    area: Tensor
    energies: Tensor
    energy_range: Tensor

    def channels(self, contamination: Tensor) -> Tensor:
        """Input of `TimeNet`, f4[N, 2 B + 5, K], where the background gives `contamination`, f4[N, B, K], counts."""
        # Over the mean of a cell seen in full. What is missing of a cell's exposure counts as if it had the mean: a gap
        # must not look like a fall of the rate.
        n_cells, seen = self.counts.shape[-1], self.exposure.sum(-1)[:, None, None]
        missing = 1 - self.exposure[:, None]
        above = self.counts - contamination
        by_band = above.sum(-1, keepdim=True).clamp(min=0.0)
        n = by_band.sum(1, keepdim=True)
        relative = torch.cat([above / (by_band + 3), above.sum(1, keepdim=True) / (n + 3)], dim=1)
        area = torch.where(self.area > 0, self.area, _USUAL_AREA)  # unknown, or of an instrument that is blind
        scalars = torch.stack(
            [
                log_counts(n[:, 0, 0]),
                (self.width / _USUAL_WIDTH).log() / 3,
                (area / _USUAL_AREA).log() / 3,
            ],
            dim=1,
        )
        return torch.cat(
            [
                _log_relative(relative * seen + missing),
                (contamination / (by_band + 3) * seen).log1p(),
                self.exposure[:, None],
                scalars[:, :, None].expand(-1, -1, n_cells),
            ],
            dim=1,
        )

    def spectrum(self) -> Tensor:
        """Input of `SpectrumNet`, f4[N, E + 3]."""
        n = self.energies.sum(1, keepdim=True)
        relative = self.energies / (n + 3) * self.energies.shape[1]
        return torch.cat([_log_relative(relative), log_counts(n), self.energy_range.log()], dim=1)


def log_counts(n: Tensor) -> Tensor:
    """Logarithm of numbers of photons, brought to the size of a network's other inputs."""
    return (n + 1).log() / 3 - 1.8


def _log_relative(rate: Tensor) -> Tensor:
    return rate.sign() * rate.abs().log1p() - 0.7


class TimeNet(nn.Module):
    """U-Net from binned photons to the shape of the rate.

    Parameters
    ----------
    n_bands : int
        B.
    width : int
        Channels of the finest level; coarser ones have 2, 3, 4 and 4 times as many.
    blocks : int
        Residual convolutions at the coarsest level.
    """

    def __init__(self, n_bands: int = 3, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        sizes = [width, 2 * width, 3 * width, 4 * width, 4 * width]
        coarse, fine = sizes[:0:-1], sizes[-2::-1]
        self.n_features = 2 * sizes[-1]
        self.first = nn.Conv1d(2 * n_bands + 5, width, 5, padding=2)
        self.down = nn.ModuleList(nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise(sizes))
        self.middle = nn.ModuleList(nn.Conv1d(sizes[-1], sizes[-1], 5, padding=2) for _ in range(blocks))
        self.context = nn.Linear(self.n_features, sizes[-1])
        self.up = nn.ModuleList(nn.Conv1d(a + b, b, 3, padding=1) for a, b in zip(coarse, fine, strict=True))
        self.shape = nn.Conv1d(width, 1 + n_bands, 3, padding=1)
        self.uncertainty = nn.Conv1d(width, 2 * n_bands, 3, padding=1)

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shape, uncertainty and features of binned photons.

        Parameters
        ----------
        channels : f[N, 2 B + 5, K]
            K a multiple of 16.

        Returns
        -------
        log_shape : f[N, B, K]
        log_variance, log_shift : f[N, B, K]
            Log of the relative variance of the rate beyond that of the counts, and of its mean over what shape and
            counts say.
        features : f[N, 8 width]
            Mean and maximum over time of the coarsest level.
        """
        h = nn.functional.gelu(self.first(channels))
        skips = []
        for down in self.down:
            skips.append(h)
            h = nn.functional.gelu(down(h))
        for block in self.middle:
            h = h + nn.functional.gelu(block(h))
        features = torch.cat([h.mean(-1), h.amax(-1)], dim=1)
        h = h + nn.functional.gelu(self.context(features))[..., None]
        for up, skip in zip(self.up, reversed(skips), strict=True):
            h = nn.functional.gelu(up(torch.cat([h.repeat_interleave(2, dim=-1), skip], dim=1)))
        shape, (log_variance, log_shift) = self.shape(h), self.uncertainty(h).chunk(2, dim=1)
        return shape[:, :1] + 0.3 * shape[:, 1:], log_variance, log_shift, features


class SpectrumNet(nn.Module):
    """From photons in cells of energy to the shape of the spectrum.

    Parameters
    ----------
    n_cells : int
        E.
    n_features : int
        S.
    """

    def __init__(self, n_cells: int, n_features: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_cells + 3, 128), nn.GELU(), nn.Linear(128, n_features))
        self.head = nn.Sequential(nn.GELU(), nn.Linear(n_features, 128), nn.GELU(), nn.Linear(128, n_cells))

    def forward(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Log of each cell's expected share of the photons, f[N, E], and features, f[N, S], of f[N, E + 3]."""
        features = self.body(spectrum)
        return self.head(features).log_softmax(1), features


class SplitNet(nn.Module):
    """`TimeNet` and `SpectrumNet` side by side.

    Parameters
    ----------
    n_bands, width, blocks : int
        Of `TimeNet`.
    energy_cells, spectral_features : int
        Of `SpectrumNet`.
    """

    def __init__(self, n_bands: int, width: int, blocks: int, energy_cells: int, spectral_features: int) -> None:
        super().__init__()
        self.times = TimeNet(n_bands, width, blocks)
        self.energies = SpectrumNet(energy_cells, spectral_features)

    def forward(self, channels: Tensor, spectrum: Tensor) -> tuple[Tensor, ...]:
        """What `TimeNet` and `SpectrumNet` give, in this order."""
        return *self.times(channels), *self.energies(spectrum)


@dataclass(frozen=True)
class Estimate:
    """What the network says of N detections, in float32.

    Attributes
    ----------
    density : f4[N, B, K]
        f above: of a photon of the source, per unit of exposure.
    level : f4[N, B]
        Expected counts of the source: those seen but for the background's, and half a count.
    contamination : f4[N, B, K]
        Counts that the background is expected to give in the source's region.
    variance, shift : f4[N, B, K]
        Relative variance of the source's rate, and its mean over ``level · density``: a band without a photon may be
        far darker than half a count.
    features : f4[N, F]
        Pooled over time.
    log_share : f4[N, E]
        Log of the expected share of the photons in each cell of energy.
    spectral_features : f4[N, S]
    """

    density: Tensor
    level: Tensor
    contamination: Tensor
    variance: Tensor
    shift: Tensor
    features: Tensor
    log_share: Tensor
    spectral_features: Tensor


def estimate(network: nn.Module, seen: NetworkInput) -> Estimate:
    """Rates of sources, and how sure they are.

    A background region is first read as if it were a detection of its own; the rate found there is what the network
    then knows of the background in the source's region.

    Parameters
    ----------
    network : nn.Module
        A `SplitNet`.
    seen : NetworkInput
        N detections.
    """
    contamination = torch.zeros_like(seen.counts)
    regions = (~seen.scale.isnan()).nonzero()[:, 0]
    if len(regions):
        there = seen.map(lambda value: value[regions])
        with torch.no_grad():
            log_shape = network(
                replace(there, counts=there.background).channels(torch.zeros_like(there.counts)), there.spectrum()
            )[0]
            expected = there.background.sum(-1) / there.scale[:, None]
            rate = expected[..., None] * _density(log_shape.float(), there.exposure)
            contamination[regions] = rate * there.exposure[:, None]
    log_shape, log_variance, log_shift, features, log_share, spectral = network(
        seen.channels(contamination), seen.spectrum()
    )
    n, unwanted = seen.counts.sum(-1), contamination.sum(-1)
    return Estimate(
        _density(log_shape.float(), seen.exposure),
        (n + 0.5 - unwanted).clamp(min=0.5),
        contamination,
        log_variance.float().clamp(*LOG_VARIANCE).exp() + 1 / (n + 1)[..., None],
        log_shift.float().clamp(*_LOG_SHIFT).exp(),
        features.float(),
        log_share.float(),
        spectral.float(),
    )


def _density(log_shape: Tensor, exposure: Tensor) -> Tensor:
    weighted = log_shape + exposure.clamp(min=1e-12).log()[:, None]
    return (log_shape - weighted.logsumexp(-1, keepdim=True)).exp()
