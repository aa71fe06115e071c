"""Mask a source's names, coordinates and survey numbers in text, so that models learn physics from it and not names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lexray.text.designations import SourceNames
from lexray.text.latex import strip_markup

SOURCE, HOST, OTHER = "the source", "its host", "another source"
POSITION, OBSERVATION = "its position", "an observation"
_LABEL = {"source": SOURCE, "host": HOST, "other": OTHER}

_HMS = r"\d{1,2}\s?\^?\s*h\s*\d{1,2}\s?\^?\s*m\s*\d{1,2}(?:\s*\.\s*\d+)?(?:\s?\^?\s*s)?(?:\s*\.\s*\d+)?"
_DMS = (
    r"[+\-–]?\s?\d{1,2}\s?\^?\s*(?:d|°|deg)\s*\d{1,2}\s?\^?\s*(?:m|′|'|arcmin)\s*\d{1,2}(?:\s*\.\s*\d+)?"
    r"\s?(?:\^?\s*s|″|\"|''|arcsec)?(?:\s*\.\s*\d+)?"
)
_COLONS = r"\d{1,2}:\d{2}:\d{2}(?:\.\d+)?"
_DEGREES = r"[+\-–]?\s?\d{1,3}(?:\.\d+)?\s?(?:°|deg(?:rees)?\b)?"
_EQUINOX = r"(?:\s*[(\[]?\s*_?\s*(?:J2000(?:\.0)?|B1950(?:\.0)?|2000(?:\.0)?|ICRS|deg)\s*[)\]]?)?"
_J2000 = r"\s*[(\[]?\s*_?\s*(?:J2000(?:\.0)?|B1950(?:\.0)?)\s*[)\]]?"
_EAST, _NORTH = r"(?:\bR\.?A\.?|[Rr]ight [Aa]scension)", r"(?:Decl?\.?|DEC|[Dd]eclination)"
#: Spectral indices and exponents have these letters, too: their numbers have to look like a position's.
_ALPHA, _DELTA = r"(?:α|\balpha\b)", r"(?:δ|\bdelta\b)"
_PRECISE = r"[+\-–]?\s?\d{1,3}(?:\.\d{3,}\s?(?:°|deg(?:rees)?\b)?|(?:\.\d+)?\s?(?:°|deg(?:rees)?\b))"
_IS, _AND = r"\s*(?:=|:|~|of|is)?\s*", r"\s*[,;/]?\s*(?:and\s)?\s*"


def _pair(east: str, north: str, degrees: str) -> str:
    """Pattern of '(RA, Dec) = (148.96, 69.68)' and of 'RA = 148.96, Dec = 69.68'."""
    return (
        rf"\(?\s*{east}\s*[,/]\s*{north}{_EQUINOX}\s*\)?{_EQUINOX}{_IS}\(?\s*"
        rf"(?:{_HMS}|{_COLONS}|{degrees}){_AND}(?:{_DMS}|[+\-–]?{_COLONS}|{degrees})\s*\)?"
        rf"|{east}{_IS}(?:{_HMS}|{_COLONS}|{degrees}){_AND}{north}{_EQUINOX}{_IS}"
        rf"(?:{_DMS}|[+\-–]?\s?{_COLONS}|{degrees})"
    )


_COORDINATES = re.compile(
    (
        rf"(?:[Aa]t (?:the )?(?:position|coordinates)\s*(?:of)?\s*)?(?:"
        rf"{_pair(_EAST + _EQUINOX, _NORTH, _DEGREES)}|{_pair(_ALPHA + _J2000, _DELTA, _DEGREES)}"
        rf"|{_pair(_ALPHA, _DELTA, _PRECISE)}"
        rf"|(?:(?:{_EAST}|{_ALPHA}){_EQUINOX}{_IS})?(?:\d{{2}}\s?\^?\s*h\s*\d{{2}}\s?\^?\s*m\s*\d{{2}}"
        rf"(?:\s*\.\s*\d+)?(?:\s?\^?\s*s)?(?:\s*\.\s*\d+)?)"
        rf"(?:{_AND}(?:(?:{_NORTH}|{_DELTA}){_EQUINOX}{_IS})?{_DMS})?"
        rf"|{_COLONS}{_AND}[+\-–]\s?{_COLONS}"
        rf"|\(\s*l\s*,\s*b\s*\)\s*[=~]\s*\(?\s*{_DEGREES}\s*,\s*{_DEGREES}\s*\)?"
        rf"|\bl\s*=\s*{_DEGREES}{_AND}b\s*=\s*{_DEGREES}"
        rf"){_EQUINOX}"
    )
    # Runs of blanks, which markup leaves, are short and never tried in parts: otherwise a long one takes minutes.
    .replace(r"\s*", r"\s{0,16}+")
)
#: Whether it is worth looking for coordinates: the search above is slow, and hardly an abstract has them.
_MAY_HOLD_COORDINATES = re.compile(r"\d\s?\^?\s*h\s*\d|:\d\d:\d|\bR\.?A\b|[Rr]ight [Aa]sc|α|alpha|\bl\s*[,=]")
_OBSERVATIONS = re.compile(
    r"\b(?:[Oo]bs(?:ervation)?[\s.]?I[Dd]s?|OBSID|[Oo]bs(?:ervation)?\.?\s?[Nn]o\.?|[Ss]equence [Nn]umbers?)"
    r"[\s:=#]{0,12}\d{3,12}(?:(?:\s{0,9},\s{0,9}|\s{0,9},?\s{1,9}and\s{1,9})\d{3,12})*"
)
_LABELLED = re.compile(rf"\$\s*({SOURCE}|{HOST}|{OTHER}|{POSITION})\s*\$", re.IGNORECASE)
#: 'the source' is the object, unless another noun or 'of' follows.
_REVEALED = re.compile(
    r"\b([Tt]he source)\b(?![\s-](?:region|population|extraction|count|area|position|spectr|flux|list|catalog|photon"
    r"|event|detection|number|densit|aperture|confusion|class|type|plane|model|function|code|of\b|for\b))"
)
_REVEALED_HOST = re.compile(
    r"\b[Ii]ts host(?:\s(?:galaxy|cluster))?\b(?![\s-](?:star|dust|mass|environment|absor|extinct))"
)


@dataclass(frozen=True)
class NameMask:
    """Masks one source by all its names; compile it once and use it on all texts."""

    names: SourceNames

    @classmethod
    def of(cls, names: Sequence[str]) -> "NameMask":
        """The mask of a source with these names; `NameMask(names.in_paper(paper))` also knows the paper's own name."""
        return cls(SourceNames.of(names))

    def mask(self, text: str) -> str:
        """Replace the source's name by 'the source', and the galaxy or cluster in its name by 'its host'.

        Any other object becomes 'another source', coordinates 'its position', an observation's number 'an observation'.
        Names are recognised in every spelling; text without any is returned unchanged.

        >>> NameMask.of(["NGC 300 ULX1"]).mask("NGC300 ULX-1 (ObsID 10027) is a pulsar in NGC~300, unlike M82 X-1.")
        'The source (an observation) is a pulsar in its host, unlike another source.'
        """
        # A replacement may bring together words that form another name.
        while (hidden := self._hide_once(text)) != text:
            text = hidden
        return text

    def reveal(self, text: str) -> str:
        """Undo the mask for people: 'the source' becomes the first name, 'its host' the host's.

        >>> NameMask.of(["M82 X-1"]).reveal("The source pulses. The source region lies in its host.")
        'M82 X-1 pulses. The source region lies in M82.'
        """
        if self.names.shown:
            text = _REVEALED.sub(lambda _: self.names.shown, text)
        host = self.names.host
        return text if host is None else _REVEALED_HOST.sub(lambda _: host, text)

    def _hide_once(self, text: str) -> str:
        flat = strip_markup(text)
        spans = [(name.start, name.end, _LABEL[name.who]) for name in self.names.find(flat)]
        if _MAY_HOLD_COORDINATES.search(flat):
            spans += [(*match.span(), POSITION) for match in _COORDINATES.finditer(flat)]
        spans += [(*match.span(), OBSERVATION) for match in _OBSERVATIONS.finditer(flat)]
        if not spans:
            return text
        spans.sort(key=lambda span: (span[0], -span[1]))
        written, end = [], 0
        for start, stop, label in spans:
            if start < end:
                continue
            if text.count("$", start, stop) % 2 and text[:start].rstrip().endswith("$"):
                start = max(end, text.rindex("$", 0, start))  # the formula that began before it goes as a whole
            before = _without_article(text[end:start]) if label in _LABEL.values() else text[end:start]
            opening = (text[:end] + before).rstrip()
            written += [before, label[0].upper() + label[1:] if not opening or opening[-1] in ".!?" else label]
            end = stop
        return _LABELLED.sub(r"\1", "".join([*written, text[end:]]))


def _without_article(before: str) -> str:
    """'the' and 'a' before a name belong to its label: 'the Cyg X-1 system' is 'the source system'."""
    return re.sub(r"(?<![A-Za-z])(?:[Tt]he|[Aa]n?)\s+$", "", before)
