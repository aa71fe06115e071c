"""`lexray fetch csc`: sources of the Chandra Source Catalog, as labels, a source table and their event files.

``OUT/labels`` has the catalogue's columns, one row per source (the `labels` table); ``OUT/sources.parquet`` is the
source table for ingest; ``OUT/detections.parquet`` names the observation, source and files of each detection;
``OUT/events/`` has the files.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from lexray.archives import csc, csc_output
from lexray.archives.csc import Catalogue
from lexray.errors import ConfigError
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables.files import require_local_path
from lexray.tables.quarantine import Refusal
from lexray.web.retry import RetryPolicy
from lexray.web.tap import Tap

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class FetchConfig(JobConfig):
    """Configuration of `lexray fetch csc`. One of `cone`, `adql` and `names` says which sources."""

    out: Annotated[str, AfterValidator(require_local_path)] = Field(
        description="local folder for labels, tables and event files"
    )
    cone: tuple[float, float, float] | None = Field(
        None, description="RA DEC RADIUS: a position in degrees (ICRS) and a radius in arcmin"
    )
    adql: str | None = Field(None, description="file with a query that selects name, ra, dec and what else is wanted")
    names: str | None = Field(None, description="file with the names of sources, one a line; # begins a comment")
    products: list[Literal["regevt3", "reg3", "arf3"]] = Field(
        ["regevt3", "reg3"], description="files of each detection: events, source and background regions, response"
    )
    instruments: list[Literal["ACIS", "HRC"]] = Field(["ACIS"], description="HRC measures no energies")
    match_types: list[Literal["u", "a", "n"]] = Field(
        ["u"], description="detections that are unique to a source (u), ambiguous (a), or none at its place (n)"
    )
    radius: float | None = Field(
        None, gt=0, description="aperture of the source table, arcsec; by default 90 % of the counts, from the angle"
    )
    columns: list[Identifier] = Field(list(csc.COLUMNS), description="columns of the master table that become labels")
    tap: str = Field(csc.TAP_URL, description="the catalogue's TAP service")
    mode: Literal["sync", "async"] = Field("sync", description="whether queries are synchronous or asynchronous")
    page: int = Field(5000, ge=1, description="sources asked for at once; what the service cuts off is asked for again")
    maxrec: int | None = Field(None, ge=1, description="rows that an answer may have; by default the service's limit")
    files: str = Field(csc.FILES_URL, description="the catalogue's file service")
    catalogue: Identifier = Field("csc21", description="schema of the catalogue's tables")
    release: str = Field("rel2.1", description="what the file service calls the release")
    http: RetryPolicy = RetryPolicy()

    @field_validator("cone", mode="before")
    @classmethod
    def _cone_may_be_words(cls, cone: Any) -> Any:
        words = cone.replace(",", " ").split() if isinstance(cone, str) else cone
        if isinstance(words, list | tuple) and len(words) != 3:
            raise ValueError("it takes RA DEC RADIUS: degrees, degrees, arcmin")
        return words

    @field_validator("cone")
    @classmethod
    def _cone_is_on_the_sky(cls, cone: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if cone is not None and not (0 <= cone[0] <= 360 and abs(cone[1]) <= 90 and 0 < cone[2] <= 600):
            raise ValueError("RA must be 0 … 360°, DEC −90 … 90°, RADIUS above 0 and at most 600 arcmin")
        return cone

    @model_validator(mode="after")
    def _one_choice_of_sources(self) -> Self:
        given = [key for key in ("cone", "adql", "names") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ConfigError(f"fetch csc: give one of cone, adql and names, not {' and '.join(given) or 'none'}")
        return self


def run(config: FetchConfig, context: JobContext) -> JobResult:
    """Ask which sources, then which detections they have, then get the files of each that are not there yet."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    tap = Tap(config.tap, config.http, config.mode, config.maxrec, context.progress.warn)
    catalogue = Catalogue(tap, config.catalogue, config.columns, config.page)
    sources, refusals = _sources(config, catalogue)
    context.progress.info(f"  {sources.num_rows} sources")
    detections = catalogue.detections(sources["name"].to_pylist(), config.instruments, config.match_types)
    wanted = csc_output.distinct_detections(detections)
    context.progress.info(f"  {len(wanted)} detections")
    csc_output.write_tables(out, sources, detections, config.radius)

    files = [(detection, product) for detection in wanted for product in config.products]
    with context.progress.task("files", total=len(files)) as task:
        downloads, counts, failures = asyncio.run(
            csc_output.fetch_files(out / "events", config.http, config.files, config.release, files, task)
        )
    csc_output.write_paths(out, detections, downloads, config.products)
    refusals += [Refusal(file, error.reason, error.detail) for file, error in failures]
    if failures:
        context.progress.warn(f"{len(failures)} files did not come; --force asks for them again, and for no others")
    return JobResult(
        counts={
            "sources": sources.num_rows,
            "detections": len(wanted),
            "files": len(files),
            "fetched": counts["fetched"],
            "there_already": counts["there_already"],
            "bytes": downloads.bytes,
            "requests": downloads.requests,
            "retries": downloads.retrier.retries,
            **{f"refused_{reason}": n for reason, n in sorted(Counter(r.reason for r in refusals).items())},
        },
        metrics={"fetched": float(counts["fetched"]), "retries": float(downloads.retrier.retries)},
        outputs=[str(out / "labels"), str(out / "sources.parquet"), str(out / "detections.parquet")],
        refusals=refusals,
        accepted=counts["fetched"] + counts["there_already"],
    )


def _sources(config: FetchConfig, catalogue: Catalogue) -> tuple[pa.Table, list[Refusal]]:
    """Rows of the master table, one a source, and the names that it does not have."""
    if config.cone is not None:
        return csc_output.distinct_sources(catalogue.cone(*config.cone)), []
    if config.adql is not None:
        return csc_output.distinct_sources(catalogue.selected(_read("adql", config.adql))), []
    names = csc_output.names_of_lines(_read("names", str(config.names)))
    if not names:
        raise ConfigError(f"names: {config.names}: there is no name in it")
    return csc_output.named_sources(catalogue, names)


def _read(key: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {path}: {getattr(error, 'strerror', None) or 'not a text file'}") from None


JOB = Job("fetch csc", FetchConfig, run, inputs=("adql", "names"), positional=())
