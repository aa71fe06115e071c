"""Checkpoints of expensive rows: each is written as soon as it is finished; at the end all are gathered into the table.

A run that was killed, or whose inputs have changed in part, computes only the rows that are missing. A row's `key` is
the hash of everything that it depends on, so finished rows are recognised without any record of earlier runs.

A run has three steps. `RowPlan.progress` counts the rows that are missing, the engine writes what `RowPlan.missing`
gives with `RowCheckpoints.write`, and `RowPlan.commit` gathers. Inputs are read part by part and kept nowhere. What the
other steps need of them are the keys, which lie next to the checkpoints: a part without finished rows is first read
when its rows are made, one with all of them finished only when it is planned.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

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
#: What a row is made from.
InputT_co = TypeVar("InputT_co", covariant=True)
InputT = TypeVar("InputT")
#: Applies a function to each part; the results come in the parts' order.
MapParts = Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]]
#: Columns by which a row is known to be finished.
_KEYS = pa.schema([("source_id", pa.string()), ("key", pa.string())])


class RowInputs(Protocol[InputT_co]):
    """What the rows of a table are made from, part by part."""

    def parts(self) -> list[int]:
        """Parts that have inputs."""

    def count(self, part: int) -> int:
        """Rows that a part must have; known without decoding what they are made from."""

    def read(self, part: int, sources: Collection[str] | None = None) -> Mapping[str, InputT_co]:
        """What each source's row of a part is made from; by default of all sources."""


@dataclass(frozen=True)
class TableVersion:
    """What `RowInputs` of one version of a table are read from; what is committed later is not read.

    Attributes
    ----------
    table : str
    version : str
        As `delta.version` writes it.
    """

    table: str
    version: str

    def parts(self) -> list[int]:
        """Parts that have rows."""
        return sorted(self._dataset.to_table(["part"])["part"].unique().to_pylist())

    @property
    def _dataset(self) -> pyarrow.dataset.Dataset:
        return delta.dataset_of(self.table, self.version)


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


@dataclass(frozen=True)
class MissingRow(Generic[InputT]):
    """A row that no run has finished.

    Attributes
    ----------
    part : int
        The table's part that has the source.
    source_id, key : str
    made_from : InputT
    failed : dict
        Columns `attempts` and `reason`, among others, of the row that failed in an earlier run; empty without one.
    """

    part: int
    source_id: str
    key: str
    made_from: InputT
    failed: dict[str, Any] = field(default_factory=dict)


