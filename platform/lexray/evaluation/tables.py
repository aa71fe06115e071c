"""Detections and their rates, from tables of ours or from a simulator's Parquet files."""

from typing import Any

import pyarrow.compute as pc

from lexray.evaluation.heldout import PiecewiseRate
from lexray.events.arrow import from_table
from lexray.events.eventlist import EventList
from lexray.tables import delta


def read_rates(path: str | None, events: list[EventList]) -> dict[str, PiecewiseRate]:
    """Rates of `events` from a table or file of the `rates` schema; detections that it lacks are left out."""
    if path is None or not events:
        return {}
    duration = {e.detection_id: e.duration for e in events}
    wanted = pc.field("detection_id").isin(list(duration))
    order = [("detection_id", "ascending"), ("band", "ascending")]
    rows = delta.dataset(path).to_table(filter=wanted).sort_by(order)
    bands: dict[str, list[dict[str, Any]]] = {}
    for row in rows.select(["detection_id", "t", "rate"]).to_pylist():
        bands.setdefault(row["detection_id"], []).append(row)
    return {
        name: PiecewiseRate.from_samples(found[0]["t"], [row["rate"] for row in found], duration[name])
        for name, found in bands.items()
    }


def read_detections(events: str, detection_ids: list[str]) -> list[EventList]:
    """Event lists of some detections, in the order asked for."""
    if not detection_ids:
        return []
    found = from_table(delta.dataset(events).to_table(filter=pc.field("detection_id").isin(detection_ids)))
    by_id = {e.detection_id: e for e in found}
    return [by_id[name] for name in detection_ids if name in by_id]
