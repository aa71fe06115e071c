"""Convert event lists to rows of the `events` table, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals
from lexray.tables.schemas import EVENTS


def to_table(events: list[EventList]) -> pa.Table:
    """Rows of the `events` table."""
    backgrounds = [e.background for e in events]
    columns: dict[str, Any] = {
        name: [getattr(e, name) for e in events]
        for name in ("detection_id", "source_id", "mission", "instrument", "obs_id", "object", "t_ref", "timesys",
                     "timeref", "exposure", "area", "flags", "file", "sha256")
    }  # fmt: skip
    columns |= {
        name: [_null(getattr(e, name)) for e in events]
        for name in ("ra", "dec", "t_ref_mjd", "frame_time", "counts_per_frame")
    }
    columns |= {
        "ontime": [e.gti.ontime for e in events],
        "bands": [e.bands.edges for e in events],
        "gti_start": _lists([e.gti.start for e in events], np.float64),
        "gti_stop": _lists([e.gti.stop for e in events], np.float64),
        "time": _lists([e.time for e in events], np.float64),
        "energy": _lists([e.energy for e in events], np.float32),
        "n_events": [len(e) for e in events],
        "bkg_time": _lists([None if b is None else b.time for b in backgrounds], np.float64),
        "bkg_energy": _lists([None if b is None else b.energy for b in backgrounds], np.float32),
        "bkg_scale": [None if b is None else b.scale for b in backgrounds],
    }
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in EVENTS], schema=EVENTS)


def _lists(arrays: Sequence[NDArray[Any] | None], kind: type[np.floating[Any]]) -> pa.Array:
    """A list column of ragged arrays, copied once and not value by value."""
    lengths = [0 if array is None else len(array) for array in arrays]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate([np.zeros(0, kind), *(array for array in arrays if array is not None)], dtype=kind)
    absent = pa.array([array is None for array in arrays]) if any(array is None for array in arrays) else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=absent)


def from_table(rows: pa.Table) -> list[EventList]:
    """Event lists of the rows of an `events` table that has all its columns."""
    return [_from_row({name: rows[name][i] for name in EVENTS.names}) for i in range(rows.num_rows)]


def _from_row(row: dict[str, pa.Scalar]) -> EventList:
    def number(name: str) -> float:
        value = row[name].as_py()
        return float("nan") if value is None else float(value)

    def array(name: str) -> NDArray[Any]:
        values: NDArray[Any] = row[name].values.to_numpy(zero_copy_only=False)
        return values

    scalars = (
        "detection_id",
        "source_id",
        "mission",
        "instrument",
        "obs_id",
        "object",
        "timesys",
        "timeref",
        "file",
        "sha256",
    )
    area = row["area"].as_py()
    background = None
    if row["bkg_time"].is_valid:
        background = Background(array("bkg_time"), array("bkg_energy"), number("bkg_scale"))
    return EventList(
        **{name: row[name].as_py() or "" for name in scalars},
        time=array("time"),
        energy=array("energy"),
        gti=GoodTimeIntervals(array("gti_start"), array("gti_stop")),
        bands=Bands(tuple(float(f"{edge:.6g}") for edge in row["bands"].as_py())),
        exposure=number("exposure"),
        ra=number("ra"),
        dec=number("dec"),
        t_ref=number("t_ref"),
        t_ref_mjd=number("t_ref_mjd"),
        frame_time=number("frame_time"),
        counts_per_frame=number("counts_per_frame"),
        area=None if area is None else tuple(area),
        background=background,
        flags=tuple(row["flags"].as_py() or ()),
    )


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
