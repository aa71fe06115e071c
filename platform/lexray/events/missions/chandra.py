"""Chandra: ACIS, and HRC, which measures no energies."""

import math
from dataclasses import replace

from lexray.array_types import Bools
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import Header
from lexray.events.missions import acis_contamination, screens
from lexray.events.missions.mission import Instrument, Mission, Screen, number_of
from lexray.events.missions.optics import Optics, PointSpread

#: Where the instrument module stands, mm, with the aim point on either array (CIAO dictionary, 'SIM').
_AIMED_AT_S, _AIMED_AT_I = -190.14, -233.59
_LEVEL_2 = "CIAO thread 'Create a New Level=2 Event File', https://cxc.cfa.harvard.edu/ciao/threads/createL2/"

_CLEAN_HRC_I = screens.matches("status", "xxxxxx00xxxx0xxx00000000x0000000")
_CLEAN_HRC_S = screens.matches("status", "xxxxxx00xxxx0xxx0000x000x00000xx")

#: The High Resolution Mirror Assembly: half of the area is left at 21′ at 1.5 keV, at 13.5′ at 6.4 keV.
_VIGNETTING = ((1.5, 21.0, 2.0, 1.0), (6.4, 13.5, 2.0, 1.0))
#: 90 % of the photons lie within 1″ + 10″ (θ / 10′)² at 1.5 keV (Hickox & Markevitch 2006, ApJ 645, 95).
_SPREAD = PointSpread(core=0.524, slope=2.5, growth=5.24)
_OPTICS = (
    "Effective areas of mkarf at the aim points, Chandra X-ray Center, before any contamination; vignetting, Chandra "
    "Proposers' Observatory Guide, section 4.3; 10 % above 1.5 keV, below as acis_contamination says"
)
ACIS_I = Optics(
    curve=(
        (0.3, 1), (0.4, 29), (0.5, 105), (0.53, 85), (0.56, 53), (0.6, 99), (0.66, 150), (0.7, 188), (0.8, 275),
        (0.9, 359), (1.0, 429), (1.2, 537), (1.5, 623), (1.83, 572), (1.86, 370), (1.9, 394), (2.0, 420), (2.04, 394),
        (2.09, 252), (2.2, 243), (2.5, 312), (3.0, 348), (4.0, 377), (5.0, 319), (6.0, 201), (7.0, 101), (8.0, 38),
        (9.0, 19), (10.0, 7),
    ),
    vignetting=_VIGNETTING,
    spread=_SPREAD,
    field=25.0,
    document=_OPTICS,
    transmission=acis_contamination.transmission,
)  # fmt: skip
ACIS_S = replace(
    ACIS_I,
    curve=(
        (0.3, 80), (0.4, 300), (0.5, 440), (0.53, 450), (0.56, 410), (0.6, 465), (0.66, 520), (0.7, 540), (0.8, 610),
        (0.9, 650), (1.0, 672), (1.2, 708), (1.5, 725), (1.8, 637), (2.02, 615), (2.07, 375), (2.2, 335), (2.5, 397),
        (3.0, 409), (4.0, 417), (5.0, 340), (6.0, 208), (7.0, 105), (8.0, 40), (9.0, 22), (10.0, 9),
    ),
)  # fmt: skip
HRC_OPTICS = Optics(
    curve=(
        (0.2, 48), (0.3, 3), (0.4, 42), (0.5, 70), (0.6, 85), (0.7, 186), (0.8, 229), (1.0, 210), (1.2, 215),
        (1.5, 202), (1.8, 164), (2.1, 79), (2.5, 70), (3.0, 59), (4.0, 43), (5.0, 41), (6.0, 35), (7.0, 20), (8.0, 10),
        (9.0, 6), (10.0, 2),
    ),
    vignetting=_VIGNETTING,
    spread=_SPREAD,
    field=25.0,
    document="Shape of an ARF of HRC-I (Chandra Source Catalog), scaled to 210 cm² at 1 keV at launch (Chandra "
    "Proposers' Observatory Guide, chapter 7); 20 %, it has lost as much since",
)  # fmt: skip


def _chip_of(name: str, header: Header, _: Header) -> int | None:
    """ACIS gives good times by chip: extension GTI7, with the keyword CCD_ID = 7, else by the number in its name."""
    chip = header.number("CCD_ID")
    return int(chip) if chip >= 0 else number_of(name)


def _clean_hrc(table: BinaryTable) -> Bools:
    """Events that pass the tests of level-2 processing; HRC-S goes without the PHA-ratio test and the H-test."""
    return (_CLEAN_HRC_S if table.header.text("DETNAM").upper() == "HRC-S" else _CLEAN_HRC_I)(table)


ACIS = Instrument(
    mission="chandra",
    name="acis",
    energy_range=(0.08, 10.0),
    channels=(-0.5, 14.6 / 1000),  # PI = ⌊E / 14.6 eV⌋ + 1: on average the middle of a channel
    document="CIAO dictionary, 'PI: Pulse Invariant', https://cxc.cfa.harvard.edu/ciao/dictionary/pi.html",
    energy_column="energy",
    overflow_pi=1024,
    dead_time_keywords=("DTCOR",),
    detector_column="ccd_id",
    gti_detector=_chip_of,
    screens=(
        Screen("grade", "grade", screens.one_of("grade", (0, 2, 3, 4, 6)), _LEVEL_2),
        Screen("status", "status", screens.matches("status", 32 * "0"), _LEVEL_2),
    ),
    pile_up_rate=0.1,  # 1 − x/(eˣ − 1) of the events have two photons or more: 5 %
    pile_up_document="Davis 2001, ApJ 562, 575; The Chandra ABC Guide to Pileup, "
    "https://cxc.harvard.edu/ciao/download/doc/pileup_abc.pdf",
)

HRC = Instrument(
    mission="chandra",
    name="hrc",
    energy_range=(0.08, 10.0),
    channels=None,
    framed=False,  # TIMEDEL is the clock's resolution
    document="Chandra Proposers' Observatory Guide, section 7.1: 'essentially no energy resolution', "
    "https://cxc.cfa.harvard.edu/proposer/POG/html/chap7.html",
    dead_time_keywords=("DTCOR",),
    optics=HRC_OPTICS,
    screens=(
        Screen(
            "status",
            "status",
            _clean_hrc,
            "CXC, 'Filtering HRC Data', https://cxc.harvard.edu/cal/Hrc/filter_20060216.html",
        ),
    ),
)


#: ACIS with the effective area of its array at the aim point; with none where that is not known.
_ACIS_WITH = {"S": replace(ACIS, optics=ACIS_S), "I": replace(ACIS, optics=ACIS_I), "": ACIS}


def _configured(instrument: Instrument, header: Header) -> Instrument:
    """Which of ACIS's two arrays had the aim point says what its effective area is."""
    return _ACIS_WITH[_acis_array(header)] if instrument is ACIS else instrument


def _acis_array(header: Header) -> str:
    """'S' if its back-illuminated chip had the aim point, 'I', or '' where the header does not say."""
    position = header.number("SIM_Z")
    if not math.isnan(position):
        return "S" if abs(position - _AIMED_AT_S) < abs(position - _AIMED_AT_I) else "I"
    _, _, chips = header.text("DETNAM").partition("-")
    if not chips:
        return ""
    return "I" if not {"7"} & {*chips} or {*"0123"} <= {*chips} else "S"


CHANDRA = Mission("chandra", "CHANDRA", {"ACIS": ACIS, "HRC": HRC}, _configured)
