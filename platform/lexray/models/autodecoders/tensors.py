"""Dataclasses of tensors that move between devices and types as one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor


class TensorFields:
    """A frozen dataclass whose fields are tensors, dataclasses of tensors, and plain values."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """`function` of each tensor."""
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = function(value)
            elif isinstance(value, TensorFields):
                changed[name] = value.map(function)
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self.map(lambda value: value.to(device))
