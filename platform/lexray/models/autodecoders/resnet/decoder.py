r"""The published Poisson process autodecoder, PPAD (Song et al. 2025, arXiv:2502.01627): its decoder.

A latent of a detection and a scaled time become log-rates in B bands, one moment at a time:

.. math:: \log\lambda_b(t) = f_\theta(z, \gamma(t))_b,\qquad
          \gamma(t) = (t, \sin\pi t, \cos\pi t, \sin 2\pi t, \cos 2\pi t \ldots \sin 2^{11}\pi t, \cos 2^{11}\pi t)

with f a residual network that activates before each layer. The losses are in `loss`, the training in
`training`; docs/ppad.md says what is as published and what is not.
"""

import torch
from torch import Tensor, nn


def positional_encoding(time: Tensor, octaves: int) -> Tensor:
    """γ above: the time itself, then sine and cosine of each octave.

    Parameters
    ----------
    time : f[Q]
        Scaled, 0 … 1. In float64 if it can be: the phase of the twelfth octave is 6,434 at 1, of which float32 leaves
        three decimals.
    octaves : int

    Returns
    -------
    f[Q, 1 + 2 · octaves]
        In the precision of `time`.
    """
    phase = time[:, None] * (torch.pi * 2.0 ** torch.arange(octaves, dtype=time.dtype, device=time.device))
    waves = torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)
    return torch.cat([time[:, None], waves], dim=1)


class ResidualBlock(nn.Module):
    """x + W₁ relu(W₀ relu(x) + b₀) + b₁, the identity at first.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        _initialise(self.first)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(self.first(x.relu()).relu())
        return x + change


class ResnetDecoder(nn.Module):
    """Latent and scaled time → log-rates per unit of scaled time.

    Parameters
    ----------
    latent_dim : int
        D.
    n_bands : int
        B.
    width : int
        Of the residual blocks.
    blocks : int
    octaves : int
        Of the positional encoding.
    """

    def __init__(
        self, latent_dim: int = 8, n_bands: int = 3, width: int = 512, blocks: int = 5, octaves: int = 12
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_bands, self.width, self.octaves = latent_dim, n_bands, width, octaves
        self.enter = nn.Linear(latent_dim + 1 + 2 * octaves, width)
        self.blocks = nn.ModuleList([ResidualBlock(width) for _ in range(blocks)])
        self.leave = nn.Linear(width, n_bands)
        _initialise(self.enter)
        _initialise(self.leave)

    def forward(self, latent: Tensor, time: Tensor) -> Tensor:
        """Log-rates at Q moments, each with a latent of its own: gather them by detection, nothing is padded.

        Parameters
        ----------
        latent : f[Q, D]
        time : f[Q]
            Scaled. Encoded in its own precision, then taken to the network's.

        Returns
        -------
        f[Q, B]
        """
        x = self.enter(torch.cat([latent, positional_encoding(time, self.octaves).to(latent.dtype)], dim=1))
        for block in self.blocks:
            x = block(x)
        log_rate: Tensor = self.leave(x.relu())
        return log_rate


def _initialise(layer: nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
    nn.init.zeros_(layer.bias)
