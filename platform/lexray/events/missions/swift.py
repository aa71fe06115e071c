"""Swift XRT in photon-counting and windowed-timing mode."""

from dataclasses import replace

from lexray.events.fits.headers import Header
from lexray.events.missions import screens
from lexray.events.missions.mission import Instrument, Mission, Screen
from lexray.events.missions.optics import Optics, PointSpread

_GUIDE = (
    "The Swift XRT Data Reduction Guide, sections 2.3 and 5; grades, https://www.swift.ac.uk/analysis/xrt/pileup.php; "
    "bits, HEASoft help of xrtscreen, https://heasarc.gsfc.nasa.gov/lheasoft/ftools/headas/xrtscreen.html"
)

OPTICS = Optics(
    curve=(
        (0.3, 2), (0.4, 20), (0.5, 40), (0.53, 38), (0.56, 25), (0.6, 34), (0.7, 48), (0.8, 61), (1.0, 88), (1.2, 107),
        (1.5, 123), (1.8, 122), (1.9, 94), (2.1, 102), (2.2, 98), (2.3, 78), (2.5, 78), (3.0, 86), (4.0, 93), (5.0, 80),
        (6.0, 57), (7.0, 37), (8.0, 19), (9.0, 8), (10.0, 3),
    ),
    vignetting=((1.5, 12.0, 2.0, 1.0), (8.0, 9.0, 2.0, 1.0)),
    spread=PointSpread(core=5.8, slope=1.55),
    field=14.0,
    document="ARF of xrtmkarf times the photon-counting mode's redistribution of grades 0 to 12, which holds the "
    "detector's efficiency (CALDB swxpc0to12s6_20130101v014); point-spread function, Moretti et al. 2005, SPIE 5898, "
    "360; 15 %",
)  # fmt: skip


def _screens(grades: range) -> tuple[Screen, ...]:
    return (
        Screen("grade", "grade", screens.one_of("grade", grades), _GUIDE),
        Screen("status", "status", screens.matches("status", 16 * "0"), _GUIDE),
    )


XRT = Instrument(
    mission="swift",
    name="xrt",
    energy_range=(0.2, 10.0),
    channels=(0.0, 0.01),
    document="The Swift XRT Data Reduction Guide, section 3, https://swift.gsfc.nasa.gov/analysis/xrt_swguide_v1_2.pdf",
    dead_time_keywords=("DEADC", "DTCOR"),
    optics=OPTICS,
    screens=_screens(range(13)),
    nominal_frame=2.5073,
    pile_up_rate=1.25,  # 0.5 counts/s in frames of 2.5 s
    pile_up_document="UK Swift Science Data Centre, https://www.swift.ac.uk/analysis/xrt/pileup.php",
    refused_modes=(
        (
            "DATAMODE",
            ("LOWRATE", "PILEDUP", "PHOTODIODE"),
            "in photodiode mode the whole detector is one pixel; photon-counting and windowed-timing modes are read",
        ),
        ("DATAMODE", ("IMAGING", "SHORTIMA", "LONGIMA"), "imaging mode has no events"),
    ),
)
#: One-dimensional frames of 1.8 ms.
_WINDOWED = replace(
    XRT,
    screens=_screens(range(3)),
    nominal_frame=1.7791e-3,
    pile_up_rate=0.18,  # 100 counts/s
    pile_up_document="Romano et al. 2006, A&A 456, 917",
)


def _configured(instrument: Instrument, header: Header) -> Instrument:
    return _WINDOWED if header.text("DATAMODE").upper().startswith("WINDOWED") else instrument


SWIFT = Mission("swift", "SWIFT", {"XRT": XRT}, _configured)
