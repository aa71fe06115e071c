"""The network's forward pass as it is trained, and the moving average of its weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lexray.models.autodecoders.learner import Schedule


class TrainingForward(nn.Module):
    """A network as it is trained: compiled, in mixed precision, or as it is; validation uses the network itself.

    Parameters
    ----------
    network : nn.Module
        Gives a tensor or several, of floating-point numbers.
    settings : Schedule
    device : torch.device
    """

    def __init__(self, network: nn.Module, settings: Schedule, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self._forward = torch.compile(network.forward) if settings.compile else network.forward
        self._mixed = settings.precision == "bfloat16"
        self._device_type = device.type

    def forward(self, *inputs: Any) -> Any:
        """What the network gives, in float32."""
        if not self._mixed:
            return self._forward(*inputs)
        with torch.autocast(self._device_type, dtype=torch.bfloat16):
            out = self._forward(*inputs)
        return out.float() if isinstance(out, Tensor) else tuple(map(Tensor.float, out))


def gradient(tensor: Tensor) -> Tensor:
    """A leaf's gradient; zeros on a worker that had no row in the batch."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network for the moving average of its weights.

    Parameters
    ----------
    network : nn.Module
    decay : float
        Per step; less in the first steps, as the weights that the network begins with are noise.
    """

    def update(averages: Any, weights: Any, n: Tensor | int) -> None:
        step = get_ema_multi_avg_fn(min(decay, int(n) / (9 + int(n))))  # type: ignore[no-untyped-call]
        step(averages, weights, n)

    average = AveragedModel(network, multi_avg_fn=update)
    average.n_averaged += 1  # what the network begins with counts: torch's own average begins after the first step
    return average
