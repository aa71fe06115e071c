"""The conventions of a mission's and an instrument's event files that the reader needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lexray.array_types import Bools, Float64s
from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.gti import GoodTimes
from lexray.events.fits.headers import Header
from lexray.events.missions.optics import Optics

_DIGITS = "0123456789"
_SOFT_BANDS = Bands((0.5, 1.2, 2.0, 7.0))
_LIVE_TIME = ("LIVETIME", "ONTIME")


@dataclass(frozen=True)
class Screen:
    """One standard step of event screening.

    Attributes
    ----------
    cause : str
        What an event left out by it is counted under: 'grade', 'flag' or 'status'.
    column : str
        Column it needs, in lower case. Where a file lacks it the screen is not applied: files cut to a few columns were
        cut from screened ones.
    keep : callable
        Which events stay, BinaryTable of N rows -> b1[N].
    document : str
        The mission's document that defines it.
    """

    cause: str
    column: str
    keep: Callable[[BinaryTable], Bools]
    document: str


@dataclass(frozen=True)
class Instrument:
    """Conventions of one instrument's event files.

    Attributes
    ----------
    mission, name : str
        As in the `events` table.
    energy_range : (float, float)
        keV in which it measures; bands have to lie within.
    channels : (float, float) or None
        Of pulse-invariant channels: the energy is (PI + the first) × the second, keV. None: it measures no energies.
    document : str
        Where that rule is written.
    bands : Bands
        Default energy bands, keV.
    imaging : bool
        Whether a file holds a field, so that OBJECT names the pointing's target and not the source.
    framed : bool
        Whether events come in frames, all of one frame with the frame's time.
    energy_column : str or None
        Column, in lower case, that holds the energy itself and goes before PI.
    overflow_pi : int or None
        Channel that collects everything above the last one, and so has no energy.
    dead_time_keywords : tuple of str
        Header keywords that hold the live fraction, the first usable one counts. ``{detector}`` in one stands for the
        detector's number.
    live_time_keywords : (str, str)
        Keywords of the live time and of the good time it is a share of, with ``{detector}`` likewise; they go before
        LIVETIME and ONTIME.
    detector_column : str or None
        Column, in lower case, with the number of an event's detector, where good times are given by detector.
    gti_names : tuple of str
        What names of extensions with good-time intervals begin with.
    gti_detector : callable or None
        Of such an extension's name and header and the events table's header: the detector whose good times it has,
        None: of all. None where good times are never given by detector.
    screens : tuple of Screen
        Applied in this order.
    sky_columns : (str, str)
        Columns, in lower case, of the sky position.
    frame_keyword : str
        Keyword of the frame's length.
    frame_unit : float
        Seconds of one unit of it.
    nominal_frame : float
        Seconds of a frame where the header does not say; NaN if the instrument has several.
    pile_up_rate : float
        Counts a frame from one point source in one telescope above which pile-up matters; infinite where events do not
        pile up.
    pile_up_document : str
        Where that is written.
    telescopes : int
        How many telescopes' events a file holds together.
    optics : Optics or None
        Of each telescope, for an effective area where there is no ARF; None where that is not known.
    refused_modes : tuple of (str, tuple of str, str)
        Modes whose files are not read: the header keyword that tells, its values in upper case, and why, for a person.
    """

    mission: str
    name: str
    energy_range: tuple[float, float]
    channels: tuple[float, float] | None
    document: str
    bands: Bands = _SOFT_BANDS
    imaging: bool = True
    framed: bool = True
    energy_column: str | None = None
    overflow_pi: int | None = None
    dead_time_keywords: tuple[str, ...] = ()
    live_time_keywords: tuple[str, str] = _LIVE_TIME
    detector_column: str | None = None
    gti_names: tuple[str, ...] = ("GTI", "STDGTI")
    gti_detector: Callable[[str, Header, Header], int | None] | None = None
    screens: tuple[Screen, ...] = ()
    sky_columns: tuple[str, str] = ("x", "y")
    frame_keyword: str = "TIMEDEL"
    frame_unit: float = 1.0
    nominal_frame: float = float("nan")
    pile_up_rate: float = float("inf")
    pile_up_document: str = ""
    telescopes: int = 1
    optics: Optics | None = None
    refused_modes: tuple[tuple[str, tuple[str, ...], str], ...] = ()

    def kev(self, pi: Float64s) -> Float64s:
        """Energy of pulse-invariant channels, f8[N]; NaN of an instrument that measures none."""
        shift, width = self.channels or (np.nan, np.nan)
        return (pi + shift) * width

    def good_times(self, name: str, header: Header, events: Header) -> GoodTimes | None:
        """What an extension says about good times; None where it is no extension with good-time intervals.

        Its name tells, or HDUCLAS1 (OGIP 94-003). Names without their numbers are its kind: GTI3 and GTI7 are of one.

        Parameters
        ----------
        name : str
            Its EXTNAME, in upper case.
        header : Header
            Its own header.
        events : Header
            The events table's, which for some missions says what the extension belongs to.
        """
        if not name.startswith(self.gti_names) and header.text("HDUCLAS1").upper() != "GTI":
            return None
        detector = None if self.gti_detector is None else self.gti_detector(name, header, events)
        return GoodTimes(name.rstrip(_DIGITS), detector)

    def live_fraction(self, header: Header, ontime: float, detector: int | None = None) -> float:
        """Share of the good time in which the instrument was ready for an event.

        The mission's keyword, else LIVETIME over ONTIME, else LIVETIME over the good time, else 1; at most 1.

        Parameters
        ----------
        header : Header
            Of the events table.
        ontime : float
            Sum of the good-time intervals, s; of the detector, where one is given.
        detector : int, optional
            Number of the detector, where the header says it for each.
        """
        for keyword in self.dead_time_keywords:
            value = header.number(_of_detector(keyword, detector))
            if 0 < value <= 1:
                return value
        for keywords in dict.fromkeys((self.live_time_keywords, _LIVE_TIME)):
            live, good = (header.number(_of_detector(keyword, detector)) for keyword in keywords)
            fraction = live / (good if good > 0 else ontime)
            if np.isfinite(fraction) and fraction > 0:
                return min(fraction, 1.0)
        return 1.0

    def frame_time(self, header: Header) -> float:
        """Seconds of a frame; NaN where events are not framed, or the frame's length is not known."""
        if not self.framed:
            return float("nan")
        value = header.number(self.frame_keyword) * self.frame_unit
        return value if value > 0 else self.nominal_frame

    def piled_up(self, counts_a_frame: float) -> bool:
        """Whether a point source with this many counts a frame, of all telescopes, has lost or merged events.

        Two photons in one frame and a few pixels are taken for one of their summed energy, or for none.
        """
        return counts_a_frame > self.pile_up_rate * self.telescopes


