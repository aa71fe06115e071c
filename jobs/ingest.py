"""`lexray ingest`: event files into the `events` table, a detection a row; what cannot be read into its quarantine."""

import math
import time

import pyarrow as pa
import ray
from pydantic import Field, field_validator

from lexray import cluster, storage
from lexray.config import JobConfig, resolve_path
from lexray.events import ledger
from lexray.events.discovery import find_event_files
from lexray.events.eventlist import Bands
from lexray.events.missions import bands_by_mission
from lexray.job import Context, Job, Outcome
from lexray.progress import Task
from lexray.schemas import EVENTS, QUARANTINE

#: Smaller tasks would cost more to schedule than to run.
_MIN_FILES_PER_TASK = 16
#: Tasks a logical CPU, so that none waits long for the slowest.
_TASKS_PER_CPU = 4


class Config(JobConfig):
    """Keys of `lexray ingest`."""

    inputs: list[str] = Field(min_length=1, description="event files, folders that are searched for them, or patterns")
    n_parts: int = Field(16, ge=1, description="parts of the table; a source's detections share one")
    files_per_task: int = Field(512, ge=1, description="most files that a worker reads before it hands back")
    bands: dict[str, list[float]] = Field(
        {}, description="edges of the energy bands in keV by mission, where the mission's own are not wanted"
    )

    @field_validator("inputs")
    @classmethod
    def _inputs_are_local(cls, inputs: list[str]) -> list[str]:
        remote = [path for path in inputs if "://" in path]
        if remote:
            raise ValueError(f"only local files are read, not {remote[0]}; mount the store or copy the files")
        return inputs

    @field_validator("bands")
    @classmethod
    def _bands_are_measured(cls, edges: dict[str, list[float]]) -> dict[str, list[float]]:
        bands_by_mission(edges)
        return edges


def run(config: Config, context: Context) -> Outcome:
    """Read every file on Ray's workers, commit what they wrote at once, and account for all of it."""
    files = find_event_files(config.inputs)
    table, bands = resolve_path(config.out), bands_by_mission(config.bands)
    with cluster.session(config.ray):
        start = time.monotonic()
        with context.progress.task("files", total=len(files)) as task:
            account = _ingest(files, table, config, bands, task)
        found = ledger.collisions(account)
        fragments = _settle(account, table, found)
        seconds = time.monotonic() - start
    account = ledger.refuse_duplicates(account, found.duplicates)
    storage.commit(table, "events", EVENTS, fragments)

    quarantine, refused = f"{table}.quarantine", ledger.quarantine(account, JOB.name)
    storage.commit(quarantine, "quarantine", QUARANTINE, [storage.write_part(quarantine, QUARANTINE, 0, refused)])
    counts = ledger.counts(account)
    return Outcome(
        counts={**counts, "ids_told_apart": len(found.renamed)},
        metrics={"files_per_s": len(files) / seconds, "events_per_s": counts["events_in"] / seconds},
        outputs=[quarantine],
        refused=refused.num_rows,
        taken=counts["detections"],
    )


def _ingest(files: list[str], table: str, config: Config, bands: dict[str, Bands], task: Task) -> pa.Table:
    """Ledger of all files, read and written on the workers."""
    n_tasks = _TASKS_PER_CPU * ray.cluster_resources()["CPU"]
    per_task = min(max(math.ceil(len(files) / n_tasks), _MIN_FILES_PER_TASK), config.files_per_task)
    # Neighbours in an archive are alike: dealt out like cards, the tasks take equally long.
    n_hands = math.ceil(len(files) / per_task)
    hands = [pa.table({"file": files[i::n_hands]}) for i in range(n_hands)]
    ledgers = ray.data.from_arrow(hands).map_batches(
        _ingest_batch,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"table": table, "n_parts": config.n_parts, "bands": bands},
    )
    done = []
    for batch in ledgers.iter_batches(batch_size=None, batch_format="pyarrow"):
        done.append(batch)
        task.advance(batch.num_rows)
    return pa.concat_tables(done)


def _ingest_batch(batch: pa.Table, table: str, n_parts: int, bands: dict[str, Bands]) -> pa.Table:
    return ledger.ingest_files(batch["file"].to_pylist(), table, n_parts, bands)


def _settle(account: pa.Table, table: str, found: ledger.Collisions) -> list[storage.Fragment]:
    """Fragments to commit, those with identifiers that collide written anew."""
    amended = set(ledger.affected(account, found))
    whole = [fragment for fragment in ledger.fragments(account) if fragment not in amended]
    if not amended:
        return whole
    amend = ray.remote(ledger.amend)
    reference = ray.put(found)
    rewritten = ray.get([amend.remote(table, fragment, reference) for fragment in amended])
    return whole + [fragment for fragment in rewritten if fragment is not None]


JOB = Job(
    name="ingest",
    config=Config,
    run=run,
    inputs=("inputs",),
    positional=("inputs",),
    summary="Read event files into the events table; what cannot be read goes to quarantine.",
)
