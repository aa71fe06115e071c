"""The missions whose event files are read: one module each, all of them in `MISSIONS`.

A new mission is a module with a `Mission` and a line here.
"""

from collections.abc import Mapping, Sequence

from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.fits.gti import GoodTimes
from lexray.events.fits.headers import Header
from lexray.events.missions.chandra import CHANDRA
from lexray.events.missions.erosita import EROSITA
from lexray.events.missions.mission import Instrument, Mission, Screen
from lexray.events.missions.nicer import NICER
from lexray.events.missions.nustar import NUSTAR
from lexray.events.missions.swift import SWIFT
from lexray.events.missions.unsupported import why_unsupported
from lexray.events.missions.xmm import XMM

MISSIONS: dict[str, Mission] = {mission.name: mission for mission in (CHANDRA, XMM, NUSTAR, NICER, SWIFT, EROSITA)}
_BY_TELESCOPE = {mission.telescope: mission for mission in MISSIONS.values()}

__all__ = ["MISSIONS", "GoodTimes", "Instrument", "Mission", "Screen", "bands_by_mission", "bands_of", "mission_of"]


def mission_of(header: Header) -> Mission:
    """Mission of a file.

    Parameters
    ----------
    header : Header
        The events table's over the primary one.

    Raises
    ------
    RefusedInput
        'unsupported_mission' where it is known why its files cannot be read, else 'unknown_mission': energies and
        times of an unknown mission are never guessed.
    """
    telescope = header.text("TELESCOP")
    mission = _BY_TELESCOPE.get(telescope.upper())
    if mission is None:
        why = why_unsupported(telescope, header.text("INSTRUME"))
        if why:
            raise RefusedInput("unsupported_mission", f"TELESCOP is {telescope!r}: {why}")
        said = f"TELESCOP is {telescope!r}" if telescope else "the header has no TELESCOP"
        raise RefusedInput("unknown_mission", f"{said}; known are {', '.join(_BY_TELESCOPE)}")
    return mission


def bands_of(instrument: Instrument, chosen: Mapping[str, Bands]) -> Bands:
    """Energy bands of an instrument: those chosen for it, else for its mission, else its own.

    Parameters
    ----------
    instrument : Instrument
    chosen : mapping of str to Bands
        By 'mission/instrument' or 'mission', as `bands_by_mission` returns.
    """
    of_mission = chosen.get(instrument.mission, instrument.bands)
    return chosen.get(f"{instrument.mission}/{instrument.name}", of_mission)


def bands_by_mission(edges: Mapping[str, Sequence[float]]) -> dict[str, Bands]:
    """Energy bands of the missions and instruments that a configuration names.

    Parameters
    ----------
    edges : mapping of str to sequence of float
        Band edges in keV by 'mission' or 'mission/instrument'.

    Raises
    ------
    ValueError
        If there is no such mission or instrument, or it does not measure at these energies, or the edges do not
        increase.
    """
    chosen = {}
    for name, values in edges.items():
        bands = Bands(tuple(values))
        for instrument in _named(name):
            low, high = instrument.energy_range
            if not low <= bands.edges[0] < bands.edges[-1] <= high:
                raise ValueError(
                    f"{instrument.mission}/{instrument.name} measures from {low:g} to {high:g} keV, "
                    f"bands of {name} cannot be {list(bands.edges)}"
                )
        chosen[name] = bands
    return chosen


def _named(name: str) -> list[Instrument]:
    """Instruments that a configuration means by 'mission' or 'mission/instrument'."""
    mission_name, _, instrument_name = name.partition("/")
    mission = MISSIONS.get(mission_name)
    if mission is None:
        raise ValueError(f"no mission '{mission_name}'; known are {', '.join(MISSIONS)}")
    instruments = {instrument.name: instrument for instrument in mission.instruments.values()}
    if not instrument_name:
        return list(instruments.values())
    if instrument_name not in instruments:
        raise ValueError(f"no instrument '{name}'; of {mission_name}: {', '.join(instruments)}")
    return [instruments[instrument_name]]
