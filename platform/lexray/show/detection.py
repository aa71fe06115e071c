"""Find the detection that a person names."""

import difflib
from pathlib import Path

from lexray.errors import ConfigError
from lexray.evaluation.tables import read_detections
from lexray.events.eventlist import EventList
from lexray.events.reader import read_events
from lexray.tables import delta


def find_detection(detection: str, events: str | None = None) -> EventList:
    """The event list behind an event file's path, or behind a detection's identifier or the beginning of one.

    Parameters
    ----------
    detection : str
        Path of an event file; or, where a table is given, the `detection_id` of one of its rows or as much of its
        beginning as no other has.
    events : str, optional
        The `events` table.

    Raises
    ------
    ConfigError
        If there is no such file, or no such detection, or several: it names the nearest.
    RefusedInput
        If the file cannot be used.
    """
    if Path(detection).expanduser().is_file():
        return read_events(Path(detection).expanduser())
    if events is None:
        raise ConfigError(f"{detection}: no such file; to look at a detection of a table, give --events TABLE")
    ids = delta.read(events, ["detection_id"], order="detection_id")["detection_id"].to_pylist()
    matching = [name for name in ids if name == detection] or [name for name in ids if name.startswith(detection)]
    if len(matching) != 1:
        raise ConfigError(_explain(detection, events, matching, ids))
    return read_detections(events, matching)[0]


def _explain(detection: str, events: str, matching: list[str], ids: list[str]) -> str:
    if matching:
        # A message lists five names at most.
        more = f" and {len(matching) - 5} more" if len(matching) > 5 else ""
        return f"{detection}: {len(matching)} detections begin so: {', '.join(matching[:5])}{more}"
    nearest = difflib.get_close_matches(detection, ids, n=3, cutoff=0.0)
    hint = f"; nearest are {', '.join(nearest)}" if nearest else "; it is empty"
    return f"{detection}: neither a file nor a detection of {events}{hint}"
