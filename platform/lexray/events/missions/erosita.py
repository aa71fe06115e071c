"""eROSITA: seven telescope modules, TM1 to TM7, whose events lie in one file or in one each."""

from dataclasses import replace

from lexray.events.eventlist import Bands
from lexray.events.fits.headers import Header
from lexray.events.missions import screens
from lexray.events.missions.mission import Instrument, Mission, Screen, number_of
from lexray.events.missions.optics import Optics, PointSpread

_EXTENSIONS = (
    "eROSITA-DE DR1, 'eROSITA standard FITS file extensions', "
    "https://erosita.mpe.mpg.de/dr1/eSASS4DR1/eSASS4DR1_ProductsDescription/extensions_description_dr1.html"
)
_PRODUCTS = (
    "eROSITA-DE DR1, description of products: 'flag=0xE000F000, good events from the nominal field of view, excluding "
    "bad pixels', "
    "https://erosita.mpe.mpg.de/dr1/eSASS4DR1/eSASS4DR1_ProductsDescription/products_description_dr1.html"
)
_ALL = 7

OPTICS = Optics(
    curve=(
        (0.2, 14), (0.3, 21), (0.4, 101), (0.5, 156), (0.53, 167), (0.56, 159), (0.6, 183), (0.7, 231), (0.8, 266),
        (1.0, 313), (1.2, 344), (1.5, 357), (1.8, 309), (2.1, 263), (2.2, 201), (2.3, 79), (2.5, 96), (3.0, 98),
        (4.0, 84), (5.0, 62), (6.0, 43), (7.0, 29), (8.0, 19), (9.0, 12), (10.0, 8),
    ),
    # [1 + (θ / θ₀)^α]^(−β), θ₀ given in degrees there.
    vignetting=((1.25, 26.98, 1.713, 1.021), (4.0, 13.55, 1.974, 0.832), (7.5, 6.33, 2.527, 0.508)),
    spread=PointSpread(core=4.6, slope=1.5, growth=0.77),  # half within 8″ on axis, 15″ in the mean over the field
    field=31.0,
    document="A seventh of srctool's ARF of all seven modules, its corrections undone; vignetting, "
    "https://wiki.mpe.mpg.de/eRosita/EroCat/AnalyticVignetting; half-energy widths, Predehl et al. 2021, A&A 647, A1; "
    "15 %",
)  # fmt: skip


EROSITA_TMS = Instrument(
    mission="erosita",
    name="erosita",
    energy_range=(0.2, 10.0),
    channels=(0.0, 0.001),
    document=_EXTENSIONS,
    bands=Bands((0.2, 0.6, 2.3, 5.0)),
    dead_time_keywords=("DEADC{detector}", "DEADC"),
    detector_column="tm_nr",
    gti_names=("GTI", "STDGTI", "FLAREGTI"),  # GTI3 and, of a flare filter, FLAREGTI3 are TM3's
    gti_detector=number_of,
    screens=(
        # The pixels of an event beside its main one have its energy with a negative sign.
        Screen("flag", "pi", lambda table: ~(table.numbers("pi") < 0), _EXTENSIONS),
        # Singles to quadruples, all that pattern=15 selects; those of no valid pattern are negative.
        Screen("grade", "pat_typ", screens.one_of("pat_typ", range(1, 5)), _EXTENSIONS),
        Screen("flag", "flag", screens.none_set("flag", 0xE000F000), _PRODUCTS),
    ),
    frame_keyword="FRAMETIM",
    frame_unit=1e-3,
    nominal_frame=0.05,
    pile_up_rate=0.1,  # as 5 % of pairs; its pixels of 9.6″ hold about as much of the point-spread function as ACIS's
    pile_up_document="Predehl et al. 2021, A&A 647, A1 (frames of 50 ms, pixels of 9.6″)",
    telescopes=_ALL,
    optics=OPTICS,
)
_ONE = replace(EROSITA_TMS, telescopes=1)


def _configured(instrument: Instrument, header: Header) -> Instrument:
    """NINST says how many modules' events a merged file holds, OBS_MODE whether it scanned the sky."""
    count = header.number("NINST")
    if instrument.telescopes > 1 and 1 <= count < _ALL:
        instrument = replace(instrument, telescopes=int(count))
    if header.text("OBS_MODE").upper() in {"SURVEY", "SCAN"}:
        # A source crosses the field in seconds of a scan of days: no off-axis angle is its own.
        instrument = replace(instrument, optics=None)
    return instrument


EROSITA = Mission(
    "erosita",
    "EROSITA",
    {"EROSITA": EROSITA_TMS, "MERGED": EROSITA_TMS, **{f"TM{n}": _ONE for n in range(1, _ALL + 1)}},
    _configured,
)
