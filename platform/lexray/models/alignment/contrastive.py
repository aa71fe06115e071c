"""Symmetric InfoNCE: each X-ray vector must find its own text among the batch's, and each text its X-ray vector.

van den Oord et al. 2018, arXiv:1807.03748; the symmetric form with a learned temperature is CLIP's, Radford et al.
2021, arXiv:2103.00020. With unit vectors x_i, t_j and the scale s = 1/temperature the logits are z_ij = s x_i·t_j and

    L = -1/(2N) Σ_i [ log softmax_j(z_ij)_i + log softmax_j(z_ji)_i ].
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

#: Logits of unit vectors are not scaled beyond this: a temperature that falls further makes training diverge (CLIP).
MAX_SCALE = 100.0


def symmetric_info_nce(xray: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Loss of a batch whose rows are pairs; every other row is a negative.

    Parameters
    ----------
    xray, text : Tensor[N, E]
        Unit vectors; row i of one belongs to row i of the other, and to no other row.
    log_scale : Tensor[]
        Logarithm of 1/temperature; its exponential is clipped at `MAX_SCALE`.

    Returns
    -------
    Tensor[]
        Nats; log N for vectors that say nothing of one another.
    """
    return _both_ways(xray, text, xray, text, 0, log_scale)


def distributed_symmetric_info_nce(
    xray: Tensor, text: Tensor, log_scale: Tensor, group: dist.ProcessGroup | None = None
) -> Tensor:
    """The same loss over the rows of all workers, of which each scores its own against everybody's.

    The mean over the workers is `symmetric_info_nce` of all rows together, and so are its gradients where the workers
    average theirs, as DistributedDataParallel does. No worker builds the whole N × N logits.

    Parameters
    ----------
    xray, text : Tensor[n, E]
        This worker's rows; n is the same on all workers.
    log_scale : Tensor[]
        As for `symmetric_info_nce`, equal on all workers.
    group : ProcessGroup, optional
        The workers; all by default.
    """
    first = dist.get_rank(group) * len(xray)
    return _both_ways(xray, text, _gather(xray, group), _gather(text, group), first, log_scale)


def _both_ways(xray: Tensor, text: Tensor, all_xray: Tensor, all_text: Tensor, first: int, log_scale: Tensor) -> Tensor:
    """Mean cross-entropy of n rows against all N, whose rows `first` … `first` + n they are."""
    scale = log_scale.exp().clamp(max=MAX_SCALE)
    own = torch.arange(first, first + len(xray), device=xray.device)
    text_of_xray = nn.functional.cross_entropy(scale * xray @ all_text.T, own)
    xray_of_text = nn.functional.cross_entropy(scale * text @ all_xray.T, own)
    return (text_of_xray + xray_of_text) / 2


def _gather(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    gathered: Tensor = _Gather.apply(rows, group)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Rows of all workers, [n, E] → [N, E].

    A row is a negative in every worker's loss, so its gradient is the sum of what all workers found for it. Without
    that sum each tower would learn only from its own worker's rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        ctx.own = slice(dist.get_rank(group) * len(rows), (dist.get_rank(group) + 1) * len(rows))
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, rows.contiguous(), group=group)
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.own], None
