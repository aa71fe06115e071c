"""NuSTAR's two focal plane modules."""

from dataclasses import replace

from lexray.events.eventlist import Bands
from lexray.events.missions import screens
from lexray.events.missions.mission import Instrument, Mission, Screen
from lexray.events.missions.optics import Optics, PointSpread

_GUIDE = (
    "The NuSTAR Data Analysis Software Guide, screening of events; bits as nuflagbad and nuflagevt set them, "
    "https://heasarc.gsfc.nasa.gov/docs/nustar/analysis/nustar_swguide.pdf"
)

OPTICS = Optics(
    curve=(
        (3, 73), (4, 172), (5, 242), (6, 299), (7, 335), (8, 353), (9, 366), (9.5, 370), (10.5, 329), (11, 330),
        (12, 276), (15, 230), (20, 170), (25, 120), (30, 97), (40, 68), (50, 47), (60, 32), (68, 23), (70, 19), (79, 9),
    ),
    vignetting=((10.0, 5.0, 2.0, 1.0), (68.0, 3.0, 2.0, 1.0)),  # half is left at 5′ and 3′
    spread=PointSpread(core=19.8, slope=1.6),  # half within 29″, 88 % within 2′
    field=10.0,
    document="ARF of the mission for a point source 1′ off axis and 30″, divided by the half of the point-spread "
    "function that these hold; field of view and half-power diameter of 58″, Harrison et al. 2013, ApJ 770, 103, table "
    "2; 10 % of one module",
)  # fmt: skip


FPMA = Instrument(
    mission="nustar",
    name="fpma",
    energy_range=(3.0, 79.0),
    channels=(40.0, 0.04),  # E = 1.6 keV + 0.04 keV × PI
    document="chan_to_energy in the mission's nustar-gen-utils, https://github.com/NuSTAR/nustar-gen-utils",
    bands=Bands((3.0, 6.0, 12.0, 79.0)),
    framed=False,  # a photon triggers its own read-out
    dead_time_keywords=("DEADC", "DTCOR"),
    optics=OPTICS,
    screens=(
        Screen("grade", "grade", screens.one_of("grade", range(27)), _GUIDE),
        # Free are: beside a bad pixel (bit 3), at the detector's edge (4), beside a hot one (6). Set rejects: a bad,
        # disabled or hot pixel (0, 1, 2, 5), a failed cut in depth, baseline, prior or reset (7 to 11), PI out of
        # range (12).
        Screen("status", "status", screens.matches("status", "000000000x0xx000"), _GUIDE),
    ),
)
FPMB = replace(FPMA, name="fpmb")

NUSTAR = Mission("nustar", "NUSTAR", {"FPMA": FPMA, "FPMB": FPMB})
