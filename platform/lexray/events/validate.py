"""Which rows of an events table a model can take, and what is wrong with the others.

`lexray ingest` writes none of the others; tables that somebody else made may hold them. A job leaves them out and says
which: one invalid row must not end the work on a million.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lexray.array_types import Bools, Int64s
from lexray.tables import delta
from lexray.tables.list_columns import flatten_lists, floats, list_lengths
from lexray.tables.quarantine import Refusal

#: Columns that tell without the photons.
HEADER_COLUMNS = (
    "detection_id", "source_id", "n_events", "exposure", "ontime", "area", "bands", "gti_start", "gti_stop"
)  # fmt: skip
#: Share of a detection's length by which rounding may move a time; rates are scored with as much.
_ROUNDING = 1e-6


def faults(rows: pa.Table, n_bands: int) -> dict[str, str]:
    """What is wrong with rows of an events table, by detection; those in order do not appear.

    Parameters
    ----------
    rows : pyarrow.Table
        With `HEADER_COLUMNS`, and with the columns of photons where these are to be looked at too.
    n_bands : int
        Energy bands of the model.
    """
    checks, rest, found = _HEADER_CHECKS, rows, dict[str, str]()
    if "time" in rows.column_names:
        checks += _PHOTON_CHECKS
    for check, reason in checks:
        bad = check(rest, n_bands)
        if bad.any():
            names = rest["detection_id"].filter(pa.array(bad)).to_pylist()
            found |= dict.fromkeys(names, reason.format(n_bands=n_bands))
            rest = rest.filter(pa.array(~bad))
    return {name: found[name] for name in rows["detection_id"].to_pylist() if name in found} if found else {}


def usual_bands(events: str) -> int:
    """Energy bands that most rows of an events table have, at least 1."""
    edges = list_lengths(delta.read(events, ["bands"])["bands"])
    return max(1, int(np.bincount(edges, minlength=1).argmax()) - 1)


def without(rows: pa.Table, detections: Mapping[str, str]) -> pa.Table:
    """Rows of other detections than these."""
    if not detections:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["detection_id"], pa.array(list(detections), pa.string()))))


def refusals(events: str, reasons: Mapping[str, str]) -> list[Refusal]:
    """Rows of the quarantine for detections that were left out of an events table."""
    return [Refusal(events, "invalid_row", f"detection {name} {reason}") for name, reason in reasons.items()]


# Each check sees only the rows that passed those before it, and says which of them do not pass.


def _other_bands(rows: pa.Table, n_bands: int) -> Bools:
    return np.asarray(list_lengths(rows["bands"]) != n_bands + 1)


def _invalid_bands(rows: pa.Table, n_bands: int) -> Bools:
    edges = _values(rows["bands"]).astype(np.float64).reshape(-1, n_bands + 1)
    with np.errstate(invalid="ignore"):  # edges are read with six digits: they differ by more than the last
        good: Bools = (edges[:, 1:] - edges[:, :-1] > 1e-5 * edges[:, 1:]).all(1) & (edges[:, 0] > 0)
    return ~good


def _invalid_area(rows: pa.Table, n_bands: int) -> Bools:
    bad: Bools = rows["area"].is_valid().to_numpy() & (list_lengths(rows["area"]) != n_bands)
    return bad | _any(pc.list_flatten(rows["area"]).is_null().to_numpy(), rows["area"])


def _one_end(rows: pa.Table, _: int) -> Bools:
    return np.asarray(list_lengths(rows["gti_start"]) != list_lengths(rows["gti_stop"]))


def _no_good_time(rows: pa.Table, _: int) -> Bools:
    start, stop = _values(rows["gti_start"]), _values(rows["gti_stop"])
    known = np.isfinite(start) & np.isfinite(stop)
    return ~_any(known & (stop > start), rows["gti_start"]) | _any(~known, rows["gti_start"])


def _invalid_good_time(rows: pa.Table, _: int) -> Bools:
    start, stop, owner = _values(rows["gti_start"]), _values(rows["gti_stop"]), _owner(rows["gti_start"])
    wrong = (stop < start) | (start < 0)
    wrong[1:] |= (owner[1:] == owner[:-1]) & (start[1:] < stop[:-1] - _ROUNDING * stop[1:])
    return _any(wrong, rows["gti_start"])


def _no_exposure(rows: pa.Table, _: int) -> Bools:
    seconds = np.stack([floats(rows[name]) for name in ("exposure", "ontime")])
    return ~np.asarray((np.isfinite(seconds) & (seconds > 0)).all(0))


def _invalid_photons(rows: pa.Table, n_bands: int) -> Bools:
    bad: Bools = list_lengths(rows["time"]) != list_lengths(rows["energy"])
    edges, energy = _values(rows["bands"]).reshape(-1, n_bands + 1), _values(rows["energy"])
    owner = _owner(rows["energy"])
    outside = ~((energy >= edges[owner, 0]) & (energy <= edges[owner, -1]))
    return bad | _any(outside, rows["energy"]) | _any(~np.isfinite(_values(rows["time"])), rows["time"])


def _unsorted(rows: pa.Table, _: int) -> Bools:
    time, owner = _values(rows["time"]), _owner(rows["time"])
    back = np.zeros(len(time), dtype=bool)
    back[1:] = (time[1:] < time[:-1]) & (owner[1:] == owner[:-1])
    return _any(back, rows["time"])


def _out_of_good_time(rows: pa.Table, _: int) -> Bools:
    start, stop = _values(rows["gti_start"]), _values(rows["gti_stop"])
    time, owner = _values(rows["time"]), _owner(rows["time"])
    slack = (_ROUNDING * stop[np.cumsum(list_lengths(rows["gti_stop"])) - 1])[owner]  # none is empty
    # Complex numbers compare by their real parts first: each photon is looked up among its own row's intervals.
    last = np.searchsorted(_owner(rows["gti_start"]) + 1j * start, owner + 1j * (time + slack), side="right") - 1
    before = last < flatten_lists(rows["gti_start"])[1][owner]
    return _any(before | (time > stop[np.maximum(last, 0)] + slack), rows["time"])


def _invalid_background(rows: pa.Table, _: int) -> Bools:
    bad: Bools = rows["bkg_time"].is_valid().to_numpy() & ~(floats(rows["bkg_scale"]) > 0)
    bad |= list_lengths(rows["bkg_time"]) != list_lengths(rows["bkg_energy"])
    return bad | _any(~np.isfinite(_values(rows["bkg_time"])), rows["bkg_time"])


Checks = tuple[tuple[Callable[[pa.Table, int], Bools], str], ...]
_HEADER_CHECKS: Checks = (
    (_other_bands, "has not {n_bands} energy bands"),
    (_invalid_bands, "has energy bands whose edges do not increase from above 0 keV"),
    (_invalid_area, "has not one effective area a band"),
    (_one_end, "has good-time intervals without both ends"),
    (_no_good_time, "has no good time"),
    (_invalid_good_time, "has good-time intervals that are backward, out of order or before 0 s, or that overlap"),
    (_no_exposure, "has no exposure"),
)
_PHOTON_CHECKS: Checks = (
    (_invalid_photons, "has an event without a time, or outside its energy bands"),
    (_unsorted, "has events out of order of their times"),
    (_out_of_good_time, "has an event outside its good time"),
    (_invalid_background, "has a background without times, or without a scale"),
)


def _owner(column: pa.ChunkedArray) -> Int64s:
    return np.repeat(np.arange(len(column)), list_lengths(column))


def _values(column: pa.ChunkedArray) -> NDArray[np.floating]:
    """All rows' values behind one another, NaN where null."""
    return flatten_lists(column)[0]


def _any(bad: Bools, column: pa.ChunkedArray) -> Bools:
    """Rows that have a bad value."""
    return np.bincount(_owner(column)[bad], minlength=len(column)) > 0
