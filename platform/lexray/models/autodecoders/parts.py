"""Where a worker's detections come from, part by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lexray.models.autodecoders.photons import Photons


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
