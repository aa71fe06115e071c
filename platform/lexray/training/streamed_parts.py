"""Parts that are drawn while they are trained on, on Ray Data: nothing is written, and nothing is seen twice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray.data

from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import PartSize, order_of_parts

#: Parts that are drawn at once for each worker.
_AT_ONCE = 2


@dataclass(frozen=True)
class StreamedParts:
    """What `AutodecoderTraining` trains on: parts 0 … `n_parts` − 1.

    Attributes
    ----------
    n_parts : int
    size : callable
        Of a part's number: how many detections it has, and photons.
    draw : callable
        Of a part's number: its detections, as the learner's `prepare` takes them. It runs on Ray Data's workers.
    held : Photons
        Detections to score.
    """

    n_parts: int
    size: Callable[[int], PartSize]
    draw: Callable[[int], Any]
    held: Photons

    def of_worker(self, rank: int, n_workers: int, settings: Schedule) -> "StreamOfWorker":
        """One stream of parts for each worker; the first one scores.

        Raises
        ------
        ValueError
            If `settings.part_streams` is not the number of workers.
        """
        if settings.part_streams != n_workers:
            raise ValueError(f"{n_workers} workers take {n_workers} streams of parts, not {settings.part_streams}")
        order = order_of_parts(range(rank, self.n_parts, n_workers), settings.seed, 0, rank)
        return StreamOfWorker({part: self.size(part) for part in order}, self.draw, {} if rank else {0: self.held})


@dataclass
class StreamOfWorker:
    """A `PartSource` of the parts of one worker, drawn in the order in which its trainer asks for them.

    Attributes
    ----------
    sizes : mapping of int to PartSize
        In the order in which the trainer asks for the parts.
    emptied : dict of str
        Empty, as no detection is invalid.
    """

    sizes: Mapping[int, PartSize]
    _draw: Callable[[int], Any]
    _held: Mapping[int, Photons]
    emptied: dict[str, str] = field(default_factory=dict)
    _stream: Iterator[Any] | None = None

    def read(self, part: int) -> tuple[Any, Sequence[str]]:
        """As `PartSource.read`."""
        if self._stream is None:
            self._stream = self._start(part)
        row = next(self._stream)
        if row["part"] != part:
            raise RuntimeError(f"part {part} was asked for, part {row['part']} is the next one")
        return row["detections"], [f"{part}:{row}" for row in range(self.sizes[part].detections)]

    def validation(self) -> Mapping[int, Photons]:
        """As `PartSource.validation`."""
        return self._held

    def _start(self, first: int) -> Iterator[Any]:
        """Rows from the part `first` on: a training that goes on from a checkpoint has been through those before."""
        order, draw = list(self.sizes), self._draw
        numbers = [{"part": part} for part in order[order.index(first) :]]
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        drawn = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map(
            lambda row: {"part": row["part"], "detections": draw(row["part"])}, concurrency=_AT_ONCE
        )
        return iter(drawn.iter_rows())
