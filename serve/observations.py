"""Read the observations that callers send, as FITS files or JSON, into event lists."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lexray.errors import RefusedInput
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.events.fits.gzip_stream import unpack
from lexray.events.missions import MISSIONS
from lexray.events.reader import ReadOptions, read_content
from lexray.serve.problems import RefusedRequest
from lexray.serve.schemas import EventsRequest

_FITS, _GZIP = b"SIMPLE  =", b"\x1f\x8b"
#: A gzipped file may grow to this many times the largest body; event files shrink to about a third.
_MAX_INFLATION = 4
#: Seconds of good time beyond which a request is a mistake, and the least share of it that an instrument was ready.
_MIN_ONTIME, _MAX_ONTIME, _MIN_LIVE_FRACTION = 1e-3, 1e9, 1e-4


@dataclass(frozen=True)
class UploadedObservation:
    """An event list that a caller sent, and how many of its events could not be used."""

    events: EventList
    n_dropped: int


def from_json(sent: EventsRequest, max_events: int) -> UploadedObservation:
    """Event list of a JSON request.

    Raises
    ------
    RefusedInput
        'unknown_mission', 'bad_gti', 'bad_exposure', 'too_many_events', or 'no_events' where none lies in the good
        times and the bands.
    """
    if (mission := MISSIONS.get(sent.mission.lower())) is None:
        raise RefusedInput("unknown_mission", f"mission is {sent.mission!r}; known are {', '.join(MISSIONS)}")
    bands = next(iter(mission.instruments.values())).bands
    time, energy = np.array(sent.time), np.array(sent.energy, dtype=np.float32)
    gti = GoodTimeIntervals([start for start, _ in sent.gti], [stop for _, stop in sent.gti])
    exposure = gti.ontime if sent.exposure is None else sent.exposure
    if not _MIN_ONTIME <= gti.ontime <= _MAX_ONTIME:
        raise RefusedInput(
            "bad_gti", f"the good times add up to {gti.ontime:g} s; expected {_MIN_ONTIME:g} to {_MAX_ONTIME:g} s"
        )
    if not _MIN_LIVE_FRACTION * gti.ontime <= exposure <= gti.ontime:
        raise RefusedInput(
            "bad_exposure", f"exposure is {exposure:g} s in good times of {gti.ontime:g} s; it is a share of them"
        )
    kept = gti.contains(time) & (bands.index(energy) >= 0)
    if not kept.any():
        raise RefusedInput(
            "no_events",
            f"none of the {len(time)} events lies in the good times and in {bands.edges[0]:g}–{bands.edges[-1]:g} keV",
        )
    t_ref = float(gti.start[0])
    name = sent.source_id or "upload"
    events = EventList(
        detection_id=f"{mission.name}:upload:{name}",
        source_id=name,
        time=time[kept] - t_ref,
        energy=energy[kept],
        gti=gti.shift(-t_ref),
        bands=bands,
        exposure=exposure,
        mission=mission.name,
        t_ref=t_ref,
    )
    return _check_size(UploadedObservation(events, int(len(time) - kept.sum())), max_events)


def from_fits(content: BinaryIO, filename: str, max_bytes: int, max_events: int) -> UploadedObservation:
    """Event list of an uploaded FITS file, plain or gzipped.

    Parameters
    ----------
    content : binary file
        From its beginning.
    filename : str
        The caller's name of it: a source without a name in the header is called after it.
    max_bytes : int
        Largest body; what a gzipped one may hold is bounded by a multiple of it.
    max_events : int
        Most photons.

    Raises
    ------
    RefusedInput
        'empty', 'not_fits', 'truncated', 'unknown_mission' … as `lexray.read_events`.
    Problem
        413 where a gzipped file holds too much.
    """
    start = content.read(len(_FITS))
    content.seek(0)
    if not start:
        raise RefusedInput("empty", "the uploaded file is empty")
    if not start.startswith((_FITS, _GZIP)):
        raise RefusedInput("not_fits", "the file does not begin as a FITS file, with 'SIMPLE  =', nor as a gzipped one")
    try:
        plain = unpack(content.read(), _MAX_INFLATION * max_bytes)
    except RefusedInput as refused:
        if refused.reason == "too_large":
            raise RefusedRequest(
                413, f"the gzipped file holds more than {_MAX_INFLATION * max_bytes / 2**20:g} MiB"
            ) from None
        raise
    # Nothing is looked for next to an upload: files of this machine are not the caller's.
    reading = read_content(plain, _safe_name(filename), ReadOptions(csc_products=False))
    return _check_size(UploadedObservation(reading.events, reading.n_in - len(reading.events)), max_events)


def _safe_name(filename: str) -> str:
    """File name without folders, and of plain letters: it becomes a source's name where the header has none."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(filename.replace("\\", "/")).name.split(".")[0])[:100].strip("_")
    return f"{stem or 'upload'}.fits"


def _check_size(observation: UploadedObservation, max_events: int) -> UploadedObservation:
    if (n := len(observation.events)) > max_events:
        raise RefusedInput("too_many_events", f"{n} events, this service takes up to {max_events} in one observation")
    return observation
