"""What the reader has to know of a mission."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands, Float64s
from lexray.events.headers import Header


@dataclass(frozen=True)
class Mission:
    """Conventions of one mission's event files.

    Attributes
    ----------
    name : str
        As in the `events` table.
    telescope : str
        The header's TELESCOP in upper case.
    instruments : mapping of str to str
        Instruments that are read: the header's INSTRUME in upper case to our name.
    bands : Bands
        Default energy bands, keV.
    energy_range : (float, float)
        keV in which the instrument measures; bands have to lie within.
    imaging : bool
        Whether a file holds a field, so that OBJECT names the pointing's target and not the source.
    framed : bool
        Whether events come in frames of TIMEDEL seconds.
    pi_to_kev : callable
        Energy in keV of pulse-invariant channels, f8[N] -> f8[N].
    document : str
        Where that rule is written.
    energy_column : str or None
        Column, in lower case, that holds the energy itself and goes before PI.
    overflow_pi : int or None
        Channel that collects everything above the last one, and so has no energy.
    dead_time_keywords : tuple of str
        Header keywords that hold the live fraction, the first usable one counts.
    """

    name: str
    telescope: str
    instruments: Mapping[str, str]
    bands: Bands
    energy_range: tuple[float, float]
    imaging: bool
    framed: bool
    pi_to_kev: Callable[[Float64s], Float64s]
    document: str
    energy_column: str | None = None
    overflow_pi: int | None = None
    dead_time_keywords: tuple[str, ...] = ()

    def instrument(self, header: Header) -> str:
        """Our name of the instrument.

        Raises
        ------
        RefusedInput
            'unknown_instrument' where the mission's instrument is none that is read.
        """
        found = header.text("INSTRUME")
        try:
            return self.instruments[found.upper()]
        except KeyError:
            known = ", ".join(self.instruments)
            raise RefusedInput("unknown_instrument", f"INSTRUME is {found!r}; of {self.name}: {known}") from None

    def live_fraction(self, header: Header, ontime: float) -> float:
        """Share of the good time in which the instrument was ready for an event.

        The mission's keyword, else LIVETIME over ONTIME, else LIVETIME over the good time, else 1; at most 1.

        Parameters
        ----------
        header : Header
            Of the events table.
        ontime : float
            Sum of the good-time intervals, s.
        """
        for keyword in self.dead_time_keywords:
            value = header.number(keyword)
            if 0 < value <= 1:
                return value
        total = header.number("ONTIME")
        fraction = header.number("LIVETIME") / (total if total > 0 else ontime)
        return min(fraction, 1.0) if np.isfinite(fraction) and fraction > 0 else 1.0

    def frame_time(self, header: Header) -> float:
        """Seconds of a frame; NaN where events are not framed."""
        value = header.number("TIMEDEL")
        return value if self.framed and value > 0 else float("nan")
