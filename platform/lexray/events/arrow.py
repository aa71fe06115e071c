"""Convert event lists to rows of the `events` table, and back."""

from typing import Any

import numpy as np
import pyarrow as pa

from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals
from lexray.tables.list_columns import flatten_lists, list_array
from lexray.tables.schemas import EVENTS

_TEXTS = (
    "detection_id", "source_id", "mission", "instrument", "obs_id", "object", "timesys", "timeref", "file", "sha256"
)  # fmt: skip
_NUMBERS = ("exposure", "t_ref", "ra", "dec", "t_ref_mjd", "frame_time", "counts_per_frame")
_ARRAYS = ("time", "energy", "gti_start", "gti_stop", "bkg_time", "bkg_energy")


def to_table(events: list[EventList]) -> pa.Table:
    """Rows of the `events` table."""
    backgrounds = [e.background for e in events]
    columns: dict[str, Any] = {
        **{name: [getattr(e, name) for e in events] for name in (*_TEXTS, "area", "flags")},
        **{name: [_null(getattr(e, name)) for e in events] for name in _NUMBERS},
        "ontime": [e.gti.ontime for e in events],
        "bands": [e.bands.edges for e in events],
        "gti_start": list_array([e.gti.start for e in events], np.float64),
        "gti_stop": list_array([e.gti.stop for e in events], np.float64),
        "time": list_array([e.time for e in events], np.float64),
        "energy": list_array([e.energy for e in events], np.float32),
        "n_events": [len(e) for e in events],
        "bkg_time": list_array([None if b is None else b.time for b in backgrounds], np.float64),
        "bkg_energy": list_array([None if b is None else b.energy for b in backgrounds], np.float32),
        "bkg_scale": [None if b is None else b.scale for b in backgrounds],
    }
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in EVENTS], schema=EVENTS)


def from_table(rows: pa.Table) -> list[EventList]:
    """Event lists of the rows of an `events` table that has all its columns."""
    flat = {name: flatten_lists(rows[name]) for name in _ARRAYS}
    with_background = rows["bkg_time"].is_valid().to_pylist()
    found = []
    for i, row in enumerate(rows.select([name for name in EVENTS.names if name not in _ARRAYS]).to_pylist()):
        array: dict[str, Any] = {name: values[offsets[i] : offsets[i + 1]] for name, (values, offsets) in flat.items()}
        scalars: dict[str, Any] = {
            **{name: row[name] or "" for name in _TEXTS},
            **{name: _number(row[name]) for name in _NUMBERS},
        }
        background = Background(array["bkg_time"], array["bkg_energy"], _number(row["bkg_scale"]))
        found.append(
            EventList(
                **scalars,
                time=array["time"],
                energy=array["energy"],
                gti=GoodTimeIntervals(array["gti_start"], array["gti_stop"]),
                bands=Bands(tuple(float(f"{edge:.6g}") for edge in row["bands"])),
                area=None if row["area"] is None else tuple(row["area"]),
                background=background if with_background[i] else None,
                flags=tuple(row["flags"] or ()),
            )
        )
    return found


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
