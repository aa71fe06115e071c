"""Event files as Chandra's pipeline writes them: `EVENTS` with sky coordinates, `GTI`, and the usual header.

The layout follows level-2 event files (ASC FITS designers' guide; CXC's data products guide). `SRCNAME` names the one
source that the file was cut out for, and `RA_TARG`, `DEC_TARG` are its position: the source is the target, though off
the optical axis.
"""

import os
from datetime import datetime, timedelta
from typing import Any

import fitsio
import numpy as np

from lexray.simulation.observation import FRAME_TIME, MJDREF, SimulatedObservation
from lexray.simulation.pointing import CENTRE_PIXEL, PIXEL_ARCSEC
from lexray.simulation.source import SimulatedSource

Card = dict[str, Any]


def write_event_file(path: str | os.PathLike[str], source: SimulatedSource, observation: SimulatedObservation) -> None:
    """Write one detection as a FITS event file; the same detection gives the same bytes.

    Parameters
    ----------
    path : path-like
        Replaced if it exists.
    source : SimulatedSource
        Whose name and position the header tells.
    observation : SimulatedObservation
        One of the source's.
    """
    rows = np.empty(
        len(observation.time),
        [("time", "f8"), ("ccd_id", "i2"), ("x", "f4"), ("y", "f4"), ("energy", "f4"), ("pi", "i4"), ("grade", "i2")],
    )
    for name in ("time", "x", "y", "energy", "pi", "grade"):
        rows[name] = getattr(observation, name)
    rows["ccd_id"] = observation.pointing.ccd_id
    intervals = np.empty(len(observation.gti), dtype=[("START", "f8"), ("STOP", "f8")])
    intervals["START"], intervals["STOP"] = observation.gti.start, observation.gti.stop

    instrument, clock = _instrument(source, observation), _clock(observation)
    with fitsio.FITS(os.fspath(path), "rw", clobber=True) as file:
        file.write(None, header=[*instrument, *clock])
        file.write(
            rows,
            header=[*instrument, *clock, *_events(source, observation)],
            extname="EVENTS",
            units=["s", "", "pixel", "pixel", "eV", "chan", ""],
        )
        file.write(
            intervals, header=[*instrument[:3], *clock, *_class("GTI", "STANDARD")], extname="GTI", units=["s", "s"]
        )


def _card(name: str, value: object, comment: str = "") -> Card:
    return {"name": name, "value": value, "comment": comment}


def _class(first: str, second: str) -> list[Card]:
    return [_card("HDUCLASS", "OGIP"), _card("HDUCLAS1", first), _card("HDUCLAS2", second)]


def _instrument(source: SimulatedSource, o: SimulatedObservation) -> list[Card]:
    p = o.pointing
    return [
        _card("MISSION", "AXAF", "Mission"),
        _card("TELESCOP", "CHANDRA", "Telescope"),
        _card("INSTRUME", "ACIS", "Instrument"),
        _card("ORIGIN", "LEXRAY", "Simulated, not observed"),
        _card("CREATOR", "lexray simulate", "Program that made this file"),
        _card("DETNAM", "ACIS-0123", "Detector"),
        _card("GRATING", "NONE", "Grating"),
        _card("OBS_ID", o.obs_id, "Observation id"),
        _card("OBI_NUM", 0, "Observation interval number"),
        _card("OBJECT", source.source_id.removeprefix("LXR "), "Target of the pointing"),
        _card("SRCNAME", source.source_id, "Source that the file was cut out for"),
        _card("RA_TARG", source.ra, "[deg] Target RA"),
        _card("DEC_TARG", source.dec, "[deg] Target Dec"),
        _card("RA_PNT", p.ra, "[deg] Pointing RA"),
        _card("DEC_PNT", p.dec, "[deg] Pointing Dec"),
        _card("ROLL_PNT", p.roll, "[deg] Pointing roll"),
        _card("RA_NOM", p.ra, "[deg] Nominal RA"),
        _card("DEC_NOM", p.dec, "[deg] Nominal Dec"),
        _card("ROLL_NOM", p.roll, "[deg] Nominal roll"),
        _card("EQUINOX", 2000.0),
        _card("RADESYS", "ICRS"),
    ]


def _clock(o: SimulatedObservation) -> list[Card]:
    return [
        _card("TIMESYS", "TT", "Time system"),
        _card("MJDREF", MJDREF, "[d] MJD zero point for times"),
        _card("TIMEZERO", 0.0, "[s] Clock correction"),
        _card("TIMEUNIT", "s", "Time unit"),
        _card("TIMEREF", "LOCAL", "Time reference (barycenter/local)"),
        _card("TASSIGN", "SATELLITE", "Time assigned by clock"),
        _card("TIMEDEL", FRAME_TIME, "[s] Frame time; arrival times are spread within it"),
        _card("TIMEPIXR", 0.5),
        _card("TSTART", o.t_start, "[s] Observation start time"),
        _card("TSTOP", o.t_stop, "[s] Observation end time"),
        _card("MJD-OBS", MJDREF + o.t_start / 86400),
        _card("DATE-OBS", _date(o.t_start), "Observation start date"),
        _card("DATE-END", _date(o.t_stop), "Observation end date"),
    ]


def _events(source: SimulatedSource, o: SimulatedObservation) -> list[Card]:
    ontime, p = o.gti.ontime, o.pointing
    degrees = PIXEL_ARCSEC / 3600
    return [
        *_class("EVENTS", "ACCEPTED"),
        _card("CONTENT", "EVT2", "What data product"),
        _card("ONTIME", ontime, "[s] Sum of GTIs"),
        _card("LIVETIME", ontime * o.dtcor, "[s] Livetime"),
        _card("EXPOSURE", ontime * o.dtcor, "[s] Exposure time"),
        _card("DTCOR", o.dtcor, "Dead time correction"),
        _card("DATAMODE", "FAINT", "Data mode"),
        _card("READMODE", "TIMED", "Read mode"),
        _card("GRADESYS", "ASCA", "Grade system"),
        _card("TLMIN2", 0),
        _card("TLMAX2", 9),
        _card("TLMIN3", 0.5),
        _card("TLMAX3", 8192.5),
        _card("TLMIN4", 0.5),
        _card("TLMAX4", 8192.5),
        _card("TLMIN5", 0.0),
        _card("TLMAX5", 1000000.0),
        _card("TLMIN6", 1),
        _card("TLMAX6", 1024),
        _card("TCTYP3", "RA---TAN"),
        _card("TCRVL3", p.ra),
        _card("TCRPX3", CENTRE_PIXEL),
        _card("TCDLT3", -degrees),
        _card("TCUNI3", "deg"),
        _card("TCTYP4", "DEC--TAN"),
        _card("TCRVL4", p.dec),
        _card("TCRPX4", CENTRE_PIXEL),
        _card("TCDLT4", degrees),
        _card("TCUNI4", "deg"),
    ]


def _date(seconds: float) -> str:
    """Date of Chandra's seconds, whose zero is MJD 50814."""
    return (datetime(1998, 1, 1) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
