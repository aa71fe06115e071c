"""What trained `grid` and `resnet` autodecoders say of new detections: a latent is fitted to each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lexray.models.autodecoders.grid.decoder import GridDecoder
from lexray.models.autodecoders.grid.training import GridLearner, GridSettings, one_thread
from lexray.models.autodecoders.likelihood import Cells, cell_counts, log_likelihood
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.reconstructor import Encoding, Reconstruction, at_bins
from lexray.models.autodecoders.representation import dimension, represent
from lexray.models.autodecoders.resnet.decoder import ResnetDecoder
from lexray.models.autodecoders.resnet.loss import time_scale
from lexray.models.autodecoders.resnet.training import ResnetSettings, fit_latents, log_prob
from lexray.models.autodecoders.splitnet.binning import exposure_shares

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
            misfit.append(_misfit_on_knots(log_rate, batch, data))
        return Encoding(torch.cat(features), torch.cat(nll), torch.cat(misfit))

    def reconstruct(self, photons: Photons, bins: int, level: float | None = None) -> Reconstruction:
        """See `Reconstructor.reconstruct`; bounds as `GridLearner.interval` says."""
        found = [torch.zeros(1 if level is None else 3, 0, self.n_bands, bins, dtype=torch.float64)]
        for batch in _batches(photons):
            if level is None:
                log_rates = self._learner.fit(batch, self.start)[0][None]
            else:
                lower, upper = self._learner.interval(batch, self.start, level)
                log_rates = torch.stack([(lower + upper) / 2, lower, upper])  # symmetric in the log-rate
            in_bins = torch.stack([at_bins(log_rate, bins, centred=False) for log_rate in log_rates])
            found.append((in_bins - batch.duration.log()[:, None, None]).exp())
        return Reconstruction(*torch.cat(found, dim=1))


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
            some = photons.select(rows)
            rate = self._rates(latent[rows], some, _BINS)
            expected = rate * exposure_shares(some, _BINS)[:, None]
            misfit.append(_misfit(rate, expected, cell_counts(some, _BINS)))
        return Encoding(latent, nll.float(), torch.cat(misfit))

    def reconstruct(self, photons: Photons, bins: int, level: float | None = None) -> Reconstruction:
        """See `Reconstructor.reconstruct`; the published model has no bounds."""
        latent = fit_latents(self.network, photons, self.settings, self.start)
        return Reconstruction(self._rates(latent, photons, bins))

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


def _batches(photons: Photons) -> Iterator[Photons]:
    for rows in torch.split(torch.arange(len(photons)), _BATCH):
        if len(rows):
            with one_thread():
                yield photons.select(rows)


def _misfit_on_knots(log_rate: Tensor, photons: Photons, data: Cells) -> Tensor:
    """See `Encoding.misfit`, of log-rates f4[N, B, K] at knots; of source and background together."""
    exposure = data.exposure[:, None].double()
    rate = at_bins(log_rate, data.exposure.shape[1], centred=False).exp()
    expected = rate * exposure
    if data.background is not None:
        rows = data.background.rows
        expected[rows] += data.background.expected
        rate[rows] += data.background.expected / exposure[rows].clamp(min=1e-6)
    return _misfit(rate, expected, cell_counts(photons, rate.shape[-1]))


def _misfit(rate: Tensor, expected: Tensor, counts: Tensor) -> Tensor:
    """See `Encoding.misfit`: of rates, expected counts and counts f[N, B, K] in cells, whatever the rates' unit."""
    share = expected / expected.sum(-1, keepdim=True)
    typical = counts.sum(-1, keepdim=True) * share
    return ((typical - counts) * rate.clamp(min=1e-300).log()).sum((1, 2)).float()
