"""Representations made shorter: principal components in place of many features that are much alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: Principal components that are kept.
_COMPONENTS = 8


@dataclass(frozen=True)
class Compression:
    """A linear map of F features to D of mean 0 and variance 1 over some detections, which are not correlated.

    Attributes
    ----------
    mean : f4[F]
    axes : f4[D, F]
    """

    mean: Tensor
    axes: Tensor

    @staticmethod
    def learn(features: Tensor) -> "Compression":
        """Principal components of standardised features f4[N, F] with the most variance."""
        mean, spread = features.mean(0), features.std(0) + 1e-3
        _, singular, components = torch.linalg.svd(((features - mean) / spread).double(), full_matrices=False)
        deviation = singular[:_COMPONENTS, None] / len(features) ** 0.5
        axes = (components[:_COMPONENTS] / (deviation + 1e-3)).float() / spread
        return Compression(mean, axes.contiguous())

    def __call__(self, features: Tensor) -> Tensor:
        """Of features f4[N, F]: f4[N, D]."""
        return (features - self.mean) @ self.axes.T

    def to(self, device: torch.device) -> "Compression":
        """The same on a device."""
        return Compression(self.mean.to(device), self.axes.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Of a model file."""
        return {"mean": self.mean, "axes": self.axes}

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> "Compression":
        """What `tensors` wrote."""
        return Compression(tensors["mean"], tensors["axes"])
