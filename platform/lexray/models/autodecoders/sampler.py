"""Parts, the streams they come in and the batches drawn from these: a training needs a few parts in memory, not all.

Part p belongs to stream p mod `part_streams`. In each epoch a stream goes through its parts in another order and
through each part's rows in another order, and a step takes one slice of every stream. Which rows these are depends on
the seed, the step and the parts alone, whoever owns the stream.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lexray.models.autodecoders.learner import Learner, Schedule, keyed_generator
from lexray.models.autodecoders.photons import Photons

T = TypeVar("T")

#: Parts of a stream that are in memory at once: the current one and the next.
_HELD = 2
#: Second key of a generator: which of a training's random choices it makes.
LATENTS, PARTS, ROWS, DRAWS, VALIDATION = range(5)


@dataclass(frozen=True)
class PartSize:
    """What is known of a part before it is read: how many detections to train on, and how many photons they have."""

    detections: int
    photons: int


class PartSource(Protocol):
    """Where a worker's detections come from."""

    @property
    def sizes(self) -> Mapping[int, PartSize]:
        """Of each part that this worker owns."""

    def read(self, part: int) -> tuple[Photons, Sequence[str]]:
        """A part's detections to train on, always in the same order, and their identifiers; called in a thread."""

    def validation(self) -> Mapping[int, Photons]:
        """Detections that are scored and never trained on, of the parts that this worker owns."""


@dataclass(frozen=True)
class InMemoryParts:
    """A `PartSource` of parts that are in memory already.

    Attributes
    ----------
    train, held : mapping of int to Photons
        Detections to train on and to score, by part.
    ids : mapping of int to sequence of str
        Identifiers of a part's training detections; by default they are numbered.
    """

    train: Mapping[int, Photons]
    held: Mapping[int, Photons] = field(default_factory=dict)
    ids: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def sizes(self) -> Mapping[int, PartSize]:
        """As `PartSource.sizes`."""
        return {part: PartSize(len(photons), len(photons.time)) for part, photons in self.train.items()}

    def read(self, part: int) -> tuple[Photons, Sequence[str]]:
        """As `PartSource.read`."""
        photons = self.train[part]
        return photons, self.ids.get(part) or [f"{part}:{row}" for row in range(len(photons))]

    def validation(self) -> Mapping[int, Photons]:
        """As `PartSource.validation`."""
        return self.held


class PartStream(Generic[T]):
    """Parts of one stream, read ahead.

    Parameters
    ----------
    number : int
        Which of the `part_streams` it is.
    part_streams : int
    sizes : mapping of int to int
        Detections of each of its parts.
    load : callable
        Reads a part; called in `reader`'s thread.
    reader : ThreadPoolExecutor
    seed : int
    """

    def __init__(
        self,
        number: int,
        part_streams: int,
        sizes: Mapping[int, int],
        load: Callable[[int], T],
        reader: ThreadPoolExecutor,
        seed: int,
    ) -> None:
        self.number, self._part_streams, self._seed = number, part_streams, seed
        self._sizes = {part: sizes[part] for part in sorted(sizes) if sizes[part]}
        self._load, self._reader = load, reader
        self._held: dict[int, Future[T]] = {}
        self._permuted: tuple[int, int, Tensor] = (-1, -1, torch.zeros(0, dtype=torch.int64))

    def slices(self, epoch: int, step: int, steps: int) -> Iterator[tuple[int, T, Tensor]]:
        """What the stream gives to step `step` of the `steps` of an epoch: (part, its data, rows i8[M]).

        A slice that runs over a part's end goes on in the next part.
        """
        n = sum(self._sizes.values())
        # Slices differ by a row in length; streams that start elsewhere in that pattern even out the batches.
        offset = self.number * steps // self._part_streams
        begin, end = ((s * n + offset) // steps for s in (step, step + 1))
        order = self._order(epoch)
        for i, part in enumerate(order):
            size = self._sizes[part]
            if begin < size and end > 0:
                following = order[i + 1] if i + 1 < len(order) else self._order(epoch + 1)[0]
                yield part, self._read(part, following), self._rows(epoch, part)[max(begin, 0) : end]
            begin, end = begin - size, end - size

    def _order(self, epoch: int) -> list[int]:
        parts = list(self._sizes)
        order = torch.randperm(len(parts), generator=keyed_generator(self._seed, PARTS, epoch, self.number))
        return [parts[i] for i in order.tolist()]

    def _rows(self, epoch: int, part: int) -> Tensor:
        if self._permuted[:2] != (epoch, part):
            generator = keyed_generator(self._seed, ROWS, epoch, part)
            self._permuted = epoch, part, torch.randperm(self._sizes[part], generator=generator)
        return self._permuted[2]

    def _read(self, part: int, following: int) -> T:
        """A part's data, while the following one is on its way."""
        wanted = dict.fromkeys((part, following))
        for other in list(self._held):
            if len(self._held.keys() | wanted) > _HELD and other not in wanted:
                del self._held[other]
        for one in wanted:
            if one not in self._held:
                self._held[one] = self._reader.submit(self._load, one)
        return self._held[part].result()


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
