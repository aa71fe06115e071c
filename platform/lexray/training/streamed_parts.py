"""Parts that are drawn while they are trained on, on Ray Data: nothing is written, and nothing is seen twice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray.data

from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import PartSize, order_of_parts

#: Parts that are drawn at once for each worker, and those of a window.
_AT_ONCE, _WINDOW = 2, 13


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


class StreamOfWorker:
    """A `PartSource` of the parts of one worker, drawn in the order in which its trainer asks for them.

    The parts of a window are drawn while the trainer is at those of the one before it. One pipeline over all parts
    would wait for its reader in a busy loop in this very process, and slow the training down.

    Parameters
    ----------
    sizes : mapping of int to PartSize
        In the order in which the trainer asks for the parts.
    draw : callable
    held : mapping of int to Photons
        As `StreamedParts` has them.

    Attributes
    ----------
    sizes : mapping of int to PartSize
    emptied : dict of str
        Empty, as no detection is invalid.
    """

    def __init__(self, sizes: Mapping[int, PartSize], draw: Callable[[int], Any], held: Mapping[int, Photons]) -> None:
        self.sizes, self.emptied = sizes, dict[str, str]()
        self._draw, self._held = draw, held
        self._thread = ThreadPoolExecutor(1)
        self._drawn: Iterator[tuple[int, Any]] | None = None

    def read(self, part: int) -> tuple[Any, Sequence[str]]:
        """As `PartSource.read`."""
        if self._drawn is None:
            self._drawn = self._from(part)
        number, detections = next(self._drawn)
        if number != part:
            raise RuntimeError(f"part {part} was asked for, part {number} is the next one")
        return detections, [f"{part}:{row}" for row in range(self.sizes[part].detections)]

    def validation(self) -> Mapping[int, Photons]:
        """As `PartSource.validation`."""
        return self._held

    def _from(self, first: int) -> Iterator[tuple[int, Any]]:
        """Parts from `first` on: a training that goes on from a checkpoint has been through those before."""
        order = list(self.sizes)
        windows = [order[start : start + _WINDOW] for start in range(order.index(first), len(order), _WINDOW)]
        drawn = self._thread.submit(self._draw_all, windows[0])
        for following in [*windows[1:], None]:
            rows = drawn.result()
            if following is not None:
                drawn = self._thread.submit(self._draw_all, following)
            yield from rows

    def _draw_all(self, window: Sequence[int]) -> list[tuple[int, Any]]:
        draw = self._draw
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        parts = ray.data.from_items([{"part": part} for part in window], override_num_blocks=len(window))
        drawn = parts.map(lambda row: {**row, "detections": draw(row["part"])}, concurrency=_AT_ONCE)
        return [(row["part"], row["detections"]) for row in drawn.iter_rows()]
