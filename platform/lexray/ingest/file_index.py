"""The file index of an ingest: one row per file (`schemas.FILES`), from its reading to the detections that it gave.

Free of Ray. Workers call `ingest_files`; the driver gathers their rows, `resolve` decides which identifiers two files
would share, whatever the order in which the files were read, and `rewrite` puts that right in the fragments. The file
index is stored next to the events as ``OUT.files``: from it the next run knows which files it can skip (`incremental`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from lexray.errors import RefusedInput
from lexray.events.arrow import to_table
from lexray.events.eventlist import EventList
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.reader import ReadOptions, read_content, unreadable
from lexray.ingest.schemas import FILES
from lexray.sources import fold_name, part_of
from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.files import Location, contents, filesystem
from lexray.tables.quarantine import Refusal
from lexray.tables.schemas import EVENTS, check

_PLACE = ["fragment", "part", "fragment_size", "fragment_rows"]

Row = dict[str, Any]
#: By file and name, the identifiers of the detections that need more than their name to be disambiguated.
Renamed = Mapping[tuple[str, str], str]


def ingest_files(files: Iterable[Location], table: str, n_parts: int, options: ReadOptions, settings: str) -> pa.Table:
    """Read event files, write their detections into the parts that own them, and return a row for every file.

    Parameters
    ----------
    files : iterable of Location
    table : str
        The events table; the fragments become visible once they are committed.
    n_parts : int
        Parts of the table.
    options : ReadOptions
    settings : str
        Hash of all settings that the files are read with, for the file index.

    Returns
    -------
    pyarrow.Table
        One row per file, of schema `FILES`.
    """
    known = {file.path: file for file in files}
    rows: list[Row] = []
    waiting: list[tuple[EventList, Row]] = []
    n_waiting = 0
    for path, content in contents(known):
        row: Row = {"file": path, "size": known[path].size, "stamp": known[path].stamp, "settings": settings}
        rows.append(row)
        try:
            if isinstance(content, OSError):
                raise unreadable(content)
            row["sha256"] = hashlib.sha256(content).hexdigest()
            reading = read_content(content, path, options, row["sha256"])
            row.update(
                events_in=reading.n_in,
                events_kept=sum(map(len, reading.detections)),
                unsorted=reading.unsorted,
                detections=[],
                **{f"dropped_{cause}": n for cause, n in reading.dropped.items()},
            )
            waiting += [(events, row) for events in reading.detections]
            n_waiting += sum(len(e) + (len(e.background.time) if e.background else 0) for e in reading.detections)
            if reading.refusal is not None:
                row.update(reason=reading.refusal.reason, detail=reading.refusal.detail)
        except RefusedInput as refused:
            row.update(reason=refused.reason, detail=refused.detail)
        if n_waiting > 4_000_000:  # a worker's memory must not grow with the archive
            _write(waiting, table, n_parts)
            waiting, n_waiting = [], 0
    _write(waiting, table, n_parts)
    return pa.Table.from_pylist(rows, schema=FILES)


def _write(waiting: list[tuple[EventList, Row]], table: str, n_parts: int) -> None:
    """Write one fragment a part, sorted by detection, and note in each file's row which one holds what."""
    parts: dict[int, list[tuple[EventList, Row]]] = defaultdict(list)
    for events, row in waiting:
        parts[part_of(events.source_id, n_parts)].append((events, row))
    for part, members in sorted(parts.items()):
        members.sort(key=lambda member: (member[0].detection_id, member[0].file))
        fragment = delta.write_part(table, EVENTS, part, to_table([events for events, _ in members]))
        for events, row in members:
            named = {"name": events.detection_id, "source_id": events.source_id, "n_events": len(events)}
            row["detections"].append(named | _place(fragment))


def _place(fragment: Fragment) -> Row:
    return dict(zip(_PLACE, (fragment.path, fragment.part, fragment.size, fragment.n_rows), strict=True))


def resolve(index: pa.Table) -> tuple[pa.Table, Renamed]:
    """Disambiguate detections of one name; the result does not depend on the file index's order.

    Of files with the same bytes only the first by name counts. If detections of different files share a name, the
    first digits of each file's sha256 are appended to it.

    Returns
    -------
    pyarrow.Table
        Of schema `FILES`, with files that repeat another's bytes refused as 'duplicate': no two share a detection.
    Renamed
    """
    index = _refuse_duplicates(index)
    detections = detections_of(index)
    counted = detections.group_by("name").aggregate([([], "count_all")])
    shared = counted.filter(pc.greater(counted["count_all"], 1))["name"]
    rows = detections.filter(pc.is_in(detections["name"], value_set=shared)).select(["file", "name", "sha256"])
    renamed = {(row["file"], row["name"]): _disambiguate(row["name"], row["sha256"]) for row in rows.to_pylist()}
    return index, renamed


def _disambiguate(name: str, sha256: str) -> str:
    return f"{name}:{sha256[:8]}"  # as many digits as tell the files of one name apart


def _refuse_duplicates(index: pa.Table) -> pa.Table:
    taken = accepted(index).group_by("sha256").aggregate([("file", "min")])
    original = taken["file_min"].take(pc.index_in(index["sha256"], value_set=taken["sha256"].combine_chunks()))
    is_repeat = pc.and_kleene(pc.is_null(index["reason"]), pc.not_equal(original, index["file"]))
    found = index.filter(is_repeat).select(["file", "size", "stamp", "settings", "sha256"])
    found = found.append_column("reason", pa.repeat(pa.scalar("duplicate"), found.num_rows))
    details = pc.binary_join_element_wise("the same bytes as", original.filter(is_repeat), " ")
    refused_rows = check(found.append_column("detail", details), FILES, "the file index")
    return pa.concat_tables([index.filter(pc.invert(is_repeat)), refused_rows])