@dataclass(frozen=True)
class Mission:
    """One mission.

    Attributes
    ----------
    name : str
        As in the `events` table.
    telescope : str
        The header's TELESCOP in upper case.
    instruments : mapping of str to Instrument
        Instruments that are read, by the header's INSTRUME in upper case.
    configured : callable
        How an instrument worked in an observation, by the events table's header over the primary one.
    """

    name: str
    telescope: str
    instruments: Mapping[str, Instrument]
    configured: Callable[[Instrument, Header], Instrument] = lambda instrument, _: instrument

    def instrument(self, header: Header) -> Instrument:
        """The instrument of a file.

        Raises
        ------
        RefusedInput
            'unknown_instrument' where the mission's instrument is none that is read, 'unsupported_mode' where it is
            one but worked in a mode whose files are not read.
        """
        found = header.text("INSTRUME")
        instrument = self.instruments.get(found.upper())
        if instrument is None:
            raise RefusedInput(
                "unknown_instrument", f"INSTRUME is {found!r}; of {self.name}: {', '.join(self.instruments)}"
            )
        for keyword, values, why in instrument.refused_modes:
            value = header.text(keyword)
            if value.upper() in values:
                raise RefusedInput("unsupported_mode", f"{keyword} is {value!r}: {why}")
        return self.configured(instrument, header)


def number_of(name: str, *_: Header) -> int | None:
    """The number that an extension's name ends with; also a `gti_detector`."""
    digits = name[len(name.rstrip(_DIGITS)) :]
    return int(digits) if digits else None


def _of_detector(keyword: str, detector: int | None) -> str:
    return "" if detector is None and "{" in keyword else keyword.format(detector=detector)
