"""The `grid` decoder: a latent becomes log-rates on knots in time, a shape shared by the bands and their deviations."""

import torch
from torch import Tensor, nn


class GridDecoder(nn.Module):
    """Latent → log-shape of the rate at K knots in B bands.

    An MLP writes coefficients of hat functions on grids of 4, 8 … K knots; coarse ones are scaled up by
    sqrt(4/L), so that the network finds slow changes before fast ones. The basis is linear and is applied as one
    matrix.

    Parameters
    ----------
    latent_dim : int
        D.
    n_bands : int
        B.
    n_knots : int
        K, a power of two, at least 4.
    width : int
        Hidden units.
    """

    basis: Tensor

    def __init__(self, latent_dim: int = 16, n_bands: int = 3, n_knots: int = 256, width: int = 128) -> None:
        super().__init__()
        self.latent_dim, self.n_bands, self.n_knots, self.width = latent_dim, n_bands, n_knots, width
        self.register_buffer("basis", multiscale_hats(n_knots), persistent=False)
        self.body = nn.Sequential(nn.Linear(latent_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.coefficients = nn.Linear(width, (1 + n_bands) * len(self.basis))
        nn.init.normal_(self.coefficients.weight, std=0.1 / width**0.5)
        nn.init.zeros_(self.coefficients.bias)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Shape common to the bands, and each band's deviation from it.

        Parameters
        ----------
        latent : f[N, D]

        Returns
        -------
        mean : f[N, K]
            Mean over the bands of the log-shape.
        deviation : f[N, B, K]
            Log-shape of each band minus that mean.
        """
        coefficients = self.coefficients(self.body(latent)).unflatten(1, (1 + self.n_bands, len(self.basis)))
        return _mean_and_deviation(coefficients @ self.basis)


class FreeCurves(nn.Module):
    """A decoder that has learnt nothing: its latent is the coefficients that `GridDecoder` would write.

    Fitted under the same penalties, it is what those alone make of a single detection.

    Parameters
    ----------
    n_bands : int
        B.
    n_knots : int
        K, a power of two, at least 4.
    """

    basis: Tensor

    def __init__(self, n_bands: int = 3, n_knots: int = 256) -> None:
        super().__init__()
        self.n_bands, self.n_knots = n_bands, n_knots
        self.register_buffer("basis", multiscale_hats(n_knots), persistent=False)
        self.latent_dim = (1 + n_bands) * len(self.basis)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """As `GridDecoder.forward`."""
        return _mean_and_deviation(latent.reshape(len(latent), 1 + self.n_bands, -1) @ self.basis)


def _mean_and_deviation(curves: Tensor) -> tuple[Tensor, Tensor]:
    """From a shared curve and one a band, f[N, 1 + B, K], to their mean over the bands and the deviations from it."""
    shared, bands = curves[:, 0], 0.3 * curves[:, 1:]
    offset = bands.mean(1)
    return shared + offset, bands - offset[:, None]


def multiscale_hats(n_knots: int) -> Tensor:
    """Hat functions of 4, 8 … `n_knots` equidistant knots, sampled at the finest ones.

    Returns
    -------
    f4[4 + 8 + … + n_knots, n_knots]
        Those of L knots scaled by sqrt(4/L).

    Raises
    ------
    ValueError
        If `n_knots` is not a power of two of at least 4.
    """
    if n_knots < 4 or n_knots & (n_knots - 1):
        raise ValueError(f"n_knots must be a power of two of at least 4, got {n_knots}")
    fine = torch.linspace(0.0, 1.0, n_knots, dtype=torch.float64)
    levels = []
    for n in (2**k for k in range(2, n_knots.bit_length())):
        coarse = torch.linspace(0.0, 1.0, n, dtype=torch.float64)[:, None]
        levels.append((4 / n) ** 0.5 * (1 - (fine - coarse).abs() * (n - 1)).clamp(min=0.0))
    return torch.cat(levels).float()


def total_variation(curve: Tensor) -> Tensor:
    """Sum of the absolute changes between neighbouring knots, over the last axis."""
    return curve.diff().abs().sum(-1)
