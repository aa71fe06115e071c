"""Count splitting: each time training meets a detection, its photons are split at random.

The network sees one part and predicts the other: two independent Poisson processes of the same shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import TensorFields
from lexray.models.autodecoders.splitnet.binning import BinnedPhotons
from lexray.models.autodecoders.splitnet.network import NetworkInput

#: Share of a detection's photons that its network sees in training.
_INPUT_SHARES = (0.5, 0.95)


@dataclass(frozen=True)
class DrawnDetections(TensorFields):
    """What a learner draws of M detections of K cells.

    Attributes
    ----------
    row : i8[M]
        Their places in the batch.
    """

    row: Tensor


Drawn = TypeVar("Drawn", bound=DrawnDetections)


@dataclass(frozen=True)
class ThinnedDetections(DrawnDetections):
    """M detections of K cells, part of whose photons the network sees, and part of which it must predict.

    Attributes
    ----------
    seen : NetworkInput
    target : f4[M, B, K]
        Counts to predict.
    target_energies : f4[M, E]
    ratio : f4[M]
        Expected number of photons to predict for each one seen.
    """

    seen: NetworkInput
    target: Tensor
    target_energies: Tensor
    ratio: Tensor


class BatchBySize(dict[int, Drawn]):
    """Detections of a batch by their number of cells."""

    def to(self, device: torch.device) -> "BatchBySize[Drawn]":
        """The same batch on a device."""
        return BatchBySize({k: one.to(device) for k, one in self.items()})

    @staticmethod
    def concatenate(several: "Sequence[BatchBySize[Drawn]]") -> "BatchBySize[Drawn]":
        """One batch of several slices."""
        first = 0
        by_size: dict[int, list[Drawn]] = {}
        for sample in several:
            for k, one in sample.items():
                by_size.setdefault(k, []).append(replace(one, row=one.row + first))
            first += sum(len(one.row) for one in sample.values())
        return BatchBySize({k: type(of_k[0]).stack(of_k) for k, of_k in sorted(by_size.items())})


def thin(
    data: BinnedPhotons,
    row: Tensor,
    generator: torch.Generator,
    background_augmentation: float,
) -> ThinnedDetections:
    """Split photons at random, and turn and shift the detections in time.

    Parameters
    ----------
    data : BinnedPhotons
        M detections.
    row : i8[M]
        Their places in the batch.
    generator : torch.Generator
    background_augmentation : float
        Probability that a detection without a background region gets the photons of another one as its background.
    """
    m, k = len(data), data.n_cells
    low, high = _INPUT_SHARES
    share = low + (high - low) * torch.rand(m, generator=generator)
    chosen = torch.rand(len(data.slot), generator=generator) < share[data.owner]
    counts, target = data.counts(chosen), data.counts(~chosen)
    background, scale = data.background_counts(), data.scale / share
    add = (data.scale.isnan() & (torch.rand(m, generator=generator) < background_augmentation)).nonzero()[:, 0]
    if len(add) and m > 1:
        inside, region, ratio = _added_background(counts + target, data.cells.exposure, add, generator)
        of_seen = torch.binomial(inside, share[add, None, None].expand_as(inside), generator=generator)
        counts[add] += of_seen
        target[add] += inside - of_seen
        background[add], scale[add] = region, ratio / share[add]
    cells = data.cells
    backwards = torch.rand(m, 1, generator=generator) < 0.5
    cell = torch.arange(k).expand(m, k)
    # The gap before a cell is the one after it where time runs backwards.
    gap = torch.where(backwards, cells.gap.roll(-1, 1), cells.gap)
    middle = torch.where(backwards, 1 - cells.middle, cells.middle)
    cell = torch.where(backwards, k - 1 - cell, cell)
    cell = (cell + torch.randint(k, (m, 1), generator=generator)) % k
    by_band = cell[:, None].expand(-1, data.n_bands, -1)
    seen = NetworkInput(
        counts.gather(2, by_band),
        cells.exposure.gather(1, cell),
        gap.gather(1, cell),
        middle.gather(1, cell),
        background.gather(2, by_band),
        scale,
        cells.width,
        data.duration,
        data.area,
        data.energies(chosen),
        data.energy_range,
    )
    return ThinnedDetections(row, seen, target.gather(2, by_band), data.energies(~chosen), (1 - share) / share)


def _added_background(
    counts: Tensor, exposure: Tensor, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The neighbours of `rows` as their backgrounds: counts inside the source's region, in the other, and their ratio.

    Photons dealt at random to the two are independent Poisson processes of one shape, as a background's are.
    """
    theirs = counts[rows - 1]
    ratio = 10.0 ** torch.rand(len(rows), generator=generator)
    # Up to as many photons as the source's own, and none where it was not observed.
    brightness = counts[rows].sum((1, 2)) / theirs.sum((1, 2)).clamp(min=1.0)
    share = (torch.rand(len(rows), generator=generator) * brightness * (1 + ratio)).clamp(max=1.0)
    kept = torch.binomial(theirs, share[:, None, None] * exposure[rows, None].expand_as(theirs), generator=generator)
    inside = torch.binomial(kept, (1 / (1 + ratio))[:, None, None].expand_as(kept), generator=generator)
    return inside, kept - inside, ratio
