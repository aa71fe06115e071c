"""Collect papers on sources: ask the services, read the files, and write the `literature` table's parts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lexray.literature.connectors import Connector, PaperMatch, query_connectors
from lexray.literature.crossmatch import SourceCatalogue
from lexray.literature.file_connector import FileConnector
from lexray.literature.sources import TargetSource, merge_sources, sources_from_events
from lexray.literature.table import LiteratureTableWriter, WrittenLiterature
from lexray.runtime.progress import Progress
from lexray.sources import fold_name
from lexray.tables.quarantine import Refusal

#: Sources that the services are asked for together.
SOURCES_PER_QUERY = 2000


def source_catalogue(
    events: str | None, listed: Sequence[TargetSource], position_error: float | None
) -> SourceCatalogue:
    """Sources that papers of files are matched to: an events table's, and the listed ones that it does not have."""
    catalogue = SourceCatalogue.read(events, position_error) if events else SourceCatalogue.of([])
    return catalogue + SourceCatalogue.of([s for s in listed if fold_name(s.source_id) not in catalogue.names])


def target_sources(
    events: str | None, listed: Sequence[TargetSource], position_error: float | None
) -> list[TargetSource]:
    """Sources that the services are asked for: those of an events table, and the listed ones."""
    return merge_sources(listed, sources_from_events(events, position_error) if events else [])


@dataclass
class CollectedPapers:
    """The papers that were collected.

    Attributes
    ----------
    written : WrittenLiterature
        Files of the table, for `delta.commit`, and counts of the papers.
    refusals : list of Refusal
        Lines, files and sources that could not be used.
    all_answered : bool
        Whether the services answered for every source.
    """

    written: WrittenLiterature
    refusals: list[Refusal]
    all_answered: bool


def collect_papers(
    services: Sequence[Connector],
    sources: Sequence[TargetSource],
    files: FileConnector,
    table: LiteratureTableWriter,
    progress: Progress,
) -> CollectedPapers:
    """Ask the services for papers on the sources, read the files' papers, and write one row of each paper and source.

    Parameters
    ----------
    services : sequence of Connector
        In the order in which they are asked: each is told what those before it found.
    sources : sequence of TargetSource
    files : FileConnector
    table : LiteratureTableWriter
    progress : Progress
    """
    refusals: list[Refusal] = []
    if services:
        with progress.task("sources", total=len(sources)) as task:
            for first in range(0, len(sources), SOURCES_PER_QUERY):
                batch = sources[first : first + SOURCES_PER_QUERY]
                answers = query_connectors(services, batch, table.max_objects, table.max_papers)
                table.add(_without_refusals(answers, refusals))
                task.advance(len(batch))
    all_answered = not refusals
    with progress.task("papers") as task:
        table.add(_without_refusals(files.papers(), refusals))
        task.advance(files.counts()["papers"])
    return CollectedPapers(table.write(), refusals, all_answered)


def _without_refusals(items: Iterable[PaperMatch | Refusal], refusals: list[Refusal]) -> Iterator[PaperMatch]:
    for item in items:
        if isinstance(item, Refusal):
            refusals.append(item)
        else:
            yield item


def paper_counts(collected: CollectedPapers) -> dict[str, int]:
    """How many papers were matched, merged and left out."""
    counts = collected.written.counts
    always = ("papers", "duplicates", "matched_by_name", "matched_by_position", "unmatched")
    left_out = ("without_abstract", "left_out_catalogues", "left_out_surplus", "left_out_no_text")
    return (
        {name: counts[name] for name in always}
        | {name: counts[name] for name in left_out if counts[name]}
        | {"matched_sources": len(collected.written.sources)}
    )


def service_counts(collected: CollectedPapers, services: Mapping[str, Connector]) -> dict[str, int]:
    """Papers by origin, and what each service was asked for; nothing where no service was asked."""
    if not services:
        return {}
    origins = {f"from_{name}": collected.written.counts[f"from_{name}"] for name in ("file", *services)}
    return origins | {f"{name}_{key}": n for name, one in services.items() for key, n in one.counts().items()}
