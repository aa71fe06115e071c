r"""`splitnet`: a network that predicts photons held out from the rest, and needs no fit.

Thinning a Poisson process gives two independent processes of the same shape. So each time training meets a detection
its photons are split at random: a part goes in, and the network is scored on how it predicts the others; `training`
has the losses. With :math:`e_k` the exposure of cell k it writes a log-rate :math:`g_b(k)` but for its level, which
makes of a photon in band b the density

.. math:: f_b(k) = \frac{\exp g_b(k)}{\sum_l e_l \exp g_b(l)} .

What predicts held-out photons best over a population is the posterior mean of the rate under that population: there is
no penalty, and no fit.

A U-Net over cells of time makes g. At each of its levels, where cells are twice as long as at the one above, it also
sees what the photons say at that scale: how many there are, how far from the number at a constant rate, and what
`frequency_filter` makes of them. What it pools over time is the detection's representation. A second head says how sure
g is, and a second branch does with the photons' energies what the first does with their times.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.photons import TensorFields
from lexray.models.autodecoders.splitnet.frequency_filter import FrequencyFilter

#: What the network's scalar inputs count from: 28.8 ks over 256 cells, and a typical effective area.
_USUAL_WIDTH, _USUAL_AREA = 112.5, 300.0  # s, cm²
#: Times that the number of cells is halved.
LEVELS = 6
#: Channels of the coarser levels, as multiples of the finest one's.
_WIDTHS = (1, 2, 3, 4, 4, 4, 4)
_N_SCALARS = 4
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
        Good time in each cell, over `width`.
    gap : f4[N, K]
        Before each cell, in seconds; 0 where it touches the one before.
    middle : f4[N, K]
        Of each cell, over `duration`: 0 … 1.
    background : f4[N, B, K]
        Counts of the background region.
    scale : f4[N]
        Expected counts of the background in that region over those in the source's; NaN where there is no region.
    width : f4[N]
        Of a cell, in seconds.
    duration : f4[N]
        In seconds, gaps included.
    area : f4[N]
        Effective area in cm² times the live fraction, mean over the bands; NaN where unknown.
    energies : f4[N, E]
        Counts in logarithmic cells of energy.
    energy_range : f4[N, 2]
        Of these cells, in keV.
    """

    counts: Tensor
    exposure: Tensor
    gap: Tensor
    middle: Tensor
    background: Tensor
    scale: Tensor
    width: Tensor
    duration: Tensor
    area: Tensor
    energies: Tensor
    energy_range: Tensor

    def levels(self, contamination: Tensor) -> list[Tensor]:
        """Channels f4[N, B + 6, K / 2**l] of each level l of `TimeNet`.

        Parameters
        ----------
        contamination : f4[N, B, K]
            Counts that the background gives.

        Notes
        -----
        Counts C of all bands are compared with the M that a source of constant rate and the background would give:
        log (C + ½)/(M + ½), and √(C + ⅜) − √(M + ⅜), whose variance is ¼ at any M (Anscombe 1948). Counts of each band
        are compared with its share of C.
        """
        counts, unwanted, exposure = self.counts, contamination, self.exposure[:, None]
        gap = (self.gap / self.width[:, None]).log1p()[:, None] / 3
        by_band = (counts - unwanted).sum(-1, keepdim=True).clamp(min=0.0)
        n = by_band.sum(1, keepdim=True)
        constant = n / exposure.sum(-1, keepdim=True).clamp(min=1e-12)
        share = (by_band + 0.5) / (n + 0.5 * by_band.shape[1])
        found = []
        for level in range(LEVELS + 1):
            total, below = counts.sum(1, keepdim=True), unwanted.sum(1, keepdim=True)
            mean = constant * exposure + below
            in_band = unwanted + (total - below).clamp(min=0.0) * share
            found.append(
                torch.cat(
                    [
                        ((total + 0.5) / (mean + 0.5)).log(),
                        ((total + 0.375).sqrt() - (mean + 0.375).sqrt()).asinh(),
                        (mean + 1).log() / 3 - 0.5,
                        exposure / 2**level,
                        gap,
                        (below / (mean - below + 0.5)).log1p(),
                        (counts - in_band) / (in_band + 1).sqrt() / 2,
                    ],
                    dim=1,
                )
            )
            if level < LEVELS:
                counts, unwanted, exposure = (_pairs(value).sum(-1) for value in (counts, unwanted, exposure))
                gap = _pairs(gap).amax(-1)
        return found

    def excess(self, contamination: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `FrequencyFilter` sees: counts of all bands less the M of `levels`, M, the cells' middles and width."""
        counts, unwanted = self.counts.sum(1), contamination.sum(1)
        n = (counts - unwanted).sum(1, keepdim=True).clamp(min=0.0)
        mean = n / self.exposure.sum(1, keepdim=True).clamp(min=1e-12) * self.exposure + unwanted
        return counts - mean, mean, self.middle, self.width / self.duration.clamp(min=1e-12)

    def scalars(self, contamination: Tensor) -> Tensor:
        """What `TimeNet` sees of a detection as a whole, f4[N, 4]."""
        n = (self.counts - contamination).sum((1, 2)).clamp(min=0.0)
        area = torch.where(self.area > 0, self.area, _USUAL_AREA)  # unknown, or of an instrument that is blind
        ontime = self.width * self.exposure.sum(-1)
        return torch.stack(
            [
                log_counts(n),
                (self.width / _USUAL_WIDTH).log() / 3,
                (self.duration / ontime.clamp(min=1e-12)).log(),
                (area / _USUAL_AREA).log() / 3,
            ],
            dim=1,
        )

    def spectrum(self) -> Tensor:
        """Input of `SpectrumNet`, f4[N, E + 3]."""
        n = self.energies.sum(1, keepdim=True)
        relative = self.energies / (n + 3) * self.energies.shape[1]
        return torch.cat([relative.log1p() - 0.7, log_counts(n), self.energy_range.log()], dim=1)


def log_counts(n: Tensor) -> Tensor:
    """Logarithm of numbers of photons, brought to the size of a network's other inputs."""
    return (n + 1).log() / 3 - 1.8


def _pairs(value: Tensor) -> Tensor:
    return value.reshape(*value.shape[:-1], -1, 2)


class TimeNet(nn.Module):
    """U-Net from binned photons to the shape of the rate.

    Parameters
    ----------
    n_bands : int
        B.
    width : int
        Channels of the finest level; coarser ones have 2, 3 and 4 times as many.
    blocks : int
        Residual convolutions at the coarsest level.
    """

    def __init__(self, n_bands: int = 3, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.filter = FrequencyFilter()
        sizes, n_channels = [width * factor for factor in _WIDTHS], n_bands + 6 + self.filter.n_curves
        self.n_features = 2 * sizes[-1]
        self.first = nn.Conv1d(n_channels + _N_SCALARS + 1, width, 5, padding=2)
        self.down = nn.ModuleList(nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise(sizes))
        self.counts = nn.ModuleList(nn.Conv1d(n_channels, b, 3, padding=1) for b in sizes[1:])
        self.middle = nn.ModuleList(nn.Conv1d(sizes[-1], sizes[-1], 3, padding=1) for _ in range(blocks))
        self.context = nn.Linear(self.n_features, sizes[-1])
        self.up = nn.ModuleList(nn.Conv1d(a + b, b, 3, padding=1) for a, b in pairwise(reversed(sizes)))
        self.shape = nn.Conv1d(width, 1 + n_bands, 3, padding=1)
        self.uncertainty = nn.Conv1d(width, 2 * n_bands, 3, padding=1)

    def forward(
        self, levels: list[Tensor], scalars: Tensor, excess: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shape, uncertainty and features of binned photons.

        Parameters
        ----------
        levels : list of f[N, B + 6, K / 2**l]
            K a multiple of 64.
        scalars : f[N, 4]
        excess : tuple of Tensor
            What `FrequencyFilter` takes.

        Returns
        -------
        log_shape : f[N, B, K]
        log_variance, log_shift : f[N, B, K]
            Log of the relative variance of the rate beyond that of the counts, and of its mean over what shape and
            counts say.
        features : f[N, 8 width]
            Mean and maximum over time of the coarsest level.
        """
        curves, evidence = self.filter(*excess)
        everywhere = torch.cat([scalars, evidence], dim=1)[:, :, None].expand(-1, -1, levels[0].shape[-1])
        h = nn.functional.gelu(self.first(torch.cat([levels[0], curves, everywhere], dim=1)))
        skips = []
        for down, counts, channels in zip(self.down, self.counts, levels[1:], strict=True):
            skips.append(h)
            curves = _pairs(curves).mean(-1)
            h = nn.functional.gelu(down(h) + counts(torch.cat([channels, curves], dim=1)))
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

    def forward(
        self, levels: list[Tensor], scalars: Tensor, excess: tuple[Tensor, ...], spectrum: Tensor
    ) -> tuple[Tensor, ...]:
        """What `TimeNet` and `SpectrumNet` give, in this order."""
        return *self.times(levels, scalars, excess), *self.energies(spectrum)


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
            log_shape = _predict(network, replace(there, counts=there.background), torch.zeros_like(there.counts))[0]
            expected = there.background.sum(-1) / there.scale[:, None]
            rate = expected[..., None] * _density(log_shape.float(), there.exposure)
            contamination[regions] = rate * there.exposure[:, None]
    log_shape, log_variance, log_shift, features, log_share, spectral = _predict(network, seen, contamination)
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


def _predict(network: nn.Module, seen: NetworkInput, contamination: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = network(
        seen.levels(contamination), seen.scalars(contamination), seen.excess(contamination), seen.spectrum()
    )
    return found


def _density(log_shape: Tensor, exposure: Tensor) -> Tensor:
    weighted = log_shape + exposure.clamp(min=1e-12).log()[:, None]
    return (log_shape - weighted.logsumexp(-1, keepdim=True)).exp()
