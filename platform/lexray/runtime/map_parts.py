"""Map a table part by part on Ray Data: read a part, compute rows, write them as the same part of another table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import ray

from lexray.runtime.progress import ProgressTask
from lexray.tables import delta, schemas
from lexray.tables.delta import Fragment
from lexray.tables.files import filesystem, resolve_path
from lexray.tables.part_checkpoints import PartCheckpoints

R = TypeVar("R")

#: Turns a part's rows, or a slice of them, into the output's; made once a worker, by `make` of `map_parts`.
PartFunction = Callable[[int, pa.Table], pa.Table]
#: A slice ends with the row that brings it to so many rows or events.
_SLICE_ROWS, _SLICE_EVENTS = 4096, 2_000_000
#: Rows read at once; a slice is of whole such batches.
_READ_ROWS = 64
_PART = pa.field("part", pa.int32())


def map_parts(
    table: str,
    out: str,
    schema: pa.Schema,
    make: Callable[[], PartFunction],
    task: ProgressTask,
    workers: int,
    *,
    columns: Sequence[str] | None = None,
    order: Sequence[str] = (),
    sliced: bool = False,
    use_gpu: bool = False,
    checkpoints: PartCheckpoints | None = None,
) -> list[Fragment]:
    """Apply a function to each part of `table` and write its rows to `out`; `delta.commit` makes them visible.

    Parameters
    ----------
    table, out : str
        Table read, and table that the fragments are for.
    schema : pyarrow.Schema
        Of `out`.
    make : callable
        Called once in each worker; returns the function of (part, rows). Load models in it.
    task : ProgressTask
        Advanced by the rows written.
    workers : int
        Worker processes, each with one CPU.
    columns : sequence of str, optional
        Of `table`, all by default.
    order : sequence of str
        Columns of `out` to sort each part's rows by.
    sliced : bool
        Call the function for slices of a part, each of rows with an `n_events` that fit into memory, one by one.
    use_gpu : bool
        Give each worker a GPU.
    checkpoints : PartCheckpoints, optional
        Records each finished part; parts that are recorded already are skipped.
    """
    finished = {} if checkpoints is None else checkpoints.finished()
    parts = {part: files for part, files in delta.part_files(table).items() if part not in finished}
    task.advance(sum(fragment.n_rows for fragment in finished.values()))
    if not parts:
        return list(finished.values())
    written_with, wanted = delta.dataset(table).schema, None if columns is None else list(columns)

    class Mapper:
        def __init__(self) -> None:
            self._function = make()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            part = int(row["part"])
            source = _dataset(parts[part], written_with)
            made = [
                schemas.check(self._function(part, rows), schema, out)
                for rows in (_slices(source, wanted) if sliced else [source.to_table(wanted)])
            ]
            rows = pa.concat_tables([schema.empty_table(), *made])
            if order:
                rows = rows.sort_by([(name, "ascending") for name in order])
            fragment = delta.write_part(out, schema, part, rows)
            if checkpoints is not None:
                checkpoints.write(fragment)
            return asdict(fragment)

    mapped = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map(
        Mapper,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        num_cpus=1,
        num_gpus=1 if use_gpu else None,
    )
    # With its reservations Ray Data holds tasks back until it knows how large outputs are; a fragment's name is small.
    mapped.context.op_resource_reservation_enabled = False
    return [*finished.values(), *_fragments(mapped, task)]


def results_of_parts(
    function: Callable[..., R], table: str, *arguments: Any, workers: int | None = None
) -> Iterator[R]:
    """Yield ``function(table, part, *arguments)`` of each part of a table, one Ray task each, as they end.

    Parameters
    ----------
    function : callable
        Of the table's absolute path, a part's number and the arguments.
    table : str
    *arguments
        Sent to the workers once, whatever their number.
    workers : int, optional
        Most tasks at a time; by default as many as there are CPUs.
    """
    remote, sent = ray.remote(function), [ray.put(argument) for argument in arguments]
    path = resolve_path(table)  # workers run in folders of their own
    left = list(delta.part_files(table))
    waiting: list[ray.ObjectRef[R]] = []
    while left or waiting:
        room = len(left) if workers is None else workers - len(waiting)
        waiting += [remote.remote(path, part, *sent) for part in left[:room]]
        left = left[room:]
        done, waiting = ray.wait(waiting)
        yield from ray.get(done)


def _fragments(mapped: "ray.data.Dataset", task: ProgressTask) -> Iterator[Fragment]:
    for row in mapped.iter_rows():
        task.advance(row["n_rows"])
        yield Fragment(**row)


def _dataset(files: Sequence[str], schema: pa.Schema) -> pyarrow.dataset.Dataset:
    """The files of a part in the version that the run began with, as a dataset with the table's types."""
    system, _ = filesystem(files[0])
    return pyarrow.dataset.dataset(
        [filesystem(file)[1] for file in files],
        schema=schema,
        format="parquet",
        filesystem=system,
        partitioning=pyarrow.dataset.partitioning(pa.schema([_PART]), flavor="hive"),
    )


def _slices(source: pyarrow.dataset.Dataset, columns: list[str] | None) -> Iterator[pa.Table]:
    """A part's rows in slices, so that the photons of a large part are never all in memory."""
    held: list[pa.RecordBatch] = []
    n_rows = n_events = 0
    scanner = source.scanner(columns, batch_size=_READ_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False)
    for batch in scanner.to_batches():
        held.append(batch)
        n_rows += batch.num_rows
        n_events += pc.sum(batch.column("n_events")).as_py() or 0
        if n_rows >= _SLICE_ROWS or n_events >= _SLICE_EVENTS:
            yield pa.Table.from_batches(held)
            held, n_rows, n_events = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)
