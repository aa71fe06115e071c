"""Parts and the streams that batches are drawn from: a training needs a few parts in memory and not all of them.

Part p belongs to stream p mod `part_streams`. In each epoch a stream goes through its parts in another order and
through each part's rows in another order, and a step takes one slice of every stream. Which rows these are depends on
the seed, the step and the parts alone, whoever owns the stream.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lexray.models.autodecoders.learner import keyed_generator
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


def order_of_parts(parts: Sequence[int], seed: int, epoch: int, stream: int) -> list[int]:
    """In which order stream number `stream` goes through its parts, which increase, in an epoch."""
    order = torch.randperm(len(parts), generator=keyed_generator(seed, PARTS, epoch, stream))
    return [parts[i] for i in order.tolist()]


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
        return order_of_parts(list(self._sizes), self._seed, epoch, self.number)

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
