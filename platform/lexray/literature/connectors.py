"""What every place that papers come from has in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lexray.literature.crossmatch import Match, row_of
from lexray.literature.deduplicate import merge, select
from lexray.literature.papers import Paper, Refusal
from lexray.literature.sources import Source

Origin = Literal["file", "simbad", "ads"]


@dataclass(frozen=True)
class Found:
    """A paper, the source that it is about, and who says so."""

    paper: Paper
    match: Match
    found_by: Origin

    def row(self) -> dict[str, Any]:
        """Row of the `literature` table."""
        return row_of(self.paper, self.match, self.found_by)


class Connector(Protocol):
    """A place that papers come from."""

    def papers(self, sources: Sequence[Source], known: Sequence[Found] = ()) -> Iterator[Found | Refusal]:
        """Papers on some sources.

        Parameters
        ----------
        sources : sequence of Source
            A few thousand at most; connectors ask for many at once.
        known : sequence of Found
            What other connectors found for the same sources: names to search by, and papers whose text is wanted.

        Yields
        ------
        Found or Refusal
            One paper may come several times, and also one of `known` with more of its text; `deduplicate.merge` makes
            one row of them. A `Refusal` names a source, or a file's line, that could not be used.

        Raises
        ------
        LexrayError
            If the service as a whole does not answer.
        """
        ...

    def counts(self) -> dict[str, int]:
        """What was done so far, by name."""
        ...


def ask(
    connectors: Sequence[Connector], sources: Sequence[Source], max_objects: int | None, max_papers: int | None
) -> Iterator[Found | Refusal]:
    """Papers on some sources of each connector in turn; each is told what those before it found.

    Parameters
    ----------
    connectors : sequence of Connector
    sources : sequence of Source
    max_objects, max_papers : int or None
        As for `deduplicate.select`: what it would leave out is not handed on, so that nobody asks for its text.
    """
    known: list[Found] = []
    for connector in connectors:
        came: list[Found] = []
        for item in connector.papers(sources, known):
            yield item
            if isinstance(item, Found):
                came.append(item)
        known = _worth([*known, *came], max_objects, max_papers)


def _worth(found: Sequence[Found], max_objects: int | None, max_papers: int | None) -> list[Found]:
    by_source: dict[str, list[Found]] = {}
    for item in found:
        by_source.setdefault(item.match.source_id, []).append(item)
    worth = []
    for items in by_source.values():
        kept, _, _ = select(merge([item.row() for item in items]), max_objects, max_papers)
        bibcodes = {row["bibcode"] for row in kept}
        worth += [item for item in items if item.paper.bibcode in bibcodes]
    return worth
