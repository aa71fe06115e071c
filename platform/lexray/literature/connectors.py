"""The interface of every service and file that papers come from."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias

from lexray.literature.crossmatch import Match
from lexray.literature.deduplicate import deduplicate, select_papers
from lexray.literature.papers import Paper
from lexray.literature.sources import TargetSource
from lexray.tables.quarantine import Refusal
from lexray.tables.schemas import LITERATURE

_PAPER_COLUMNS = [name for name in LITERATURE.names if name in Paper.__dataclass_fields__ and name != "source_id"]


@dataclass(frozen=True)
class PaperMatch:
    """A paper, the source that it is about, and who says so."""

    paper: Paper
    match: Match
    found_by: Literal["file", "simbad", "ads"]

    def row(self) -> dict[str, Any]:
        """Row of the `literature` table."""
        return (
            {key: getattr(self.paper, key) for key in _PAPER_COLUMNS}
            | asdict(self.match)
            | {"identifiers": list(self.match.identifiers), "found_by": self.found_by}
        )


FoundPapers: TypeAlias = Iterator[PaperMatch | Refusal]


class Connector(Protocol):
    """A service, or files, that papers come from."""

    def papers(self, sources: Sequence[TargetSource], known: Sequence[PaperMatch] = ()) -> FoundPapers:
        """Papers on some sources.

        Parameters
        ----------
        sources : sequence of TargetSource
            A few thousand at most; connectors ask for many at once.
        known : sequence of PaperMatch
            What other connectors found for the same sources: names to search by, and papers whose text is wanted.

        Yields
        ------
        PaperMatch or Refusal
            A paper may come several times, and one of `known` again with more of its text; `deduplicate.deduplicate`
            merges them into one row. A `Refusal` names a source, or a line of a file, that could not be used.

        Raises
        ------
        LexrayError
            If the service as a whole does not answer.
        """

    def counts(self) -> dict[str, int]:
        """Counts of requests and papers so far, by name."""


def query_connectors(
    connectors: Sequence[Connector], sources: Sequence[TargetSource], max_objects: int | None, max_papers: int | None
) -> FoundPapers:
    """Papers on some sources of each connector in turn; each is told what those before it found.

    Parameters
    ----------
    connectors : sequence of Connector
    sources : sequence of TargetSource
    max_objects, max_papers : int or None
        As for `deduplicate.select_papers`: papers that it would leave out are not passed on, so that their texts are
        never asked for.
    """
    known: list[PaperMatch] = []
    for connector in connectors:
        new: list[PaperMatch] = []
        for item in connector.papers(sources, known):
            yield item
            if isinstance(item, PaperMatch):
                new.append(item)
        known = _worth_querying([*known, *new], max_objects, max_papers)


def _worth_querying(found: Sequence[PaperMatch], max_objects: int | None, max_papers: int | None) -> list[PaperMatch]:
    by_source: dict[str, list[PaperMatch]] = {}
    for item in found:
        by_source.setdefault(item.match.source_id, []).append(item)
    worth: list[PaperMatch] = []
    for items in by_source.values():
        kept, _, _ = select_papers(deduplicate([item.row() for item in items]), max_objects, max_papers)
        bibcodes = {row["bibcode"] for row in kept}
        worth += [item for item in items if item.paper.bibcode in bibcodes]
    return worth
