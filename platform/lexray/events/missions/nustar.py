"""NuSTAR's two focal plane modules."""

from lexray.events.eventlist import Bands, Float64s
from lexray.events.missions.mission import Mission


def pi_to_kev(pi: Float64s) -> Float64s:
    """A channel is 40 eV and the first lies at 1.6 keV: E = 1.6 keV + 0.04 keV × PI."""
    return 1.6 + pi * 0.04


NUSTAR = Mission(
    name="nustar",
    telescope="NUSTAR",
    instruments={"FPMA": "fpma", "FPMB": "fpmb"},
    bands=Bands((3.0, 6.0, 12.0, 79.0)),
    energy_range=(3.0, 79.0),
    imaging=True,
    framed=False,
    pi_to_kev=pi_to_kev,
    document="chan_to_energy in the mission's nustar-gen-utils, https://github.com/NuSTAR/nustar-gen-utils",
    dead_time_keywords=("DEADC", "DTCOR"),
)
