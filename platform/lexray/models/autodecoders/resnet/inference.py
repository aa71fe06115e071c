"""A trained `resnet` autodecoder (PPAD) on new detections: a latent is fitted to each."""

import torch
from torch import Tensor

from lexray.models.autodecoders.likelihood import cell_counts
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.reconstructor import Encoding, Reconstruction, misfit
from lexray.models.autodecoders.resnet.decoder import ResnetDecoder
from lexray.models.autodecoders.resnet.loss import time_scale
from lexray.models.autodecoders.resnet.training import ResnetSettings, fit_latents, log_prob
from lexray.models.autodecoders.splitnet.binning import exposure_shares

#: Detections whose misfit is computed at once, and cells of each.
_BATCH, _BINS = 256, 256
#: Moments in a bin over which the rate is averaged, and the step between them.
_MOMENTS, _GOLDEN = 8, 0.6180339887498949


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
        return self._encoding(fit_latents(self.network, photons, self.settings, self.start), photons)

    def _encoding(self, latent: Tensor, photons: Photons) -> Encoding:
        nll = -log_prob(self.network, latent, photons, self.settings)
        misfits = [torch.zeros(0)]
        for rows in torch.split(torch.arange(len(photons)), _BATCH):
            some = photons.select(rows)
            rate = self._rates(latent[rows], some, _BINS)
            expected = rate * exposure_shares(some, _BINS)[:, None]
            misfits.append(misfit(rate, expected, cell_counts(some, _BINS)))
        return Encoding(latent, nll.float(), torch.cat(misfits))

    def reconstruct(self, photons: Photons, bins: int, level: float | None = None) -> Reconstruction:
        """See `Reconstructor.reconstruct`; the published model has no bounds."""
        latent = fit_latents(self.network, photons, self.settings, self.start)
        return Reconstruction(self._rates(latent, photons, bins))

    def encode_and_reconstruct(
        self, photons: Photons, bins: int, level: float | None = None
    ) -> tuple[Encoding, Reconstruction]:
        """See `Reconstructor.encode_and_reconstruct`."""
        latent = fit_latents(self.network, photons, self.settings, self.start)
        return self._encoding(latent, photons), Reconstruction(self._rates(latent, photons, bins))

    def _rates(self, latent: Tensor, photons: Photons, bins: int) -> Tensor:
        device = next(self.network.parameters()).device
        # Means over moments that no octave of the decoder's sines meets in step: samples at equal distances mislead.
        within = (torch.arange(_MOMENTS, dtype=torch.float64) * _GOLDEN + 0.5) % 1.0
        moment = ((torch.arange(bins)[:, None] + within) / bins).flatten()
        scale = time_scale(photons, self.settings.shortest)
        rates = [torch.zeros(0, self.n_bands, bins, dtype=torch.float64)]
        for rows in torch.split(torch.arange(len(photons)), self.settings.batch_size):
            time = (photons.duration[rows, None] * moment / scale[rows, None]).flatten().to(device)
            log_rate = self.network(latent[rows].to(device).repeat_interleave(len(moment), 0), time).cpu().double()
            per_unit = log_rate.exp().unflatten(0, (len(rows), bins, _MOMENTS)).mean(2).transpose(1, 2)
            rates.append(per_unit / scale[rows, None, None])
        return torch.cat(rates)
