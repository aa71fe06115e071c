"""Which rows of an events table a model can take, and what is wrong with the others.

`lexray ingest` writes none of the others; tables that somebody else made may hold them. A job leaves them out and says
which: one odd row must not end the work on a million.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lexray import storage
from lexray.schemas import QUARANTINE

#: Columns that tell without the photons.
HEADER_COLUMNS = ("detection_id", "source_id", "n_events", "exposure", "ontime", "bands", "gti_start", "gti_stop")
#: What is wrong with a row whose header is in order.
BAD_PHOTONS = "has an event without a time, or outside its energy bands"
_BAD_BACKGROUND = "has a background without times, or without a scale"


def faults(rows: pa.Table, n_bands: int) -> dict[str, str]:
    """What is wrong with rows of an events table, by detection; those in order do not appear.

    Parameters
    ----------
    rows : pyarrow.Table
        With `HEADER_COLUMNS`, and with the columns of photons where these are to be looked at too.
    n_bands : int
        Energy bands of the model.
    """
    found = [_bands(rows, n_bands), _good_time(rows), _exposure(rows)]
    if "time" in rows.column_names:
        found += [_photons(rows), _background(rows)]
    reasons: dict[int, str] = {}
    for bad, reason in found:
        for i in np.flatnonzero(bad).tolist():
            reasons.setdefault(i, reason)  # the first that is wrong
    return {rows["detection_id"][i].as_py(): reasons[i] for i in sorted(reasons)}


def without(rows: pa.Table, detections: Mapping[str, str]) -> pa.Table:
    """Rows of other detections than these."""
    if not detections:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["detection_id"], pa.array(list(detections), pa.string()))))


def summary(reasons: Mapping[str, str], most: int = 3) -> str:
    """One line for a person: how many were left out, and the first of them with what is wrong."""
    shown = "; ".join(f"{name} {reason}" for name, reason in list(reasons.items())[:most])
    more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    return f"left out {len(reasons)} detections: {shown}{more}"


def left_out(events: str, out: str, n_bands: int) -> dict[str, str]:
    """Detections of an events table that have no row in `out`, with what is wrong with each."""
    headers = storage.read(events, HEADER_COLUMNS, order="detection_id")
    written = pc.unique(storage.read(out, ["detection_id"])["detection_id"])
    absent = headers.filter(pc.invert(pc.is_in(headers["detection_id"], written)))
    found = faults(absent, n_bands)
    return {name: found.get(name, BAD_PHOTONS) for name in absent["detection_id"].to_pylist()}


def quarantine(out: str, stage: str, table: str, reasons: Mapping[str, str]) -> list[str]:
    """Write what was left out as ``OUT.quarantine``; returns what was written.

    Also where nothing was left out this time, if there is one, so that none of an earlier run's rows stays.
    """
    place = f"{out}.quarantine"
    if not reasons and not storage.is_table(place):
        return []
    rows = [
        {"file": table, "stage": stage, "reason": "unusable", "detail": f"detection {name}: it {reason}"}
        for name, reason in reasons.items()
    ]
    fragments = [storage.write_part(place, QUARANTINE, 0, pa.Table.from_pylist(rows, QUARANTINE))] if rows else []
    storage.commit(place, "quarantine", QUARANTINE, fragments)
    return [place]


Found = tuple[NDArray[np.bool_], str]


def _bands(rows: pa.Table, n_bands: int) -> Found:
    return _lengths(rows["bands"]) != n_bands + 1, f"has not {n_bands} energy bands"


def _good_time(rows: pa.Table) -> Found:
    matched = _lengths(rows["gti_start"]) == _lengths(rows["gti_stop"])
    start, stop = _values(rows["gti_start"]), _values(rows["gti_stop"])
    if not matched.all():
        return ~matched, "has good-time intervals without both ends"
    length = np.where(stop > start, stop - start, 0.0)
    total = np.bincount(_owner(rows["gti_start"]), weights=length, minlength=rows.num_rows)
    numbers = ~_any(~(np.isfinite(start) & np.isfinite(stop)), rows["gti_start"])
    return ~((total > 0) & numbers), "has no good time"


def _exposure(rows: pa.Table) -> Found:
    good = np.ones(rows.num_rows, dtype=bool)
    for name in ("exposure", "ontime"):
        value = rows[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
        good &= np.isfinite(value) & (value > 0)
    return ~good, "has no exposure"


def _photons(rows: pa.Table) -> Found:
    matched = _lengths(rows["time"]) == _lengths(rows["energy"])
    in_order = matched & (_lengths(rows["bands"]) > 1)
    bad = ~matched
    chosen = rows.filter(pa.array(in_order))
    edges = pa.table({"low": pc.list_element(chosen["bands"], 0), "high": _last(chosen["bands"])})
    owner = _owner(chosen["energy"])
    time, energy = _values(chosen["time"]), _values(chosen["energy"])
    low, high = (edges[name].to_numpy()[owner] for name in ("low", "high"))
    wrong = ~(np.isfinite(time) & (energy >= low) & (energy <= high))
    bad[np.flatnonzero(in_order)] |= _any(wrong, chosen["time"])
    return bad, BAD_PHOTONS


def _background(rows: pa.Table) -> Found:
    known = rows["bkg_time"].is_valid().to_numpy()
    scale = rows["bkg_scale"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    bad = known & ~(scale > 0)
    bad |= _any(~np.isfinite(_values(rows["bkg_time"])), rows["bkg_time"])
    return bad | (_lengths(rows["bkg_time"]) != _lengths(rows["bkg_energy"])), _BAD_BACKGROUND


def _lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """How long each row's list is; 0 where it is null."""
    lengths: NDArray[np.int64] = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    return lengths


def _owner(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(column)), _lengths(column))


def _values(column: pa.ChunkedArray) -> NDArray[np.floating]:
    """All rows' values behind one another, NaN where null."""
    values: NDArray[np.floating] = pc.list_flatten(column).fill_null(np.nan).to_numpy()
    return values


def _last(column: pa.ChunkedArray) -> pa.Array:
    values, end = _values(column), np.cumsum(_lengths(column))
    return pa.array(values[end - 1])


def _any(bad: NDArray[np.bool_], column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Rows that have a bad value."""
    return np.bincount(_owner(column)[bad], minlength=len(column)) > 0
