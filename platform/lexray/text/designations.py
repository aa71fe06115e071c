"""Find names of celestial objects in prose, and decide whether each is this source's, its host's or another's.

Forms follow the IAU's recommendations for designations (acronym and position, truncated and not rounded), the General
Catalogue of Variable Stars, and the habits of X-ray astronomy ('Cyg X-1', 'NGC 300 ULX1').
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from lexray.text.latex import strip_markup
from lexray.text.sentences import split_sentences

Referent = Literal["source", "host", "other"]

_CONSTELLATIONS = (
    "Aps|Aqr|Aql|Ara|Ari|Aur|Boo|Cae|Cam|Cnc|CVn|CMa|CMi|Cap|Car|Cas|Cen|Cep|Cet|Cha|Cir|Col|CrA|CrB|Crv|Crt|Cru|Cyg"
    "|Del|Dor|Dra|Equ|Eri|Gem|Gru|Her|Hor|Hya|Hyi|Lac|Leo|LMi|Lep|Lib|Lup|Lyn|Lyr|Mus|Nor|Oct|Oph|Ori|Pav|Peg|Per|Phe"
    "|Pic|Psc|PsA|Pup|Pyx|Ret|Sge|Sgr|Sco|Scl|Sct|Ser|Tau|Tel|Tri|TrA|Tuc|UMa|UMi|Vel|Vir|Vul"
)
#: Galaxies and clusters, which hold sources.
_HOSTS = (
    r"NGC|IC|UGCA?|PGC|ESO|Messier|Mrk|Mkn|Markarian|Arp|Abell|Terzan|Liller|Westerlund|Trumpler|Collinder|Berkeley"
)
_CATALOGUES = rf"{_HOSTS}|HDE?|HIP|GJ|Gl|Gliese|SAO|TYC|TIC|KIC|LS|SS|WR|Kes|RCW|CTB|Haro|Ark|MCG|Fairall|LkHa|LEDA|PDS"
#: Acronyms before a position of the equinox 1950, or before one with no letter.
_OLD = r"1ES|GRS|GRO|EXO|XTE|SAX|PSR|PKS|MXB|SLX|SGR|AXP|IRAS|QSO|IGR|XMMU|CXOU|WGA|1WGA|CXO|LSI|KUG|Ginga"
#: So short that prose also has them before other numbers.
_SHORT = r"[1-5][AEHMSU]|1E|2E|4U|3A|GS|KS|PG|XB|MR|HE|RE|H|A|X|AX|RX|1H|MS|EQ|OJ|S5"
_NO_UNIT = (
    r"(?!\s{0,3}(?:[kMGT]?eV|ergs?|[kMmn]?s|sec(?:onds?)?|min(?:utes?)?|h(?:ours?|rs?)?|d(?:ays?)?|y(?:ea)?rs?|[kMG]?pc|[kmcnμ]?m"
    r"|[kMG]?Hz|mHz|K|Å|[Aa]ngstroms?|AU|au|[kM]?G|counts?|cts|photons|[mμ]?Jy|mag|deg|arcsec|arcmin|per|times|%|°|σ|M_|M⊙)"
    r"(?![A-Za-z]))"
)
#: Words that go on after a name; before others the number counts: 'the ULX 5 times', 'the ULX 3 Mpc away'.
_CONTINUES = (
    r"(?!\s{1,3}(?!(?:is|was|are|were|has|had|have|shows?|showed|in|with|as|at|which|that)\b|(?:and|or)\b(?!\s\d))"
    r"[A-Za-zμ°%])"
)
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi"
    "|omega"
)
_SIGN = r"\s?[+\-–]\s?"
_NAME = re.compile(
    rf"(?<![A-Za-z0-9.+\-])(?:"
    # J095550.1+694046, J0218+4232; what stands before belongs to it and is looked for behind.
    rf"J\s?\d{{4,9}}(?:\.\d+)?{_SIGN}\d{{2,8}}(?:\.\d+)?(?:[a-z](?![a-z]))?"
    rf"|(?:{_OLD})\s?B?\d{{3,6}}(?:\.\d+)?[+\-–]\d{{1,6}}(?:\.\d+)?(?!\d|\.\d|[–-]){_NO_UNIT}"
    rf"|(?:{_SHORT})\s?B?\d{{4,6}}(?:\.\d+)?[+\-–]\d{{2,6}}(?:\.\d+)?(?!\d|\.\d|[–-]){_NO_UNIT}"
    rf"|B\d{{4}}[+\-–]\d{{2,3}}(?!\d)"
    rf"|GX\s?\d{{1,3}}[+\-–]\d{{1,2}}(?!\d)|G\d{{1,3}}\.\d+[+\-–]\d+\.\d+"
    rf"|(?:{_CATALOGUES})[\s_]?[+-]?\d(?:[\d+-]*\d)?(?!\d|\.\d)(?:[A-Da-d](?![A-Za-z0-9]))?"
    # HR1 to HR9 are hardness ratios; line widths are called W50.
    rf"|HR\s?\d{{2,4}}(?!\d|\.\d)|A\d{{3,4}}(?!\d|\.\d|[+\-–]\d){_NO_UNIT}|W(?:28|44|49|51|\d\d[A-C])(?![A-Za-z0-9]|\.\d)"
    rf"|N\s?\d{{2,3}}[A-D](?![A-Za-z0-9])|LS\s?I{{1,3}}\s?[+-]\s?\d\d\s?°?\s?\d{{1,4}}(?!\d)"
    rf"|M\s?(?:[1-9]\d|10\d|110)(?!\d|\.\d)(?!\s?(?:V\b|dwarf|star|giant|type|-type|M_|M⊙|%))"
    rf"|[34]C\s?[+-]?\d+(?:\.\d+)?"
    rf"|(?:V\d{{3,4}}|[R-Z]|[A-Z]{{2}}|\d{{1,2}}|(?:[αβγδεζηθικλμνξορσςτφχψω]|{_GREEK})\s?\d?)"
    rf"\s(?:{_CONSTELLATIONS})\b(?!\s(?:stars|type|class|systems|analog|X-))(?:\s[A-E]\b)?"
    rf"|(?:Cen|Cas|Cyg|Her|Vir|Hya|Sgr|Centaurus|Cassiopeia|Cygnus|Perseus|Virgo|Hydra|Sagittarius)\s[AB]\b\*?"
    rf"|(?:SN|AT)\s?\d{{4}}[A-Za-z]{{1,4}}\b|(?:GRB|FRB|GW|XRF|XRT)\s?\d{{6}}[A-Z]?\b|ASASSN-\d{{2}}[a-z]{{1,3}}\b"
    rf"|Gaia\s(?:E?DR\d\s)?\d{{6,}}|\[(?![A-Z][a-z]?[IVX]+\d)[A-Z][A-Za-z+]*\d{{2,4}}[a-z]?\]\s?[A-Za-z0-9.+\-]*[A-Za-z0-9]"
    rf"|(?:Ho|Holmberg)\s(?:II|IX|I|IV|V)\b|Geminga\b|Vela\s[Pp]ulsar|Crab\s(?:[Nn]ebula|[Pp]ulsar)|(?:η|[Ee]ta)\sCar"
    rf"(?:inae)?\b"
    rf"|(?:ULX|HLX)(?:-?\d{{1,2}}(?!\d|\.\d|\s?%)|\s\d{{1,2}}(?!\d|\.\d|\s?%){_CONTINUES})|X-\d{{1,3}}(?![\d.]\d)"
    rf")"
)
_ACRONYM = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z0-9-]*(?:[A-Z]{2}|\d[A-Za-z]|[A-Z]\d)[A-Za-z0-9-]*|Swift|Fermi|Einstein)\s{0,2}$"
)
_COMPONENT = re.compile(
    rf"\s?(?:ULX|HLX|X)(?:-\s?|)\d{{1,3}}(?!\d|\.\d)|\s(?:ULX|HLX)\s\d{{1,3}}(?!\d|\.\d){_CONTINUES}"
    r"|\s(?:P|CX|W|XMM)-?\d{1,3}(?![\d.]\d|[A-Za-z])|\s(?:ULX|HLX)\b(?![\s-]?\d|\s(?:candidate|population|field))"
)
#: The component that a name ends in: 'ULX1' of 'NGC 300 ULX1', which has nothing to do with an 'X-1'.
_ENDS_IN = re.compile(r"(?<![A-Za-z])(?:ULX|HLX|X)[\s_-]{0,2}\d{1,3}$", re.IGNORECASE)
#: What a component is named after: 'Cyg' of 'Cyg X-1', 'Vela', 'LMC'.
_BEFORE_COMPONENT = re.compile(
    r"(?<![A-Za-z0-9-])(?!(?:The|In|Of|For|And|From|This|Its|Both|While|With|That|An|A|At|On|Since|But|Source)\b)"
    r"[A-Z][A-Za-z]+(?:\s[IVX]+)?\s?$"
)
_YEARS = re.compile(r"(?:19|20)\d\d[–-](?:19|20)?\d\d$")
_PIECES = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?")
_CORE = re.compile(r"([bj]?)(\d{3,9}(?:\.\d+)?)([+-])(\d{1,8}(?:\.\d+)?)[a-z]?$")
#: What SIMBAD puts before a name to say of which kind it is (https://simbad.cds.unistra.fr/guide/chA.htx).
SIMBAD_PREFIX = re.compile(r"^(?:(?:HIDDEN )?NAME|V\*|EM\*|SV\*|Cl\*?|\*\*?)\s+")
_HOST = re.compile(
    rf"(?:(?:{_HOSTS}|M)[\s_-]*\d+|\d+[\s_]+(?:{_CONSTELLATIONS})|[LS]MC|Circinus|Holmberg\s\w+|Ho\s\w+)(?=[\s_-]+\S)"
)
_SYNONYMS = {
    "messier": "m", "mkn": "mrk", "markarian": "mrk", "holmberg": "ho", "gliese": "gj", "gl": "gj", "cygnus": "cyg",
    "cygni": "cyg", "scorpius": "sco", "scorpii": "sco", "centaurus": "cen", "centauri": "cen", "hercules": "her",
    "herculis": "her", "vela": "vel", "velorum": "vel", "circinus": "cir", "sagittarius": "sgr", "sagittarii": "sgr",
    "perseus": "per", "persei": "per", "cassiopeia": "cas", "cassiopeiae": "cas", "tucanae": "tuc", "carinae": "car",
    "orionis": "ori", "serpens": "ser", "serpentis": "ser", "aquila": "aql", "aquilae": "aql", "virginis": "vir",
    "eta": "η", "omega": "ω", "alf": "α", "alpha": "α", "bet": "β", "beta": "β", "gam": "γ", "gamma": "γ", "del": "δ",
    "delta": "δ", "lam": "λ", "lambda": "λ", "tet": "θ", "theta": "θ", "ome": "ω", "cxou": "cxo", "swiftj": "swift",
}  # fmt: skip
#: A word that is no name by itself.
_COMMON_WORDS = frozenset(
    """
    agn an another binary black bright burst candidate class cluster cv dip dwarf eclipse faint field first flare galaxy
    hard hole host iron it its line lmxb hmxb location neutron nova nucleus object observation of on optical our period
    position power pulsar quasar radio ray red region second soft source spectrum star steady supernova survey target
    test the this transient two ulx unknown variable white wind with xray young
    """.split()  # noqa: SIM905 -- a list of one word a line would bury the code
)
_GALAXY = re.compile(rf"(?:{_HOSTS}|M)[\s_-]*\d+|A\d{{3,4}}")


class NameMention(NamedTuple):
    """A name in a text: characters `start` to `end`, and whose it is."""

    start: int
    end: int
    who: Referent


@functools.lru_cache(maxsize=4096)  # a sentence's names are looked for with its numbers, and where it is masked
def find_designations(flat: str) -> tuple[tuple[int, int], ...]:
    """Places of the names of all objects in a text without markup, in order.

    >>> text = "Unlike 4U 1626-67 and M82 X-2, it has kT = 2 keV and 10^6 K."
    >>> [text[start:end] for start, end in find_designations(text)]
    ['4U 1626-67', 'M82 X-2']
    """
    places, end = [], 0
    for match in _NAME.finditer(flat):
        start, stop = match.span()
        if start < end:
            continue
        found = match.group()
        if found[0] == "J" and len(found) > 6:
            start = (_ACRONYM.search(flat, max(end, start - 14), start) or match).start()
        elif found.startswith(("X-", "ULX", "HLX")):
            start = (_BEFORE_COMPONENT.search(flat, max(end, start - 20), start) or match).start()
        elif _YEARS.search(found):
            continue
        else:
            stop = (_COMPONENT.match(flat, stop) or match).end()
        places.append((start, stop))
        end = stop
    return tuple(places)


def name_key(name: str) -> str:
    """Form in which names are compared: without case, spaces, underscores and hyphens, but with a position's sign.

    >>> name_key("NGC300 ULX-1") == name_key("NGC_300_ULX1"), name_key("PSR J0218+4232")
    (True, 'psrj0218+4232')
    """
    pieces, signs = _pieces(name)
    return "".join(sign + piece for sign, piece in zip(signs, pieces, strict=True))


@dataclass(frozen=True)
class SourceNames:
    """All names of one source, compiled for finding it in text.

    `of` compiles them; `in_paper` adds the name that one paper has for the source.

    Attributes
    ----------
    shown : str
        The first name.
    host : str or None
        The galaxy or cluster that a name begins with: 'NGC 300' of 'NGC 300 ULX1'.
    """

    shown: str
    host: str | None
    _source: frozenset[str]
    _hosts: frozenset[str]
    _cores: tuple[tuple[str, ...], ...]
    _components: frozenset[str]
    _listed: tuple[str, ...]
    _by_piece: dict[str, list[tuple[list[str], list[str], Referent]]] = field(repr=False, compare=False)
    _first_words: tuple[str, ...] = field(repr=False, compare=False)

    @classmethod
    def of(cls, names: Sequence[str]) -> "SourceNames":
        """Compile the names of a source: its name here, and every identifier that catalogues have for it."""
        names = [plain for name in names if (plain := SIMBAD_PREFIX.sub("", " ".join(name.split())).strip())]
        specific = [name for name in names if _is_specific_name(name)]
        hosts = [match.group() for name in specific if (match := _HOST.match(name))]
        own = {name_key(name) for name in specific}
        by_piece: dict[str, list[tuple[list[str], list[str], Referent]]] = {}
        listed: list[tuple[list[str], list[str], Referent]] = [(*_pieces(name), "source") for name in specific]
        listed += [(*_pieces(host), "host") for host in hosts if name_key(host) not in own]
        for entry in sorted(listed, key=lambda entry: -len(entry[0])):  # of equals the source's before its host's
            by_piece.setdefault(entry[0][0], []).append(entry)
        cores = {match.groups() for folded in own if (match := _CORE.search(folded))}
        return cls(
            shown=names[0] if names else "",
            host=hosts[0] if hosts else None,
            _source=frozenset(own),
            _hosts=frozenset(name_key(host) for host in hosts) - own,
            _cores=tuple(sorted(cores)),
            _components=frozenset(name_key(match.group()) for name in specific if (match := _ENDS_IN.search(name))),
            _listed=tuple(names),
            _by_piece=by_piece,
            _first_words=(*by_piece, *(word for word, piece in _SYNONYMS.items() if piece in by_piece)),
        )

    def in_paper(self, paper: Mapping[str, Any]) -> "SourceNames":
        """The names by which one paper calls the source, including the paper's own if it uses none of the known ones.

        A source that catalogues know as 2CXO J095550.1+694046 is 'M82 X-1' in papers. Where a paper that was matched
        to the source has none of its names, the one object that its title names, else its first sentence, is the
        source; of several only where the paper is known to treat one object, and then the first.

        Parameters
        ----------
        paper : mapping
            Row of the `literature` table, unmasked.
        """
        alone = paper.get("n_objects") == 1
        if not (alone or paper.get("matched_by")):
            return self
        flats = [strip_markup(text) for column in ("title", "abstract", "body") if (text := paper.get(column))]
        if not flats or any(name.who == "source" for flat in flats for name in self.find(flat)):
            return self
        abstract = split_sentences(str(paper.get("abstract") or paper.get("body") or ""))
        for text in (paper.get("title"), abstract[0] if abstract else None):
            flat = strip_markup(text or "")
            named = {name_key(found): found for start, end in find_designations(flat) if (found := flat[start:end])}
            objects = [found for found in named.values() if not _GALAXY.fullmatch(found)]
            candidates = objects or (list(named.values()) if alone else [])
            if len(candidates) == 1 or (candidates and alone):
                return SourceNames.of([*self._listed, candidates[0]])
            if candidates:
                break
        return self

    def find(self, flat: str) -> list[NameMention]:
        """Find the names in a text without markup (`latex.strip_markup`), in order, none inside another."""
        found = [NameMention(start, end, self._whose(flat[start:end])) for start, end in find_designations(flat)]
        found += self._spelled(flat)
        apart: list[NameMention] = []
        for name in sorted(found, key=lambda name: (name.start, -name.end, name.who != "source")):
            if not apart or name.start >= apart[-1].end:
                apart.append(name)
            elif name.end > apart[-1].end:  # two that overlap in part are one
                who: Referent = "source" if name.who == "source" else apart[-1].who
                apart[-1] = NameMention(apart[-1].start, name.end, who)
        return apart

    def _whose(self, found: str) -> Referent:
        folded = name_key(found)
        if folded in self._hosts:
            return "host"
        core = _CORE.search(folded)
        is_own = (
            folded in self._source
            or folded in self._components  # 'X-1' in a paper on M82 X-1
            or (core and self._is_here(*core.groups()[1:]))
            # 'NGC 300 ULX' in a paper on NGC 300 ULX1
            or (
                folded.endswith(("ulx", "hlx"))
                and any(name.startswith(folded) and name[len(folded) :].isdigit() for name in self._source)
            )
        )
        return "source" if is_own else "other"

    def _is_here(self, ra: str, sign: str, dec: str) -> bool:
        # Designations are truncated, so that the shorter is the longer one's beginning.
        return any(
            sign == own_sign and _is_truncation(ra, own_ra) and _is_truncation(dec, own_dec)
            for _, own_ra, own_sign, own_dec in self._cores
        )

    def _spelled(self, flat: str) -> Iterator[NameMention]:
        """Places where the names are written out, however they are spelled."""
        lowered = flat.lower()
        if not any(word in lowered for word in self._first_words):
            return
        pieces = list(_PIECES.finditer(flat))
        for i, match in enumerate(pieces):
            word = match.group().lower()
            for wanted, signs, who in self._by_piece.get(_SYNONYMS.get(word, word), ()):
                if len(pieces) - i < len(wanted) or not _same_pieces(flat, pieces, i, wanted, signs):
                    continue
                start, end = match.start(), pieces[i + len(wanted) - 1].end()
                if not (flat[start - 1 : start].isalnum() or flat[end : end + 1].isalnum()):
                    yield NameMention(start, end, who)
                    break


def _pieces(name: str) -> tuple[list[str], list[str]]:
    """Words and numbers of a name, and the sign before each that a position has there."""
    found = list(_PIECES.finditer(name.replace("−", "-").replace("–", "-")))
    pieces = [_SYNONYMS.get(word, word) for word in (match.group().lower() for match in found)]
    signs = [""]
    for before, after in pairwise(found):
        between = name[before.end() : after.start()].strip()
        numbers = before.group()[-1].isdigit() and after.group()[0].isdigit()
        signs.append(("+" if "+" in between else "-") if numbers and between and between[0] in "+-−–" else "")
    return pieces, signs[: len(pieces)]


def _same_pieces(flat: str, pieces: list[re.Match[str]], first: int, wanted: list[str], signs: list[str]) -> bool:
    for step in range(len(wanted)):
        word = pieces[first + step].group().lower()
        if _SYNONYMS.get(word, word) != wanted[step]:
            return False
        if step:
            between = flat[pieces[first + step - 1].end() : pieces[first + step].start()]
            sign = "+" if "+" in between else "-" if "-" in between or "–" in between else ""
            if between.strip(" _-–+*[]()") or len(between) > 6 or (signs[step] and sign != signs[step]):
                return False
    return True


def _is_specific_name(name: str) -> bool:
    """Whether a name is so specific that prose uses it for nothing else."""
    pieces, _ = _pieces(name)
    letters = "".join(piece for piece in pieces if not piece[0].isdigit())
    digits = "".join(piece for piece in pieces if piece[0].isdigit())
    if not letters:
        return len(digits) >= 6
    return bool(digits) or (len(letters) >= 3 and not all(piece in _COMMON_WORDS for piece in pieces))


def _is_truncation(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return longer.replace(".", "").startswith(shorter.replace(".", "")) and len(shorter) >= 3
