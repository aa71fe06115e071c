"""The account of an ingest: one row a file, from reading it to the fragment of the table that holds its detection.

Free of Ray. Workers call `ingest_files`; the driver gathers the ledgers, and `collisions` tells it which identifiers
two files would share, whatever the order in which the files were read; `amend` puts that right in the fragments.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from lexray import storage
from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands, EventList, to_table
from lexray.events.fits import CAUSES, read
from lexray.schemas import EVENTS, QUARANTINE
from lexray.sources import fold_name, part_of

#: Fragments are written once this many events wait: a worker's memory does not grow with the archive.
_MAX_WAITING_EVENTS = 4_000_000
#: Digits of a file's sha256 that tell detections of one identifier apart.
_SUFFIX_DIGITS = 8

_i8 = pa.int64()
LEDGER = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("bytes", _i8),
        pa.field("reason", pa.string()),  # null where the file was taken
        pa.field("detail", pa.string()),
        pa.field("detection_id", pa.string()),
        pa.field("source_id", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("fragment", pa.string()),  # path, part, size and rows of a storage.Fragment
        pa.field("part", pa.int32()),
        pa.field("fragment_size", _i8),
        pa.field("fragment_rows", _i8),
        pa.field("events_in", _i8),
        pa.field("events_kept", _i8),
        *(pa.field(f"dropped_{cause}", _i8) for cause in CAUSES),
    ]
)


def ingest_files(files: Iterable[str], table: str, n_parts: int, bands: Mapping[str, Bands] | None = None) -> pa.Table:
    """Read event files, write their detections into the parts that own them, and account for every file.

    Parameters
    ----------
    files : iterable of str
        Their paths.
    table : str
        The events table; the fragments become visible once they are committed.
    n_parts : int
        Parts of the table.
    bands : mapping of str to Bands, optional
        Energy bands by mission, where the mission's own are not wanted.

    Returns
    -------
    pyarrow.Table
        A row a file, of schema `LEDGER`.
    """
    rows: list[dict[str, object]] = []
    waiting: list[tuple[EventList, dict[str, object]]] = []
    n_waiting = 0
    for file in files:
        row: dict[str, object] = {"file": file, "bytes": _size(file)}
        rows.append(row)
        try:
            reading = read(file, bands)
        except RefusedInput as refused:
            row.update(reason=refused.reason, detail=refused.detail)
            continue
        row.update(
            detection_id=reading.events.detection_id,
            source_id=reading.events.source_id,
            sha256=reading.events.sha256,
            events_in=reading.n_in,
            events_kept=len(reading.events),
            **{f"dropped_{cause}": n for cause, n in reading.dropped.items()},
        )
        waiting.append((reading.events, row))
        n_waiting += len(reading.events)
        if n_waiting > _MAX_WAITING_EVENTS:
            _write(waiting, table, n_parts)
            waiting, n_waiting = [], 0
    _write(waiting, table, n_parts)
    return pa.Table.from_pylist(rows, schema=LEDGER)


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError:
        return 0  # the reader says what is wrong with it


def _write(waiting: list[tuple[EventList, dict[str, object]]], table: str, n_parts: int) -> None:
    """Write one fragment a part, sorted by detection, and note in each file's row which one holds it."""
    parts: dict[int, list[tuple[EventList, dict[str, object]]]] = defaultdict(list)
    for events, row in waiting:
        parts[part_of(events.source_id, n_parts)].append((events, row))
    for part, members in sorted(parts.items()):
        members.sort(key=lambda member: (member[0].detection_id, member[0].file))
        fragment = storage.write_part(table, EVENTS, part, to_table([events for events, _ in members]))
        place = {
            "fragment": fragment.path,
            "part": fragment.part,
            "fragment_size": fragment.size,
            "fragment_rows": fragment.n_rows,
        }
        for _, row in members:
            row.update(place)


@dataclass(frozen=True)
class Collisions:
    """What to do with files whose detections would share an identifier.

    Attributes
    ----------
    renamed : dict of str to str
        Identifier of a file's detection with the digits that tell it apart, by file.
    duplicates : dict of str to str
        Files with the very bytes of another one, and that other one.
    """

    renamed: dict[str, str]
    duplicates: dict[str, str]


