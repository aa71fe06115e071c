"""What a training held, and by what a new detection lies outside it: there a model says something all the same."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.splitnet.binning import cells_for

#: Flags of a detection with fewer or more photons than all of the training, with a shorter or longer good time or
#: shorter or longer cells, and of another range of energies.
COUNTS_UNSEEN, TIMES_UNSEEN, ENERGIES_UNSEEN = "counts_unseen", "times_unseen", "energies_unseen"
#: By this factor a detection may lie beyond all of the training.
_BEYOND = 1.5


@dataclass(frozen=True)
class TrainingRange:
    """Of a training's detections.

    Attributes
    ----------
    counts : f4[2]
        Fewest and most photons, all bands together.
    ontime, cell : f4[2]
        Shortest and longest good time, and a cell of it, in seconds.
    energies : f4[R, 2]
        Ranges of energy in keV, each once.
    """

    counts: Tensor
    ontime: Tensor
    cell: Tensor
    energies: Tensor

    @staticmethod
    def of(photons: Photons) -> "TrainingRange":
        """That of some detections, one at least."""
        return TrainingRange.of_values(
            photons.counts.sum(1), photons.ontime, photons.frame_time.double(), photons.energy_range
        )

    @staticmethod
    def of_values(counts: Tensor, ontime: Tensor, frame_time: Tensor, energy_range: Tensor) -> "TrainingRange":
        """That of N detections, one at least: f8[N] each, times in seconds, and f[N, 2] in keV."""
        cell = ontime / cells_for(ontime, counts, frame_time)
        return TrainingRange(_extremes(counts), _extremes(ontime), _extremes(cell), _distinct(energy_range))

    def joined(self, other: "TrainingRange") -> "TrainingRange":
        """That of two trainings, of which the second began with the first one's network."""
        return TrainingRange(
            _extremes(torch.cat([self.counts, other.counts])),
            _extremes(torch.cat([self.ontime, other.ontime])),
            _extremes(torch.cat([self.cell, other.cell])),
            _distinct(torch.cat([self.energies, other.energies])),
        )

    def flags(self, photons: Photons) -> list[tuple[str, ...]]:
        """By what each of N detections is unlike all of the training, an empty tuple where by nothing."""
        counts, ontime = photons.counts.sum(1), photons.ontime
        cell = ontime / cells_for(ontime, counts, photons.frame_time.double())
        beyond = (photons.energy_range[:, None] / self.energies).log().abs().amax(2) > math.log(_BEYOND)
        raised = {
            COUNTS_UNSEEN: _outside(counts, self.counts),
            TIMES_UNSEEN: _outside(ontime, self.ontime) | _outside(cell, self.cell),
            ENERGIES_UNSEEN: beyond.all(1),
        }
        of_each = torch.stack(list(raised.values()), dim=1).tolist()
        return [tuple(name for name, on in zip(raised, row, strict=True) if on) for row in of_each]

    def tensors(self) -> dict[str, Tensor]:
        """Of a model file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> "TrainingRange":
        """What `tensors` wrote."""
        return TrainingRange(**tensors)


def _extremes(value: Tensor) -> Tensor:
    return torch.stack([value.min(), value.max()]).float()


def _distinct(ranges: Tensor) -> Tensor:
    distinct: Tensor = torch.unique(ranges.float(), dim=0)
    return distinct


def _outside(value: Tensor, extremes: Tensor) -> Tensor:
    return torch.logical_or(value < extremes[0] / _BEYOND, value > extremes[1] * _BEYOND)
