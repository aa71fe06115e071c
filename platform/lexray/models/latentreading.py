"""What trained `grid` and `resnet` autodecoders say of new detections: a latent is fitted to each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lexray.models.autodecoder import GridLearner, GridSettings, one_thread
from lexray.models.binning import exposure_shares
from lexray.models.grid import GridDecoder
from lexray.models.likelihood import cell_counts, log_likelihood
from lexray.models.photons import Photons
from lexray.models.reconstructor import Encoding, at_bins
from lexray.models.representation import dimension, represent
from lexray.models.resnet import ResnetDecoder
from lexray.models.resnetlearner import ResnetSettings, fit_latents, log_prob
from lexray.models.resnetloss import time_scale

#: Detections fitted at once; enough to fill a core, little enough to stay in its cache's reach.
_BATCH = 256
_BINS = 256
#: Moments in a bin over which PPAD's rate is averaged.
_MOMENTS, _GOLDEN = 8, 0.6180339887498949


class GridReconstructor:
    """A trained `grid` autodecoder.

    Parameters
    ----------
    settings : GridSettings
    network : GridDecoder
    start : f[D]
        Mean latent of the training.
    device : torch.device
        Must be the CPU: the fits are too small for more.
    """

    def __init__(self, settings: GridSettings, network: GridDecoder, start: Tensor, device: torch.device) -> None:
        self.settings, self.start = settings, start
        self._learner = GridLearner(settings, network.eval().requires_grad_(False))

    @property
    def name(self) -> str:
        """'grid' and its sizes."""
        return f"grid-{self.settings.latent_dim}d-{self.settings.n_knots}k"

    @property
    def n_bands(self) -> int:
        """B."""
        return self.settings.n_bands

    @property
    def n_features(self) -> int:
        """F."""
        return dimension(self.n_bands, self.settings.n_knots)

    @property
    def n_steps(self) -> int:
        """Steps of the fit."""
        return self.settings.fit_steps

    def encode(self, photons: Photons) -> Encoding:
        """The rate pooled over time, and the spectrum: see `representation`."""
        features, nll, misfit = [torch.zeros(0, self.n_features)], [torch.zeros(0)], [torch.zeros(0)]
        for batch in _batches(photons):
            log_rate, data = self._learner.fit(batch, self.start)
            features.append(represent(log_rate, batch))
            nll.append(-log_likelihood(log_rate, data) + data.counts.sum(1) * batch.duration.log().float())
            misfit.append(_misfit(at_bins(log_rate, _BINS, centred=False).exp(), batch))
        return Encoding(torch.cat(features), torch.cat(nll), torch.cat(misfit))

    def rates(self, photons: Photons, bins: int) -> Tensor:
        """See `Reconstructor.rates`."""
        rates = [torch.zeros(0, self.n_bands, bins, dtype=torch.float64)]
        for batch in _batches(photons):
            log_rate, _ = self._learner.fit(batch, self.start)
            rates.append((at_bins(log_rate, bins, centred=False) - batch.duration.log()[:, None, None]).exp())
        return torch.cat(rates)

    def intervals(self, photons: Photons, bins: int, level: float) -> tuple[Tensor, Tensor] | None:
        """See `GridLearner.interval`."""
        bounds = [torch.zeros(2, 0, self.n_bands, bins, dtype=torch.float64)]
        for batch in _batches(photons):
            log_bounds = torch.stack(self._learner.interval(batch, self.start, level)).flatten(0, 1)
            at = at_bins(log_bounds, bins, centred=False).reshape(2, len(batch), self.n_bands, bins)
            bounds.append((at - batch.duration.log()[:, None, None]).exp())
        lower, upper = torch.cat(bounds, dim=1)
        return lower, upper


class ResnetReconstructor:
    """A trained PPAD.

    Parameters
    ----------
    settings : ResnetSettings
    network : ResnetDecoder
    start : f[D]
        Mean latent of the training.
    device : torch.device
    """

    def __init__(self, settings: ResnetSettings, network: ResnetDecoder, start: Tensor, device: torch.device) -> None:
        self.settings, self.start = settings, start
        self.network = network.to(device).eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """'resnet' and its sizes."""
        return f"resnet-{self.settings.latent_dim}d-{self.settings.blocks}x{self.settings.width}"

    @property
    def n_bands(self) -> int:
        """B."""
        return self.settings.n_bands

    @property
    def n_features(self) -> int:
        """F: the latent itself, as published."""
        return self.settings.latent_dim

    @property
    def n_steps(self) -> int:
        """Steps of the fit."""
        return self.settings.fit_steps

    def encode(self, photons: Photons) -> Encoding:
        """Latents, f4[N, D]."""
        latent = fit_latents(self.network, photons, self.settings, self.start)
        nll = -log_prob(self.network, latent, photons, self.settings)
        misfit = [torch.zeros(0)]
        for rows in torch.split(torch.arange(len(photons)), _BATCH):
            misfit.append(_misfit(self._rates(latent[rows], photons.select(rows), _BINS), photons.select(rows)))
        return Encoding(latent, nll.float(), torch.cat(misfit))

    def rates(self, photons: Photons, bins: int) -> Tensor:
        """See `Reconstructor.rates`."""
        return self._rates(fit_latents(self.network, photons, self.settings, self.start), photons, bins)

    def _rates(self, latent: Tensor, photons: Photons, bins: int) -> Tensor:
        device = next(self.network.parameters()).device
        # Means over moments that no octave of the decoder's sines meets in step: samples at equal distances mislead.
        within = (torch.arange(_MOMENTS, dtype=torch.float64) * _GOLDEN + 0.5) % 1.0
        moment = ((torch.arange(bins)[:, None] + within) / bins).flatten()
        scale = time_scale(photons, self.settings.shortest)
        rates = [torch.zeros(0, self.n_bands, bins, dtype=torch.float64)]
        for rows in torch.split(torch.arange(len(photons)), self.settings.batch):
            time = (photons.duration[rows, None] * moment / scale[rows, None]).flatten().to(device)
            log_rate = self.network(latent[rows].to(device).repeat_interleave(len(moment), 0), time).cpu().double()
            per_unit = log_rate.exp().unflatten(0, (len(rows), bins, _MOMENTS)).mean(2).transpose(1, 2)
            rates.append(per_unit / scale[rows, None, None])
        return torch.cat(rates)

    def intervals(self, photons: Photons, bins: int, level: float) -> tuple[Tensor, Tensor] | None:
        """None: the published model has none."""
        return None


def _batches(photons: Photons) -> Iterator[Photons]:
    for rows in torch.split(torch.arange(len(photons)), _BATCH):
        if len(rows):
            with one_thread():
                yield photons.select(rows)


def _misfit(rates: Tensor, photons: Photons) -> Tensor:
    """See `Encoding.misfit`; of rates f8[N, B, K] in equal bins, whose level does not matter."""
    counts = cell_counts(photons, rates.shape[-1]).double()
    share = rates * exposure_shares(photons, rates.shape[-1])[:, None]
    share = share / share.sum(-1, keepdim=True)
    typical = counts.sum(-1, keepdim=True) * share
    return ((typical - counts) * rates.clamp(min=1e-300).log()).sum((1, 2)).float()
