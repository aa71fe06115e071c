"""Event files of X-ray missions in, event lists out, with every event that was left out counted by its cause."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import fitsio
import numpy as np
from numpy.typing import NDArray

from lexray.errors import RefusedInput
from lexray.events.clock import Clock
from lexray.events.eventlist import Bands, EventList, Float64s, GoodTimeIntervals
from lexray.events.headers import Column, Hdu, Header, scan
from lexray.events.missions import Mission, mission_of
from lexray.sources import name_from_position

#: Why an event is left out. One that has several causes is counted under the first.
CAUSES = ("invalid_time", "invalid_energy", "overflow", "outside_gti", "outside_band")
#: A header's EXPOSURE that is further than this from ontime × live fraction is flagged.
_EXPOSURE_TOLERANCE = 0.05
#: What is not a number, or too large for single precision, is counted among the causes and needs no warning.
_SILENT = np.errstate(over="ignore", invalid="ignore")
_KEV = {"": 1e-3, "ev": 1e-3, "kev": 1.0}


@dataclass(frozen=True)
class Reading:
    """An event file that was read.

    Attributes
    ----------
    events : EventList
    n_in : int
        Events in the file; ``len(events)`` plus the sum of `dropped`.
    dropped : dict of str to int
        Events left out, by each of `CAUSES`.
    """

    events: EventList
    n_in: int
    dropped: dict[str, int]


def read_events(path: str | os.PathLike[str], bands: Mapping[str, Bands] | None = None) -> EventList:
    """Read one event file of Chandra ACIS, NICER or NuSTAR, plain or gzipped.

    Parameters
    ----------
    path : path-like
        A FITS file with an EVENTS and at least one GTI extension. Names of columns and extensions may be in any case.
    bands : mapping of str to Bands, optional
        Energy bands by mission, where the mission's own are not wanted.

    Returns
    -------
    EventList
        Times in seconds since the first good time, energies in keV; events outside the good times or the bands are
        left out.

    Raises
    ------
    RefusedInput
        If the file cannot be used; `reason` is a short code, `detail` says what was found.

    Examples
    --------
    >>> events = read_events("acis_evt2.fits")  # doctest: +SKIP
    >>> len(events), events.exposure  # doctest: +SKIP
    (4201, 857.4)
    """
    return read(path, bands).events


def read(path: str | os.PathLike[str], bands: Mapping[str, Bands] | None = None) -> Reading:
    """As `read_events`, with the count of events that were left out."""
    path = Path(path)
    try:
        hdus = scan(path)
        table = _events_table(hdus)
        header = table.header.over(hdus[0].header)
        mission = mission_of(header.text("TELESCOP"))
        instrument = mission.instrument(header)
        if not table.rows:
            raise RefusedInput("no_events", "the events table has no rows")
        with fitsio.FITS(str(path)) as file:
            clock = Clock.of(header)
            gti = _good_times(file, hdus, header, clock)
            time, kev, overflow = _read_columns(file, table, mission)
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        raise RefusedInput("no_such_file", "there is no such file") from None
    except (OSError, ValueError, RuntimeError) as error:  # cfitsio's complaints come as any of them
        raise RefusedInput("unreadable", " ".join(str(error).split())) from error

    chosen = (bands or {}).get(mission.name, mission.bands)
    seconds = clock.seconds(time)
    cause = _causes(seconds, kev, overflow, gti, chosen)
    kept = np.flatnonzero(cause < 0)
    dropped = dict(zip(CAUSES, np.bincount(cause[cause >= 0], minlength=len(CAUSES)).tolist(), strict=True))
    if not len(kept):
        why = ", ".join(f"{n} {name}" for name, n in dropped.items() if n)
        raise RefusedInput("no_events", f"all {len(time)} events were left out: {why}")
    kept = kept[np.argsort(seconds[kept], kind="stable")]

    t_ref = float(gti.start[0])
    exposure = gti.ontime * mission.live_fraction(header, gti.ontime)
    source_id, ra, dec, flags = _source(header, mission, path)
    if dropped["overflow"]:
        flags += ("overflow",)
    said = header.number("EXPOSURE")
    if np.isfinite(said) and abs(said - exposure) > _EXPOSURE_TOLERANCE * exposure:
        flags += ("exposure_mismatch",)
    obs_id = header.text("OBS_ID")
    events = EventList(
        detection_id=f"{mission.name}:{obs_id}:{instrument}:{source_id}",
        source_id=source_id,
        time=seconds[kept] - t_ref,
        energy=kev[kept].astype(np.float32),
        gti=gti.shift(-t_ref),
        bands=chosen,
        exposure=exposure,
        mission=mission.name,
        instrument=instrument,
        obs_id=obs_id,
        object=header.text("OBJECT"),
        ra=ra,
        dec=dec,
        t_ref=t_ref,
        t_ref_mjd=clock.mjd(t_ref),
        timesys=clock.timesys,
        timeref=clock.timeref,
        frame_time=mission.frame_time(header),
        flags=flags,
        file=str(path),
        sha256=sha256,
    )
    return Reading(events, len(time), dropped)


def _events_table(hdus: list[Hdu]) -> Hdu:
    tables = [hdu for hdu in hdus if hdu.is_table]
    for hdu in tables:
        if hdu.name == "EVENTS":
            return hdu
    for hdu in tables:
        if hdu.header.text("HDUCLAS1").upper() == "EVENTS":
            return hdu
    names = ", ".join(hdu.name or f"number {hdu.index}" for hdu in hdus[1:]) or "none"
    raise RefusedInput("no_events_table", f"no extension is a table of events; extensions: {names}")


def _good_times(file: fitsio.FITS, hdus: list[Hdu], events: Header, clock: Clock) -> GoodTimeIntervals:
    """Good times of a file, in seconds of the events' clock.

    Extensions that differ in their number alone (GTI, or GTI3 and GTI7 of two CCDs) are of one kind: a time is good
    where any of them says so. Of different kinds (a flare filter's beside the standard ones) all have to.
    """
    kinds: dict[str, list[GoodTimeIntervals]] = {}
    for hdu in hdus:
        if not _is_gti(hdu):
            continue
        start, stop = (_require(hdu.header, name, f"extension {hdu.name}") for name in ("start", "stop"))
        own = Clock.of(hdu.header.over(events))  # what the extension does not repeat is as for the events
        ahead = own.ahead_of(clock)
        rows = file[hdu.index].read(columns=[start.name, stop.name]) if hdu.rows else None
        times = [_numbers(rows[c.name], c) if rows is not None else np.zeros(0) for c in (start, stop)]
        intervals = GoodTimeIntervals(*(own.seconds(t) + ahead for t in times))
        kinds.setdefault(hdu.name.rstrip("0123456789"), []).append(intervals)
    if not kinds:
        raise RefusedInput("no_gti", "the file has no extension with good-time intervals")
    merged = [
        GoodTimeIntervals(np.concatenate([g.start for g in kind]), np.concatenate([g.stop for g in kind]))
        for kind in kinds.values()
    ]
    gti = reduce(GoodTimeIntervals.intersect, merged)
    if not len(gti):
        raise RefusedInput("no_gti", f"no good time is left of the extensions {', '.join(kinds)}")
    return gti


def _is_gti(hdu: Hdu) -> bool:
    return hdu.is_table and (hdu.name.startswith(("GTI", "STDGTI")) or hdu.header.text("HDUCLAS1").upper() == "GTI")


@_SILENT
def _read_columns(file: fitsio.FITS, table: Hdu, mission: Mission) -> tuple[Float64s, Float64s, NDArray[np.bool_]]:
    """Times as in the column, energies in keV (NaN where there is none), and which events are overflow."""
    time = _require(table.header, "time", "the events table")
    energy = _find(table.header, mission.energy_column) if mission.energy_column else None
    pi = _find(table.header, "pi")
    rows = file[table.index].read(columns=[column.name for column in (time, energy, pi) if column is not None])
    channel = None if pi is None else _numbers(rows[pi.name], pi)
    if energy is not None:
        if energy.unit.lower() not in _KEV:
            raise RefusedInput("bad_unit", f"column '{energy.name}' is in {energy.unit!r}, expected eV or keV")
        kev = _numbers(rows[energy.name], energy) * _KEV[energy.unit.lower()]
    elif channel is not None:
        kev = mission.pi_to_kev(channel)
    else:
        wanted = f"'{mission.energy_column}' or 'pi'" if mission.energy_column else "'pi'"
        raise RefusedInput("missing_column", f"the events table has no column {wanted}; it has {_names(table.header)}")
    overflow = np.zeros(len(rows), dtype=bool)
    if channel is not None and mission.overflow_pi is not None:
        overflow = channel == mission.overflow_pi
    return _numbers(rows[time.name], time), kev, overflow


def _numbers(values: NDArray[np.generic], column: Column) -> Float64s:
    """A column as f8[N], NaN where it holds its null value."""
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise RefusedInput("bad_column", f"column '{column.name}' does not hold one number a row")
    numbers = values.astype(np.float64)
    if column.null is not None and values.dtype.kind in "iu":
        numbers[values == column.null] = np.nan
    return numbers


def _find(header: Header, name: str) -> Column | None:
    number = header.columns.get(name)
    return None if number is None else header.column(number)


def _require(header: Header, name: str, where: str) -> Column:
    column = _find(header, name)
    if column is None:
        raise RefusedInput("missing_column", f"{where} has no column '{name}'; it has {_names(header)}")
    return column


def _names(header: Header) -> str:
    return ", ".join(header.column(number).name for number in header.columns.values()) or "none"


@_SILENT
def _causes(
    seconds: Float64s, kev: Float64s, overflow: NDArray[np.bool_], gti: GoodTimeIntervals, bands: Bands
) -> NDArray[np.int8]:
    """Why each event is left out, as an index into `CAUSES`; −1 for those that are kept."""
    reasons = (
        ~np.isfinite(seconds),
        ~(np.isfinite(kev) & (kev > 0)) & ~overflow,
        overflow,
        ~gti.contains(seconds),
        # Bands compare in single precision, which is what is kept of an energy.
        bands.index(kev.astype(np.float32)) < 0,
    )
    cause = np.full(len(seconds), -1, dtype=np.int8)
    for index in reversed(range(len(reasons))):  # so that the first of several stays
        cause[reasons[index]] = index
    return cause


def _source(header: Header, mission: Mission, path: Path) -> tuple[str, float, float, tuple[str, ...]]:
    """Name, right ascension and declination (ICRS degrees, NaN if unknown) of what the file shows, and flags.

    A file made for one source says so with SRCNAME or SOURCE, and its RA_TARG and DEC_TARG are the source's. Otherwise
    a file is one detection named after OBJECT: for an imager that is the whole field, and flagged.
    """
    own = header.text("SRCNAME") or header.text("SOURCE")
    keywords = (("RA_TARG", "DEC_TARG"), ("RA_OBJ", "DEC_OBJ"))
    ra, dec = _position(header, keywords if mission.imaging or own else keywords[::-1])
    if own:
        return own, ra, dec, ()
    flags = ("whole_field",) if mission.imaging else ()
    named = header.text("OBJECT")
    if not named and not mission.imaging and np.isfinite(ra):
        named = name_from_position(ra, dec)
    return named or _stem(path), ra, dec, flags


def _position(header: Header, keywords: tuple[tuple[str, str], ...]) -> tuple[float, float]:
    if header.text("RADECSYS").startswith("FK4") or header.text("RADESYS").startswith("FK4"):
        return float("nan"), float("nan")  # of 1950: 0.6° from ICRS by now, so no position is better than that one
    for keyword_ra, keyword_dec in keywords:
        ra, dec = header.number(keyword_ra), header.number(keyword_dec)
        # Exactly (0, 0) is what software writes that knows no position; taken for one, such sources would all be one.
        if 0 <= ra <= 360 and abs(dec) <= 90 and (ra, dec) != (0.0, 0.0):
            return ra, dec
    return float("nan"), float("nan")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
