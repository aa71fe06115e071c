"""Count splitting: each time training meets a detection, its photons are split at random.

The network sees one part and predicts the other: two independent Poisson processes of the same shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import TensorFields
from lexray.models.autodecoders.splitnet.binning import BinnedPhotons
from lexray.models.autodecoders.splitnet.network import NetworkInput

#: Share of a detection's photons that its network sees in training.
_INPUT_SHARES = (0.5, 0.95)


@dataclass(frozen=True)
class ThinnedDetections(TensorFields):
    """M detections of K cells, part of whose photons the network sees, and part of which it must predict.

    Attributes
    ----------
    row : i8[M]
        Their places in the batch.
    seen : NetworkInput
    target : f4[M, B, K]
        Counts to predict.
    target_energies : f4[M, E]
    exposure : f4[M, K]
        During which the photons to predict came; the network may have seen less of it.
    ratio : f4[M]
        Expected number of photons to predict for each one seen in the same time.
    """

    row: Tensor
    seen: NetworkInput
    target: Tensor
    target_energies: Tensor
    exposure: Tensor
    ratio: Tensor

    @staticmethod
    def concatenate(several: "Sequence[ThinnedDetections]") -> "ThinnedDetections":
        """All detections behind one another."""
        seen = (torch.cat([getattr(one.seen, field.name) for one in several]) for field in fields(NetworkInput))
        return ThinnedDetections(
            torch.cat([one.row for one in several]),
            NetworkInput(*seen),
            torch.cat([one.target for one in several]),
            torch.cat([one.target_energies for one in several]),
            torch.cat([one.exposure for one in several]),
            torch.cat([one.ratio for one in several]),
        )


class ThinnedBatch(dict[int, ThinnedDetections]):
    """Detections of a batch by their number of cells."""

    def to(self, device: torch.device) -> "ThinnedBatch":
        """The same batch on a device."""
        return ThinnedBatch({k: one.to(device) for k, one in self.items()})

    @staticmethod
    def concatenate(several: "Sequence[ThinnedBatch]") -> "ThinnedBatch":
        """One batch of several slices."""
        first = 0
        by_size: dict[int, list[ThinnedDetections]] = {}
        for sample in several:
            for k, one in sample.items():
                by_size.setdefault(k, []).append(replace(one, row=one.row + first))
            first += sum(len(one.row) for one in sample.values())
        return ThinnedBatch({k: ThinnedDetections.concatenate(of_k) for k, of_k in sorted(by_size.items())})


def thin(
    data: BinnedPhotons,
    row: Tensor,
    generator: torch.Generator,
    background_augmentation: float,
    gap_augmentation: float,
) -> ThinnedDetections:
    """Split photons at random, hide some of the good time, and turn and shift the detections in time.

    Parameters
    ----------
    data : BinnedPhotons
        M detections.
    row : i8[M]
        Their places in the batch.
    generator : torch.Generator
    background_augmentation : float
        Probability that a detection without a background region gets the photons of another one as its background.
    gap_augmentation : float
        Probability that the network does not see parts of the good time, and so learns what to say of gaps.
    """
    m, k = len(data), data.n_cells
    low, high = _INPUT_SHARES
    share = low + (high - low) * torch.rand(m, generator=generator)
    chosen = torch.rand(len(data.slot), generator=generator) < share[data.owner]
    counts, target = data.counts(chosen), data.counts(~chosen)
    background, scale = data.background_counts(), data.scale / share
    add = (data.scale.isnan() & (torch.rand(m, generator=generator) < background_augmentation)).nonzero()[:, 0]
    if len(add) and m > 1:
        inside, region, ratio = _added_background(counts + target, data.exposure, add, generator)
        of_seen = torch.binomial(inside, share[add, None, None].expand_as(inside), generator=generator)
        counts[add] += of_seen
        target[add] += inside - of_seen
        background[add], scale[add] = region, ratio / share[add]
    cell = torch.arange(k).expand(m, k)
    cell = torch.where(torch.rand(m, 1, generator=generator) < 0.5, cell, k - 1 - cell)
    cell = (cell + torch.randint(k, (m, 1), generator=generator)) % k
    by_band = cell[:, None].expand(-1, data.n_bands, -1)
    exposure = data.exposure.gather(1, cell)
    shown = _shown(exposure, gap_augmentation, generator) | ~scale.isnan()[:, None]
    seen = NetworkInput(
        counts.gather(2, by_band) * shown[:, None],
        exposure * shown,
        background.gather(2, by_band),
        scale,
        data.width,
        data.area,
        data.energies(chosen),
        data.energy_range,
    )
    return ThinnedDetections(
        row, seen, target.gather(2, by_band), data.energies(~chosen), exposure, (1 - share) / share
    )


def _shown(exposure: Tensor, gap_augmentation: float, generator: torch.Generator) -> Tensor:
    """Cells that the network sees, bool[M, K]: all, or some of the blocks of a length drawn for each detection."""
    m, k = exposure.shape
    length = 2 ** torch.randint(2, 7, (m, 1), generator=generator)
    block = torch.arange(k) // length.clamp(max=k // 4)
    kept = 0.2 + 0.7 * torch.rand(m, 1, generator=generator)
    shown = torch.rand(m, k, generator=generator).gather(1, block) < kept
    enough = (exposure * shown).sum(1) > 0.1 * exposure.sum(1)
    return shown | ~enough[:, None] | (torch.rand(m, 1, generator=generator) >= gap_augmentation)


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
