"""Schema of the file index: one row for each input file of an ingest."""

import pyarrow as pa

from lexray.events.fits.drop_causes import CAUSES
from lexray.tables.schemas import documented_field

_string, _i4, _i8 = pa.string(), pa.int32(), pa.int64()

#: A detection of a file: its identifier before those of two files are disambiguated, and where its row lies.
_DETECTION = pa.struct(
    [
        ("name", _string),
        ("source_id", _string),
        ("n_events", _i4),
        ("fragment", _string),  # path, part, size and rows of a delta.Fragment
        ("part", _i4),
        ("fragment_size", _i8),
        ("fragment_rows", _i8),
    ]
)


#: One row for each input file of an ingest, next to the events table as ``OUT.files``.
FILES = pa.schema(
    [
        documented_field("file", _string, required=True),
        documented_field("size", _i8, "as found; -1 where a web server does not say", "byte"),
        documented_field("stamp", _string, "modification time in ns, or a web server's ETag or Last-Modified"),
        documented_field("settings", _string, "hash of what it was read with"),
        documented_field("sha256", _string, "of the file; null where it could not be read"),
        documented_field("reason", _string, "why it was refused; null where it was taken"),
        documented_field("detail", _string),
        documented_field("events_in", _i8),
        documented_field("events_kept", _i8),
        *(documented_field(f"dropped_{cause}", _i8) for cause in CAUSES),
        documented_field("unsorted", _i8, "events that came before their predecessor; they were put in order"),
        documented_field("detections", pa.list_(_DETECTION)),
    ]
)
