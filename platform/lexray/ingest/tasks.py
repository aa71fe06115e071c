"""The work of an ingest that runs on Ray's workers: reading files, comparing contents, rewriting fragments."""

import hashlib
import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import ray

from lexray.events.reader import ReadOptions
from lexray.ingest import file_index
from lexray.ingest.schemas import FILES
from lexray.runtime.progress import ProgressTask
from lexray.tables.files import Location, contents


def read_files(
    files: Sequence[Location],
    table: str,
    options: ReadOptions,
    settings: str,
    n_parts: int,
    files_per_task: int,
    progress: ProgressTask,
) -> pa.Table:
    """Read event files on Ray's workers, which write the detections as fragments that no commit has added yet.

    Parameters
    ----------
    files : sequence of Location
    table : str
        Events table, as an absolute path or a URI.
    options : ReadOptions
    settings : str
        Hash of what the files are read with, for the file index.
    n_parts : int
        Parts of the table.
    files_per_task : int
        Most files that a task reads.
    progress : ProgressTask
        Advanced by each file.

    Returns
    -------
    pyarrow.Table
        The file index of these files, of schema `FILES`.
    """
    if not files:
        return FILES.empty_table()
    # Three a logical CPU, so that none waits long for the slowest; those of fewer than 16 files would cost more to
    # schedule than to run.
    n_tasks = 3 * ray.cluster_resources()["CPU"]
    per_task = min(max(math.ceil(len(files) / n_tasks), 16), files_per_task)
    # Neighbours in an archive are alike: each task gets every n-th file, so that all take equally long.
    n_assignments = math.ceil(len(files) / per_task)
    rows = [vars(file) for file in files]
    assignments = [pa.Table.from_pylist(rows[i::n_assignments]) for i in range(n_assignments)]
    read = ray.data.from_arrow(assignments).map_batches(
        _read_batch,
        batch_size=None,
        batch_format="pyarrow",
        # By reference: a catalogue of a million sources goes to each node once.
        fn_kwargs={"table": table, "n_parts": n_parts, "options": ray.put(options), "settings": settings},
    )
    # With its reservations Ray Data holds all but one task back for a second, until it knows how large outputs are; the
    # index's rows are small.
    read.context.op_resource_reservation_enabled = False
    done = [FILES.empty_table()]
    for batch in read.iter_batches(batch_size=None, batch_format="pyarrow"):
        done.append(batch.cast(FILES))
        progress.advance(batch.num_rows)
    return pa.concat_tables(done)


def _read_batch(batch: pa.Table, table: str, n_parts: int, options: ray.ObjectRef, settings: str) -> pa.Table:
    files = [Location(**row) for row in batch.to_pylist()]
    return file_index.ingest_files(files, table, n_parts, ray.get(options), settings)


def files_with_other_content(index: pa.Table, files_per_task: int) -> list[str]:
    """Files whose bytes are no longer those of the file index; their sha256 is computed on Ray's workers."""
    taken = index.filter(pc.is_valid(index["sha256"])).select(["file", "sha256"])
    if not taken.num_rows:
        return []
    compared = (
        ray.data.from_arrow(taken)
        .repartition(math.ceil(taken.num_rows / files_per_task))
        .map_batches(_differing, batch_size=None, batch_format="pyarrow")
    )
    return [row["file"] for row in compared.iter_rows()]


def _differing(batch: pa.Table) -> pa.Table:
    sha256 = dict(zip(batch["file"].to_pylist(), batch["sha256"].to_pylist(), strict=True))
    differs = [
        path
        for path, content in contents(sha256)
        if isinstance(content, OSError) or hashlib.sha256(content).hexdigest() != sha256[path]
    ]
    return pa.table({"file": pa.array(differs, pa.string())})


def resolve(index: pa.Table, table: str, before: pa.Table) -> tuple[pa.Table, int]:
    """Give each detection an identifier of its own, and rewrite the fragments that this changes on Ray's workers.

    Parameters
    ----------
    index : pyarrow.Table
        The file index of the new version.
    table : str
        Events table.
    before : pyarrow.Table
        The file index of the current version.

    Returns
    -------
    pyarrow.Table
        The file index with the rewritten fragments: those of which rows have gone, or whose identifiers collide.
    int
        Detections that needed more than their name.
    """
    index, renamed = file_index.resolve(index)
    _, renamed_before = file_index.resolve(before)
    fragments = file_index.to_rewrite(index, renamed, renamed_before)
    files, sent = file_index.members(index, fragments), ray.put(renamed)
    rewrite = ray.remote(file_index.rewrite)
    written = ray.get([rewrite.remote(table, fragment, files[fragment.path], sent) for fragment in fragments])
    places = {old.path: new for old, new in zip(fragments, written, strict=True)}
    return file_index.moved(index, places), len(renamed)
