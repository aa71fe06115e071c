"""Which files of an ingest have to be read: those that are new or have changed since the file index was made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexray.ingest import file_index
from lexray.ingest.schemas import FILES
from lexray.tables import delta
from lexray.tables.files import Location
from lexray.tables.schemas import EVENTS

#: Mark of the events table's commits: the version of the file index that belongs to them.
FILE_INDEX_MARK = "lexray.files"
#: Refusals that another try may not meet: the machine's fault, not the file's.
_PASSING = ("unreadable", "no_such_file")


@dataclass(frozen=True)
class FileIndex:
    """The file index and the versions of the tables after the last complete run.

    Attributes
    ----------
    version : int or None
        Of the events table; None where there is none.
    own_version : int or None
        Of the file index's table.
    rows : pyarrow.Table
        Of schema `FILES`.
    """

    version: int | None
    own_version: int | None
    rows: pa.Table


@dataclass(frozen=True)
class IngestPlan:
    """What a run has to do.

    Attributes
    ----------
    to_read : list of Location
    kept : pyarrow.Table
        Rows of the file index that stay.
    new, changed, unchanged, gone : int
        Files: not in the file index; in it, but other now, or read with other settings; as they were; no longer named.
    """

    to_read: list[Location]
    kept: pa.Table
    new: int
    changed: int
    unchanged: int
    gone: int


def read_file_index(table: str) -> FileIndex:
    """Read the file index that belongs to the current version of an events table.

    The file index is written before the events are committed, and the commit names its version: a run that is killed
    between the two leaves a file index that no commit names, which is never read.
    """
    version, index_version = delta.read_mark(table, FILE_INDEX_MARK)
    own_version, _ = delta.read_mark(file_index_of(table), FILE_INDEX_MARK)
    if index_version is None or own_version is None:
        return FileIndex(version, own_version, FILES.empty_table())
    rows = delta.dataset(file_index_of(table), index_version).to_table(columns=FILES.names)
    return FileIndex(version, own_version, rows.cast(FILES))


def commit(table: str, index: pa.Table, before: FileIndex) -> None:
    """Commit the fragments of a file index to the events table, and the file index with them.

    Raises
    ------
    LexrayError
        If another run has written either table since `before` was read. The events table is unchanged.
    """
    own, mark = file_index_of(table), FILE_INDEX_MARK
    written = delta.write_part(own, FILES, 0, index.sort_by("file"))
    index_version = delta.commit_over(own, "files", FILES, [written], before.own_version, (mark, 0))
    delta.commit_over(table, "events", EVENTS, file_index.fragments(index), before.version, (mark, index_version))


def file_index_of(table: str) -> str:
    """Where the file index of an events table lies."""
    return f"{table}.files"


def plan(found: Sequence[Location], index: pa.Table, settings: str) -> IngestPlan:
    """Compare files with the file index: by size and stamp, and by what they were read with.

    Parameters
    ----------
    found : sequence of Location
        Each file once.
    index : pyarrow.Table
        Of schema `FILES`.
    settings : str
        Hash of what files are read with now.
    """
    index = index.combine_chunks()
    at = pc.index_in(pa.array([file.path for file in found], pa.string()), value_set=index["file"].combine_chunks())
    known = np.asarray(pc.is_valid(at))
    before = index.select(["size", "stamp", "settings", "reason"]).take(at)
    conditions = (
        pc.equal(before["size"], pa.array([file.size for file in found], pa.int64())),
        pc.equal(before["stamp"], pa.array([file.stamp for file in found], pa.string())),
        pc.not_equal(before["stamp"], ""),  # without a stamp it may have changed
        pc.equal(before["settings"], settings),
        pc.invert(pc.is_in(before["reason"], value_set=pa.array(_PASSING))),
    )
    unchanged = np.asarray(pc.fill_null(reduce(pc.and_, conditions), False).combine_chunks(), dtype=bool)
    rows = index.take(pa.array(np.asarray(pc.fill_null(at, 0))[unchanged]))
    orphaned = _orphaned(rows)
    unchanged[np.flatnonzero(unchanged)[orphaned]] = False
    return IngestPlan(
        to_read=[file for file, is_same in zip(found, unchanged, strict=True) if not is_same],
        kept=rows.filter(pa.array(~orphaned)),
        new=int(np.count_nonzero(~known)),
        changed=int(np.count_nonzero(known & ~unchanged)),
        unchanged=int(np.count_nonzero(unchanged)),
        gone=index.num_rows - int(np.count_nonzero(known)),
    )


def reread(plan: IngestPlan, files: Sequence[str]) -> IngestPlan:
    """The plan with some of the unchanged files added to those to read."""
    if not files:
        return plan
    again = pc.is_in(plan.kept["file"], value_set=pa.array(files, pa.string()))
    orphaned = _orphaned(plan.kept.filter(pc.invert(again)))
    if orphaned.any():
        left = plan.kept.filter(pc.invert(again))["file"].filter(pa.array(orphaned)).to_pylist()
        return reread(plan, [*files, *left])
    changed = plan.kept.filter(again).select(["file", "size", "stamp"]).to_pylist()
    return replace(
        plan,
        to_read=plan.to_read + [Location(row["file"], row["size"], row["stamp"]) for row in changed],
        kept=plan.kept.filter(pc.invert(again)),
        changed=plan.changed + len(changed),
        unchanged=plan.unchanged - len(changed),
    )


def may_differ(index: pa.Table) -> bool:
    """Whether another run over files with the same stamps might read something else."""
    doubtful = pc.or_(pc.is_in(index["reason"], value_set=pa.array(_PASSING)), pc.equal(index["stamp"], ""))
    return bool(pc.any(doubtful).as_py())


def _orphaned(rows: pa.Table) -> np.ndarray:
    """Duplicates of files that do not stay: now they count themselves."""
    original_stays = pc.is_in(rows["sha256"], value_set=file_index.accepted(rows)["sha256"].combine_chunks())
    orphaned = pc.and_(pc.equal(rows["reason"], "duplicate"), pc.invert(original_stays))
    return np.asarray(pc.fill_null(orphaned, False).combine_chunks(), dtype=bool)
