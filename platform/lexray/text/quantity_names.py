"""Name the quantity that a number in a sentence measures: the nearest word for a quantity of its dimension."""

import functools
import re

from astropy import units as u

from lexray.text.latex import strip_markup
from lexray.text.quantities import QuantityMention

_RATE, _FLUX = u.ct / u.s, u.erg / u.cm**2 / u.s
#: Name, the words for it, and units of which one is equivalent to its own (None: a plain number).
_NAMES: tuple[tuple[str, str, tuple[u.UnitBase | None, ...]], ...] = (
    ("orbital period", r"orbital (?:period|modulation|motion)", (u.s,)),
    ("spin period", r"(?:spin|pulse|pulsation) period|pulsations?", (u.s,)),
    ("spin-up rate", r"spin-?up rate|spin-?down rate|period derivative", (None, u.Hz / u.s)),
    ("period", r"period(?:icity|ic)?|modulat\w+|recur\w*", (u.s,)),
    ("timescale", r"time-?scales?|decay\w*|last(?:s|ing)?|rise|eclipses?|dips?", (u.s,)),
    ("frequency", r"frequenc\w+|QPO|oscillations?", (u.Hz,)),
    ("luminosity", r"luminosit\w+|L_?X", (u.erg / u.s,)),
    ("flux", r"flux(?:es)?", (_FLUX, u.mJy, u.ct / u.cm**2 / u.s)),
    ("count rate", r"count rate|rate|bright\w*|faint|counts per second|emission|counterpart", (_RATE,)),
    ("photon index", r"photon ind(?:ex|ices)|Γ|[Gg]amma|slope|index", (None,)),
    ("column density", r"column densit\w+|absorbing column|N_?\s?H\b|nH|absorption", (u.cm**-2,)),
    ("plasma temperature", r"plasmas?|thermal plasma|gas", (u.keV, u.K)),
    ("black-body temperature", r"black-?\s?body|kT_?bb", (u.keV, u.K)),
    ("temperature", r"temperatures?|kT|thermal", (u.keV, u.K)),
    ("line energy", r"lines?|Fe K\S*|fluorescen\w+", (u.keV,)),
    ("mass", r"mass(?:es)?", (u.M_sun,)),
    ("density", r"densit(?:y|ies)", (u.g / u.cm**3, u.cm**-3)),
    ("distance", r"distance|away|parsec", (u.pc,)),
    ("redshift", r"redshift|z", (None,)),
    ("pulsed fraction", r"pulsed fraction|half amplitude", (u.percent,)),
    ("fractional rms", r"fractional rms|rms", (u.percent,)),
    ("depth", r"lost|drops?|depth", (u.percent,)),
    ("hardness ratio", r"hardness ratio|HR", (None,)),
    ("factor of change", r"factor", (None,)),
    ("magnetic field", r"magnetic field|field", (u.G,)),
    ("age", r"old|age", (u.s,)),
)
_PATTERNS = tuple((name, re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])"), units) for name, words, units in _NAMES)
_BEFORE, _BEHIND = 90, 40
_LESS = re.compile(
    r"(?:[<≤]|\b(?:less|lower|smaller|shorter|fainter|fewer|below|under|at most|up to|upper limits?)\b"
    r"(?:\s(?:than|of|is|at|to|about)\b){0,2})[\s~(]{0,6}$"
)
_MORE = re.compile(
    r"(?:[>≥]|\b(?:more|greater|higher|larger|longer|brighter|above|over|at least|exceed(?:s|ing|ed)?|lower limits?)\b"
    r"(?:\s(?:than|of|is|at|to|about)\b){0,2})[\s~(]{0,6}$"
)


def quantity_name(sentence: str, found: QuantityMention) -> str | None:
    """Name of the quantity that a number measures, None where no word nearby names it.

    >>> from lexray.text.quantities import find_quantities
    >>> text = "A power law of photon index 1.9 is absorbed by a column density of 3e21 cm^-2"
    >>> [quantity_name(text, found) for found in find_quantities(text)]
    ['photon index', 'column density']
    """
    # A shared unit may be the next number's alone.
    if found.shared and (plain := quantity_name(sentence, found._replace(unit=None, shared=False))):
        return plain
    if found.in_range and found.unit is not None and found.unit.is_equivalent(u.keV):
        return None  # an energy band
    flat = strip_markup(sentence)
    before = flat[max(0, found.start - _BEFORE) : found.start]
    behind = flat[found.start + len(found.text) :][:_BEHIND]
    patterns = _patterns_of(found.unit)
    # A word behind a number is farther away than it looks: most stand before.
    places = [(len(before) - match.end(), match, name) for name, words in patterns for match in words.finditer(before)]
    places += [(2 * match.start() + 12, match, name) for name, words in patterns for match in words.finditer(behind)]
    # Of two at one distance the longer is the more specific.
    nearest = min(((distance, -len(match.group()), name) for distance, match, name in places), default=None)
    return nearest[2] if nearest else None


def limit_sign(sentence: str, found: QuantityMention) -> str:
    """'<' or '>' where a quantity is a limit, '' where it is a measurement.

    >>> from lexray.text.quantities import find_quantities
    >>> [limit_sign(text, find_quantities(text)[0]) for text in ("below 3 s", "an index greater than 1.5", "of 3 s")]
    ['<', '>', '']
    """
    before = strip_markup(sentence)[max(0, found.start - 40) : found.start]
    return "<" if _LESS.search(before) else ">" if _MORE.search(before) else ""


@functools.lru_cache(maxsize=4096)
def _patterns_of(unit: u.UnitBase | None) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Names of the quantities that have such a unit, and the words for each."""
    return tuple((name, words) for name, words, units in _PATTERNS if any(_equivalent(unit, own) for own in units))


def _equivalent(one: u.UnitBase | None, other: u.UnitBase | None) -> bool:
    if one is None or one is u.percent or other is None:
        # A rate of change in s/s has no dimension either, but a percentage is no index.
        return one is other or (other is None and one is not None and one == u.dimensionless_unscaled)
    return bool(one.is_equivalent(other))
