"""NICER XTI: a concentrator without images, so a file holds one source, its OBJECT."""

from lexray.events.missions import screens
from lexray.events.missions.mission import Instrument, Mission, Screen
from lexray.events.missions.optics import Optics

OPTICS = Optics(
    curve=(
        (0.2, 284), (0.3, 436), (0.4, 772), (0.5, 1100), (0.53, 1160), (0.56, 1000), (0.6, 1150), (0.7, 1350),
        (0.8, 1490), (1.0, 1670), (1.2, 1790), (1.5, 1880), (1.8, 1830), (2.1, 1640), (2.2, 1470), (2.3, 876),
        (2.5, 979), (3.0, 984), (4.0, 838), (5.0, 607), (6.0, 422), (7.0, 289), (8.0, 192), (9.0, 122), (10.0, 69),
        (12.0, 11),
    ),
    vignetting=((1.5, 3.1, 4.0, 1.0),),
    spread=None,
    field=6.0,
    document="NICER's ARF of 2018 for its 52 working modules, on axis; field of view of 30 square arcmin, Mission "
    "Guide, https://heasarc.gsfc.nasa.gov/docs/nicer/mission_guide; 10 %, and less where modules were off",
)  # fmt: skip


XTI = Instrument(
    mission="nicer",
    name="xti",
    energy_range=(0.2, 12.0),
    channels=(0.0, 0.01),  # PI 675 is 6.75 keV
    document="HEASoft help of nicerpi, https://heasarc.gsfc.nasa.gov/lheasoft/ftools/headas/nicerpi.html",
    imaging=False,
    framed=False,  # TIMEDEL is the clock's resolution
    dead_time_keywords=("DTCOR", "DEADC"),
    optics=OPTICS,
    screens=(
        Screen(
            "flag",
            "event_flags",
            # The slow chain triggered; neither forced, nor undershoot, nor overshoot.
            screens.matches("event_flags", "x1x000"),
            "HEASoft help of nicerclean, https://heasarc.gsfc.nasa.gov/lheasoft/ftools/headas/nicerclean.html",
        ),
    ),
)

NICER = Mission("nicer", "NICER", {"XTI": XTI})
