"""The reference and unit of the times in a FITS extension (FITS standard 4.0, section 9; OGIP 93-003)."""

from dataclasses import dataclass

import numpy as np
from astropy.time import Time, TimeDelta
from numpy.typing import ArrayLike

from lexray.array_types import Float64s
from lexray.errors import RefusedInput
from lexray.events.fits.headers import Header

_SECONDS_PER_DAY = 86400.0
#: MJD between which UTC has leap seconds: from 1972 on, and astropy refuses dates of the far future.
_LEAPS = (41317.0, 100_000.0)
_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "d": _SECONDS_PER_DAY, "day": _SECONDS_PER_DAY}
_TIMEREF = {"": "local", "LOCAL": "local", "SOLARSYSTEM": "barycentred"}


@dataclass(frozen=True)
class TimeSystem:
    """Reference epoch, unit and scale of a file's times.

    Attributes
    ----------
    day, fraction : float
        MJDREF in two parts, so that a nanosecond is not lost in an MJD's size; NaN if the header has none.
    zero : float
        TIMEZERO in seconds, to be added to every time.
    unit : float
        Seconds of one unit of time.
    timesys : str
        TT, TDB …; '' if the header does not say.
    timeref : str
        'local', 'barycentred', or the header's word in lower case.
    """

    day: float
    fraction: float
    zero: float
    unit: float
    timesys: str
    timeref: str

    @classmethod
    def of(cls, header: Header) -> "TimeSystem":
        """Clock of an extension.

        Raises
        ------
        RefusedInput
            'bad_unit' where TIMEUNIT is neither seconds nor days.
        """
        word = header.text("TIMEUNIT")
        if word.lower() not in _UNITS:
            raise RefusedInput("bad_unit", f"TIMEUNIT is {word!r}, expected s or d")
        unit = _UNITS[word.lower()]
        day, fraction = header.number("MJDREFI"), header.number("MJDREFF")
        if np.isnan(day):
            day, fraction = divmod(header.number("MJDREF"), 1.0)
        reference = header.text("TIMEREF").upper()
        return cls(
            day=day,
            fraction=0.0 if np.isnan(fraction) else fraction,  # of no MJDREF the day alone is unknown
            zero=header.number("TIMEZERO", 0.0) * unit,
            unit=unit,
            timesys=header.text("TIMESYS").upper(),
            timeref=_TIMEREF.get(reference, reference.lower()),
        )

    def seconds(self, time: ArrayLike) -> Float64s:
        """Seconds since MJDREF of the times in a column, f8[N]."""
        return np.asarray(time, dtype=np.float64) * self.unit + self.zero

    def mjd(self, seconds: float) -> float:
        """MJD, in `timesys`, of an instant given in seconds since MJDREF.

        A day of UTC may have a leap second, so there the way goes through astropy.time; days of the other scales all
        have 86,400 s, and seconds since MJDREF in them are that division.
        """
        plain = self.day + (self.fraction + seconds / _SECONDS_PER_DAY)
        if self.timesys == "UTC" and all(_LEAPS[0] <= mjd <= _LEAPS[1] for mjd in (self.day, plain)):
            reference = Time(self.day, self.fraction, format="mjd", scale="utc")
            return float((reference + TimeDelta(seconds, format="sec")).mjd)
        return plain

    def ahead_of(self, other: "TimeSystem") -> float:
        """Seconds from the other's MJDREF to this one's; 0 where either is unknown."""
        apart = ((self.day - other.day) + (self.fraction - other.fraction)) * _SECONDS_PER_DAY
        return 0.0 if np.isnan(apart) else float(apart)
