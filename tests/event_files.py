"""Event files as missions write them, made by cfitsio, for the tests of the reader and of ingest."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

#: What a good file of each mission says in its EVENTS header.
HEADERS: dict[str, dict[str, Any]] = {
    "chandra": {
        "TELESCOP": "CHANDRA",
        "INSTRUME": "ACIS",
        "OBS_ID": "10027",
        "OBJECT": "M82",
        "MJDREF": 50814.0,
        "TIMESYS": "TT",
        "TIMEREF": "LOCAL",
        "TIMEDEL": 3.2,
        "DTCOR": 0.9,
        "RA_TARG": 148.9,
        "DEC_TARG": 69.6,
    },
    "nicer": {
        "TELESCOP": "NICER",
        "INSTRUME": "XTI",
        "OBS_ID": "1034200101",
        "OBJECT": "NGC_300_ULX1",
        "MJDREFI": 56658,
        "MJDREFF": 0.000777592592592593,
        "TIMESYS": "TDB",
        "TIMEREF": "SOLARSYSTEM",
        "TIMEDEL": 4e-8,
        "RA_OBJ": 13.77,
        "DEC_OBJ": -37.69,
    },
    "nustar": {
        "TELESCOP": "NuSTAR",
        "INSTRUME": "FPMA",
        "OBS_ID": "00000000001",
        "OBJECT": "Fake X-1",
        "MJDREFI": 55197,
        "MJDREFF": 0.00076601852,
        "TIMESYS": "TDB",
        "TIMEREF": "SOLARSYSTEM",
    },
    "xmm": {
        "TELESCOP": "XMM",
        "INSTRUME": "EPN",
        "OBS_ID": "0123700101",
        "OBJECT": "Lockman Hole",
        "DATAMODE": "IMAGING",
        "MJDREF": 50814.0,
        "TIMESYS": "TT",
        "FRMTIME": 73.4,
    },
    "swift": {
        "TELESCOP": "SWIFT",
        "INSTRUME": "XRT",
        "OBS_ID": "00030001001",
        "OBJECT": "Fake X-2",
        "DATAMODE": "PHOTON",
        "MJDREFI": 51910,
        "MJDREFF": 7.428703703703703e-4,
        "TIMESYS": "TT",
        "TIMEDEL": 2.5073,
    },
    "erosita": {
        "TELESCOP": "eROSITA",
        "INSTRUME": "MERGED",
        "OBS_ID": "700195",
        "OBJECT": "Fake X-3",
        "MJDREFI": 51543,
        "MJDREFF": 0.875,
        "TIMESYS": "TT",
    },
}
#: A channel in the middle of each mission's bands.
GOOD_PI = {"chandra": 100, "nicer": 150, "nustar": 100, "xmm": 1500, "swift": 150, "erosita": 1500}
#: Side of a pixel of `sky_keywords`, arcsec, and the pixel of its reference position.
PIXEL_ARCSEC, CENTRE = 0.492, 4096.5
Intervals = Sequence[tuple[float, float]]


def write_event_file(
    path: Path,
    mission: str = "chandra",
    columns: Mapping[str, Any] | None = None,
    gti: Mapping[str, Intervals] | None = None,
    header: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | None = None,
    extension: str = "EVENTS",
    gti_headers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write an event file; what is not given is as in a good file of the mission.

    A value None in `header` leaves a keyword out; an empty `gti` leaves the extension out. `gti_headers` are keywords
    of good-time extensions, by their names.
    """
    if columns is None:
        columns = {"time": 1000.0 + np.arange(10.0), "pi": np.full(10, GOOD_PI[mission])}
    keywords = {**HEADERS[mission], **(header or {})}
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(None)
        file.write_table(
            [np.asarray(values) for values in columns.values()],
            names=list(columns),
            units=[(units or {}).get(name, "") for name in columns],
            extname=extension,
            header={key: value for key, value in keywords.items() if value is not None},
        )
        for name, intervals in ({"GTI": [(1000.0, 1100.0)]} if gti is None else gti).items():
            bounds = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
            own = dict((gti_headers or {}).get(name, {}))
            file.write_table([bounds[:, 0], bounds[:, 1]], names=["START", "STOP"], extname=name, header=own)
    return path


def with_keyword(key: str, value: object) -> Callable[[bytes], bytes]:
    """Change of a file's bytes that puts a value into its first table's header, whatever it says there."""

    def change(content: bytes) -> bytes:
        at = content.index(f"{key:8}=".encode(), 2880)
        return content[:at] + f"{key:8}= {value!s:>20}".encode().ljust(80) + content[at + 80 :]

    return change


def sky_keywords(x: int, y: int, ra: float = 150.0, dec: float = 2.0) -> dict[str, Any]:
    """Where columns number `x` and `y` lie on the sky: a tangent plane with Chandra's pixels (FITS 4.0, table 22)."""
    axes = (("RA---TAN", x, ra, -PIXEL_ARCSEC), ("DEC--TAN", y, dec, PIXEL_ARCSEC))
    said = {
        f"{key}{n}": value
        for kind, n, at, size in axes
        for key, value in (("TCTYP", kind), ("TCRVL", at), ("TCRPX", CENTRE), ("TCDLT", size / 3600), ("TCUNI", "deg"))
    }
    return {**said, "RADESYS": "ICRS"}
