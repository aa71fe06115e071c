"""Work that goes part by part on Ray Data: read a part, make rows of it, write them as that part of another table."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray

from lexray import storage
from lexray.progress import Task
from lexray.storage import Fragment

#: Turns a part's rows into the output's; made once a worker, by `make` of `map_parts`.
PartFunction = Callable[[int, pa.Table], pa.Table]


def map_parts(
    table: str, out: str, schema: pa.Schema, make: Callable[[], PartFunction], task: Task, workers: int
) -> list[Fragment]:
    """Write to `out` what a function makes of each part of `table`; nothing is visible before `storage.commit`.

    Parameters
    ----------
    table, out : str
        Table read, and table that the fragments are for.
    schema : pyarrow.Schema
        Of `out`.
    make : callable
        Called once in each worker; returns the function of (part, rows). Load models in it.
    task : Task
        Advanced by the rows written.
    workers : int
        Worker processes, each with one CPU.
    """
    parts = list(storage.part_files(table))
    if not parts:
        return []

    class Mapper:
        def __init__(self) -> None:
            self._function = make()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            part = int(row["part"])
            rows = self._function(part, storage.read(table, parts=[part]))
            return asdict(storage.write_part(out, schema, part, rows))

    mapped = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map(
        Mapper,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        num_cpus=1,
    )
    return list(_fragments(mapped, task))


def _fragments(mapped: "ray.data.Dataset", task: Task) -> Iterator[Fragment]:
    for row in mapped.iter_rows():
        task.advance(row["n_rows"])
        yield Fragment(**row)
