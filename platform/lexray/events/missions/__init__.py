"""The missions whose event files are read: one module each, all of them in `MISSIONS`.

A new mission is a module with a `Mission` and a line here.
"""

from collections.abc import Mapping, Sequence

from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands
from lexray.events.missions.chandra import CHANDRA
from lexray.events.missions.mission import Mission
from lexray.events.missions.nicer import NICER
from lexray.events.missions.nustar import NUSTAR

MISSIONS: dict[str, Mission] = {mission.name: mission for mission in (CHANDRA, NICER, NUSTAR)}
_BY_TELESCOPE = {mission.telescope: mission for mission in MISSIONS.values()}

__all__ = ["MISSIONS", "Mission", "bands_by_mission", "mission_of"]


def mission_of(telescope: str) -> Mission:
    """Mission of a header's TELESCOP.

    Raises
    ------
    RefusedInput
        'unknown_mission': energies and times of an unknown mission are never guessed.
    """
    mission = _BY_TELESCOPE.get(telescope.upper())
    if mission is None:
        said = f"TELESCOP is {telescope!r}" if telescope else "the header has no TELESCOP"
        raise RefusedInput("unknown_mission", f"{said}; known are {', '.join(_BY_TELESCOPE)}")
    return mission


def bands_by_mission(edges: Mapping[str, Sequence[float]]) -> dict[str, Bands]:
    """Energy bands of the missions that a configuration names.

    Parameters
    ----------
    edges : mapping of str to sequence of float
        Band edges in keV by mission.

    Raises
    ------
    ValueError
        If there is no such mission, or its instruments do not measure at these energies, or the edges do not increase.
    """
    chosen = {}
    for name, values in edges.items():
        mission = MISSIONS.get(name)
        if mission is None:
            raise ValueError(f"no mission '{name}'; known are {', '.join(MISSIONS)}")
        bands = Bands(tuple(values))
        low, high = mission.energy_range
        if not low <= bands.edges[0] < bands.edges[-1] <= high:
            raise ValueError(f"{name} measures from {low:g} to {high:g} keV, its bands cannot be {list(bands.edges)}")
        chosen[name] = bands
    return chosen
