"""All events of a file, each kept or left out for a stated cause, before sources are extracted."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lexray.array_types import Bools, Float32s, Float64s, Int64s
from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.fits.binary_table import BinaryTable, energies
from lexray.events.fits.compressed_table import open_table
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.fits.gti import GoodTimesByDetector, read_good_times
from lexray.events.fits.headers import Buffer, Hdu, Header, scan
from lexray.events.fits.time_system import TimeSystem
from lexray.events.missions import Instrument, bands_of, mission_of


@dataclass(frozen=True)
class EventFile:
    """The events of a file, in its own order.

    Attributes
    ----------
    header : Header
        Of the events table, over the primary one.
    table : BinaryTable
        The events table.
    instrument : Instrument
    time_system : TimeSystem
    bands : Bands
    times : GoodTimesByDetector
        In seconds since MJDREF.
    seconds : f8[N]
        Since MJDREF.
    energy : f4[N]
        keV.
    detector : i8[N] or None
        Detector that saw each event, where good times are given by detector.
    cause : i1[N]
        Why each event is left out, as an index into `CAUSES`; −1 where it is not.
    """

    header: Header
    table: BinaryTable
    instrument: Instrument
    time_system: TimeSystem
    bands: Bands
    times: GoodTimesByDetector
    seconds: Float64s
    energy: Float32s
    detector: Int64s | None
    cause: NDArray[np.int8]

    def observed(self) -> Int64s:
        """Indices of the events that were seen in good times, of all energies."""
        return np.flatnonzero((self.cause < 0) | (self.cause == CAUSES.index("outside_band")))

    @cached_property
    def unsorted(self) -> int:
        """How many events come before the one that precedes them in the file; those without a time do not count."""
        # A NaN is before nothing, and would hide what it stands between.
        timed = self.seconds[np.isfinite(self.seconds)]
        return int(np.count_nonzero(timed[1:] < timed[:-1]))


def read_event_file(
    content: Buffer, bands: Mapping[str, Bands], no_screening: frozenset[str] = frozenset()
) -> EventFile:
    """Read a file's events, good times and header.

    Parameters
    ----------
    content : bytes or memoryview
        The whole file, uncompressed.
    bands : mapping of str to Bands
        Energy bands by mission or 'mission/instrument', where the mission's own are not wanted.
    no_screening : frozenset of str
        Missions whose standard event screening is not applied.

    Raises
    ------
    RefusedInput
        If the file cannot be used.
    """
    hdus = scan(content)
    events = _events_table(hdus)
    header = events.header.over(hdus[0].header)
    instrument = mission_of(header).instrument(header)
    table = open_table(events, content)
    if not table.rows:
        raise RefusedInput("no_events", "the events table has no rows")
    time_system = TimeSystem.of(header)
    chosen = bands_of(instrument, bands)
    others = [open_table(hdu, content) for hdu in hdus if hdu.is_table and hdu is not events]
    times = read_good_times(others, instrument.good_times, header, time_system)
    seconds = time_system.seconds(table.numbers("time"))
    column = instrument.detector_column
    detector = table.integers(column) if column is not None and times.by_detector and column in table else None
    with np.errstate(over="ignore", invalid="ignore"):  # NaN is counted and needs no warning
        energy, overflow = _energies(table, instrument, chosen)
        screens = () if instrument.mission in no_screening else instrument.screens
        reasons = [
            ("invalid_time", ~np.isfinite(seconds)),
            *((s.cause, ~s.keep(table)) for s in screens if s.column in table),
            ("invalid_energy", ~(np.isfinite(energy) & (energy > 0)) & ~overflow),
            ("overflow", overflow),
            ("outside_gti", ~times.contains(seconds, detector)),
            ("outside_band", chosen.index(energy) < 0),
        ]
    cause = np.full(len(seconds), -1, dtype=np.int8)
    for name, is_so in sorted(reasons, key=lambda reason: -CAUSES.index(reason[0])):  # the first of several stays
        np.copyto(cause, CAUSES.index(name), where=is_so)
    return EventFile(header, table, instrument, time_system, chosen, times, seconds, energy, detector, cause)


def _events_table(hdus: list[Hdu]) -> Hdu:
    tables = [hdu for hdu in hdus if hdu.is_table]
    named = [hdu for hdu in tables if hdu.name == "EVENTS"]
    found = named or [hdu for hdu in tables if hdu.header.text("HDUCLAS1").upper() == "EVENTS"]
    if found:
        return found[0]
    names = ", ".join(hdu.name or f"number {hdu.index}" for hdu in hdus[1:]) or "none"
    raise RefusedInput("no_events_table", f"no extension is a table of events; extensions: {names}")


def _energies(table: BinaryTable, instrument: Instrument, bands: Bands) -> tuple[Float32s, Bools]:
    """Energies in keV, NaN where there is none, and which events are overflow."""
    overflow = np.zeros(table.rows, dtype=bool)
    if instrument.channels is None:
        if len(bands) > 1:
            name = f"{instrument.mission}/{instrument.name}"
            raise RefusedInput(
                "no_energies",
                f"{name} measures no energies: give it one band (bands: {{{name}: [LOW, HIGH]}}), not {len(bands)}",
            )
        return np.full(table.rows, np.sqrt(bands.edges[0] * bands.edges[1]), dtype=np.float32), overflow
    channel = table.numbers("pi") if "pi" in table else None
    if channel is not None and instrument.overflow_pi is not None:
        overflow = channel == instrument.overflow_pi
    if instrument.energy_column is not None and instrument.energy_column in table:
        kev = energies(table, instrument.energy_column, default="eV")
    elif channel is not None:
        kev = instrument.kev(channel)
    else:
        wanted = f"'{instrument.energy_column}' or 'pi'" if instrument.energy_column else "'pi'"
        raise RefusedInput(
            "missing_column",
            f"the events table has no column {wanted}; it has {', '.join(table.columns) or 'none'}",
        )
    return kev.astype(np.float32), overflow
