"""Find measured numbers with their units in prose and LaTeX, and decide whether two of them are the same."""

import functools
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from astropy import units as u

from lexray.text.designations import find_designations
from lexray.text.latex import strip_markup

#: Units that astropy lacks: significance, the Crab's flux, the Sun's metallicity, a month.
SIGMA, CRAB, SOLAR_METALLICITY = u.def_unit("sigma"), u.def_unit("Crab"), u.def_unit("Zsun")
_OWN = {
    "sigma": SIGMA, "Crab": CRAB, "mCrab": u.def_unit("mCrab", 1e-3 * CRAB), "Zsun": SOLAR_METALLICITY,
    "month": u.Unit(u.yr / 12),
}  # fmt: skip

_UNITS = {
    r"[kMGT]?eV": None, r"ergs?": "erg", r"W|J|kW|kHz|MHz|GHz|mHz|Hz": None, r"μHz|uHz": "uHz",
    r"milliseconds?|msec|ms": "ms", r"microseconds?|μs|us": "us", r"ns": "ns", r"seconds?|secs?|s": "s", r"ks|Ms": None,
    r"kiloseconds?|ksec": "ks", r"megaseconds?": "Ms", r"minutes?|mins?": "min", r"hours?|hrs?|h": "h",
    r"days?|d": "d", r"weeks?": "week", r"months?": "month", r"years?|yrs?": "yr", r"kyr": "kyr", r"Myr": "Myr",
    r"Gyr": "Gyr", r"light[ -]years?": "lyr", r"[kMG]?pc": None, r"parsecs?": "pc", r"kiloparsecs?": "kpc",
    r"[Mm]egaparsecs?": "Mpc", r"au|AU": "au", r"km|cm|mm|nm|m": None, r"μm|um|microns?": "um",
    r"angstroms?|Angstroms?|Å": "AA", r"[kM]?K|kelvins?": None, r"MG|kG|mG|G": None, r"[Gg]auss": "G",
    r"solar mass(?:es)?|M\s?(?:_\s{0,16})?(?:⊙|\\?odot|sun|Sun|sol)|Msun": "M_sun",
    r"solar luminosit(?:y|ies)|L\s?(?:_\s{0,16})?(?:⊙|\\?odot|sun|Sun|sol)|Lsun": "L_sun",
    r"solar radi(?:us|i)|R\s?(?:_\s{0,16})?(?:⊙|\\?odot|sun|Sun|sol)|Rsun": "R_sun",
    r"Z\s?(?:_\s{0,16})?(?:⊙|\\?odot|sun|Sun)|Zsun|solar metallicit(?:y|ies)": "Zsun",
    r"μJy|uJy": "uJy", r"mJy": "mJy", r"Jy": "Jy", r"mCrab": "mCrab", r"Crab": "Crab",
    r"per\s?cent|percent|%": "%", r"counts?|cts?|photons?|ph": "ct",
    r"arcsec(?:onds?)?|″": "arcsec", r"arcmin(?:utes?)?|′": "arcmin", r"mas": "mas", r"degrees?|deg|°": "deg",
    r"sigma|σ": "sigma", r"mag(?:nitudes?)?": "mag", r"dex": "dex", r"kg": "kg", r"g(?:rams?)?": "g",
}  # fmt: skip
_ATOM = "|".join(f"(?:{pattern})" for pattern in _UNITS)
_EXPONENT = r"(?:\s?\^\s*\(?\s*[+-]?\d+\)?|\*\*\s?[+-]?\d+|[+-]?\d(?![\d.])|[⁺⁻⁰¹²³⁴-⁹]+)"
# A second unit has an exponent or stands behind a stroke: '2 s in', '3 d K dwarf' are no products.
_UNIT = re.compile(
    rf"\s*+(million|billion|thousand)?[\s-]*+(?P<unit>(?:{_ATOM})(?![A-Za-z])(?:{_EXPONENT})?"
    rf"(?:(?:\s*/\s*|\s+per\s+)(?:{_ATOM})(?![A-Za-z])(?:{_EXPONENT})?|[\s.·*]*(?:{_ATOM})(?![A-Za-z])(?:{_EXPONENT}))*)"
)
_PART = re.compile(rf"(?P<over>\s*/\s*|\s+per\s+)?(?P<atom>{_ATOM})(?![A-Za-z])(?P<power>{_EXPONENT})?")
_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9}
_NUMBER_WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "twenty": 20,
}  # fmt: skip

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_POWER = r"(?:\s*[×xX*·]\s*10\s*(?:\^\s*[+-]?\s*\d+|[+-]?\d{1,2}(?!\d)|[⁺⁻⁰¹²³⁴-⁹]+)|\s+10\s*\^\s*[+-]?\s*\d+)"
_BARE_POWER = re.compile(r"10\s*(?:\^\s*([+-]?\s*\d+(?:\.\d+)?)|([⁺⁻⁰¹²³⁴-⁹]+))")
_DECIMAL = re.compile(r"[+-]?\s*\d{1,3}\.\d{1,3}$")
_EXPONENT_OF = re.compile(r"([+-]?)\s*(\d+)\s*$")
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(
    # Behind a letter and a hyphen it is part of a name: 'X-1', 'type-2'.
    rf"(?<![A-Za-z0-9_.])(?<![A-Za-z]-)(?P<value>(?<![\d)])[+-]?(?:{_DIGITS}))(?P<exp>[eE][+-]?\d+)?"
    rf"(?:\((?P<last>\d{{1,2}})\)|\s*(?:±|\+\s?/\s?-|\+-)\s*(?P<error>{_DIGITS})(?P<errexp>[eE][+-]?\d+)?"
    rf"|\s*\^\s*\+\s?(?P<up>{_DIGITS})\s*_\s*-\s?(?P<down>{_DIGITS})"
    rf"|\s*_\s*-\s?(?P<down2>{_DIGITS})\s*\^\s*\+\s?(?P<up2>{_DIGITS}))?"
    rf"(?:\s*\)(?=\s*[×xX*·]\s*10))?(?(error)(?:\s*\))?)(?P<power>{_POWER})?"
)
#: '10^{40-41}', which only the braces tell from a difference.
_POWERS = re.compile(
    r"10\s*(?:\^\s*\{|<(?:SUP|sup)>)\s*([+-]?\d{1,3}(?:\.\d{1,3})?)\s*(?:-{1,3}|–|−)\s*([+-]?\d{1,3}(?:\.\d{1,3})?)\s*(?:\}|</)"
)
#: A number after a logarithm is not the quantity whose unit follows it.
_LOGARITHM = re.compile(
    r"\blog(?![a-z])(?:_?\s*10)?(?:[^=~≈∼<>;,]{0,40}[=~≈∼<>]|[\s(]{0,6}[A-Za-z]+(?:_\s{0,9}\w+)?[\s)]{0,6}(?:of|is|at|about)?)"
    r"\s{0,6}(?:[+-]?[\d.]+\s{0,6}(?:-{1,3}|–|±|to)\s{0,6})?$"
)
_WORD = re.compile(
    rf"(?<![\w-])({'|'.join([*_NUMBER_WORDS, *(word.capitalize() for word in _NUMBER_WORDS)])})\b"
    rf"(?!-(?:{'|'.join(_NUMBER_WORDS)})\b)"
)
_JOINED = re.compile(
    r"[\s,]*(?:-{1,3}|–|—|\bto\b|\band\b|\bor\b|\bthrough\b|,)[\s,]*(?:(?:and|about|roughly|up to)\s+)?[~(<>]*\s*$"
)
_RANGE = re.compile(r"\s*(?:-{1,3}|–|—|\bto\b)\s*[~]?\s*$")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)[a-z]*\.?"
#: Words before a number that makes a reference or a name and no measurement.
_NO_QUANTITY_BEFORE = re.compile(
    rf"(?:\b(?:Figs?|Figures?|Tables?|Tabs?|Sects?|Sections?|Eqs?|Equations?|Refs?|Papers?|Appendix|Chapter|[Vv]ol|[Vv]ersion"
    rf"|[Nn]o|[Nn]os|[Oo]bs(?:ervation)?\s?I[Dd]s?|OBSID|ID|DR|[Cc]ycle|arXiv|doi|astro-ph)[\s.:/#]*|{_MONTH}\s|[\[#@/^]\s*|[_^]\s*)$"
)
_NO_QUANTITY_BEHIND = re.compile(rf"\s+{_MONTH}(?![a-z])|\]|/\d|:\d")
_GLUED = re.compile(r"[A-Za-z&_]")
_APPROXIMATE = re.compile(
    r"(?:~|≈|∼|\b(?:about|roughly|around|nearly|approximately|almost|some|circa|ca\.?))\s*[$(]*\s*$"
)
_MAX_VALUE = 1e300
#: Two numbers farther apart, in characters, are no range.
_MAX_RANGE_GAP = 60
_ARXIV = re.compile(r"(?:arXiv:\s*|astro-ph/)\S+|\b10\.\d{4,5}/\S+|https?://\S+")


