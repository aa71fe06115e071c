"""`lexray literature`: papers on sources, from files, SIMBAD and ADS → the `literature` table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from lexray.errors import ConfigError
from lexray.literature.ads import AdsConfig, AdsConnector
from lexray.literature.connectors import Connector, PaperMatch, query_connectors
from lexray.literature.crossmatch import SourceCatalogue
from lexray.literature.file_connector import FileConnector
from lexray.literature.papers import Refusal, paper_files
from lexray.literature.simbad import SimbadConfig, SimbadConnector
from lexray.literature.sources import TargetSource, merge_sources, sources_from_events, sources_from_table
from lexray.literature.table import LiteratureTableWriter
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.sources import SAME_SOURCE_ARCSEC, fold_name
from lexray.tables import delta
from lexray.tables.files import resolve_path
from lexray.tables.schemas import LITERATURE, QUARANTINE
from lexray.web.cache import Cache

#: Sources that the connectors are asked for together.
SOURCES_PER_QUERY = 2000
#: Where answers are kept if `out` is in an object store.
_HOME_CACHE = "~/.cache/lexray/literature"


class LiteratureConfig(JobConfig):
    """Configuration of `lexray literature`. It takes `inputs`, `connectors`, or both."""

    inputs: list[str] = Field(description="JSONL, CSV or Parquet files of papers, or folders of them")
    connectors: list[Literal["simbad", "ads"]] = Field([], description="services that are asked for papers")
    events: str | None = Field(None, description="events table whose sources the papers are matched to")
    sources: str | None = Field(
        None, description="more sources, or better positions: CSV, Parquet or a table with source_id, ra, dec"
    )
    source_columns: dict[str, str] = Field({}, description="what that table calls source_id, ra, dec, position_error")
    position_error: float | None = Field(
        None, gt=0, description="radius at 95 % of X-ray positions, arcsec; by default the mission's"
    )
    radius: float = Field(
        SAME_SOURCE_ARCSEC, ge=0, description="largest separation of a file's paper matched by position, arcsec"
    )
    max_objects: int | None = Field(1000, ge=1, description="papers that treat more objects are left out")
    max_papers: int | None = Field(200, ge=1, description="papers of a source, the best ranked first")
    cache: str | None = Field(
        None, description="local folder that keeps the services' answers; by default OUT.cache, or in your home"
    )
    cache_days: float = Field(30.0, ge=0, description="age up to which an answer is not asked for again")
    simbad: SimbadConfig = SimbadConfig()
    ads: AdsConfig = AdsConfig()
    n_parts: int = Field(16, ge=1, description="parts of the table")

    @model_validator(mode="before")
    @classmethod
    def _connectors_need_no_files(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("connectors"):
            return {"inputs": [], **values}
        return values


def run(config: LiteratureConfig, context: JobContext) -> JobResult:
    """Collect papers of files and services, make one row of each, write them; what is malformed goes to quarantine."""
    if not config.inputs and not config.connectors:
        raise ConfigError("literature: nothing to read: name files in inputs, or services in connectors")
    files = paper_files(config.inputs)
    sources, catalogue = _sources(config)
    cache = Cache(_cache_folder(config), config.cache_days) if config.connectors else None
    connectors = _connectors(config, cache, context)
    of_files = FileConnector(files, catalogue, config.radius)
    refusals: list[Refusal] = []
    with LiteratureTableWriter(config.n_parts) as bibliography:
        if connectors:
            with context.progress.task("sources", total=len(sources)) as task:
                for first in range(0, len(sources), SOURCES_PER_QUERY):
                    some = sources[first : first + SOURCES_PER_QUERY]
                    answers = query_connectors(list(connectors.values()), some, config.max_objects, config.max_papers)
                    bibliography.add(_without_refusals(answers, refusals))
                    task.advance(len(some))
        unanswered = len(refusals)
        with context.progress.task("papers") as task:
            bibliography.add(_without_refusals(of_files.papers(), refusals))
            task.advance(of_files.counts()["papers"])
        written = bibliography.write(config.out, config.max_objects, config.max_papers)
    delta.commit(config.out, "literature", LITERATURE, written.fragments)
    quarantine = f"{config.out}.quarantine"
    _write_quarantine(quarantine, refusals)
    counts = written.counts
    names = ("papers", "duplicates", "matched_by_name", "matched_by_position", "unmatched")
    asked = _connector_counts(config, connectors, cache, counts)
    return JobResult(
        counts={name: counts[name] for name in names}
        | {"files": len(files), "matched_sources": len(written.sources), **_left_out(counts), **asked}
        | {"refused": len(refusals), "refused_by_reason": dict(Counter(r.reason for r in refusals))},
        metrics={"papers": counts["papers"], "matched_sources": len(written.sources), **asked},
        outputs=[quarantine],
        refused=len(refusals),
        taken=counts["papers"] + counts["duplicates"],
        complete=not unanswered,
    )


def _sources(config: LiteratureConfig) -> tuple[list[TargetSource], SourceCatalogue]:
    """Sources to ask the services for, and what files' papers are matched to."""
    listed = sources_from_table(config.sources, config.source_columns, config.position_error) if config.sources else []
    catalogue = SourceCatalogue.read(config.events, config.position_error) if config.events else SourceCatalogue.empty()
    catalogue += SourceCatalogue.of([s for s in listed if fold_name(s.source_id) not in catalogue.names])
    if not config.connectors:
        return [], catalogue
    if not config.events and not config.sources:
        raise ConfigError("connectors: name the sources to ask for: an events table in events, or a table in sources")
    observed = sources_from_events(config.events, config.position_error) if config.events else []
    return merge_sources(listed, observed), catalogue


