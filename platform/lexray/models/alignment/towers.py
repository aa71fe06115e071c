"""Two towers that bring X-ray features and text vectors to the unit sphere of one space.

A tower standardises its features with what it learnt of the training set, then applies a small perceptron. With a few
hundred sources the variance between two fits is larger than what most choices of size or rate change, so a tower is
several independent members: the embedding is their unit vectors side by side, divided by the root of their number, so
that the cosine in the shared space is the mean of the members' cosines.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_WEIGHTS, _DESCRIPTION = "alignment.safetensors", "alignment.json"
#: Rows that go through a tower at a time where NumPy arrays of any length are embedded.
_ROWS = 8192


class Standardisation(nn.Module):
    """Affine map x → (x − mean) W, fitted once and then kept with the weights as buffers.

    Parameters
    ----------
    n_features, n_components : int
        F and K.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, n_features: int, n_components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("projection", torch.eye(n_features, n_components))

    def fit_scale(self, x: Tensor) -> None:
        """Zero mean and unit variance of each feature of x[N, F]; needs K = F. Constant features become 0."""
        deviation = x.double().std(0)
        scale = torch.where(deviation > 1e-6, 1 / deviation.clamp(min=1e-6), torch.zeros_like(deviation))
        self.load_state_dict({"mean": x.double().mean(0), "projection": torch.diag(scale)})

    def fit_whitening(self, x: Tensor, shrinkage: float) -> None:
        """Principal components of x[N, F], nearly of unit variance.

        Component k of variance w_k is divided by sqrt(w_k + shrinkage × mean w), so that the faint ones, which few
        sources cannot tell from noise, are not blown up to the size of the leading ones.
        """
        mean = x.double().mean(0)
        _, singular, components = torch.linalg.svd(x.double() - mean, full_matrices=False)
        n_components = min(self.projection.shape[1], len(singular))
        variance = singular[:n_components] ** 2 / max(len(x) - 1, 1)
        floor = shrinkage * variance.mean() + 1e-12
        projection = torch.zeros(self.projection.shape, dtype=torch.float64)
        projection[:, :n_components] = components[:n_components].T / torch.sqrt(variance + floor)
        self.load_state_dict({"mean": mean, "projection": projection})

    def forward(self, x: Tensor) -> Tensor:
        """x[N, F] → [N, K]."""
        return (x - self.mean) @ self.projection


@dataclass(frozen=True)
class Regularisation:
    """What disturbs a tower while it is trained; all 0 for none.

    Attributes
    ----------
    input_dropout, dropout : float
        Shares of the standardised features and of the hidden units that are set to 0.
    noise : float
        Standard deviation of what is added to the standardised features.
    """

    input_dropout: float = 0.0
    dropout: float = 0.0
    noise: float = 0.0


