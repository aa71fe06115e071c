"""What a trained `splitnet` says of new detections: one pass of its network, and no fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv, ndtr, stdtrit
from torch import Tensor

from lexray.models.autodecoders.compression import Compression
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.reconstructor import Encoding, Reconstructor
from lexray.models.autodecoders.splitnet.binning import BinnedPhotons, bin_photons
from lexray.models.autodecoders.splitnet.network import LOG_VARIANCE, Estimate, SplitNet, estimate
from lexray.models.autodecoders.splitnet.summary import N_SUMMARY, rate_summary
from lexray.models.autodecoders.splitnet.time_cells import TimeCells
from lexray.models.autodecoders.splitnet.training import SplitnetSettings

#: Degrees of freedom of the Student's t whose standardised quantiles, times a factor, stand for the normal ones in
#: intervals. The Gamma distribution has about the right variance, but rates are mostly better known than that, and at
#: edges far worse: with these intervals of 68 % and of 95 % both hold what they promise, on simulations (decision
#: records 8 and 15).
_FREEDOM, _DEVIATIONS = 7, 0.945
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
    compression : Compression, optional
        Of the features of time; without it all of them stand in the representation.
    """

    def __init__(
        self,
        settings: SplitnetSettings,
        network: SplitNet,
        device: torch.device,
        compression: Compression | None = None,
    ) -> None:
        self._device, self._settings = device, settings
        self._compression = None if compression is None else compression.to(device)
        self._network = network.to(device).eval().requires_grad_(False)
        self.name = f"splitnet-{settings.width}w-{settings.blocks}b"
        self.n_bands = settings.n_bands
        of_time = network.times.n_features if compression is None else len(compression.axes)
        self.n_features = N_SUMMARY + of_time + settings.spectral_features

    def passes(self, photons: Photons) -> Iterator[tuple[Tensor, _Read]]:
        """See `Reconstructor.passes`."""
        groups, size, _ = bin_photons(photons)
        for k, data in groups.items():
            rows = (size == k).nonzero()[:, 0]
            for some in pieces(len(rows), max(1, _CELLS_AT_ONCE // k)):
                chosen = data.select(some).to(self._device)
                yield rows[some], _Read(chosen, estimate(self._network, chosen.seen()))

    def encoding(self, seen: _Read) -> Encoding:
        """What the rate shows, pooled features and the spectrum's, side by side, f4[N, F]."""
        found = seen.found
        of_time = found.features if self._compression is None else self._compression(found.features)
        summary = rate_summary(found.level[..., None] * found.density, seen.data.cells.exposure)
        features = torch.cat([summary, of_time, found.spectral_features], dim=1)
        nll, misfit = _fit_of(seen.data, seen.found)
        return Encoding(features.cpu(), nll.float().cpu(), misfit.float().cpu())

    def compressed(self, photons: Photons) -> "tuple[SplitnetReconstructor, Compression]":
        """See `Reconstructor.compressed`."""
        features = torch.cat([seen.found.features.cpu() for _, seen in self.passes(photons)])
        found = Compression.learn(features)
        return SplitnetReconstructor(self._settings, self._network, self._device, found), found

    def rates(self, seen: _Read, bins: int, level: float | None) -> Tensor:
        """See `Reconstructor.rates`; bounds are central, of a Gamma distribution with heavier tails."""
        log_rate = _log_rate(seen)
        curves = [log_rate]
        if level is not None:
            mean = log_rate + seen.found.shift.log()
            standardised = stdtrit(_FREEDOM, (1 + level) / 2) * ((_FREEDOM - 2) / _FREEDOM) ** 0.5
            half_width = _DEVIATIONS * standardised
            for deviations in (-half_width, half_width):
                curves.append(mean + log_gamma_quantile(seen.found.variance, float(ndtr(deviations))))
        cells = seen.data.cells.to(torch.device("cpu"))
        return torch.stack(
            [
                rates_in_bins(curve.cpu().double().exp(), cells, bins, in_gap)
                for curve, in_gap in zip(curves, IN_GAP, strict=False)
            ]
        )

    def at_full_resolution(self, photons: Photons) -> list[tuple[Tensor, Tensor]]:
        """See `Reconstructor.at_full_resolution`; in a gap the rate is that of the cell before it."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for rows, seen in self.passes(photons):
            rate, cells = _log_rate(seen).cpu().double().exp(), seen.data.cells.to(torch.device("cpu"))
            for row, r, begin, end, used in zip(
                rows.tolist(), rate, cells.begin, cells.end, cells.exposure > 0, strict=True
            ):
                edges = torch.stack([begin[used], end[used]], 1).flatten()
                # Two edges for each cell, one where it touches the next.
                apart = torch.cat([edges.diff() > 0, torch.ones(1, dtype=torch.bool)])
                found[row] = edges[apart], r[:, used].repeat_interleave(2, 1)[:, apart][:, :-1]
        return [found[row] for row in range(len(photons))]


def _fit_of(data: BinnedPhotons, found: Estimate) -> tuple[Tensor, Tensor]:
    """`nll` and `misfit` of each detection, f8[N], source and background together, of arrival times in seconds."""
    counts, exposure = data.counts().double(), data.cells.exposure[:, None].double()
    source, background_rate = found.level[..., None] * found.density, found.contamination / exposure.clamp(min=1e-6)
    log_rate = (source + background_rate).clamp(min=1e-30).log() - data.cells.width.double().log()[:, None, None]
    expected = source * exposure + found.contamination
    seen = (counts * log_rate).sum((1, 2))
    # Of as many photons in each band as were seen, dealt over the cells as the rate says.
    share = expected / expected.sum(-1, keepdim=True)
    typical = (counts.sum(-1, keepdim=True) * share * log_rate).sum((1, 2))
    return expected.sum((1, 2)) - seen, typical - seen


def _log_rate(read: _Read) -> Tensor:
    """Log-rate of the source in each cell, f4[N, B, K] in log(ct/s)."""
    per_second = read.found.level / read.data.cells.width[:, None]
    return per_second.log()[..., None] + read.found.density.clamp(min=1e-30).log()


#: What stands in a bin without good time, of the logarithms in the cells on both sides of the gap and of how far from
#: the one to the other the bin lies, 0 … 1.
IN_GAP: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "between": lambda left, right, way: torch.lerp(left, right, way),
    "smaller": lambda left, right, way: torch.minimum(left, right),
    "larger": lambda left, right, way: torch.maximum(left, right),
}


def rates_in_bins(rate: Tensor, cells: TimeCells, bins: int, in_gap: str = "between") -> Tensor:
    """Mean rates during the good time of equal bins, f8[N, B, bins].

    Parameters
    ----------
    rate : f8[N, B, K]
        In each cell.
    cells : TimeCells
    bins : int
        From 0 to the end of the last good time.
    in_gap : str
        Of `IN_GAP`.
    """
    n_bands, k = rate.shape[1:]
    good = cells.exposure.double() * cells.width.double()[:, None]
    stop = cells.end.amax(1, keepdim=True)
    edges = torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64) * stop
    # Each edge lies in a cell or in the gap after it; what counts is the share of that cell before it.
    cell = (torch.searchsorted(cells.begin, edges, right=True) - 1).clamp(0, k - 1)
    begin, end = cells.begin.gather(1, cell), cells.end.gather(1, cell)
    share = ((edges - begin) / (end - begin).clamp(min=1e-12)).clamp(0.0, 1.0)

    def until(value: Tensor) -> Tensor:
        """Integral of `value`, f8[N, B, K] a cell, up to each edge."""
        before = value.cumsum(-1) - value
        place = cell[:, None].expand(-1, value.shape[1], -1)
        return before.gather(2, place) + share[:, None] * value.gather(2, place)

    seconds = until(good[:, None]).diff()
    mean = until(rate * good[:, None]).diff() / seconds.clamp(min=1e-12)
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    left = (torch.searchsorted(cells.begin, middle, right=True) - 1).clamp(0, k - 1)
    right = torch.minimum(left + 1, (cells.exposure > 0).sum(1, keepdim=True) - 1).clamp(min=0)
    right = torch.maximum(right, left)
    start, width = cells.end.gather(1, left), cells.begin.gather(1, right) - cells.end.gather(1, left)
    way = ((middle - start) / width.clamp(min=1e-12)).clamp(0.0, 1.0)[:, None].expand(-1, n_bands, -1)
    log_rate = rate.clamp(min=1e-300).log()
    before, after = (log_rate.gather(2, side[:, None].expand(-1, n_bands, -1)) for side in (left, right))
    return torch.where(seconds > 1e-9 * stop[:, None] / bins, mean, IN_GAP[in_gap](before, after, way).exp())


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
