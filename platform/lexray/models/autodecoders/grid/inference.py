"""A trained `grid` autodecoder on new detections: a latent is fitted to each."""

from collections.abc import Iterator

import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from lexray.models.autodecoders.grid.decoder import GridDecoder
from lexray.models.autodecoders.grid.training import (
    FITTED_AT_ONCE,
    FittedDetections,
    GridLearner,
    GridSettings,
    one_thread,
)
from lexray.models.autodecoders.likelihood import (
    PRIOR_COUNTS,
    Cells,
    cell_counts,
    cell_log_integrals,
    log_likelihood,
)
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.reconstructor import Encoding, Reconstructor, at_bins, misfit
from lexray.models.autodecoders.representation import dimension, represent

#: Detections whose Jacobians are in memory at once: 200 KB each.
_JACOBIANS = 32
#: Standard deviation of a latent's numbers over a training.
_LATENT_SPREAD = 0.3
#: Of the errors of log-rates in units of their estimated standard deviation: Student's degrees of freedom, and scale.
_DEGREES, _HALF_WIDTH = 4, 0.79


class GridReconstructor(Reconstructor[FittedDetections]):
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
        self.start = start
        self._learner = GridLearner(settings, network.eval().requires_grad_(False))
        self.name = f"grid-{settings.latent_dim}d-{settings.n_knots}k"
        self.n_bands, self.n_steps = settings.n_bands, settings.fit_steps
        self.n_features = dimension(settings.n_bands, settings.n_knots)

    def passes(self, photons: Photons) -> Iterator[tuple[Tensor, FittedDetections]]:
        """See `Reconstructor.passes`."""
        with one_thread():
            for rows in pieces(len(photons), FITTED_AT_ONCE):
                yield rows, self._learner.fit_detections(photons.select(rows), self.start)

    def encoding(self, seen: FittedDetections) -> Encoding:
        """The rate pooled over time, and the spectrum: see `representation`."""
        log_rate, data, photons = seen.log_rate, seen.data, seen.photons
        nll = -log_likelihood(log_rate, data) + data.counts.sum(1) * photons.duration.log().float()
        return Encoding(represent(log_rate, photons), nll, _misfit_on_knots(log_rate, photons, data))

    def rates(self, seen: FittedDetections, bins: int, level: float | None) -> Tensor:
        """See `Reconstructor.rates`; bounds as `half_width` says."""
        log_rates = [seen.log_rate]
        if level is not None:
            spread = half_width(self._learner.network, seen, level)
            log_rates += [seen.log_rate - spread, seen.log_rate + spread]
        in_bins = torch.stack([at_bins(log_rate, bins) for log_rate in log_rates])
        return (in_bins - seen.photons.duration.log()[:, None, None]).exp()


def half_width(network: nn.Module, fitted: FittedDetections, probability: float) -> Tensor:
    """Half the width of the pointwise interval of each detection's log-rate.

    Parameters
    ----------
    network : GridDecoder
    fitted : FittedDetections
        N detections.
    probability : float
        Share of the true rates that lie within, over detections like the training's and over time.

    Returns
    -------
    f4[N, B, K]
        At the knots.

    Notes
    -----
    The latent's covariance is that of a Gauss–Newton approximation: the inverse of its Fisher information plus the
    precision of the population's latents. It is carried to the log-rate by the decoder's Jacobian, and the level's
    variance is added. Errors are wider than Gaussian where rates jump: Student's t with 4 degrees of freedom, at a
    scale measured on simulations. It holds for a decoder of the default sizes that was trained on thousands of
    detections; one that cannot draw what it is shown does not know so, and its intervals are too narrow.
    """
    quantile = _HALF_WIDTH * float(stdtrit(_DEGREES, 0.5 + probability / 2))
    parts = [torch.zeros_like(fitted.log_rate[:0])]
    with one_thread(), torch.no_grad():
        for rows in pieces(len(fitted.log_rate), _JACOBIANS):
            log_rate, data = fitted.log_rate[rows], fitted.data.select(rows)
            parts.append(_variance(network, fitted.latent[rows], log_rate, data).sqrt())
    return quantile * torch.cat(parts)


def _variance(network: nn.Module, latent: Tensor, log_rate: Tensor, data: Cells) -> Tensor:
    """Of the log-rate at the knots, f4[N, B, K]."""

    def log_shape(one: Tensor) -> Tensor:
        mean, deviation = network(one[None])
        curves: Tensor = (mean[:, None] + deviation)[0]
        return curves

    jacobian: Tensor = vmap(jacfwd(log_shape))(latent).cpu()
    information = _information(log_rate, data)
    total = information.sum(-1, keepdim=True) + PRIOR_COUNTS
    # The level follows the counts, so that of a shape only its difference from its mean over the photons is left.
    jacobian = jacobian - ((information / total)[..., None] * jacobian).sum(-2, keepdim=True)
    flat = jacobian.flatten(1, 2)
    precision = (flat * information.flatten(1)[..., None]).transpose(1, 2) @ flat
    precision = precision + torch.eye(latent.shape[1]) / _LATENT_SPREAD**2
    covariance = torch.linalg.inv(precision)
    variance: Tensor = ((jacobian @ covariance[:, None]) * jacobian).sum(-1).clamp(min=0.0) + 1 / total
    return variance


def _information(log_rate: Tensor, data: Cells) -> Tensor:
    """Fisher information of the log-rate at each knot, f4[N, B, K]: the source's expected counts where it is alone."""
    expected = cell_log_integrals(log_rate, data.exposure, data.centre).exp()
    known = data.background
    if known is not None:
        source = expected[known.rows]
        share = source / (source + known.expected).clamp(min=1e-20)
        expected = expected.index_copy(0, known.rows, source * share)
    half = expected / 2
    return torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0))


def _misfit_on_knots(log_rate: Tensor, photons: Photons, data: Cells) -> Tensor:
    """See `Encoding.misfit`, of log-rates f4[N, B, K] at knots; of source and background together."""
    exposure = data.exposure[:, None].double()
    rate = at_bins(log_rate, data.exposure.shape[1]).exp()
    expected = rate * exposure
    if data.background is not None:
        rows = data.background.rows
        expected[rows] += data.background.expected
        rate[rows] += data.background.expected / exposure[rows].clamp(min=1e-6)
    return misfit(rate, expected, cell_counts(photons, rate.shape[-1]))