def _cache_folder(config: LiteratureConfig) -> Path:
    if config.cache is None:
        return Path(_HOME_CACHE if "://" in config.out else f"{config.out}.cache")
    if "://" in config.cache:
        raise ConfigError("cache: it takes a local folder; object stores hold tables only")
    return Path(resolve_path(config.cache))


def _connectors(config: LiteratureConfig, cache: Cache | None, context: JobContext) -> dict[str, Connector]:
    """SIMBAD before ADS, whatever the order in the configuration: ADS takes the names and papers that SIMBAD knows."""
    found: dict[str, Connector] = {}
    if cache is not None and "simbad" in config.connectors:
        found["simbad"] = SimbadConnector(config.simbad, cache, context.progress.warn)
    if cache is not None and "ads" in config.connectors:
        found["ads"] = AdsConnector(config.ads, cache, context.progress.warn)
    return found


def _without_refusals(items: Iterable[PaperMatch | Refusal], refusals: list[Refusal]) -> Iterator[PaperMatch]:
    for item in items:
        if isinstance(item, Refusal):
            refusals.append(item)
        else:
            yield item


def _left_out(counts: Counter[str]) -> dict[str, int]:
    names = ("without_abstract", "left_out_catalogues", "left_out_surplus", "left_out_no_text")
    return {name: counts[name] for name in names if counts[name]}


def _connector_counts(
    config: LiteratureConfig, connectors: dict[str, Connector], cache: Cache | None, counts: Counter[str]
) -> dict[str, int]:
    """What the services were asked for and gave."""
    if cache is None:
        return {}
    counted = {f"{name}_{key}": n for name, connector in connectors.items() for key, n in connector.counts().items()}
    came = {f"from_{name}": counts[f"from_{name}"] for name in ("file", *connectors)}
    return {**came, **counted, "from_cache": cache.hits}


def _write_quarantine(table: str, refusals: Sequence[Refusal]) -> None:
    rows = [{"file": r.file, "stage": "literature", "reason": r.reason, "detail": r.detail} for r in refusals]
    part = delta.write_part(table, QUARANTINE, 0, pa.Table.from_pylist(rows, schema=QUARANTINE))
    # Written even where it is empty: the refusals of an earlier run must not outlive it.
    delta.commit(table, "quarantine", QUARANTINE, [part])


JOB = Job(
    name="literature",
    config=LiteratureConfig,
    run=run,
    inputs=("inputs", "events", "sources"),
    positional=("inputs",),
    summary="Find papers on sources: in files, in SIMBAD, in ADS.",
)
