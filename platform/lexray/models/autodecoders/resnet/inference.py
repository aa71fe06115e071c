"""A trained `resnet` autodecoder (PPAD) on new detections: a latent is fitted to each."""

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from lexray.models.autodecoders.likelihood import cell_counts, exposure_shares
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.reconstructor import Encoding, Reconstructor, misfit
from lexray.models.autodecoders.resnet.decoder import ResnetDecoder
from lexray.models.autodecoders.resnet.loss import time_scale
from lexray.models.autodecoders.resnet.training import ResnetSettings, fit_latents, log_prob

#: Cells of a detection in which its misfit is computed.
_BINS = 256
#: Moments in a bin over which the rate is averaged, and the step between them.
_MOMENTS, _GOLDEN = 8, 0.6180339887498949


#: Some detections, and the latents fitted to them.
_Fit: TypeAlias = tuple[Photons, Tensor]


class ResnetReconstructor(Reconstructor[_Fit]):
    """A trained PPAD.

    Parameters
    ----------
    settings : ResnetSettings
    network : ResnetDecoder
    start : f[D]
        Mean latent of the training.
    device : torch.device
    """

    has_bounds = False

    def __init__(self, settings: ResnetSettings, network: ResnetDecoder, start: Tensor, device: torch.device) -> None:
        self.settings, self.start, self._device = settings, start, device
        self._network = network.to(device).eval().requires_grad_(False)
        self.name = f"resnet-{settings.latent_dim}d-{settings.blocks}x{settings.width}"
        self.n_bands, self.n_steps = settings.n_bands, settings.fit_steps
        self.n_features = settings.latent_dim

    def passes(self, photons: Photons) -> Iterator[tuple[Tensor, _Fit]]:
        """See `Reconstructor.passes`."""
        for rows in pieces(len(photons), self.settings.batch_size):
            some = photons.select(rows)
            yield rows, (some, fit_latents(self._network, some, self.settings, self.start))

    def encoding(self, seen: _Fit) -> Encoding:
        """Latents, f4[N, D]: the features as published."""
        photons, latent = seen
        nll = -log_prob(self._network, latent, photons, self.settings)
        (rate,) = self.rates(seen, _BINS, None)
        expected = rate * exposure_shares(photons, _BINS)[:, None]
        return Encoding(latent, nll.float(), misfit(rate, expected, cell_counts(photons, _BINS)))

    def rates(self, seen: _Fit, bins: int, level: float | None) -> Tensor:
        """See `Reconstructor.rates`; the published model has no bounds."""
        photons, latent = seen
        # Means over moments that no octave of the decoder's sines meets in step: samples at equal distances mislead.
        within = (torch.arange(_MOMENTS, dtype=torch.float64) * _GOLDEN + 0.5) % 1.0
        moment = ((torch.arange(bins)[:, None] + within) / bins).flatten()
        scale = time_scale(photons, self.settings.shortest)[:, None]
        time = (photons.duration[:, None] * moment / scale).flatten().to(self._device)
        log_rate = self._network(latent.to(self._device).repeat_interleave(len(moment), 0), time).cpu().double()
        per_unit = log_rate.exp().unflatten(0, (len(scale), bins, _MOMENTS)).mean(2).transpose(1, 2)
        rate: Tensor = per_unit / scale[..., None]
        return rate[None]