def _decimal_power(exponent: str) -> tuple[float, float]:
    """10 to an exponent, and what one more in the exponent's last digit adds; a whole one tells the order alone."""
    value = 10.0 ** float(exponent)
    decimals = len(exponent.partition(".")[2])
    return value, value * (10.0**10.0**-decimals - 1) if decimals else value


class QuantityMention(NamedTuple):
    """A number in a text.

    Attributes
    ----------
    value : float
        In `unit`.
    error : float or None
        As stated, the larger side.
    unit : astropy.units.Unit or None
    text : str
        As it stands there, with its unit.
    start : int
        Place of its first character.
    last_place : float
        Value of one unit in the last digit.
    about : bool
        Stated as approximate: '~45 s'.
    shared : bool
        The unit is the next number's, which may have it for itself: 'an index of 1.9 and 0.2 keV'.
    in_range : bool
        One end of a range: '0.5-7 keV'.
    """

    value: float
    error: float | None
    unit: u.UnitBase | None
    text: str
    start: int
    last_place: float
    about: bool = False
    shared: bool = False
    in_range: bool = False


class _Candidate(NamedTuple):
    """A number before its unit is known for good."""

    found: QuantityMention
    end: int
    powered: bool
    scale: float = 1.0  # of a 'million' before the unit


