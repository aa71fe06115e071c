"""Convert event lists to rows of the `events` table, and back."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals
from lexray.tables.list_columns import list_array
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
