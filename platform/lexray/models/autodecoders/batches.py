"""A worker's share of each step's batch, drawn from its streams of parts."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lexray.models.autodecoders.learner import Learner, Schedule, keyed_generator
from lexray.models.autodecoders.sampler import DRAWS, PartSource, PartStream


@dataclass(frozen=True)
class PreparedPart:
    """A part in memory."""

    data: Any
    counts: Tensor  # photons of each detection
    ids: Sequence[str]


@dataclass(frozen=True)
class Share:
    """What a part gives to a batch."""

    number: int
    part: PreparedPart
    rows: Tensor


@dataclass(frozen=True)
class Batch:
    """A worker's share of a step.

    Attributes
    ----------
    sample
        As the learner's losses take it, on the worker's device; None where the worker has no row in the batch.
    shares : list of Share
    """

    sample: Any
    shares: list[Share]

    @property
    def ids(self) -> list[str]:
        """Identifiers of the detections."""
        return [share.part.ids[row] for share in self.shares for row in share.rows.tolist()]

    @property
    def n_photons(self) -> int:
        """Photons of the detections."""
        return sum(int(share.part.counts[share.rows].sum()) for share in self.shares)


class Batches:
    """Batches of the parts that a worker owns.

    Parameters
    ----------
    learner : Learner
    source : PartSource
        Whole streams, where stream = part mod `settings.part_streams`.
    settings : Schedule
    device : torch.device
    """

    def __init__(
        self, learner: Learner[Any, Any], source: PartSource, settings: Schedule, device: torch.device
    ) -> None:
        self._learner, self._source, self._seed, self._device = learner, source, settings.seed, device
        streams: dict[int, dict[int, int]] = {}
        for part, size in sorted(source.sizes.items()):
            streams.setdefault(part % settings.part_streams, {})[part] = size.detections
        reader = ThreadPoolExecutor(1, thread_name_prefix="parts")
        self._streams = [
            PartStream(number, settings.part_streams, sizes, self._load, reader, settings.seed)
            for number, sizes in sorted(streams.items())
        ]

    def draw(self, epoch: int, step: int, steps: int) -> Batch:
        """This worker's share of step `step` of the `steps` of an epoch."""
        samples: list[Any] = []
        shares: list[Share] = []
        for stream in self._streams:
            generator = keyed_generator(self._seed, DRAWS, epoch, step, stream.number)
            for number, part, rows in stream.slices(epoch, step, steps):
                samples.append(self._learner.draw(part.data, rows, generator))
                shares.append(Share(number, part, rows))
        return Batch(type(samples[0]).concatenate(samples).to(self._device) if samples else None, shares)

    def alone(self, batch: Batch) -> Iterator[Batch]:
        """Each detection of a batch in a batch of its own, drawn anew."""
        for share in batch.shares:
            for row in torch.split(share.rows, 1):
                sample = self._learner.draw(share.part.data, row, keyed_generator(self._seed, DRAWS))
                yield Batch(sample.to(self._device), [replace(share, rows=row)])

    def _load(self, part: int) -> PreparedPart:
        photons, ids = self._source.read(part)
        return PreparedPart(self._learner.prepare(photons), photons.offsets.diff(), ids)
