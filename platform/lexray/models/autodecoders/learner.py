"""What the trainer needs of a model: the one interface that autodecoders of every type are trained through."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lexray.models.autodecoders.photons import Photons
from lexray.models.settings import setting

Data = TypeVar("Data")
Sample = TypeVar("Sample")
Precision = Literal["float32", "bfloat16"]


class Learner(Protocol[Data, Sample]):
    """One type of model with its loss.

    The trainer owns batches, optimiser, latents and workers; the learner knows how detections become a loss. It draws
    nothing from global random state, and calls `network` as a module (``self.network(...)``), never a method of it, so
    that the trainer can put mixed precision and compilation around it. The network has no buffer that training moves.

    Attributes
    ----------
    model_type : str
        'splitnet', 'grid' or 'resnet'.
    network : nn.Module
        The weights that all detections share; their gradients are summed over workers. The trainer may put a network
        with other weights in its place.
    """

    model_type: str
    network: nn.Module

    @property
    def latent_dim(self) -> int:
        """D, numbers that each detection owns; 0 where it owns none."""

    def prepare(self, photons: Photons) -> Data:
        """What training keeps of a part while it is in memory; called in another thread, on the CPU."""

    def draw(self, data: Data, rows: Tensor, generator: torch.Generator) -> Sample:
        """Detections `rows`, i8[M], of one part, with all that is random taken from `generator`.

        A sample has ``concatenate(several)``, which puts slices of several parts, at least one, into one batch in that
        order, and ``to(device)``.
        """

    def losses(self, sample: Sample, latent: Tensor | None) -> Tensor:
        """Loss of each detection, f[M] in nats, in the order of the rows.

        Sums over a detection's photons, never means over detections: a detection's loss must not depend on its company.

        Parameters
        ----------
        sample : Sample
            M detections.
        latent : f[M, D] or None
            None where D is 0.
        """

    def gains(self, fit: Photons, held: Photons, start: Tensor | None) -> Tensor:
        """Log-likelihood of held-out photons over that of a constant rate, levels profiled out: f8[N] in nats.

        Parameters
        ----------
        fit, held : Photons
            N detections' photons, split at random; the model sees `fit` only.
        start : f[D] or None
            The training's mean latent, where there are latents.
        """


@dataclass(frozen=True)
class Schedule(ABC):
    """How a model is trained; each model type's settings add its network's sizes and its penalties.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Detections a step, over all workers.
    learning_rate, latent_learning_rate : float
        Highest ones of the network and of the latents; both follow `rate_factor`.
    weight_decay, grad_clip_norm : float
        Of the network: AdamW's decay, and the largest norm of its gradient per photon.
    warmup_steps : int
        Steps until the learning rates are at their highest.
    ema : float
        Decay per step of the moving average of the network's weights that is kept in the end; 0 keeps the last weights.
    part_streams : int
        Streams of parts that a batch is drawn from; also the largest number of workers.
    n_bands : int
        B, energy bands of every detection.
    patience : int
        Evaluations without a higher gain before training ends; 0 trains to the end.
    max_skipped : int
        Steps that are not finite, in a row or due to one detection, before training ends.
    precision : {'float32', 'bfloat16'}
        Of the network in training; the likelihood is always in float32, and so is validation.
    compile : bool
        Whether the network is compiled for training.
    seed : int
        Of weights, latents and batches.
    """

    #: Of the settings that a model type adds, those that say how large its network is.
    size_names: ClassVar[tuple[str, ...]] = ()

    epochs: int = setting(120, "passes over the training's detections", ge=1)
    batch_size: int = setting(128, "detections a step, over all workers", ge=1)
    learning_rate: float = setting(3e-3, "network's highest learning rate", ge=0)
    weight_decay: float = setting(1e-4, "of AdamW, on the network's weights", ge=0)
    grad_clip_norm: float = setting(1.0, "largest norm of the network's gradient per photon", gt=0)
    warmup_steps: int = setting(20, "steps until the learning rates are at their highest", ge=0)
    ema: float = setting(0.0, "decay a step of the weights' moving average that is kept; 0: off", ge=0, lt=1)
    part_streams: int = setting(8, "streams of parts that a batch is drawn from; at least the workers", ge=1)
    n_bands: int = setting(3, "energy bands of a detection; others are left out", ge=1)
    latent_learning_rate: float = setting(5e-2, "latents' highest learning rate", ge=0)
    patience: int = 5
    max_skipped: int = 3
    precision: Precision = "float32"
    compile: bool = False
    seed: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Settings that say how large the network is."""
        return {name: getattr(self, name) for name in ("n_bands", *self.size_names)}

    @abstractmethod
    def learner(self) -> Learner[Any, Any]:
        """A model of these settings, its weights drawn from `seed`."""

    def rate_factor(self, step: int, total: int) -> float:
        """Factor on both learning rates in step `step` of `total`: a linear warm-up, then half a cosine down to 0."""
        return cosine(step, total, min(self.warmup_steps, total // 10))


def cosine(step: int, total: int, warmup_steps: int = 20) -> float:
    """Factor on a learning rate: a linear warm-up, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(total - warmup_steps, 1)))


def keyed_generator(*key: int) -> torch.Generator:
    """A generator of its own for each key of non-negative integers, the same on every machine."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed >> 1)