def accepted(index: pa.Table) -> pa.Table:
    """Rows of files that were taken."""
    return index.filter(pc.is_null(index["reason"]))


def refused(index: pa.Table) -> pa.Table:
    """Rows of files that were refused."""
    return index.filter(pc.is_valid(index["reason"]))


def detections_of(index: pa.Table) -> pa.Table:
    """One row per detection: its file, that file's sha256, and the file index's entry for the detection."""
    taken = accepted(index).combine_chunks()
    lists = taken["detections"].combine_chunks()
    file = taken.select(["file", "sha256"]).take(pc.list_parent_indices(lists))
    flat = pc.list_flatten(lists)
    fields = {field.name: pc.struct_field(flat, field.name) for field in FILES.field("detections").type.value_type}
    return pa.table({name: file[name] for name in file.column_names} | fields)


def fragments(index: pa.Table) -> list[Fragment]:
    """Fragments that the file index's detections lie in."""
    distinct = detections_of(index).select(_PLACE).group_by(_PLACE).aggregate([]).to_pylist()
    return [Fragment(*(row[name] for name in _PLACE)) for row in distinct]


def to_rewrite(index: pa.Table, renamed: Renamed, renamed_before: Renamed) -> list[Fragment]:
    """Fragments that hold rows of files that are gone, or rows whose identifier has changed."""
    detections = detections_of(index)
    n_held = {row["values"]: row["counts"] for row in pc.value_counts(detections["fragment"]).to_pylist()}
    files = pa.array({file for (file, _), _ in renamed.items() ^ renamed_before.items()}, pa.string())
    changed = set(detections.filter(pc.is_in(detections["file"], value_set=files))["fragment"].to_pylist())
    return [f for f in fragments(index) if f.path in changed or n_held[f.path] != f.n_rows]


def rewrite(table: str, fragment: Fragment, files: Collection[str], renamed: Renamed) -> Fragment:
    """Rewrite a fragment with the rows of some files only, under their current identifiers.

    Parameters
    ----------
    table : str
    fragment : Fragment
    files : collection of str
        Files whose rows stay.
    renamed : Renamed
    """
    system, root = filesystem(table)
    rows = pa.parquet.read_table(f"{root}/{fragment.path}", filesystem=system, partitioning=None)
    rows = rows.filter(pc.is_in(rows["file"], value_set=pa.array(list(files), pa.string())))
    names = [
        (row["file"], row["detection_id"].removesuffix(_disambiguate("", row["sha256"])))
        for row in rows.select(["file", "detection_id", "sha256"]).to_pylist()
    ]
    ids = [renamed.get((file, name), name) for file, name in names]
    rows = rows.set_column(rows.column_names.index("detection_id"), "detection_id", pa.array(ids, pa.string()))
    return delta.write_part(table, EVENTS, fragment.part, rows.sort_by("detection_id"))


def members(index: pa.Table, rewritten: Collection[Fragment]) -> dict[str, list[str]]:
    """Files whose detections lie in some fragments, by the fragment's path."""
    detections = detections_of(index).select(["fragment", "file"])
    found: dict[str, list[str]] = {fragment.path: [] for fragment in rewritten}
    for row in detections.filter(pc.is_in(detections["fragment"], pa.array(list(found), pa.string()))).to_pylist():
        found[row["fragment"]].append(row["file"])
    return found


def moved(index: pa.Table, places: Mapping[str, Fragment]) -> pa.Table:
    """The file index with detections in new fragments, by the path of the old one."""
    if not places:
        return index
    index = index.combine_chunks()
    lists = index["detections"].combine_chunks()
    kind = lists.type.value_type
    columns = {field.name: pc.struct_field(lists.values, field.name) for field in kind}
    place = pc.index_in(columns["fragment"], value_set=pa.array(list(places), pa.string()))
    new = [_place(fragment) for fragment in places.values()]
    for name in _PLACE:
        moved_to = pa.array([row[name] for row in new], kind.field(name).type).take(place)
        columns[name] = pc.if_else(pc.is_valid(place), moved_to, columns[name])
    values = pa.StructArray.from_arrays(list(columns.values()), fields=list(kind))
    rebuilt = pa.ListArray.from_arrays(lists.offsets, values, mask=pc.is_null(lists) if lists.null_count else None)
    return index.set_column(index.column_names.index("detections"), FILES.field("detections"), rebuilt)


def refusals(index: pa.Table) -> list[Refusal]:
    """Files that were refused, and why."""
    return [Refusal(**row) for row in refused(index).select(["file", "reason", "detail"]).to_pylist()]


def counts(index: pa.Table) -> dict[str, int]:
    """Counts for the report: detections, sources, files refused by reason, events read, kept and dropped by cause."""
    by_reason = pc.value_counts(refused(index)["reason"]).to_pylist()
    detections = detections_of(index)
    names = ["events_in", "events_kept", *(f"dropped_{cause}" for cause in CAUSES), "unsorted"]
    return {
        "files": index.num_rows,
        "bytes": pc.sum(pc.max_element_wise(index["size"], 0)).as_py() or 0,
        "detections": detections.num_rows,
        "sources": len({fold_name(name) for name in pc.unique(detections["source_id"]).to_pylist()}),
        **{f"refused_{row['values']}": row["counts"] for row in sorted(by_reason, key=lambda row: row["values"])},
        **{name: pc.sum(index[name]).as_py() or 0 for name in names},
    }
