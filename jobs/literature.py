"""`lexray literature`: files of papers → the `literature` table, under the source names of an events table."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
from pydantic import Field

from lexray import storage
from lexray.config import JobConfig
from lexray.job import Context, Job, Outcome
from lexray.literature.files import Paper, Refusal, paper_files, read_papers
from lexray.literature.matching import Match, SourceCatalogue, to_table
from lexray.schemas import LITERATURE, QUARANTINE
from lexray.sources import SAME_SOURCE_ARCSEC, fold_name

#: Papers that are held in memory at a time.
CHUNK = 10_000


class Config(JobConfig):
    """Configuration of `lexray literature`."""

    inputs: list[str] = Field(description="JSONL, CSV or Parquet files of papers, or folders of them")
    events: str | None = Field(None, description="events table whose sources the papers are matched to")
    radius: float = Field(SAME_SOURCE_ARCSEC, ge=0, description="largest separation of a match by position, arcsec")
    n_parts: int = Field(16, ge=1, description="parts of the table")


def run(config: Config, context: Context) -> Outcome:
    """Read, match and write papers; what is malformed goes to quarantine."""
    files = paper_files(config.inputs)
    catalogue = SourceCatalogue.read(config.events) if config.events else SourceCatalogue.empty()
    counts: Counter[str] = Counter(files=len(files))
    sources: set[str] = set()
    seen: set[tuple[str, ...]] = set()
    refusals: list[Refusal] = []
    fragments: list[storage.Fragment] = []
    with context.progress.task("papers") as task:
        for papers in _chunks(files, refusals):
            kept: list[tuple[Paper, Match]] = []
            for paper, match in zip(papers, catalogue.match(papers, config.radius), strict=True):
                key = (fold_name(match.source_id), *paper.identity)
                if key in seen:
                    counts["duplicates"] += 1
                    continue
                seen.add(key)
                kept.append((paper, match))
                counts[f"matched_by_{match.matched_by}" if match.matched_by else "unmatched"] += 1
                if match.matched_by:
                    sources.add(match.source_id)
            if kept:
                fragments += storage.write_by_source(
                    config.out, LITERATURE, config.n_parts, to_table(*zip(*kept, strict=True))
                )
            task.advance(len(papers))
    storage.commit(config.out, "literature", LITERATURE, fragments)
    quarantine = f"{config.out}.quarantine"
    _write_quarantine(quarantine, refusals)
    taken = len(seen) + counts["duplicates"]
    names = ("files", "duplicates", "matched_by_name", "matched_by_position", "unmatched")
    return Outcome(
        counts={"papers": len(seen), **{name: counts[name] for name in names}, "matched_sources": len(sources)}
        | {"refused": len(refusals), "refused_by_reason": dict(Counter(r.reason for r in refusals))},
        metrics={"papers": len(seen), "matched_sources": len(sources)},
        outputs=[quarantine],
        refused=len(refusals),
        taken=taken,
    )


def _chunks(files: list[str], refusals: list[Refusal]) -> Iterator[list[Paper]]:
    """Papers of all files, `CHUNK` at a time; refusals are appended to `refusals`."""
    papers: list[Paper] = []
    for file in files:
        for item in read_papers(file):
            if isinstance(item, Refusal):
                refusals.append(item)
                continue
            papers.append(item)
            if len(papers) == CHUNK:
                yield papers
                papers = []
    if papers:
        yield papers


def _write_quarantine(table: str, refusals: list[Refusal]) -> None:
    rows = [{"file": r.file, "stage": "literature", "reason": r.reason, "detail": r.detail} for r in refusals]
    part = storage.write_part(table, QUARANTINE, 0, pa.Table.from_pylist(rows, schema=QUARANTINE))
    # Written even where it is empty: the refusals of an earlier run must not outlive it.
    storage.commit(table, "quarantine", QUARANTINE, [part])


JOB = Job(
    name="literature",
    config=Config,
    run=run,
    inputs=("inputs", "events"),
    positional=("inputs",),
    summary="Match papers to the sources of an events table.",
)
