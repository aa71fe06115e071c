"""Make detections from a file's events: which source they belong to, when it was observed, and with what area."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import angular_separation

from lexray.array_types import Int64s
from lexray.events.event_file import EventFile
from lexray.events.eventlist import Background, EventList, GoodTimeIntervals
from lexray.events.extraction.effective_area import nominal_area
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.fits.headers import Header
from lexray.events.segments import Segmentation, cut
from lexray.sources import name_from_position


@dataclass(frozen=True)
class ExtractedSource:
    """A source in a field: what it is called, where it is, and which of the field's events are its own.

    Attributes
    ----------
    source_id : str
    ra, dec : float
        Degrees, ICRS; NaN if unknown.
    events : i8[n]
        Indices of the field's events in its aperture.
    region : str
        What tells it from others of the file, for the detection's id.
    background : i8[m] or None
        Indices of the events of its background region; None where it has none.
    scale : float
        The background region's exposed area over the aperture's.
    aperture : float
        Radius of the aperture in arcsec; infinite where the file itself is the source's.
    share : float
        Of the aperture, what is exposed and no neighbour's.
    area : tuple of float or None
        Effective area a band, cm², where it is known better than by the instrument's nominal one.
    point_source : bool
        Whether the aperture holds one source alone, so that counts a frame say whether it piles up.
    flags : tuple of str
    """

    source_id: str
    ra: float
    dec: float
    events: Int64s
    region: str
    background: Int64s | None = None
    scale: float = np.nan
    aperture: float = np.inf
    share: float = 1.0
    area: tuple[float, ...] | None = None
    point_source: bool = True
    flags: tuple[str, ...] = ()


def whole_file(event_file: EventFile, stem: str) -> ExtractedSource:
    """The file as one detection.

    A file made for one source says so with SRCNAME or SOURCE, and its RA_TARG and DEC_TARG are the source's. Otherwise
    it is named after OBJECT: for an imager that is the whole field, and flagged.

    Parameters
    ----------
    event_file : EventFile
    stem : str
        The file's name without its ending: the last resort for a name.
    """
    header, imaging = event_file.header, event_file.instrument.imaging
    own = header.text("SRCNAME") or header.text("SOURCE")
    keywords = (("RA_TARG", "DEC_TARG"), ("RA_OBJ", "DEC_OBJ"))
    ra, dec = _position(header, keywords if imaging or own else keywords[::-1])
    last_resort = stem if imaging or np.isnan(ra) else name_from_position(ra, dec)
    name = own or header.text("OBJECT") or last_resort
    is_field = imaging and not own
    return ExtractedSource(
        name,
        ra,
        dec,
        event_file.observed(),
        name,
        point_source=not is_field,
        flags=("whole_field",) if is_field else (),
    )


def detect(event_file: EventFile, extracted: ExtractedSource, file: str, sha256: str) -> EventList | None:
    """The detection of a source in a field; None where none of its events lies in a band and in its good times.

    Parameters
    ----------
    event_file : EventFile
    extracted : ExtractedSource
    file, sha256 : str
        Where it lies, and of its bytes, for the detection's row.
    """
    header, instrument, time_system = event_file.header, event_file.instrument, event_file.time_system
    gti = event_file.times.of(_detectors(event_file, extracted))
    kept = _kept(event_file, extracted.events, gti)
    if not len(kept):
        return None
    t_ref = float(gti.start[0])
    exposure = _exposure(event_file, extracted.events, gti)
    frame_time = instrument.frame_time(header)
    counts_per_frame = len(extracted.events) * frame_time / gti.ontime
    states = {
        "overflow": np.any(event_file.cause == CAUSES.index("overflow")),
        "no_energies": instrument.channels is None,
        "pile_up": extracted.point_source and instrument.piled_up(counts_per_frame),
        "exposure_mismatch": _contradicts(event_file, "ONTIME", gti.ontime, 1.0)
        or _contradicts(event_file, "EXPOSURE", gti.ontime, exposure / gti.ontime),
        "unsorted": event_file.unsorted and np.any(np.diff(event_file.seconds[extracted.events]) < 0),
    }
    background = None
    if extracted.background is not None:
        around = _kept(event_file, extracted.background, gti)
        scale = extracted.scale * _exposure(event_file, extracted.background, gti) / exposure
        background = Background(event_file.seconds[around] - t_ref, event_file.energy[around], scale)
    mjd = time_system.mjd(t_ref)
    return EventList(
        detection_id=f"{instrument.mission}:{_observation(event_file)}:{instrument.name}:{extracted.region}",
        source_id=extracted.source_id,
        time=event_file.seconds[kept] - t_ref,
        energy=event_file.energy[kept],
        gti=gti.shift(-t_ref),
        bands=event_file.bands,
        exposure=exposure,
        mission=instrument.mission,
        instrument=instrument.name,
        obs_id=header.text("OBS_ID"),
        object=header.text("OBJECT"),
        ra=extracted.ra,
        dec=extracted.dec,
        t_ref=t_ref,
        t_ref_mjd=mjd,
        timesys=time_system.timesys,
        timeref=time_system.timeref,
        frame_time=frame_time,
        counts_per_frame=counts_per_frame,
        area=_area(event_file, extracted, mjd),
        background=background,
        flags=extracted.flags + tuple(flag for flag, raised in states.items() if raised),
        file=file,
        sha256=sha256,
    )


def finish(found: Sequence[EventList], by: Segmentation | None, min_events: int) -> tuple[list[EventList], int]:
    """Detections cut into segments, those of too few events left out, and how many events these had."""
    pieces = [piece for events in found for piece in ([events] if by is None else cut(events, by))]
    enough = [piece for piece in pieces if len(piece) >= min_events]
    return enough, sum(map(len, pieces)) - sum(map(len, enough))


def _kept(event_file: EventFile, indices: Int64s, gti: GoodTimeIntervals) -> Int64s:
    """Events without a cause to be left out that came in good times, by time; those of a frame in the file's order."""
    kept = indices[event_file.cause[indices] < 0]
    kept = kept[gti.contains(event_file.seconds[kept])]
    return kept[np.argsort(event_file.seconds[kept], kind="stable")] if event_file.unsorted else kept