class Tower(nn.Module):
    """Features → M unit vectors of E/M numbers.

    Parameters
    ----------
    n_features, n_components : int
        F features, of which the standardisation keeps K.
    hidden : int
        Units H of the hidden layer.
    dimension : int
        E, a multiple of `members`.
    members : int
        M.
    generator : torch.Generator
        Draws the weights.
    """

    def __init__(
        self, n_features: int, n_components: int, hidden: int, dimension: int, members: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.standardise = Standardisation(n_features, n_components)
        self.weight_in = _weight(members, n_components, hidden, generator)
        self.bias_in = nn.Parameter(torch.zeros(members, 1, hidden))
        self.weight_out = _weight(members, hidden, dimension // members, generator)

    def forward(
        self, x: Tensor, regularisation: Regularisation | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """x[N, F] → [M, N, E/M], each row a unit vector; undisturbed where no regularisation is given."""
        how = regularisation or Regularisation()
        x = self.standardise(x).expand(len(self.weight_in), -1, -1)
        if how.noise:
            x = x + how.noise * torch.randn(x.shape, generator=generator, device=x.device)
        x = _dropout(x, how.input_dropout, generator)
        hidden = nn.functional.gelu(x @ self.weight_in + self.bias_in)
        return nn.functional.normalize(_dropout(hidden, how.dropout, generator) @ self.weight_out, dim=-1)


def _weight(members: int, n_in: int, n_out: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(members, n_in, n_out, generator=generator) / math.sqrt(n_in))


def _dropout(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Dropout that draws from an explicit generator, which torch's own cannot."""
    if not share:
        return x
    return x * (torch.rand(x.shape, generator=generator, device=x.device) >= share) / (1 - share)


@dataclass(frozen=True)
class Sizes:
    """Everything that fixes the shapes of `Towers`.

    Attributes
    ----------
    latent_dim, n_bands, text_dim : int
        D and B of the X-ray features (latent, log-rates by band) and T of the text vectors.
    text_components : int
        Principal components of the text vectors that are used.
    hidden, dimension, members : int
        As for `Tower`, the same in both.
    """

    latent_dim: int
    n_bands: int
    text_dim: int
    text_components: int
    hidden: int
    dimension: int
    members: int


class Towers(nn.Module):
    """The alignment: a tower for X-ray features, a tower for text vectors, and the temperature learned with them.

    Parameters
    ----------
    sizes : Sizes
    temperature : float
        Where the learned temperature starts.
    generator : torch.Generator
        Draws the weights.
    """

    def __init__(self, sizes: Sizes, temperature: float, generator: torch.Generator) -> None:
        super().__init__()
        if sizes.dimension % sizes.members:
            raise ValueError(f"dimension {sizes.dimension} is no multiple of members {sizes.members}")
        self.sizes = sizes
        self.made_with: dict[str, str] = {}
        n_xray = sizes.latent_dim + sizes.n_bands
        shape = sizes.hidden, sizes.dimension, sizes.members, generator
        self.xray = Tower(n_xray, n_xray, *shape)
        self.text = Tower(sizes.text_dim, min(sizes.text_components, sizes.text_dim), *shape)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(
        self,
        xray: Tensor,
        text: Tensor,
        regularisation: Regularisation | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """xray[N, D+B], text[N, T] → two [M, N, E/M] and the logarithm of 1/temperature."""
        return self.xray(xray, regularisation, generator), self.text(text, regularisation, generator), self.log_scale

    def embed_xray(self, latent: np.ndarray, log_rate: np.ndarray) -> np.ndarray:
        """Detections in the shared space.

        Parameters
        ----------
        latent : f4[N, D]
            As the autodecoder of the training encoded them.
        log_rate : f4[N, B]
            Mean log count rates by band, log(ct/s).

        Returns
        -------
        f4[N, E]
            Unit vectors.

        Raises
        ------
        ValueError
            If D or B are not the training's.
        """
        _expect("latents", latent, self.sizes.latent_dim)
        _expect("log-rates", log_rate, self.sizes.n_bands)
        return _embed(self.xray, np.concatenate([latent, log_rate], axis=1))

    def embed_text(self, vectors: np.ndarray) -> np.ndarray:
        """Text vectors f4[N, T] in the shared space: unit vectors f4[N, E].

        Raises
        ------
        ValueError
            If T is not the training's.
        """
        _expect("text vectors", vectors, self.sizes.text_dim)
        return _embed(self.text, vectors)

    def save(self, folder: str | Path, made_with: Mapping[str, str] | None = None) -> None:
        """Write weights and description into a folder.

        Parameters
        ----------
        folder : path
            Made where it does not exist.
        made_with : mapping, optional
            Names to remember, such as the text model's; they come back as `made_with`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / _WEIGHTS)
        description = {"format": 1, "sizes": asdict(self.sizes), "made_with": dict(made_with or self.made_with)}
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Towers":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no alignment in the folder.
        """
        description = json.loads((Path(folder) / _DESCRIPTION).read_text())
        towers = cls(Sizes(**description["sizes"]), 1.0, torch.Generator())
        towers.load_state_dict(load_file(Path(folder) / _WEIGHTS))
        towers.made_with = description["made_with"]
        return towers


def join_members(vectors: Tensor) -> Tensor:
    """[M, N, E/M] unit vectors of the members → [N, E] unit vectors of the shared space."""
    return vectors.transpose(0, 1).flatten(1) / math.sqrt(len(vectors))


def _expect(what: str, array: np.ndarray, width: int) -> None:
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{what} of shape {array.shape} given, the alignment was trained on [N, {width}]")


@torch.inference_mode()
def _embed(tower: Tower, x: np.ndarray) -> np.ndarray:
    device = tower.weight_in.device
    rows = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    done = [join_members(tower(chunk.to(device))).cpu() for chunk in torch.split(rows, _ROWS)]
    return torch.cat(done).numpy() if done else np.empty((0, tower.weight_out.shape[2] * len(tower.weight_in)), "f4")
