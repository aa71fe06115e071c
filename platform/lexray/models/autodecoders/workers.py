"""What the workers of a training tell one another; alone, a worker is everybody."""

import torch
from torch import Tensor


def sum_over_workers(tensor: Tensor, device: torch.device) -> Tensor:
    """Sum over workers, which all must call it.

    Parameters
    ----------
    tensor : Tensor
    device : torch.device
        The worker's own: where it is a GPU, the workers' backend takes nothing else.
    """
    if not torch.distributed.is_initialized():
        return tensor
    moved = tensor.to(device)
    torch.distributed.all_reduce(moved)
    return moved.to(tensor.device)


def names_of_all(names: list[str]) -> list[str]:
    """The names of all workers, which all must call it."""
    if not torch.distributed.is_initialized():
        return names
    everyone: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(everyone, names)
    return [name for one in everyone for name in one]