def _detectors(event_file: EventFile, extracted: ExtractedSource) -> list[int]:
    """Detectors that watched a source: telescopes side by side all do, of one telescope's chips those that saw it.

    A chip that saw less than a tenth of it, a stray photon beyond the gap, is not one of them: its good times are not
    the source's. A field is what all its chips saw.
    """
    if event_file.instrument.telescopes > 1:
        return list(event_file.times.by_detector)
    shares = _shares(event_file, extracted.events)
    return [number for number, share in shares.items() if share >= 0.1 or not extracted.point_source]


def _shares(event_file: EventFile, events: Int64s) -> dict[int, float]:
    """Share of a region's area that lies on each chip, as far as its events' rates show it."""
    if event_file.detector is None or not len(events):
        return {}
    numbers, counts = np.unique(event_file.detector[events], return_counts=True)
    good = np.array([event_file.times.of([number]).ontime for number in numbers.tolist()])
    rates = counts / np.maximum(good, 1e-3)  # s; a chip that observed for less has no meaningful rate
    return dict(zip(numbers.tolist(), (rates / rates.sum()).tolist(), strict=True))


def _exposure(event_file: EventFile, events: Int64s, gti: GoodTimeIntervals) -> float:
    """Live time of a region within a source's good times, in seconds.

    Chips count by the share of the region that lies on them; of telescopes side by side it is what all of them had
    together over how many they are.
    """
    instrument, header, times = event_file.instrument, event_file.header, event_file.times
    side_by_side = instrument.telescopes > 1 and bool(times.by_detector)
    shares = dict.fromkeys(times.by_detector, 1.0) if side_by_side else _shares(event_file, events)
    if not shares:
        return gti.ontime * instrument.live_fraction(header, gti.ontime)
    live = 0.0
    for number, share in shares.items():
        own = times.of([number])
        if len(own):
            live += share * own.intersect(gti).ontime * instrument.live_fraction(header, own.ontime, number)
    return live / max(instrument.telescopes, len(shares)) if side_by_side else live


def _contradicts(event_file: EventFile, keyword: str, ontime: float, live: float) -> bool:
    """Whether a header's time is not to 5 % the detection's, nor any chip's (it is the aim point's), nor the file's."""
    said = event_file.header.number(keyword)
    found = [ontime, event_file.times.everywhere.ontime, *(gti.ontime for gti in event_file.times.by_detector.values())]
    return bool(np.isfinite(said) and all(abs(said - live * t) > 0.05 * live * t for t in found))


def _observation(event_file: EventFile) -> str:
    """OBS_ID, with Chandra's observation interval behind it where there are several (CXC: acisf00735_001)."""
    obs_id, interval = event_file.header.text("OBS_ID"), event_file.header.number("OBI_NUM")
    return f"{obs_id}_{int(interval):03d}" if interval > 0 else obs_id


def _area(event_file: EventFile, extracted: ExtractedSource, mjd: float) -> tuple[float, ...] | None:
    """Effective area by band: the ARF's, which knows of gaps, else the nominal one of what is left of the aperture."""
    if extracted.area is not None or not extracted.point_source:
        return extracted.area
    ra, dec = _position(event_file.header, (("RA_PNT", "DEC_PNT"), ("RA_NOM", "DEC_NOM")))
    angle = angular_separation(*np.radians([ra, dec, extracted.ra, extracted.dec]))
    off_axis = float(np.degrees(angle)) * 60 if np.isfinite(ra) and np.isfinite(extracted.ra) else 0.0
    area = nominal_area(event_file.instrument, event_file.bands, mjd, off_axis, extracted.aperture)
    return None if area is None else tuple(extracted.share * of_band for of_band in area)


def _position(header: Header, keywords: tuple[tuple[str, str], ...]) -> tuple[float, float]:
    if header.text("RADECSYS").startswith("FK4") or header.text("RADESYS").startswith("FK4"):
        return float("nan"), float("nan")  # of 1950: 0.6° from ICRS by now, so no position is better than that one
    for keyword_ra, keyword_dec in keywords:
        ra, dec = header.number(keyword_ra), header.number(keyword_dec)
        # Software that knows no position writes exactly (0, 0); if that counted, all such sources would be one.
        if 0 <= ra <= 360 and abs(dec) <= 90 and (ra, dec) != (0.0, 0.0):
            return ra, dec
    return float("nan"), float("nan")