@functools.lru_cache(maxsize=4096)  # choosing, naming and grounding ask for the same sentences
def find_quantities(text: str, number_words: bool = False) -> tuple[QuantityMention, ...]:
    """Find the numbers of a text that are measurements, not parts of names, years, references or coordinates.

    Parameters
    ----------
    text : str
        Prose with or without LaTeX.
    number_words : bool
        Also number words without a unit, as in 'three flares'.

    >>> text = r"$62.0 \\pm 2.5$ days at 4.7 x 10^{39} erg s^{-1}"
    >>> [(found.value, str(found.unit)) for found in find_quantities(text)]
    [(62.0, 'd'), (4.7e+39, 'erg / s')]
    """
    flat = strip_markup(text)
    found = (*_numbers(text, flat), *_number_words(text, flat, number_words))
    places = sorted(found, key=lambda place: place.found.start)
    return tuple(place.found for place in _share_units(text, flat, places) if _measures(flat, place))


def is_same_quantity(stated: QuantityMention, reference: QuantityMention) -> bool:
    """Whether a stated number equals a reference, to the precision of its digits.

    >>> days, seconds, other = (find_quantities(text)[0] for text in ("62.0 days", "5.36e6 s", "61.4 days"))
    >>> is_same_quantity(seconds, days), is_same_quantity(other, days)
    (True, False)
    """
    if (stated.shared and is_same_quantity(stated._replace(unit=None, shared=False), reference)) or (
        reference.shared and is_same_quantity(stated, reference._replace(unit=None, shared=False))
    ):
        return True
    scale = 1.0 if reference.unit is stated.unit else _scale(reference.unit, stated.unit)
    if scale is None:
        return False
    tolerance = max(stated.last_place, _last_nonzero_place(stated.value) if stated.about else 0.0) / 2
    if not math.isclose(stated.value, reference.value * scale, rel_tol=1e-9, abs_tol=tolerance * (1 + 1e-9)):
        return False
    if stated.error is None or reference.error is None:
        return stated.error is None
    return math.isclose(stated.error, reference.error * scale, rel_tol=0.1, abs_tol=stated.last_place / 2)


