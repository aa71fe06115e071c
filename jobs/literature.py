"""`lexray literature`: papers on sources, from files, SIMBAD and ADS → the `literature` table."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lexray.errors import ConfigError
from lexray.literature import collect
from lexray.literature.ads import AdsConfig, AdsConnector
from lexray.literature.connectors import Connector
from lexray.literature.file_connector import FileConnector
from lexray.literature.papers import paper_files
from lexray.literature.simbad import SimbadConfig, SimbadConnector
from lexray.literature.sources import sources_from_table
from lexray.literature.table import LiteratureTableWriter
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.sources import SAME_SOURCE_ARCSEC
from lexray.tables import delta
from lexray.tables.files import resolve_path
from lexray.tables.schemas import LITERATURE
from lexray.web.cache import Cache

#: Folder of the cache if `out` is in an object store.
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
    def _services_need_no_files(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("connectors"):
            return {"inputs": [], **values}
        return values


def run(config: LiteratureConfig, context: JobContext) -> JobResult:
    """Collect papers of files and services, make one row of each, write them; what is malformed goes to quarantine."""
    if not config.inputs and not config.connectors:
        raise ConfigError("literature: nothing to read: name files in inputs, or services in connectors")
    if config.connectors and not config.events and not config.sources:
        raise ConfigError("connectors: name the sources to ask for: an events table in events, or a table in sources")
    files = paper_files(config.inputs)
    listed = sources_from_table(config.sources, config.source_columns, config.position_error) if config.sources else []
    catalogue = collect.source_catalogue(config.events, listed, config.position_error)
    sources = collect.target_sources(config.events, listed, config.position_error) if config.connectors else []
    cache = Cache(_cache_folder(config), config.cache_days) if config.connectors else None
    services = _services(config, cache, context)
    with LiteratureTableWriter(config.out, config.n_parts, config.max_objects, config.max_papers) as table:
        papers = collect.collect_papers(
            list(services.values()), sources, FileConnector(files, catalogue, config.radius), table, context.progress
        )
    delta.commit(config.out, "literature", LITERATURE, papers.written.fragments)
    counts = collect.paper_counts(papers)
    queried = collect.service_counts(papers, services) | ({} if cache is None else {"from_cache": cache.hits})
    return JobResult(
        counts=counts
        | {"files": len(files), **queried, "refused": len(papers.refusals)}
        | {"refused_by_reason": dict(Counter(refusal.reason for refusal in papers.refusals))},
        metrics={"papers": counts["papers"], "matched_sources": counts["matched_sources"], **queried},
        refusals=papers.refusals,
        accepted=counts["papers"] + counts["duplicates"],
        complete=papers.all_answered,
    )


def _cache_folder(config: LiteratureConfig) -> Path:
    if config.cache is None:
        return Path(_HOME_CACHE if "://" in config.out else f"{config.out}.cache")
    if "://" in config.cache:
        raise ConfigError("cache: it takes a local folder; object stores hold tables only")
    return Path(resolve_path(config.cache))


def _services(config: LiteratureConfig, cache: Cache | None, context: JobContext) -> dict[str, Connector]:
    """SIMBAD before ADS, whatever the order in the configuration: ADS takes the names and papers that SIMBAD knows."""
    services: dict[str, Connector] = {}
    if cache is not None and "simbad" in config.connectors:
        services["simbad"] = SimbadConnector(config.simbad, cache, context.progress.warn)
    if cache is not None and "ads" in config.connectors:
        services["ads"] = AdsConnector(config.ads, cache, context.progress.warn)
    return services


JOB = Job("literature", LiteratureConfig, run, inputs=("inputs", "events", "sources"), positional=("inputs",))
