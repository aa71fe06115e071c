"""Map a table part by part on Ray Data: read a part, compute rows, write them as the same part of another table."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import ray

from lexray.runtime.progress import ProgressTask
from lexray.tables import delta, schemas
from lexray.tables.delta import Fragment
from lexray.tables.files import filesystem, resolve_path
from lexray.tables.part_checkpoints import FinishedPart, PartCheckpoints

R = TypeVar("R")

#: A slice ends with the row that brings it to so many rows or events.
_SLICE_ROWS, _SLICE_EVENTS = 4096, 2_000_000
#: Rows read at once; a slice is of whole such batches.
_READ_ROWS = 64


@dataclass(frozen=True)
class MappedRows:
    """What the rows of a part, or a slice of them, became.

    Attributes
    ----------
    tables : sequence of pyarrow.Table
        Rows of each output.
    refused : mapping
        What is wrong with each row that was left out, by its name.
    """

    tables: Sequence[pa.Table]
    refused: Mapping[str, str] = field(default_factory=dict)


#: Maps a part's rows, or a slice of them; made once a worker, by `make` of `map_parts`.
PartFunction = Callable[[pa.Table], MappedRows]


@dataclass(frozen=True)
class OutputTable:
    """A table that `map_parts` writes.

    Attributes
    ----------
    path : str
    name : str
        What the table is, as for `delta.commit`.
    schema : pyarrow.Schema
    order : sequence of str
        Columns to sort each part's rows by.
    """

    path: str
    name: str
    schema: pa.Schema
    order: Sequence[str] = ()

    def write_part(self, part: int, tables: Sequence[pa.Table]) -> Fragment:
        """Write the rows of a part as one file."""
        rows = pa.concat_tables(
            [self.schema.empty_table(), *(schemas.check(table, self.schema, self.path) for table in tables)]
        )
        if self.order:
            rows = rows.sort_by([(name, "ascending") for name in self.order])
        return delta.write_part(self.path, self.schema, part, rows)


def map_parts(
    table: str,
    outputs: Sequence[OutputTable],
    make: Callable[[], PartFunction],
    task: ProgressTask,
    workers: int,
    *,
    depends_on: Sequence[Any] = (),
    from_scratch: bool = False,
    columns: Sequence[str] | None = None,
    sliced: bool = False,
    use_gpu: bool = False,
) -> dict[str, str]:
    """Apply a function to each part of `table`, and write and commit the tables that it makes of it.

    Each finished part is recorded next to the first output, and a run that was killed continues with the others.

    Parameters
    ----------
    table : str
        Table read.
    outputs : sequence of OutputTable
        Tables written.
    make : callable
        Called once in each worker; returns the function of a part's rows. Load models in it.
    task : ProgressTask
        Advanced by the rows written to the first output.
    workers : int
        Worker processes, each with one CPU.
    depends_on : sequence
        Everything besides `table` that the parts depend on: records of runs with others are dropped.
    from_scratch : bool
        Map all parts, recorded or not.
    columns : sequence of str, optional
        Of `table`, all by default.
    sliced : bool
        Call the function for slices of a part, each of rows with an `n_events` that fit into memory, one by one.
    use_gpu : bool
        Give each worker a GPU.

    Returns
    -------
    dict of str
        What is wrong with each row that was left out, by its name and in the names' order.
    """
    checkpoints = PartCheckpoints(
        [output.path for output in outputs], [delta.version(table), *depends_on], from_scratch=from_scratch
    )
    finished = checkpoints.finished()
    task.advance(sum(part.fragments[0].n_rows for part in finished.values()))
    parts = {number: files for number, files in delta.part_files(table).items() if number not in finished}
    written_with, wanted = delta.dataset(table).schema, None if columns is None else list(columns)

    class Mapper:
        def __init__(self) -> None:
            self._function = make()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            number = int(row["part"])
            source = _dataset(parts[number], written_with)
            mapped = [
                self._function(rows) for rows in (_slices(source, wanted) if sliced else [source.to_table(wanted)])
            ]
            fragments = [
                output.write_part(number, [rows.tables[i] for rows in mapped]) for i, output in enumerate(outputs)
            ]
            part = FinishedPart(fragments, {name: why for rows in mapped for name, why in rows.refused.items()})
            checkpoints.write(number, part)
            return {"finished": part.to_json()}

    results = list(finished.values())
    if parts:
        mapped = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map(
            Mapper,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
            num_cpus=1,
            num_gpus=1 if use_gpu else None,
        )
        # With its reservations Ray Data holds tasks back until it knows how large outputs are; these are small.
        mapped.context.op_resource_reservation_enabled = False
        for row in mapped.iter_rows():
            results.append(FinishedPart.from_json(row["finished"]))
            task.advance(results[-1].fragments[0].n_rows)
    for i, output in enumerate(outputs):
        delta.commit(output.path, output.name, output.schema, [part.fragments[i] for part in results])
    checkpoints.remove()
    return dict(sorted((name, why) for part in results for name, why in part.refused.items()))


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
    path = resolve_path(table)  # workers run in folders of their own
    yield from results_of(function, [(path, part) for part in delta.part_files(table)], *arguments, workers=workers)


def results_of(
    function: Callable[..., R], calls: Iterable[Sequence[Any]], *arguments: Any, workers: int | None = None
) -> Iterator[R]:
    """Yield ``function(*call, *arguments)`` of each of `calls`, one Ray task each, as they end."""
    remote, sent = ray.remote(function), [ray.put(argument) for argument in arguments]
    left = deque(calls)
    waiting: list[ray.ObjectRef[R]] = []
    while left or waiting:
        while left and len(waiting) < (workers or 1000):  # `ray.wait` looks at all that are submitted each time
            waiting.append(remote.remote(*left.popleft(), *sent))
        done, waiting = ray.wait(waiting)
        yield from ray.get(done)


def _dataset(files: Sequence[str], schema: pa.Schema) -> pyarrow.dataset.Dataset:
    """The files of a part in the version that the run began with, as a dataset with the table's types."""
    system, _ = filesystem(files[0])
    return pyarrow.dataset.dataset(
        [filesystem(file)[1] for file in files],
        schema=schema,
        format="parquet",
        filesystem=system,
        partitioning=pyarrow.dataset.partitioning(pa.schema([delta.PART]), flavor="hive"),
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
