"""NICER XTI: a concentrator without images, so a file holds one source, its OBJECT."""

from lexray.events.eventlist import Bands, Float64s
from lexray.events.missions.mission import Mission


def pi_to_kev(pi: Float64s) -> Float64s:
    """A channel is 10 eV: PI 675 is 6.75 keV."""
    return pi * 0.01


NICER = Mission(
    name="nicer",
    telescope="NICER",
    instruments={"XTI": "xti"},
    bands=Bands((0.5, 1.2, 2.0, 7.0)),
    energy_range=(0.2, 12.0),
    imaging=False,
    framed=False,  # TIMEDEL is the clock's resolution
    pi_to_kev=pi_to_kev,
    document="HEASoft help of nicerpi, https://heasarc.gsfc.nasa.gov/lheasoft/ftools/headas/nicerpi.html",
    dead_time_keywords=("DTCOR", "DEADC"),
)
