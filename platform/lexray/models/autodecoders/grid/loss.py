"""Loss of the `grid` autodecoder: the likelihood of a detection's photons, and penalties on rough rates."""

from dataclasses import dataclass

from torch import Tensor, nn

from lexray.models.autodecoders.grid.decoder import total_variation
from lexray.models.autodecoders.likelihood import Cells, profile_log_likelihood
from lexray.models.settings import setting


@dataclass(frozen=True)
class GridPenaltyWeights:
    """Weights of the penalties, relative to the log-likelihood in nats.

    Attributes
    ----------
    tv_mean, tv_deviation : float
        Total variation of the log-rate's mean over the bands, and of the bands' deviations from it.
    latent : float
        Squared norm of the latent.
    """

    tv_mean: float = setting(0.5, "total variation of the log-rate's mean over the bands", ge=0)
    tv_deviation: float = setting(20.0, "total variation of each band's deviation from that mean", ge=0)
    latent: float = setting(0.02, "squared norm of the latent", ge=0)

    def stiffer(self, factor: float) -> "GridPenaltyWeights":
        """With `factor` on both penalties of total variation."""
        return GridPenaltyWeights(factor * self.tv_mean, factor * self.tv_deviation, self.latent)


def losses(decoder: nn.Module, latent: Tensor, data: Cells, penalties: GridPenaltyWeights) -> Tensor:
    """Penalised negative log-likelihood of each detection, levels profiled out.

    Parameters
    ----------
    decoder : GridDecoder or FreeCurves
    latent : f[N, D]
    data : Cells
        N detections.
    penalties : GridPenaltyWeights

    Returns
    -------
    f[N]
        In nats. Divide a sum of these by a number of photons, never a mean over detections by another: a source's
        penalty must not depend on its company.
    """
    mean, deviation = decoder(latent)
    mean, deviation = mean.float(), deviation.float()
    fit = profile_log_likelihood(mean[:, None] + deviation, data)
    roughness = penalties.tv_mean * total_variation(mean) + penalties.tv_deviation * total_variation(deviation).sum(1)
    return roughness + penalties.latent * latent.square().sum(1) - fit
