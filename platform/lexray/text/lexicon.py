"""The phrases that papers use for each label of a source's class, variability and spectrum.

A sentence that denies a word does not mention it: 'no evidence of pulsations', 'rules out an AGN', 'unlike a ULX'.
"""

# A list of phrases is easier to read with fewer breaks.
# ruff: noqa: E501

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

from lexray.text.labels import UNKNOWN, LabelCategory, ObjectClass, SpectralShape, Variability
from lexray.text.latex import strip_markup
from lexray.text.vocabulary import singular

Stance = Literal["asserted", "hedged", "denied"]
LABEL_CATEGORIES: tuple[LabelCategory, ...] = ("object_class", "variability", "spectral_shape")

#: Phrases by label, singular, lower-case, hyphens as spaces; '|' separates them, '+' names a second label they imply.
_PHRASES: Mapping[LabelCategory, Mapping[str, str]] = {
    "object_class": {
        "AGN": "active galactic nucleus|active galactic nuclei|active nucleus|active galaxy|active nuclei|quasar|seyfert"
        "|blazar|bl lac|supermassive black hole|super massive black hole|radio galaxy|qso",
        "galaxy": "normal galaxy|elliptical galaxy|starburst galaxy|dwarf galaxy|inactive galaxy|galaxy emission",
        "galaxy cluster": "galaxy cluster|cluster of galaxy|intracluster medium|group of galaxy|galaxy group",
        "ULX": "ultraluminous x ray source|ultra luminous x ray source|ultraluminous source|ultraluminous x ray pulsar"
        "|ultra luminous x ray pulsar|ultraluminous pulsar|ulx pulsar",
        "HMXB": "high mass x ray binary|high mass binary|massive x ray binary|be x ray binary|be x ray pulsar"
        "|supergiant x ray binary|wind fed x ray binary|supergiant fast x ray transient|be companion|b type companion"
        "|ob companion|supergiant companion|early type companion|early type donor|supergiant donor|be star companion"
        "|o type companion|massive companion|massive donor|microquasar with a massive",
        "LMXB": "low mass x ray binary|low mass binary|neutron star binary|atoll source|z source|x ray burster"
        "|low mass companion|late type companion|k type companion|k type donor|late type donor|low mass donor"
        "|ultracompact x ray binary|roche lobe filling low mass star",
        "X-ray binary": "x ray binary|black hole binary|accreting binary|accreting pulsar|accreting neutron star"
        "|accreting black hole|accretion powered pulsar|accreting compact object|microquasar|compact binary",
        "black hole": "black hole|stellar mass black hole|intermediate mass black hole|imbh",
        "magnetar": "magnetar|anomalous x ray pulsar|soft gamma repeater|soft gamma ray repeater",
        "neutron star": "neutron star|pulsar|central compact object|isolated neutron star|pulsar wind nebula",
        "CV": "cataclysmic variable|intermediate polar|polar|dwarf nova|nova like variable|accreting white dwarf"
        "|white dwarf binary|magnetic white dwarf|classical nova|symbiotic star|symbiotic binary|nova"
        "|supersoft binary",
        "supernova remnant": "supernova remnant",
        "supernova": "supernova|core collapse supernova|supernovae",
        "gamma-ray burst": "gamma ray burst|grb afterglow",
        "tidal disruption event": "tidal disruption event|tidal disruption|tidally disrupted star",
        "young star": "young stellar object|young star|t tauri star|t tauri|pre main sequence star|protostar"
        "|herbig ae star|herbig be star|herbig ae be star|class i protostar|classical t tauri star"
        "|weak lined t tauri star|premain sequence star|pre main sequence|circumstellar disk|circumstellar disc",
        "low-mass star": "low mass star|m dwarf|k dwarf|g dwarf|red dwarf|late type star|late type dwarf|brown dwarf"
        "|active star|solar type star|coronal activity|active corona|flare star|dme star|k type star|m type star"
        "|low mass dwarf|cool dwarf|rs cvn",
        "high-mass star": "high mass star|massive star|o star|b star|o type star|b type star|ob star|early type star"
        "|wolf rayet star|wolf rayet|early b star|hot star|colliding wind binary|colliding wind|massive binary|be star"
        "|supergiant star|magnetic ob star",
        "star": "star|stellar corona|normal star|coronal emission|stellar source",
    },
    "variability": {
        "steady": "non variable|nonvariable|no variability|no significant variability|no short term variability"
        "|no evidence for variability|no evidence of variability|no strong variability|not variable|not vary"
        "|no significant variation|no variation|without variability|excludes strong variability|constant source"
        "|no evidence for significant variability|no x ray variability|steady|constant|quiet source"
        "|absence of variability|lack of variability",
        "flaring": "flare|flaring|flared|eruptive|eruption|thermonuclear burst|type i burst|x ray burst|type i x ray burst"
        "|burst|bursting",
        "periodic": "period|periodic|periodically|periodicity|pulsation|pulsating|pulsed|pulse|modulation|modulated"
        "|pulsed fraction|spin period|orbital period",
        "dipping": "dip|dipping|dipper",
        "eclipsing": "eclipse|eclipsing|eclipsed",
        "irregular": "aperiodic|stochastic|stochastically|irregular|irregularly|erratic|erratically|flicker|flickering"
        "|flickered|red noise|chaotic|flux wander|random fluctuation",
        "transient": "transient|outburst|turned off|reappeared",
        "variable": "variable|variability|varied|vary|varying|variation|fluctuation|fluctuate|varies",
    },
    "spectral_shape": {
        "power law": "power law|powerlaw|photon index|comptonised|comptonized|comptonisation|comptonization",
        "blackbody": "black body|blackbody|disk black body|disc black body|multicolour disk|multicolor disk|multicolour disc"
        "|diskbb|planckian",
        "thermal plasma": "thermal plasma|ionised plasma|ionized plasma|apec|vapec|mekal|bremsstrahlung|optically thin plasma"
        "|plasma|plasma temperature|thermal emission|thermal component|thermal model|hot gas|thin thermal",
        "supersoft": "supersoft|super soft",
        "line-dominated": "line dominated|dominated by emission line|dominated by line|line rich|emission line spectrum",
    },
}
#: Abbreviations, only in capitals: 'ns' is a unit.
_ABBREVIATIONS: Mapping[str, tuple[LabelCategory, str]] = {
    short: ("object_class", label)
    for label, names in {
        "AGN": "AGN QSO LLAGN BLRG NLS1", "ULX": "ULX HLX ULXP", "HMXB": "HMXB BeXRB SGXB SFXT", "LMXB": "LMXB UCXB",
        "X-ray binary": "XRB XB", "black hole": "BH IMBH", "neutron star": "NS CCO XDINS PSR PWN",
        "magnetar": "AXP SGR", "CV": "CV IP CVs mCV", "supernova remnant": "SNR", "supernova": "SN SNe",
        "gamma-ray burst": "GRB", "tidal disruption event": "TDE", "young star": "YSO TTS CTTS WTTS cTTS wTTS",
        "high-mass star": "OB WR",
    }.items()
    for short in names.split()
}  # fmt: skip
#: Phrases that contain such words but do not apply them to the source.
_NEUTRAL_PHRASES = """
    star forming|star formation|companion star|donor star|star cluster|globular cluster|open cluster|host star|guide star
    young star cluster|solar neighbourhood|over a period|during a period|period of time|quasi periodic|quasi periodic oscillation
    red noise power law|noise power law|steady mass|steady accretion|steady state|steady decline|steady increase|steady rise
    m dwarf donor|m dwarf companion|k dwarf companion|late type star companion|low mass star companion|gamma ray burst monitor
    constant temperature|constant factor|constant spin|active galactic nucleus feedback|cepheid variable|variable star
    pulsar timing array|variable absorption|period gap|polar cap|polar orbit|plasma physics|supernova rate|burst alert
    galactic plane|host galaxy|observing period|observation period|period between|time period|x ray pulse height|pulse height
    bright star|star field|foreground star|standard star|neutron star equation|black hole mass function|wind of a star
"""
#: Labels that another implies: an HMXB is an X-ray binary.
IMPLIES: Mapping[tuple[LabelCategory, str], tuple[str, ...]] = {
    ("object_class", "HMXB"): ("X-ray binary",),
    ("object_class", "LMXB"): ("X-ray binary",),
    ("object_class", "magnetar"): ("neutron star",),
    ("object_class", "young star"): ("star",),
    ("object_class", "low-mass star"): ("star",),
    ("object_class", "high-mass star"): ("star",),
    **{
        ("variability", label): ("variable",)
        for label in ("flaring", "periodic", "dipping", "eclipsing", "irregular", "transient")
    },
}
#: Two labels in one phrase.
_SECOND_LABELS: Mapping[str, tuple[str, ...]] = {
    "ultraluminous x ray pulsar": ("neutron star",), "ultra luminous x ray pulsar": ("neutron star",),
    "ultraluminous pulsar": ("neutron star",), "ulx pulsar": ("neutron star",), "ULXP": ("neutron star",),
    "black hole binary": ("black hole",), "accreting black hole": ("black hole",),
    "accreting neutron star": ("neutron star",), "accreting pulsar": ("neutron star",),
    "accretion powered pulsar": ("neutron star",), "neutron star binary": ("neutron star",),
    "be x ray pulsar": ("neutron star",), "pulsar wind nebula": (), "nova": (),
}  # fmt: skip
#: These count only if they describe a flux.
_NEEDS_FLUX = frozenset({"steady", "constant"})
_FLUX = re.compile(
    r"\b(?:flux|fluxes|count|light\s?curve|light|luminosity|emission|emitter|brightness|variability|source|intensity"
    r"|observation|nucleus|quasar|AGN|star|binary|object|variable|LMXB|HMXB|CV|pulsar|dwarf|polar|signals?)\b"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*|\d+|[;:]|,|—|–|\(|\)")

_NEGATION = re.compile(
    r"(?i)\b(?:no|not|neither|nor|never|without|unlike|cannot|excludes?|excluding|excluded|lacks?|lacking|absence of"
    r"|rul(?:es?|ed|ing) out|rather than|instead of|argues? against|disfavou?rs?|inconsistent with|incompatible with"
    r"|non|fails? to|failed to|preclude[sd]?|reject(?:s|ed)?|don't|doesn't|isn't|wasn't|nothing)\b"
)
#: Words that end the scope of a negation or a hedge.
_SCOPE_END = re.compile(
    r"(?i)[;:—.]|\b(?:but|however|although|though|while|whereas|which|except|instead|yet|because|since|so that|suggesting"
    r"|implying|indicating|showing|and (?:it|the|is|was|has|we|shows?|are|that)|with)\b|,\s(?:it|the|this|we|and|is|a)\b"
)
_NEGATION_AFTER = re.compile(
    r"(?i)^[^.;:,]{0,40}?\b(?:(?:is|are|was|were|be|been|can be|remains?)\s(?:\w+\s)?(?:ruled out|excluded|unlikely|rejected"
    r"|absent|undetected|hidden|disfavou?red|not (?:seen|found|detected|present|required|observed))|(?:do|does|did)\snot\b"
    r"|is not\b|are not\b|unlikely)"
)
_HEDGES = re.compile(
    r"(?i)\b(?:possibl[ey]|candidate|likely|may|might|could|perhaps|suggests?|suggested|suggesting|suggestive|probabl[ey]|tentative"
    r"|plausibl[ey]|potential(?:ly)?|presumably|putative|consistent with|typical of|similar to|properties with|whether|if)\b"
)
_HEDGE_AFTER = re.compile(r"\s*\(?(?:candidate|scenario|interpretation|\?)")
#: 'not only a flare': the word does not deny.
_NO_NEGATION = re.compile(
    r"not only|no doubt|not just|no longer|no less|not all|non-?thermal|no more than", re.IGNORECASE
)
_MAX_SCOPE = 80


class LabelMention(NamedTuple):
    """A label that a sentence mentions: its words, and whether the sentence asserts, hedges or denies it."""

    kind: LabelCategory
    label: str
    words: str
    stance: Stance


@functools.lru_cache(maxsize=4096)  # choosing, labelling and grounding ask for the same sentences
def find_mentions(sentence: str) -> tuple[LabelMention, ...]:
    """Labels that a sentence mentions, in its order, without those that they imply.

    >>> [(m.label, m.stance) for m in find_mentions("It may be a ULX, but pulsations are ruled out")]
    [('ULX', 'hedged'), ('periodic', 'denied')]
    """
    flat = strip_markup(sentence)
    return tuple(
        LabelMention(kind, label, flat[start:end], _stance(flat, start, end))
        for kind, label, start, end in _label_spans(flat)
    )


@functools.lru_cache(maxsize=4096)
def mentioned_labels(sentence: str) -> frozenset[tuple[LabelCategory, str]]:
    """Labels that a sentence asserts or hedges, with those that they imply.

    >>> sorted(label for _, label in mentioned_labels("A wind-fed HMXB with no sign of eclipses"))
    ['HMXB', 'X-ray binary']
    """
    return frozenset(
        with_implied((mention.kind, mention.label) for mention in find_mentions(sentence) if mention.stance != "denied")
    )


def with_implied(labels: Iterable[tuple[LabelCategory, str]]) -> set[tuple[LabelCategory, str]]:
    """Labels with those that they imply: a power law with thermal emission is 'power law and thermal'."""
    found: set[tuple[LabelCategory, str]] = set(labels)
    found |= {(kind, implied) for kind, label in tuple(found) for implied in IMPLIES.get((kind, label), ())}
    thermal = {("spectral_shape", "blackbody"), ("spectral_shape", "thermal plasma")}
    if ("spectral_shape", "power law") in found and not thermal.isdisjoint(found):
        found.add(_POWER_LAW_AND_THERMAL)
    return found


def trigger_words(labels: Iterable[tuple[LabelCategory, str]]) -> frozenset[str]:
    """Beginnings of words, in lower case, of which a sentence holds one where it speaks of one of these labels."""
    return frozenset(word for label in labels for word in _FIRST_WORDS.get(label, ()))


def majority_labels(sentences: Iterable[str]) -> dict[LabelCategory, str]:
    """The label of each kind that sentences mention most, 'unknown' where they mention none.

    An assertion counts one, a hedge a half. More general labels support a specific one: papers call an HMXB a neutron
    star, too. Of equals the first in the list of `labels` wins.
    """
    weights: dict[tuple[LabelCategory, str], float] = {}
    for place, worth in itertools.chain.from_iterable(_label_weights(sentence).items() for sentence in sentences):
        weights[place] = weights.get(place, 0.0) + worth
    chosen: dict[LabelCategory, str] = {}
    for kind, choices in LABELS.items():
        found = {label: worth for (of_kind, label), worth in weights.items() if of_kind == kind and worth > 0}
        support = {
            name: found[name] + 0.5 * sum(found.get(other, 0.0) for other in _SUPPORTED_BY.get(name, ()))
            for name in choices
            if name in found
        }
        chosen[kind] = max(support, key=support.__getitem__) if support else UNKNOWN
    return chosen


@functools.lru_cache(maxsize=4096)  # a paper's sentences are counted for it, and for its source
def _label_weights(sentence: str) -> Mapping[tuple[LabelCategory, str], float]:
    """How firmly a sentence states each label that it mentions; of equal labels the firmest."""
    stances: dict[tuple[LabelCategory, str], float] = {}
    for mention in find_mentions(sentence):
        place = (mention.kind, mention.label)
        stances[place] = max(stances.get(place, 0.0), _WORTH[mention.stance])
    if _POWER_LAW_AND_THERMAL in with_implied(label for label, worth in stances.items() if worth):
        stances[_POWER_LAW_AND_THERMAL] = 1.0
    return stances


_WORTH: Mapping[Stance, float] = {"asserted": 1.0, "hedged": 0.5, "denied": 0.0}
_POWER_LAW_AND_THERMAL: tuple[LabelCategory, str] = ("spectral_shape", "power law and thermal")
LABELS: Mapping[LabelCategory, tuple[str, ...]] = {
    "object_class": get_args(ObjectClass),
    "variability": get_args(Variability),
    "spectral_shape": get_args(SpectralShape),
}
#: More general words that papers use of a thing with this label.
_SUPPORTED_BY: Mapping[str, tuple[str, ...]] = {
    "AGN": ("galaxy", "black hole"), "ULX": ("X-ray binary", "neutron star", "black hole"),
    "HMXB": ("X-ray binary", "neutron star", "black hole", "high-mass star"),
    "LMXB": ("X-ray binary", "neutron star", "black hole", "low-mass star"),
    "X-ray binary": ("neutron star", "black hole"), "magnetar": ("neutron star",), "CV": ("X-ray binary",),
    "young star": ("star", "low-mass star"), "low-mass star": ("star",), "high-mass star": ("star",),
    "flaring": ("variable",), "periodic": ("variable",), "dipping": ("variable",), "eclipsing": ("variable",),
    "irregular": ("variable",), "transient": ("variable",),
    "power law and thermal": ("power law", "blackbody", "thermal plasma"),
}  # fmt: skip


def _first_words() -> dict[tuple[LabelCategory, str], frozenset[str]]:
    """For each label the first word of each phrase for it, of those that imply it and of abbreviations."""
    words: dict[tuple[LabelCategory, str], set[str]] = {}
    for phrase, labelled in itertools.chain.from_iterable(_TABLE.values()):
        for label in labelled:
            words.setdefault(label, set()).add(phrase[0][:-1] if phrase[0].endswith("y") else phrase[0])
    for short, (kind, name) in _ABBREVIATIONS.items():
        for stated in (name, *_SECOND_LABELS.get(short, ())):
            words.setdefault((kind, stated), set()).add(short.lower())
    for (kind, particular), implied in IMPLIES.items():
        for general in implied:
            words.setdefault((kind, general), set()).update(words.get((kind, particular), ()))
    parts = (words[_POWER_LAW_AND_THERMAL[0], part] for part in ("power law", "blackbody", "thermal plasma"))
    words[_POWER_LAW_AND_THERMAL] = set().union(*parts)
    return {label: frozenset(found) for label, found in words.items()}


def _table() -> dict[str, list[tuple[tuple[str, ...], tuple[tuple[LabelCategory, str], ...]]]]:
    """Phrases by their first word, the longest first."""
    labels_of: dict[str, tuple[tuple[LabelCategory, str], ...]] = {}
    for kind, labels in _PHRASES.items():
        for label, phrases in labels.items():
            for phrase in phrases.split("|"):
                also = tuple((kind, other) for other in _SECOND_LABELS.get(phrase, ()))
                labels_of[phrase] = (*labels_of.get(phrase, ()), (kind, label), *also)
    for phrase in _NEUTRAL_PHRASES.strip().replace("\n", "|").split("|"):
        labels_of.setdefault(phrase.strip(), ())
    table: dict[str, list[tuple[tuple[str, ...], tuple[tuple[LabelCategory, str], ...]]]] = {}
    split = ((tuple(phrase.split()), labelled) for phrase, labelled in labels_of.items())
    for words, labelled in sorted(split, key=lambda entry: -len(entry[0])):
        table.setdefault(words[0], []).append((words, labelled))
    for first in tuple(table):  # most words begin no phrase: whether one does is asked without making it singular
        for plural in (f"{first}s", f"{first[:-1]}ies"):
            if singular(plural) == first:
                table[plural] = table[first]
    return table


_TABLE = _table()
_FIRST_WORDS = _first_words()
#: Words in lower case with which a phrase or an abbreviation begins.
_BEGINNINGS = frozenset(_TABLE) | {f"{short.lower()}{plural}" for short in _ABBREVIATIONS for plural in ("", "s")}


def _label_spans(flat: str) -> Iterator[tuple[LabelCategory, str, int, int]]:
    matches = list(_WORD.finditer(flat))
    words = [match.group() for match in matches]
    lowered = [word.lower() for word in words]
    behind = 0

    def folded(place: int) -> str:
        return singular(lowered[place]) if place < len(words) else ""

    for i in [place for place, word in enumerate(lowered) if word in _BEGINNINGS]:
        if i < behind:
            continue
        word = words[i]
        short = _ABBREVIATIONS.get(word) or (_ABBREVIATIONS.get(word[:-1]) if word[-1] == "s" else None)
        if short is not None:
            for label in (short[1], *_SECOND_LABELS.get(word.rstrip("s"), ())):
                yield short[0], label, *matches[i].span()
        for wanted, labelled in _TABLE.get(lowered[i], ()):
            n = len(wanted)
            if n > 1 and (folded(i + 1) != wanted[1] or any(folded(i + j) != wanted[j] for j in range(2, n))):
                continue
            start, end = matches[i].start(), matches[min(i + n, len(words)) - 1].end()
            if n > 1 or wanted[0] not in _NEEDS_FLUX or _refers_to_flux(flat, start, end):
                for kind, label in labelled:
                    yield kind, label, start, end
            behind = i + n
            break


def _refers_to_flux(flat: str, start: int, end: int) -> bool:
    return _FLUX.search(flat[max(0, start - 50) : start].rpartition("spin")[2]) is not None or (
        _FLUX.search(flat[end : end + 24]) is not None
    )


def _stance(flat: str, start: int, end: int) -> Stance:
    if _NEGATION.match(flat, start):
        return "asserted"  # 'no variability' is steady
    before = flat[max(0, start - _MAX_SCOPE) : start]
    hedged = False
    if _NEGATION.search(before) or _HEDGES.search(before):  # rarely: only then does it matter where the clause begins
        turns = list(_SCOPE_END.finditer(before))
        clause = before[turns[-1].end() :] if turns else before
        if _NEGATION.search(_NO_NEGATION.sub("", clause)):
            return "denied"
        hedged = _HEDGES.search(clause) is not None
    if _NEGATION_AFTER.match(flat[end : end + 70]):
        return "denied"
    return "hedged" if hedged or _HEDGE_AFTER.match(flat, end) else "asserted"
