"""What a reconstructed rate shows in a few numbers, for the representation of `splitnet`."""

import torch
from torch import Tensor

#: Parts of the good time over which slow variability is averaged.
_PARTS = 8
#: Numbers of `rate_summary`.
N_SUMMARY = 5


def rate_summary(rate: Tensor, exposure: Tensor) -> Tensor:
    """What reconstructed rates show, f4[N, 5].

    Of the sum over the bands: the logarithm of its fractional rms; the cube root of its third moment over the rms,
    positive for flares and negative for dips; how much of the rms is left in means over an eighth of the good time, and
    in the mean step from one cell to the next, logarithms both. And the logarithm of how much the last band varies
    against the first, as the rms of the logarithm of their ratio.

    Parameters
    ----------
    rate : f4[N, B, K]
        In the cells of `TimeCells`.
    exposure : f4[N, K]
        0 in cells that are not used.
    """
    weight = exposure / exposure.sum(1, keepdim=True).clamp(min=1e-12)

    def mean(value: Tensor) -> Tensor:
        return (weight * value).sum(1)

    total = rate.sum(1)
    relative = total / mean(total)[:, None].clamp(min=1e-30) - 1
    rms = mean(relative.square()).sqrt() + 1e-3
    part = ((weight.cumsum(1) - weight / 2) * _PARTS).long().clamp(0, _PARTS - 1)
    empty = weight.new_zeros(len(weight), _PARTS)
    share = empty.scatter_add(1, part, weight)
    of_part = empty.scatter_add(1, part, weight * relative) / share.clamp(min=1e-12)
    slow = (share * of_part.square()).sum(1).sqrt()
    both = ((exposure[:, 1:] > 0) & (exposure[:, :-1] > 0)).float()
    step = (relative.diff(dim=1).abs() * both).sum(1) / both.sum(1).clamp(min=1)
    colour = (rate[:, -1].clamp(min=1e-12) / rate[:, 0].clamp(min=1e-12)).log()
    against = mean((colour - mean(colour)[:, None]).square()).sqrt()
    third = mean(relative**3)
    return torch.stack(
        [
            rms.log(),
            third.sign() * third.abs() ** (1 / 3) / rms,
            (slow + 1e-3).log() - rms.log(),
            (step + 1e-4).log() - rms.log(),
            (against + 1e-2).log(),
        ],
        dim=1,
    )
