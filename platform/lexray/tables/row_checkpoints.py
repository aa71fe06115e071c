"""Checkpoints of expensive rows: each is written as soon as it is finished; at the end all are gathered into the table.

A run that was killed, or whose inputs have changed in part, computes only the rows that are missing. A row's `key` is
the hash of everything that it depends on, so finished rows are recognised without any record of earlier runs.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from lexray.errors import LexrayError
from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.files import filesystem
from lexray.tables.schemas import check

T = TypeVar("T")
#: `key` by `source_id` of the rows that a part must have.
KeysOfPart = Callable[[int], Mapping[str, str]]
#: Applies a function to each part; the results come in the parts' order.
MapParts = Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]]
#: Parts that are read at once: an object store answers slowly to each.
_MAX_THREADS = 8


@dataclass(frozen=True)
class PartProgress:
    """How much of a part is done.

    Attributes
    ----------
    rows, missing : int
        Rows that the part must have, and those among them that are not finished.
    """

    rows: int
    missing: int


def in_threads(function: Callable[[int], T], parts: Sequence[int]) -> Iterator[T]:
    """Apply a function to each part, several at a time; the results come in the parts' order."""
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        yield from pool.map(function, parts)


class RowCheckpoints:
    """Rows of a table with `source_id` and `key`, finished ones in small files below ``OUT.rows`` until `gather`.

    Safe to use from any number of workers at once: each file has a name of its own and appears whole or not at all.

    Parameters
    ----------
    out : str
        The table.
    schema : pyarrow.Schema
        Of its rows.
    """

    def __init__(self, out: str, schema: pa.Schema) -> None:
        self.out, self.schema = out, schema

    def write(self, part: int, rows: pa.Table) -> None:
        """Write finished rows of a part.

        Raises
        ------
        LexrayError
            If they do not fit the schema.
        """
        rows = check(rows, self.schema, self.out)
        system, root = filesystem(self.out)
        folder = f"{root}.rows/part={part}"
        system.create_dir(folder, recursive=True)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        pa.parquet.write_table(rows, f"{folder}/{name}.new", filesystem=system)
        system.move(f"{folder}/{name}.new", f"{folder}/{name}.parquet")

    def finished(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Finished rows of a part: the table's own, then those of killed runs, the newest last."""
        system, root = filesystem(self.out)
        listed = system.get_file_info(pyarrow.fs.FileSelector(f"{root}.rows/part={part}", allow_not_found=True))
        noted = sorted(info.path for info in listed if info.extension == "parquet")
        sets = [delta.dataset(self.out).filter(pc.field("part") == part)] if delta.is_table(self.out) else []
        sets += [pyarrow.dataset.dataset(path, filesystem=system) for path in noted]
        empty = self.schema.empty_table().select(list(columns))
        # Rows of another version of Lexray, or with vectors of another length, do not fit and are ignored.
        fitting = [rows for rows in sets if _has(rows.schema, empty.schema)]
        return pa.concat_tables([empty, *(rows.to_table(list(columns)).cast(empty.schema) for rows in fitting)])

    def gather(self, part: int, keys: Mapping[str, str]) -> Fragment:
        """Write one file of a part with the row of each source in `keys` that has its key, sorted by source.

        Where several rows fit, one that did not fail is preferred, and then the newest.

        Parameters
        ----------
        part : int
        keys : mapping
            `key` by `source_id`. Rows of other sources or with other keys are left out.
        """
        rows = self.finished(part, self.schema.names)
        failed = (
            pc.equal(rows["status"], "failed").to_pylist() if "status" in rows.column_names else [False] * len(rows)
        )
        best: dict[str, int] = {}
        for i, (source, key) in enumerate(zip(rows["source_id"].to_pylist(), rows["key"].to_pylist(), strict=True)):
            if keys.get(source) == key and not (failed[i] and source in best and not failed[best[source]]):
                best[source] = i
        chosen = rows.take(pa.array([best[source] for source in sorted(best)], pa.int64()))
        return delta.write_part(self.out, self.schema, part, chosen)

    def commit(self, name: str, parts: Sequence[int], keys_of: KeysOfPart, map_parts: MapParts = in_threads) -> None:
        """Gather the rows of every part, commit the table, and delete the checkpoints.

        Parameters
        ----------
        name : str
            What the table is, as for `delta.commit`.
        parts : sequence of int
        keys_of : callable
            `key` by `source_id` of the rows that a part must have, by the part's number.
        map_parts : callable
            Applies a function to each part.

        Raises
        ------
        LexrayError
            If a finished row is gone; the table stays as it was.
        """
        gathered_at = time.time_ns()

        def gather(part: int) -> tuple[int, Fragment]:
            keys = keys_of(part)
            return len(keys), self.gather(part, keys)

        gathered = list(map_parts(gather, parts))
        lost = sum(n_wanted - fragment.n_rows for n_wanted, fragment in gathered)
        if lost:
            raise LexrayError(
                f"{self.out}: {lost} finished rows are gone, another run wrote this table meanwhile; run again"
            )
        delta.commit(self.out, name, self.schema, [fragment for _, fragment in gathered if fragment.n_rows])
        self.remove(gathered_at)

    def remove(self, before: int | None = None) -> None:
        """Delete the checkpoints, once the table is committed or they are no longer wanted.

        Parameters
        ----------
        before : int, optional
            Only those written before this `time.time_ns`: another run may have written some since `gather`.
        """
        system, root = filesystem(self.out)
        everything = pyarrow.fs.FileSelector(f"{root}.rows", recursive=True, allow_not_found=True)
        for info in system.get_file_info(everything):
            written = info.base_name.partition("-")[0]
            if info.is_file and written.isdigit() and (before is None or int(written) < before):
                system.delete_file(info.path)
        left = system.get_file_info(everything)
        if left and not any(info.is_file for info in left):
            system.delete_dir(f"{root}.rows")


def _has(schema: pa.Schema, wanted: pa.Schema) -> bool:
    return all(field.name in schema.names and schema.field(field.name).type == field.type for field in wanted)