def collisions(ledger: pa.Table) -> Collisions:
    """Find files that would share a `detection_id`; the answer does not depend on the ledger's order.

    Files of different content get the first digits of their sha256 behind it, every one of them. Of files of the same
    content the one first by name counts, the others are duplicates.
    """
    taken = accepted(ledger).select(["detection_id", "file", "sha256"])
    counted = taken.group_by("detection_id").aggregate([([], "count_all")])
    shared = counted.filter(pc.greater(counted["count_all"], 1))["detection_id"]
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in taken.filter(pc.is_in(taken["detection_id"], value_set=shared)).to_pylist():
        groups[row["detection_id"]][row["sha256"]].append(row["file"])
    renamed, duplicates = {}, {}
    for detection_id, by_content in groups.items():
        for sha256, files in by_content.items():
            first, *others = sorted(files)
            duplicates.update(dict.fromkeys(others, first))
            if len(by_content) > 1:
                renamed[first] = f"{detection_id}:{sha256[:_SUFFIX_DIGITS]}"
    return Collisions(renamed, duplicates)


def accepted(ledger: pa.Table) -> pa.Table:
    """Rows of files that were taken."""
    return ledger.filter(pc.is_null(ledger["reason"]))


def refused(ledger: pa.Table) -> pa.Table:
    """Rows of files that were refused."""
    return ledger.filter(pc.is_valid(ledger["reason"]))


def refuse_duplicates(ledger: pa.Table, duplicates: Mapping[str, str]) -> pa.Table:
    """The ledger with duplicates as refused files, which count no events."""
    is_duplicate = pc.is_in(ledger["file"], value_set=pa.array(list(duplicates), pa.string()))
    rows = [
        {**row, "reason": "duplicate", "detail": f"the same bytes as {duplicates[row['file']]}"}
        for row in ledger.filter(is_duplicate).select(["file", "bytes"]).to_pylist()
    ]
    return pa.concat_tables([ledger.filter(pc.invert(is_duplicate)), pa.Table.from_pylist(rows, schema=LEDGER)])


def fragments(ledger: pa.Table) -> list[storage.Fragment]:
    """Fragments that the ledger's files lie in."""
    columns = ["fragment", "part", "fragment_size", "fragment_rows"]
    distinct = accepted(ledger).select(columns).group_by(columns).aggregate([]).to_pylist()
    return [storage.Fragment(*(row[name] for name in columns)) for row in distinct]


def affected(ledger: pa.Table, found: Collisions) -> list[storage.Fragment]:
    """Fragments that hold a detection to be renamed or removed."""
    files = pa.array([*found.renamed, *found.duplicates], pa.string())
    return fragments(ledger.filter(pc.is_in(ledger["file"], value_set=files)))


def amend(table: str, fragment: storage.Fragment, found: Collisions) -> storage.Fragment | None:
    """Write a fragment anew with its detections renamed and its duplicates removed; None where nothing is left."""
    system, root = storage.filesystem(table)
    rows = pa.parquet.read_table(f"{root}/{fragment.path}", filesystem=system, partitioning=None)
    names = zip(rows["file"].to_pylist(), rows["detection_id"].to_pylist(), strict=True)
    ids = pa.array([found.renamed.get(file, detection_id) for file, detection_id in names], pa.string())
    rows = rows.set_column(rows.column_names.index("detection_id"), "detection_id", ids)
    keep = pc.invert(pc.is_in(rows["file"], value_set=pa.array(list(found.duplicates), pa.string())))
    rows = rows.filter(keep).sort_by([("detection_id", "ascending")])
    amended = storage.write_part(table, EVENTS, fragment.part, rows) if rows.num_rows else None
    system.delete_file(f"{root}/{fragment.path}")
    return amended


def quarantine(ledger: pa.Table, stage: str) -> pa.Table:
    """Rows of the `quarantine` table, sorted by file."""
    rows = refused(ledger).select(["file", "reason", "detail"]).sort_by("file")
    return rows.add_column(1, "stage", pa.array([stage] * rows.num_rows, pa.string())).cast(QUARANTINE)


def counts(ledger: pa.Table) -> dict[str, int]:
    """Figures for a person: files, detections, sources, refused by reason, events in, kept and dropped by cause."""
    taken, by_reason = accepted(ledger), pc.value_counts(refused(ledger)["reason"]).to_pylist()
    totals = {
        name: pc.sum(taken[name]).as_py() or 0 for name in LEDGER.names if name.startswith(("events_", "dropped_"))
    }
    return {
        "files": ledger.num_rows,
        "bytes": pc.sum(ledger["bytes"]).as_py() or 0,
        "detections": taken.num_rows,
        "sources": len({fold_name(name) for name in pc.unique(taken["source_id"]).to_pylist()}),
        **{f"refused_{row['values']}": row["counts"] for row in sorted(by_reason, key=lambda row: row["values"])},
        **totals,
    }
