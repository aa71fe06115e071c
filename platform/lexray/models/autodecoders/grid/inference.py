"""A trained `grid` autodecoder on new detections: a latent is fitted to each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lexray.models.autodecoders.grid.decoder import GridDecoder
from lexray.models.autodecoders.grid.training import FittedDetections, GridLearner, GridSettings, one_thread
from lexray.models.autodecoders.likelihood import Cells, cell_counts, log_likelihood
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.reconstructor import Encoding, Reconstruction, at_bins, misfit
from lexray.models.autodecoders.representation import dimension, represent

#: Detections fitted at once; enough to fill a core, little enough to stay in its cache's reach.
_BATCH = 256


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
        return self._encodings([self._encoding(*fit) for fit in self._fits(photons)])

    def reconstruct(self, photons: Photons, bins: int, level: float | None = None) -> Reconstruction:
        """See `Reconstructor.reconstruct`; bounds as `GridLearner.interval` says."""
        return self._reconstruction([self._rates(*fit, bins, level) for fit in self._fits(photons)], bins, level)

    def encode_and_reconstruct(
        self, photons: Photons, bins: int, level: float | None = None
    ) -> tuple[Encoding, Reconstruction]:
        """See `Reconstructor.encode_and_reconstruct`."""
        encodings, rates = [], []
        for fit in self._fits(photons):  # each batch's fit is released before the next
            encodings.append(self._encoding(*fit))
            rates.append(self._rates(*fit, bins, level))
        return self._encodings(encodings), self._reconstruction(rates, bins, level)

    def _fits(self, photons: Photons) -> Iterator[tuple[Photons, FittedDetections]]:
        for batch in _batches(photons):
            yield batch, self._learner.fit_detections(batch, self.start)

    def _encoding(self, batch: Photons, fitted: FittedDetections) -> Encoding:
        log_rate, data = fitted.log_rate, fitted.data
        nll = -log_likelihood(log_rate, data) + data.counts.sum(1) * batch.duration.log().float()
        return Encoding(represent(log_rate, batch), nll, _misfit_on_knots(log_rate, batch, data))

    def _encodings(self, batches: Sequence[Encoding]) -> Encoding:
        none = Encoding(torch.zeros(0, self.n_features), torch.zeros(0), torch.zeros(0))
        found = [none, *batches]
        return Encoding(
            torch.cat([e.features for e in found]),
            torch.cat([e.nll for e in found]),
            torch.cat([e.misfit for e in found]),
        )

    def _rates(self, batch: Photons, fitted: FittedDetections, bins: int, level: float | None) -> Tensor:
        """Rates, and with `level` their lower and upper bounds, f8[1 or 3, N, B, bins]."""
        log_rates = [fitted.log_rate]
        if level is not None:
            spread = self._learner.half_width(fitted, level)
            log_rates += [fitted.log_rate - spread, fitted.log_rate + spread]
        in_bins = torch.stack([at_bins(log_rate, bins, centred=False) for log_rate in log_rates])
        return (in_bins - batch.duration.log()[:, None, None]).exp()

    def _reconstruction(self, batches: Sequence[Tensor], bins: int, level: float | None) -> Reconstruction:
        none = torch.zeros(1 if level is None else 3, 0, self.n_bands, bins, dtype=torch.float64)
        return Reconstruction(*torch.cat([none, *batches], dim=1))


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
    return misfit(rate, expected, cell_counts(photons, rate.shape[-1]))