def quantity_type(quantity: QuantityMention) -> str:
    """The kind of a quantity by its unit, for people: 'a luminosity', 'a time'."""
    if quantity.unit is None:
        return "a number"
    names = {str(name) for name in quantity.unit.physical_type}
    return next((kind for physical, kind in _QUANTITY_TYPES.items() if physical in names), "a quantity")


_QUANTITY_TYPES = {
    "power": "a luminosity", "energy flux": "a flux", "time": "a time", "energy": "an energy", "length": "a length",
    "column density": "a column density", "temperature": "a temperature", "mass": "a mass", "frequency": "a frequency",
    "angle": "an angle", "speed": "a speed", "spectral flux density": "a flux density", "mass density": "a density",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def format_unit(unit: u.UnitBase | None) -> str:
    """A unit as plain text that `find_quantities` reads again: 'erg/s', 'erg cm^-2 s^-1'; '-' where there is none."""
    if unit is None or not unit.bases:
        return "-"
    parts = [(_SHORT.get(base.name, base.name), power) for base, power in zip(unit.bases, unit.powers, strict=True)]
    above = " ".join(name if power == 1 else f"{name}^{power}" for name, power in parts if power > 0)
    below = sorted((name, power) for name, power in parts if power < 0)
    if above and len(below) == 1 and below[0][1] == -1:
        return f"{above}/{below[0][0]}"
    return " ".join(filter(None, [above, *(f"{name}^{power}" for name, power in below)]))


_SHORT = {
    "solMass": "M_sun",
    "solLum": "L_sun",
    "solRad": "R_sun",
    "Angstrom": "angstrom",
    "wk": "week",
    "percent": "%",
}


def read_quantity(number: str, unit: str) -> tuple[QuantityMention, ...]:
    """Numbers of a text such as '62.0' or '1.3-1.7', in a unit such as 'd' or 'erg/(s cm2)'; '-' is none.

    Units that prose does not write are read as `astropy.units` does. An unknown one leaves no number.
    """
    unit = "" if unit.strip() in ("", "-") else unit.strip()
    found = find_quantities(f"{number} {unit}")
    if unit and found and any(one.unit is None for one in found):
        try:
            parsed = u.Unit(unit)
        except ValueError:
            return ()
        found = tuple(one._replace(unit=parsed) for one in find_quantities(number))
    return found


@functools.lru_cache(maxsize=4096)  # a sentence is asked with and without number words
def _numbers(text: str, flat: str) -> list[_Candidate]:
    places: list[_Candidate] = []
    if not _DIGIT.search(flat):
        return places
    skipped = [*find_designations(flat), *(match.span() for match in _ARXIV.finditer(flat))]
    at = 0
    while match := _NUMBER.search(flat, at):
        start = match.start("value")
        at = next((stop for begin, stop in skipped if begin <= start < stop), 0)
        if not at:  # it is part of no name
            found = _read_powers(text, flat, start) or _read(text, flat, match)
            places += found
            at = max(found[-1].end, start + 1) if found else match.end()
    return places


def _read_powers(text: str, flat: str, start: int) -> list[_Candidate]:
    """Both ends of '10^{40-41} erg/s', none where there is no such range."""
    match = _POWERS.match(text, start)
    if match is None:
        return []
    unit, stop, scale = _unit(flat, match.end())
    written = _as_written(text, flat, start, stop)
    ends = map(_decimal_power, match.groups())
    found = (
        QuantityMention(value * scale, None, unit, written, start, last * scale, in_range=True) for value, last in ends
    )
    return [_Candidate(end, stop, True, scale) for end in found]


def _read(text: str, flat: str, match: re.Match[str]) -> list[_Candidate]:
    """The number of a match, none where it is part of a word or too large."""
    start, end = match.start("value"), match.end()
    digits = match["value"].replace(",", "")
    bare = _BARE_POWER.match(flat, start + (digits[0] in "+-"))
    if bare and digits.lstrip("+-") == "10" and not match["power"] and not match["exp"]:
        powered, error, end = True, None, bare.end()
        # '10^39' tells an order of magnitude.
        value = last = _power(1.0, _exponent(bare.group()[2:]))
        if _DECIMAL.match(exact := (bare[1] or "").replace(" ", "")):
            value, last = _decimal_power(exact)
    else:
        if match["power"] and re.match(r"\.\d", flat[end : end + 2]):
            return []  # '3 x 10^{39.5}'
        stated = match["power"] and re.sub(r"^\s*[×xX*·]?\s*10", "", match["power"])
        power = _exponent(stated) if stated else int((match["exp"] or "e0")[1:6])
        powered = power != 0
        value = _power(float(digits), power)
        last = _power(10.0 ** -len(digits.partition(".")[2]), power)
        error = _error(match, last, power)
    if not math.isfinite(value) or abs(value) > _MAX_VALUE or last == 0.0:
        return []
    unit, stop, scale = _unit(flat, end)
    if flat[end : end + 1] and _GLUED.match(flat[end]) and unit is None:
        return []  # '3C', '4U', '2MASS'
    about = _APPROXIMATE.search(flat, max(0, start - 16), start) is not None
    wide = None if error is None else error * scale
    found = QuantityMention(value * scale, wide, unit, _as_written(text, flat, start, stop), start, last * scale, about)
    return [_Candidate(found, stop, powered, scale)]


def _as_written(text: str, flat: str, start: int, stop: int) -> str:
    while stop < len(text) and flat[stop] == " " and text[stop] != " ":
        stop += 1  # the rest of a macro, closing braces
    written = text[start:stop].strip(" $")
    if written.count(")") > written.count("(") and text[start - 1 : start] == "(":
        written = f"({written}"
    return written


def _error(match: re.Match[str], last: float, exponent: int) -> float | None:
    if match["last"]:
        return float(match["last"]) * last
    stated = [match[name] for name in ("error", "up", "down", "up2", "down2") if match[name]]
    own = int(match["errexp"][1:]) if match["errexp"] else exponent
    return _power(max(float(side.replace(",", "")) for side in stated), own) if stated else None


def _number_words(text: str, flat: str, counted: bool) -> list[_Candidate]:
    places = []
    for match in _WORD.finditer(flat):
        start = match.start()
        unit, stop, scale = _unit(flat, match.end())
        factor = flat[max(0, start - 12) : start].rstrip().endswith(("factor of", "factors of"))
        shared = _JOINED.match(flat[match.end() : match.end() + 4] + " ") is not None
        if unit is not None or counted or factor or shared:
            value = _NUMBER_WORDS[match[1].lower()] * scale
            about = _APPROXIMATE.search(flat, max(0, start - 16), start) is not None
            found = QuantityMention(value, None, unit, text[start:stop].strip(), start, scale, about)
            places.append(_Candidate(found, stop, False, scale))
    return places


def _share_units(text: str, flat: str, places: Sequence[_Candidate]) -> list[_Candidate]:
    """'0.5-10 keV', '1.3 and 1.7 s', '2-5 x 10^39 erg/s': what the second says holds for the first."""
    shared = list(places)
    for i in range(len(places) - 2, -1, -1):
        first, second = shared[i], shared[i + 1]
        between = flat[first.end : second.found.start]
        if len(between) > _MAX_RANGE_GAP:
            continue
        spans = _RANGE.fullmatch(between) is not None
        if spans and (first.found.unit is None or second.found.unit is not None):
            first = first._replace(found=first.found._replace(in_range=True))
            shared[i : i + 2] = first, second._replace(found=second.found._replace(in_range=True))
        if (
            first.found.unit is not None
            or second.found.unit is None
            or (not _JOINED.fullmatch(between) or ("," in between and first.found.text[:1].isalpha()))
        ):
            continue
        factor = second.scale
        if spans and second.powered and not first.powered and 0.1 <= first.found.value <= 100:
            factor = 10.0 ** math.floor(math.log10(abs(second.found.value) or 1.0))
        written = (
            f"{first.found.text} {format_unit(second.found.unit)}"
            if factor == 1.0
            else text[first.found.start : second.found.start + len(second.found.text)].strip(" $")
        )
        found = first.found._replace(
            value=first.found.value * factor,
            last_place=first.found.last_place * factor,
            unit=second.found.unit,
            shared=not spans,
            text=written,
        )
        shared[i] = first._replace(found=found, scale=second.scale)
    return shared


def _measures(flat: str, place: _Candidate) -> bool:
    """Whether a number is a measurement, judged by the text around it."""
    found, end = place.found, place.end
    if found.text[:1].isalpha():
        return True  # a number word
    before = flat[max(0, found.start - 20) : found.start]
    near = max(0, found.start - 72)
    if _NO_QUANTITY_BEFORE.search(before) or (
        flat.find("log", near, found.start) >= 0 and _LOGARITHM.search(flat, near, found.start)
    ):
        return False
    if found.unit is not None:
        return True
    digits = flat[found.start : end].strip()
    if (
        digits.isdigit()
        and (
            (1900 <= found.value < 2100 and len(digits) == 4)
            or _NO_QUANTITY_BEHIND.match(flat, end)
            # '(1)' numbers an item
            or (before.rstrip().endswith("(") and flat[end : end + 1] == ")" and len(digits) <= 2)
            or len(digits) >= 9
        )
    ):
        return False
    whole = abs(found.value) < 1e15 and found.value == int(found.value)
    return not (whole and before.endswith(("et al. ", "et al.")))


def _unit(flat: str, end: int) -> tuple[u.UnitBase | None, int, float]:
    """The unit behind a number that ends at `end`, where it ends itself, and the factor of a 'million' before it."""
    match = _UNIT.match(flat, end)
    return (_parse(match["unit"]), match.end(), _SCALES.get(match[1] or "", 1.0)) if match else (None, end, 1.0)


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> u.UnitBase:
    unit = u.dimensionless_unscaled
    for part in _PART.finditer(text):
        power = _exponent(part["power"]) if part["power"] else 1
        unit = unit * _atom(part["atom"]) ** (-power if part["over"] else power)
    return unit


@functools.lru_cache(maxsize=512)
def _atom(text: str) -> u.UnitBase:
    name = next(name for pattern, name in _UNITS.items() if re.fullmatch(pattern, text))
    name = name or ("K" if text.startswith("kelvin") else text)
    return _OWN[name] if name in _OWN else u.Unit(name)


def _exponent(text: str) -> int:
    plain = unicodedata.normalize("NFKC", text).replace("−", "-").replace(" ", "").strip("^*()")
    match = _EXPONENT_OF.search(plain)
    return int(match[1] + match[2][:4]) if match else 0


def _power(value: float, exponent: int) -> float:
    if not math.isfinite(value):
        return value
    try:
        return float(f"{value!r}e{exponent}") if "e" not in repr(value) else value * 10.0**exponent
    except OverflowError:
        return math.inf


@functools.lru_cache(maxsize=65536)
def _scale(source: u.UnitBase | None, target: u.UnitBase | None) -> float | None:
    """Factor from one unit to the other, None where they measure different quantities."""
    one = source if source is not None else u.dimensionless_unscaled
    other = target if target is not None else u.dimensionless_unscaled
    if one == other:
        return 1.0
    try:
        return float(one.to(other, equivalencies=u.temperature_energy()))
    except (u.UnitConversionError, u.UnitTypeError, TypeError):
        return None


def _last_nonzero_place(value: float) -> float:
    """What one more in the last digit other than 0 is worth."""
    if not value:
        return 0.0
    mantissa, exponent = f"{abs(value):.12e}".split("e")
    return 10.0 ** (int(exponent) - len(mantissa.rstrip("0").partition(".")[2]))
