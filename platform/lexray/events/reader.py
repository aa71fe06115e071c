"""Event files of X-ray missions in, event lists out, with every event that was left out counted by its cause."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lexray.errors import RefusedInput, one_line
from lexray.events.event_file import read_event_file
from lexray.events.eventlist import Bands, EventList
from lexray.events.extraction import detections
from lexray.events.extraction.extract import extract_sources
from lexray.events.extraction.source_table import SourceTable
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.fits.gzip_stream import unpack
from lexray.events.segments import Segmentation
from lexray.tables.files import read_bytes, resolve_path


@dataclass(frozen=True)
class ReadOptions:
    """What is wanted of event files.

    Attributes
    ----------
    bands : mapping of str to Bands
        Energy bands by mission or 'mission/instrument', where the mission's own are not wanted.
    no_screening : frozenset of str
        Missions whose standard event screening is not applied.
    sources : SourceTable or None
        Sources to look for in fields; None makes one detection of a file.
    segments : Segmentation or None
        How detections are cut; None leaves them whole.
    min_events : int
        Detections, or segments, with fewer are left out.
    csc_products : bool
        Whether regions and areas are looked for next to a file of the Chandra Source Catalog.
    """

    bands: Mapping[str, Bands] = field(default_factory=dict)
    no_screening: frozenset[str] = frozenset()
    sources: SourceTable | None = None
    segments: Segmentation | None = None
    min_events: int = 1
    csc_products: bool = True


@dataclass(frozen=True)
class ReadResult:
    """An event file that was read.

    Attributes
    ----------
    detections : list of EventList
    n_in : int
        Events in the file; those of all detections plus the sum of `dropped`.
    dropped : dict of str to int
        Events left out, by each of `CAUSES`.
    unsorted : int
        Events that came before their predecessor in the file; they are put in order.
    """

    detections: list[EventList]
    n_in: int
    dropped: dict[str, int]
    unsorted: int

    @property
    def refusal(self) -> RefusedInput | None:
        """Why the file is of no use, where none of its events could be used; None where some could."""
        left_out = {cause: n for cause, n in self.dropped.items() if n}
        if self.detections or left_out.keys() & {"outside_sources", "too_few"}:
            return None
        why = ", ".join(f"{n} {cause}" for cause, n in left_out.items())
        return RefusedInput("no_events", f"all {self.n_in} events were left out: {why}")

    @property
    def events(self) -> EventList:
        """The only detection of a file that was read without a source table or segments.

        Raises
        ------
        RefusedInput
            'no_events' where there is none.
        """
        if not self.detections:
            raise self.refusal or RefusedInput("no_events", "no event lies in its source region")
        (only,) = self.detections
        return only


def read_events(path: str | os.PathLike[str], bands: Mapping[str, Bands] | None = None) -> EventList:
    """Read one event file, plain, gzipped or compressed by fpack, as one detection.

    Chandra ACIS, XMM-Newton EPIC, NuSTAR, NICER, Swift XRT and eROSITA are read as docs/missions.md says.

    Parameters
    ----------
    path : path-like
        A FITS file with an EVENTS and at least one GTI extension, or the URI of one (``s3://``, ``https://`` …). Names
        of columns and extensions may be in any case.
    bands : mapping of str to Bands, optional
        Energy bands by mission, where the mission's own are not wanted.

    Returns
    -------
    EventList
        Times in seconds since the first good time, energies in keV; events outside the good times or the bands, and
        those that the mission's standard screening rejects, are left out.

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
    return read(path, ReadOptions(bands=bands or {})).events


def read(path: str | os.PathLike[str], options: ReadOptions | None = None) -> ReadResult:
    """As `read_events`, for any number of detections, with the count of events that were left out.

    Raises
    ------
    RefusedInput
        If the file cannot be used, or none of its events can.
    """
    where = resolve_path(os.fspath(path))
    try:
        content = read_bytes(where)
    except OSError as error:
        raise unreadable(error) from None
    reading = read_content(content, where, options)
    if reading.refusal is not None:
        raise reading.refusal
    return reading


def read_content(content: bytes, path: str, options: ReadOptions | None = None, sha256: str = "") -> ReadResult:
    """As `read`, of a file whose bytes are there already; where no event can be used, `ReadResult.refusal` says why.

    Parameters
    ----------
    content : bytes
        As it lies on disk.
    path : str
        Where it lies: what its rows will say, and where its csc_products are looked for.
    options : ReadOptions, optional
    sha256 : str, optional
        Of the content, where it is known already.
    """
    options = options or ReadOptions()
    event_file = read_event_file(unpack(content), options.bands, options.no_screening)
    usable = event_file.cause < 0
    found = extract_sources(event_file, path, options.sources, options.csc_products) if usable.any() else []
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    lists = [e for extracted in found if (e := detections.detect(event_file, extracted, path, sha256)) is not None]
    kept, too_few = detections.finish(lists, options.segments, options.min_events)
    dropped = {cause: int(np.count_nonzero(event_file.cause == i)) for i, cause in enumerate(CAUSES)}
    in_sources = np.concatenate([np.zeros(0, dtype=np.int64), *(extracted.events for extracted in found)])
    n_in_sources = int(np.count_nonzero(usable[in_sources]))
    usable[in_sources] = False
    # Good times of the chip that saw an event, but not of those that saw its source.
    dropped["outside_gti"] += n_in_sources - sum(map(len, lists))
    dropped |= {"outside_sources": int(np.count_nonzero(usable)), "too_few": too_few}
    return ReadResult(kept, len(event_file.cause), dropped, event_file.unsorted)


def unreadable(error: OSError) -> RefusedInput:
    """The refusal of a file that could not be read at all."""
    if isinstance(error, FileNotFoundError):
        return RefusedInput("no_such_file", "there is no such file")
    return RefusedInput("unreadable", one_line(error))
