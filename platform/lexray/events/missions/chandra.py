"""Chandra ACIS.

HRC measures no usable energies and is not read.
"""

from lexray.events.eventlist import Bands, Float64s
from lexray.events.missions.mission import Mission

_EV_PER_CHANNEL = 14.6


def pi_to_kev(pi: Float64s) -> Float64s:
    """Middle of a channel: PI = ⌊E / 14.6 eV⌋ + 1, so E = (PI − 0.5) × 14.6 eV on average."""
    return (pi - 0.5) * (_EV_PER_CHANNEL / 1000)


CHANDRA = Mission(
    name="chandra",
    telescope="CHANDRA",
    instruments={"ACIS": "acis"},
    bands=Bands((0.5, 1.2, 2.0, 7.0)),
    energy_range=(0.08, 10.0),
    imaging=True,
    framed=True,
    pi_to_kev=pi_to_kev,
    document="CIAO dictionary, 'PI: Pulse Invariant', https://cxc.cfa.harvard.edu/ciao/dictionary/pi.html",
    energy_column="energy",
    overflow_pi=1024,
    dead_time_keywords=("DTCOR",),
)
