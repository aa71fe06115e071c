"""XMM-Newton's EPIC cameras: pn and the two MOS."""

import re
from dataclasses import replace

from lexray.events.fits.headers import Header
from lexray.events.missions import screens
from lexray.events.missions.mission import Instrument, Mission, Screen, number_of
from lexray.events.missions.optics import Optics, PointSpread

_SELECTIONS = (
    "SAS, eimageget, tables 1 and 2, https://xmm-tools.cosmos.esa.int/external/sas/current/doc/eimageget/node4.html"
)
_PILE_UP = "Jethwa et al. 2015, A&A 581, A104; XMM-Newton Users Handbook, section 3.3.9"
#: The data subspace's axes, TIME and CCDNR among them, are few.
_MOST_AXES = 30

#: Half of the area is left at 13′ at 1.5 keV, at 10.5′ at 8 keV (XMM-Newton Users Handbook, section 3.2.2.2).
_VIGNETTING = ((1.5, 13.0, 2.0, 1.0), (8.0, 10.5, 2.0, 1.0))
_OPTICS = (
    "ARFs of arfgen on axis, medium filter; encircled energy, SAS, eupper, "
    "https://xmm-tools.cosmos.esa.int/external/sas/current/doc/eupper/node4.html; 10 % above 1.5 keV, 20 % below, "
    "where filters differ and the MOS have lost since launch (Users Handbook, table 1: 1227 and 461 cm² at 1 keV, thin)"
)
PN_OPTICS = Optics(
    curve=(
        (0.2, 461), (0.3, 277), (0.4, 738), (0.5, 931), (0.53, 933), (0.56, 882), (0.6, 958), (0.7, 1090), (0.8, 1180),
        (1.0, 1280), (1.2, 1340), (1.5, 1390), (1.8, 1360), (2.1, 1350), (2.2, 1270), (2.3, 882), (2.5, 890),
        (3.0, 916), (4.0, 943), (5.0, 945), (6.0, 885), (7.0, 748), (8.0, 557), (9.0, 410), (10.0, 276), (12.0, 42),
        (15.0, 5),
    ),
    vignetting=_VIGNETTING,
    spread=PointSpread(core=6.6, slope=1.7),
    field=16.0,
    document=_OPTICS,
)  # fmt: skip
MOS_OPTICS = replace(
    PN_OPTICS,
    curve=(
        (0.2, 39), (0.3, 31), (0.4, 116), (0.5, 181), (0.53, 203), (0.56, 110), (0.6, 143), (0.7, 206), (0.8, 264),
        (1.0, 370), (1.2, 454), (1.5, 543), (1.83, 500), (1.86, 370), (1.9, 400), (2.1, 452), (2.2, 454), (2.3, 308),
        (2.5, 329), (3.0, 374), (4.0, 384), (5.0, 333), (6.0, 242), (7.0, 153), (8.0, 86), (9.0, 48), (10.0, 26),
        (12.0, 3),
    ),
    spread=PointSpread(core=4.7, slope=1.457),
)  # fmt: skip


def _ccd_of(name: str, _: Header, events: Header) -> int | None:
    """The CCD whose good times an extension has; None where they are taken to hold for all.

    The pipeline writes STDGTInn for CCD nn. Where evselect has filtered the list by further good times it writes, for
    each CCD, the intersection of both as GTI00006, GTI00106, GTI00206 …, whose numbers are those of the components of
    the events' data subspace and not of CCDs: the keywords ``nDSVALi`` (the CCD) and ``nDSREFj`` (the extension) say
    which is whose (OGIP 95-007; SAS, dsslib).
    """
    if name.startswith("STDGTI"):
        return number_of(name)
    kinds = {events.text(f"DSTYP{axis}").upper(): axis for axis in range(1, _MOST_AXES)}
    if "CCDNR" not in kinds or "TIME" not in kinds:
        return None
    component = 1
    while ccd := events.text(_of_component("DSVAL", component, kinds["CCDNR"])):
        reference = events.text(_of_component("DSREF", component, kinds["TIME"]))
        if reference.lstrip(":").upper() == name:
            number = re.match(r"\d+", ccd)
            return int(number[0]) if number else None
        component += 1
    return None


def _of_component(keyword: str, component: int, axis: int) -> str:
    return f"{keyword}{axis}" if component == 1 else f"{component}{keyword}{axis}"


PN = Instrument(
    mission="xmm",
    name="pn",
    energy_range=(0.15, 15.0),
    channels=(0.0, 0.001),
    document="XMM-Newton Data Files Handbook, section 6, "
    "https://xmm-tools.cosmos.esa.int/external/xmm_user_support/documentation/dfhb/",
    detector_column="ccdnr",
    gti_detector=_ccd_of,
    optics=PN_OPTICS,
    live_time_keywords=("LIVETI{detector:02d}", "ONTIME{detector:02d}"),
    frame_keyword="FRMTIME",
    frame_unit=1e-3,
    screens=(
        Screen("grade", "pattern", screens.one_of("pattern", range(5)), _SELECTIONS),
        Screen("flag", "flag", screens.none_set("flag", 0xFFFFFFFF), _SELECTIONS),
    ),
    pile_up_rate=0.15,  # 2 counts/s in frames of 73.4 ms
    pile_up_document=_PILE_UP,
    refused_modes=(
        ("DATAMODE", ("TIMING", "BURST"), "EPIC's timing and burst modes are not read, imaging modes are"),
        ("SUBMODE", ("FASTTIMING", "FASTBURST"), "EPIC's timing and burst modes are not read"),
    ),
)

MOS1 = replace(
    PN,
    name="mos1",
    energy_range=(0.15, 12.0),
    optics=MOS_OPTICS,
    screens=(
        Screen("grade", "pattern", screens.one_of("pattern", range(13)), _SELECTIONS),
        # #XMMEA_EM
        Screen("flag", "flag", screens.none_set("flag", 0x766BA000), _SELECTIONS),
    ),
    pile_up_rate=1.3,  # 0.5 counts/s in frames of 2.6 s
    refused_modes=(
        ("DATAMODE", ("TIMING",), "EPIC's timing modes are not read, imaging modes are"),
        ("SUBMODE", ("FASTUNCOMPRESSED", "FASTCOMPRESSED"), "EPIC's timing modes are not read"),
    ),
)
MOS2 = replace(MOS1, name="mos2")

XMM = Mission("xmm", "XMM", {"EPN": PN, "EMOS1": MOS1, "EMOS2": MOS2})
