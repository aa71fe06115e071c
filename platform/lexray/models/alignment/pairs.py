"""Sources with their detections and their text, and the batches that are drawn from them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Sources with their detections and their text.

    Attributes
    ----------
    xray : Tensor[N, D + B]
        Features of N detections, latents and log-rates side by side, in the order of their sources.
    offsets : Tensor[S + 1]
        Source s has the detections offsets[s] … offsets[s + 1], at least one.
    text : Tensor[S, T]
        Text vectors.
    """

    xray: Tensor
    offsets: Tensor
    text: Tensor

    def __len__(self) -> int:
        return len(self.text)

    def to(self, device: torch.device) -> "Pairs":
        """The same on another device."""
        return Pairs(self.xray.to(device), self.offsets.to(device), self.text.to(device))

    def draw(self, sources: Tensor, generator: torch.Generator) -> Tensor:
        """One detection of each of the sources at random: rows of `xray`."""
        count = self.offsets[sources + 1] - self.offsets[sources]
        at = torch.rand(len(sources), generator=generator).to(count.device) * count
        return self.offsets[sources] + at.long().clamp(max=count - 1)
