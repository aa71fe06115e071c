"""`lexray ingest`: read event files into the `events` table, one row per detection; others go to quarantine."""

import time
from functools import cached_property
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from lexray.events.extraction.source_table import read_sources
from lexray.events.missions import MISSIONS, bands_by_mission
from lexray.events.reader import ReadOptions
from lexray.events.segments import Segmentation
from lexray.ingest import file_index, incremental, tasks
from lexray.ingest.discovery import find_event_files
from lexray.ingest.schemas import FILES
from lexray.ingest.summary_table import summary_table
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.tables.files import resolve_path
from lexray.tables.schemas import SCHEMA_VERSION
from lexray.version import __version__


class IngestConfig(JobConfig):
    """Configuration of `lexray ingest`."""

    former_keys: ClassVar = {"unscreened": "no_screening"}

    inputs: list[str] = Field(
        min_length=1,
        description="event files, folders that are searched for them, patterns, URIs (s3://, gs://, https://), "
        "or @FILE with a list of these",
    )
    sources: str | None = Field(
        None, description="table of sources to look for in fields (CSV, FITS, VOTable, ECSV, Parquet)"
    )
    n_parts: int = Field(16, ge=1, description="parts of the table; a source's detections share one")
    files_per_task: int = Field(2048, ge=1, description="largest number of files that one task reads")
    bands: dict[str, list[float]] = Field(
        {},
        description="edges of the energy bands in keV by 'mission' or 'mission/instrument', where the mission's own "
        "are not wanted",
    )
    no_screening: list[str] = Field([], description="missions whose standard event screening is not applied")
    segment_length: float | None = Field(None, gt=0, description="cut detections into segments of so many seconds")
    segment_clock: Literal["wall", "good"] = Field("wall", description="whether gaps count into a segment's length")
    min_events: int = Field(1, ge=1, description="detections, or segments, with fewer events are left out")
    verify: Literal["stamp", "sha256"] = Field(
        "stamp", description="a file has changed by its size and time (or ETag), or by its content, which is read"
    )

    @field_validator("bands")
    @classmethod
    def _bands_are_measured(cls, edges: dict[str, list[float]]) -> dict[str, list[float]]:
        bands_by_mission(edges)
        return edges

    @field_validator("no_screening")
    @classmethod
    def _missions_are_known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in MISSIONS:
                raise ValueError(f"no mission '{name}'; known are {', '.join(MISSIONS)}")
        return names

    @property
    def never_skip(self) -> bool:
        """With ``verify=sha256`` contents are compared, which may change without a file's name, size or time."""
        return self.verify == "sha256"

    @cached_property
    def settings(self) -> str:
        """Hash of all settings that affect what is read from a file."""
        used = self.model_dump(
            include={"sources", "n_parts", "bands", "no_screening", "segment_length", "segment_clock", "min_events"}
        )
        used["unscreened"] = used.pop("no_screening")  # by its former name: else every archive would be read again
        return delta.digest([used, self._of_sources, SCHEMA_VERSION, __version__])

    @cached_property
    def _of_sources(self) -> list[str]:
        """Versions of the source table and of the response files that it names."""
        if self.sources is None:
            return []
        arfs = sorted({arf for arf in read_sources(self.sources).arf if arf is not None})
        return [delta.version(path) for path in (self.sources, *arfs)]

    @property
    def options(self) -> ReadOptions:
        """How event files are read."""
        return ReadOptions(
            bands=bands_by_mission(self.bands),
            no_screening=frozenset(self.no_screening),
            sources=None if self.sources is None else read_sources(self.sources),
            segments=None if self.segment_length is None else Segmentation(self.segment_length, self.segment_clock),
            min_events=self.min_events,
        )


def run(config: IngestConfig, context: JobContext) -> JobResult:
    """Read files that are new or have changed on Ray's workers, commit at once, and index all of them."""
    table, options = resolve_path(config.out), config.options
    start = time.monotonic()
    before = incremental.read_file_index(table)
    known = FILES.empty_table() if config.force else before.rows
    plan = incremental.plan(find_event_files(config.inputs), known, config.settings)
    seconds = time.monotonic() - start
    with ray_session.session(config.ray):
        start = time.monotonic()  # all but Ray's own start counts
        if config.verify == "sha256":
            plan = incremental.reread(plan, tasks.files_with_other_content(plan.kept, config.files_per_task))
        with context.progress.task("files", total=len(plan.to_read)) as task:
            read = tasks.read_files(
                plan.to_read, table, options, config.settings, config.n_parts, config.files_per_task, task
            )
        index, n_renamed = tasks.resolve(pa.concat_tables([plan.kept, read]), table, before.rows)
        incremental.commit(table, index, before)
        seconds += time.monotonic() - start

    refusals = file_index.refusals(index)
    files = incremental.file_index_of(table)
    for path in (table, files):
        delta.vacuum(path)
    return JobResult(
        counts={
            **file_index.counts(index),
            "files_new": plan.new,
            "files_changed": plan.changed,
            "files_unchanged": plan.unchanged,
            "files_gone": plan.gone,
            "ids_disambiguated": n_renamed,
        },
        metrics={
            "files_per_s": read.num_rows / seconds,
            "events_per_s": file_index.counts(read)["events_in"] / seconds,
        },
        outputs=[files],
        refusals=refusals,
        accepted=index.num_rows - len(refusals),
        # A file that could not be fetched may be there the next time, and one without a date may have changed.
        complete=not incremental.may_differ(index),
    )


JOB = Job(
    name="ingest",
    config=IngestConfig,
    run=run,
    inputs=("inputs", "sources"),
    positional=("inputs",),
    summary_table=summary_table,
)
