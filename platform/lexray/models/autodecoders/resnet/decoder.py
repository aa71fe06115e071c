r"""The published Poisson process autodecoder, PPAD (Song et al. 2025, arXiv:2502.01627): its decoder.

A latent of a detection and a scaled time become log-rates in B bands, one moment at a time:

.. math:: \log\lambda_b(t) = f_\theta(z, \gamma(t))_b,\qquad
          \gamma(t) = (t, \sin\pi t, \cos\pi t, \sin 2\pi t, \cos 2\pi t \ldots \sin 2^{11}\pi t, \cos 2^{11}\pi t)

with f a residual network that activates before each layer. The losses are in `loss`, the training in
`training`; docs/ppad.md says what is as published and what is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

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

    def log_rate(self, latent: Tensor, time: Tensor) -> Tensor:
        """Log-rates of M detections, each at the same K moments.

        Parameters
        ----------
        latent : f[M, D]
        time : f[K]
            Scaled. Subtract the log of the scale in seconds from the result for counts/s.

        Returns
        -------
        f[M, B, K]
        """
        m, k = len(latent), len(time)
        log_rate: Tensor = self(latent.repeat_interleave(k, 0), time.repeat(m))
        return log_rate.reshape(m, k, self.n_bands).transpose(1, 2)


class Ppad(NamedTuple):
    """What a checkpoint of the authors' code holds.

    Attributes
    ----------
    decoder : ResnetDecoder
    latent : f[N, D]
        Of the N detections it was trained on, in the order of their data; N is 0 where the state holds none. Their mean
        is where the search for a new detection's latent begins.
    """

    decoder: ResnetDecoder
    latent: Tensor


def from_ppad(state: Mapping[str, Tensor]) -> Ppad:
    r"""A decoder with the weights of the authors' code (`AutoDecoder` of github.com/villrv/ppae).

    Sizes follow from the shapes, so that any of their trainings loads. Only tensors are taken: read the file with
    ``torch.load(path, weights_only=True)["state_dict"]``.

    Parameters
    ----------
    state : mapping of str to Tensor
        For D latent dimensions, B bands, width H, L octaves and block i of 0 … n − 1 (published: 8, 3, 512, 12, 5):

        ============================= ================= ===========================================================
        name                          shape             ours
        ============================= ================= ===========================================================
        ``latent``                    [N, D]            `Ppad.latent`; may be missing
        ``code._freqs``               [1, 1, 2L]        π 2^k, each twice; no parameter, compared with ours
        ``code._phases``              [1, 1, 2L]        0 and π/2 in turn: sine, cosine; no parameter, compared
        ``decoder.lin_in.weight``     [H, D + 1 + 2L]   ``enter.weight``; columns: latent, t, sine and cosine by octave
        ``decoder.lin_in.bias``       [H]               ``enter.bias``
        ``decoder.blocks.i.fc_0.*``   [H, H], [H]       ``blocks.i.first.*``
        ``decoder.blocks.i.fc_1.*``   [H, H], [H]       ``blocks.i.second.*``
        ``decoder.lin_out.weight``    [B, H]            ``leave.weight``; bands from soft to hard
        ``decoder.lin_out.bias``      [B]               ``leave.bias``
        ============================= ================= ===========================================================

    Returns
    -------
    Ppad
        In the precision of the state.

    Raises
    ------
    ValueError
        If a name is missing or unknown, or a shape or a frequency is not as above.
    """
    if "state_dict" in state:
        raise ValueError("this is a whole checkpoint: pass its 'state_dict'")
    decoder = _decoder_of_shapes(state)
    names = {_authors_name(ours): ours for ours in decoder.state_dict()}
    buffers = _encoding_buffers(decoder.octaves)
    unknown = sorted(state.keys() - names.keys() - buffers.keys() - {"latent"})
    missing = sorted((names.keys() | buffers.keys()) - state.keys())
    if unknown or missing:
        said = [f"{what} {', '.join(found)}" for what, found in (("missing", missing), ("unknown", unknown)) if found]
        raise ValueError(f"not a PPAD state: {'; '.join(said)}")

    latent = state.get("latent", torch.zeros(0, decoder.latent_dim))
    expected = {theirs: decoder.state_dict()[ours].shape for theirs, ours in names.items()}
    expected |= {name: value.shape for name, value in buffers.items()}
    expected |= {"latent": torch.Size([len(latent) if latent.ndim else 0, decoder.latent_dim])}
    for name, tensor in state.items():
        if tensor.shape != expected[name]:
            raise ValueError(f"not a PPAD state: {name} is {list(tensor.shape)}, expected {list(expected[name])}")
    for name, value in buffers.items():
        if not torch.allclose(state[name].double(), value, rtol=1e-5):
            raise ValueError(f"not a PPAD state: {name} holds another positional encoding")

    decoder.to(state["decoder.lin_in.weight"].dtype)
    decoder.load_state_dict({ours: state[theirs] for theirs, ours in names.items()})
    return Ppad(decoder, latent.detach().clone())


def _decoder_of_shapes(state: Mapping[str, Tensor]) -> ResnetDecoder:
    """A decoder of the sizes that the state's first and last layer have."""
    sizes = {}
    for name, dimensions in (("code._freqs", 3), ("decoder.lin_in.weight", 2), ("decoder.lin_out.weight", 2)):
        if name not in state:
            raise ValueError(f"not a PPAD state: missing {name}")
        if state[name].ndim != dimensions:
            raise ValueError(f"not a PPAD state: {name} has {state[name].ndim} dimensions, expected {dimensions}")
        sizes[name] = state[name].shape
    octaves = sizes["code._freqs"][-1] // 2
    width, entering = sizes["decoder.lin_in.weight"]
    latent_dim = entering - 1 - 2 * octaves
    if latent_dim < 1:
        raise ValueError(f"not a PPAD state: {entering} inputs leave no latent besides {octaves} octaves")
    numbers = {int(found[1]) for name in state if (found := re.match(r"decoder\.blocks\.(\d+)\.", name))}
    return ResnetDecoder(latent_dim, sizes["decoder.lin_out.weight"][0], width, len(numbers), octaves)


def _authors_name(ours: str) -> str:
    for mine, theirs in (("enter", "lin_in"), ("leave", "lin_out"), ("first", "fc_0"), ("second", "fc_1")):
        ours = ours.replace(mine, theirs)
    return f"decoder.{ours}"


def _encoding_buffers(octaves: int) -> dict[str, Tensor]:
    """What the authors' positional encoding keeps; it has no parameters."""
    frequency = (torch.pi * 2.0 ** torch.arange(octaves, dtype=torch.float64)).repeat_interleave(2)
    phase = torch.tensor([0.0, torch.pi / 2], dtype=torch.float64).repeat(octaves)
    return {"code._freqs": frequency.reshape(1, 1, -1), "code._phases": phase.reshape(1, 1, -1)}


def _initialise(layer: nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
    nn.init.zeros_(layer.bias)