def in_threads(function: Callable[[int], T], parts: Sequence[int]) -> Iterator[T]:
    """Apply a function to each part, several at a time; the results come in the parts' order."""
    with ThreadPoolExecutor(8) as pool:  # an object store answers slowly to each
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
        self.write_file(part, f"{_unique_name()}.parquet", check(rows, self.schema, self.out))

    def write_file(self, part: int, name: str, rows: pa.Table) -> None:
        """Write a file of a part, which appears whole or not at all."""
        system, root = filesystem(self.out)
        path = f"{root}.rows/part={part}/{name}"
        system.create_dir(f"{root}.rows/part={part}", recursive=True)
        pa.parquet.write_table(rows, f"{path}.new", filesystem=system)
        system.move(f"{path}.new", path)

    def finished(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Finished rows of a part: the table's own, then those of killed runs, the newest last."""
        system, root = filesystem(self.out)
        listed = system.get_file_info(pyarrow.fs.FileSelector(f"{root}.rows/part={part}", allow_not_found=True))
        noted = sorted(info.path for info in listed if info.extension == "parquet")
        sets = [delta.dataset(self.out).filter(pc.field("part") == part)] if delta.is_table(self.out) else []
        sets += [pyarrow.dataset.dataset(path, filesystem=system) for path in noted]
        empty = self.schema.empty_table().select(list(columns))
        # Rows of another version of Lexray, or with vectors of another length, do not fit and are ignored.
        fitting = [rows for rows in sets if _has(rows.schema, self.schema)]
        return pa.concat_tables([empty, *(rows.to_table(list(columns)).cast(empty.schema) for rows in fitting)])

    def are_any(self) -> bool:
        """Whether there are rows that are not in the table yet."""
        system, root = filesystem(self.out)
        below = system.get_file_info(pyarrow.fs.FileSelector(f"{root}.rows", recursive=True, allow_not_found=True))
        return any(info.extension == "parquet" for info in below)

    def gather(self, part: int, keys: Mapping[str, str]) -> tuple[Fragment, set[str]]:
        """Write one file of a part with the row of each source in `keys` that has its key, sorted by source.

        Where several rows fit, one that did not fail is preferred, and then the newest.

        Parameters
        ----------
        part : int
        keys : mapping
            `key` by `source_id`. Rows of other sources or with other keys are left out.

        Returns
        -------
        Fragment
        set of str
            Sources in `keys` that no row fits.
        """
        rows = self.finished(part, self.schema.names)
        failed = (
            pc.equal(rows["status"], "failed").to_pylist() if "status" in rows.column_names else [False] * len(rows)
        )
        best: dict[str, int] = {}
        for i, (source, key) in enumerate(_pairs(rows)):
            if keys.get(source) == key and not (failed[i] and source in best and not failed[best[source]]):
                best[source] = i
        chosen = rows.take(pa.array([best[source] for source in sorted(best)], pa.int64()))
        return delta.write_part(self.out, self.schema, part, chosen), keys.keys() - best.keys()

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


@dataclass(frozen=True)
class RowPlan(Generic[InputT]):
    """Rows that a table must have, and which of them are missing.

    Attributes
    ----------
    inputs : RowInputs
    key : callable
        Hash of all that a row depends on, by its source and what it is made from.
    rows : RowCheckpoints
    from_scratch : bool
        Count no row as finished.
    map_parts : callable
        Applies a function to each part.
    """

    inputs: RowInputs[InputT]
    key: Callable[[str, InputT], str]
    rows: RowCheckpoints
    from_scratch: bool = False
    map_parts: MapParts = in_threads
    _name: str = field(default_factory=lambda: f"{_unique_name()}.keys")

    def progress(self) -> dict[int, PartProgress]:
        """How much of each part is done."""

        def look(part: int) -> PartProgress:
            finished, failed = self._known(part)
            if not finished and not failed:
                n_rows = self.inputs.count(part)
                return PartProgress(n_rows, n_rows)
            keys, _ = self._keys(part)
            return PartProgress(len(keys), len(keys.items() - finished))

        parts = self.inputs.parts()
        return dict(zip(parts, self.map_parts(look, parts), strict=True))

    def missing(self, part: int) -> list[MissingRow[InputT]]:
        """Rows of a part that are not finished."""
        finished, failed = self._known(part)
        keys, read = self._keys(part)
        missing = {source: key for source, key in keys.items() if (source, key) not in finished}
        if read is None:
            read = self.inputs.read(part, missing)
        return [
            MissingRow(part, source, key, read[source], failed.get((source, key), {}))
            for source, key in missing.items()
        ]

    def is_committed(self, may_lack: Set[str] = frozenset()) -> bool:
        """Whether the table has the row of every source and no other; `may_lack` are sources that need none."""
        if not delta.is_table(self.rows.out) or self.rows.are_any():
            return False

        def rows_of(part: int) -> int:
            found = self.rows.finished(part, _KEYS.names)
            pairs, (keys, _) = set(_pairs(found)), self._keys(part)
            fits = pairs <= keys.items() and all(source in may_lack for source, _ in keys.items() - pairs)
            return len(pairs) if fits and len(pairs) == found.num_rows else -1

        counts = list(self.map_parts(rows_of, self.inputs.parts()))
        return min(counts, default=0) >= 0 and sum(counts) == delta.dataset(self.rows.out).count_rows()

    def commit(self, name: str, may_lack: Set[str] = frozenset()) -> None:
        """Gather the rows of every part, commit the table unless it has just these rows, and delete the checkpoints.

        Parameters
        ----------
        name : str
            What the table is, as for `delta.commit`.
        may_lack : set of str
            Sources that failed. A row of the same inputs from an earlier run stays.

        Raises
        ------
        LexrayError
            If a finished row is gone; the table stays as it was.
        """
        begun = time.time_ns()
        if not self.is_committed(may_lack):
            gathered = list(
                self.map_parts(lambda part: self.rows.gather(part, self._keys(part)[0]), self.inputs.parts())
            )
            if n_lost := sum(len(lost - may_lack) for _, lost in gathered):
                raise LexrayError(
                    f"{self.rows.out}: {n_lost} finished rows are gone, another run wrote this table meanwhile; "
                    "run again"
                )
            fragments = [fragment for fragment, _ in gathered if fragment.n_rows]
            delta.commit(self.rows.out, name, self.rows.schema, fragments)
        self.rows.remove(begun)

    def _known(self, part: int) -> tuple[set[tuple[str, str]], dict[tuple[str, str], dict[str, Any]]]:
        """Sources and keys of the finished rows, and the rows that failed by theirs."""
        # The last three say of a failed row what became of it; not every table has them.
        columns = [name for name in (*_KEYS.names, "status", "attempts", "reason") if name in self.rows.schema.names]
        known = [] if self.from_scratch else self.rows.finished(part, columns).to_pylist()
        failed = {(row["source_id"], row["key"]): row for row in known if row.get("status") == "failed"}
        return {(row["source_id"], row["key"]) for row in known if row.get("status") != "failed"}, failed

    def _keys(self, part: int) -> tuple[dict[str, str], Mapping[str, InputT] | None]:
        """Key of each row that a part must have; and its inputs, if this run had not read them yet."""
        system, root = filesystem(self.rows.out)
        path = f"{root}.rows/part={part}/{self._name}"
        with contextlib.suppress(FileNotFoundError):  # not yet written, or deleted with those of a run that ended
            return dict(_pairs(pa.parquet.read_table(path, filesystem=system))), None
        read = self.inputs.read(part)
        keys = {source: self.key(source, made_from) for source, made_from in read.items()}
        self.rows.write_file(part, self._name, pa.table([list(keys), list(keys.values())], schema=_KEYS))
        return keys, read


def _unique_name() -> str:
    return f"{time.time_ns():020d}-{uuid.uuid4().hex}"


def _pairs(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows["source_id"].to_pylist(), rows["key"].to_pylist(), strict=True)


def _has(schema: pa.Schema, wanted: pa.Schema) -> bool:
    return all(field.name in schema.names and schema.field(field.name).type == field.type for field in wanted)
