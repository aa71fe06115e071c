"""Good times of an event file, by detector where the file gives them so."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from lexray.array_types import Bools, Float64s, Int64s
from lexray.errors import RefusedInput
from lexray.events.eventlist import GoodTimeIntervals
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import Header
from lexray.events.fits.time_system import TimeSystem

#: Seconds. No mission lasted so long; such a file is damaged, and would be cut into millions of segments.
_LONGEST = 100 * 365.25 * 86400


@dataclass(frozen=True)
class GoodTimes:
    """What an extension with good-time intervals is.

    Attributes
    ----------
    kind : str
        A time is good if, for every kind that the file has, one of its extensions says so: those of one kind are
        merged, those of different kinds intersected.
    detector : int or None
        It holds for events of this detector alone; None: for all. Where a kind is given by detector, one that it does
        not name has no good time.
    """

    kind: str
    detector: int | None = None


@dataclass(frozen=True)
class GoodTimesByDetector:
    """When each detector observed.

    Attributes
    ----------
    everywhere : GoodTimeIntervals
        Times in which any detector did.
    by_detector : dict of int to GoodTimeIntervals
        Of each detector that the file names; empty where its good times are those of all. A detector that is not
        named never observed.
    """

    everywhere: GoodTimeIntervals
    by_detector: dict[int, GoodTimeIntervals]

    def contains(self, time: Float64s, detector: Int64s | None) -> Bools:
        """Whether each event came in a good time of its own detector; of any, where its detector is not known."""
        if detector is None or not self.by_detector:
            return self.everywhere.contains(time)
        inside = np.zeros(len(time), dtype=bool)
        for number, gti in self.by_detector.items():
            of_it = detector == number
            inside[of_it] = gti.contains(time[of_it])
        return inside

    def of(self, detectors: Iterable[int]) -> GoodTimeIntervals:
        """Times in which any of these detectors observed; all of the file's where it names none of them."""
        named = [self.by_detector[number] for number in detectors if number in self.by_detector]
        return _merged(named) if named else self.everywhere


def read_good_times(
    tables: Sequence[BinaryTable],
    good_times_of: Callable[[str, Header, Header], GoodTimes | None],
    events: Header,
    time_system: TimeSystem,
) -> GoodTimesByDetector:
    """Good times that a file's extensions give, in seconds of the events' clock.

    Extensions of one kind are merged: a time is good where any says so. Of different kinds, a flare filter's and the
    standard ones, all have to.

    Parameters
    ----------
    tables : sequence of BinaryTable
        All of the file.
    good_times_of : callable
        Of an extension's name and header and the events table's: what it says about good times, None where it is no
        extension with good-time intervals, such as `missions.Instrument.good_times`.
    events : Header
        Of the events table; what an extension's header does not repeat is as there.
    time_system : TimeSystem
        Of the events.

    Raises
    ------
    RefusedInput
        'no_gti' where there is no such extension, or no good time left; 'bad_gti' where they span a century.
    """
    kinds: dict[str, dict[int | None, list[GoodTimeIntervals]]] = defaultdict(lambda: defaultdict(list))
    for table in tables:
        found = good_times_of(table.name, table.header, events)
        if found is not None:
            kinds[found.kind][found.detector].append(_intervals(table, events, time_system))
    if not kinds:
        raise RefusedInput("no_gti", "the file has no extension with good-time intervals")
    merged = [{detector: _merged(gtis) for detector, gtis in kind.items()} for kind in kinds.values()]
    detectors = sorted({number for kind in merged for number in kind if number is not None})
    by_detector = {
        number: reduce(GoodTimeIntervals.intersect, (_seen_by(number, k) for k in merged)) for number in detectors
    }
    everywhere = (
        _merged(list(by_detector.values()))
        if by_detector
        else reduce(GoodTimeIntervals.intersect, (_merged(list(kind.values())) for kind in merged))
    )
    if not len(everywhere):
        raise RefusedInput("no_gti", f"no good time is left of the extensions {', '.join(kinds)}")
    first, last = float(everywhere.start[0]), float(everywhere.stop[-1])
    if not last - first <= _LONGEST:
        raise RefusedInput("bad_gti", f"good times from {first:g} to {last:g} s are longer than any mission lasted")
    return GoodTimesByDetector(everywhere, by_detector)


def _intervals(table: BinaryTable, events: Header, time_system: TimeSystem) -> GoodTimeIntervals:
    own = TimeSystem.of(table.header.over(events))
    ahead = own.ahead_of(time_system)
    return GoodTimeIntervals(*(own.seconds(table.numbers(name)) + ahead for name in ("start", "stop")))


def _seen_by(detector: int, kind: dict[int | None, GoodTimeIntervals]) -> GoodTimeIntervals:
    """Good times of one kind for one detector: its own with those for all; none where only others are named."""
    return _merged([kind[key] for key in (None, detector) if key in kind])


def _merged(gtis: Sequence[GoodTimeIntervals]) -> GoodTimeIntervals:
    return GoodTimeIntervals(
        np.concatenate([[], *(gti.start for gti in gtis)]), np.concatenate([[], *(gti.stop for gti in gtis)])
    )
