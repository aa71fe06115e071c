"""FITS headers and the structure of a file, checked against its size before any of its data are used.

A header that promises more than the file holds, 10¹² rows say, is refused here, before anything is allocated for it
(FITS standard 4.0, sections 3 and 4).
"""

import math
import re
from dataclasses import dataclass

from lexray.errors import RefusedInput

Buffer = bytes | memoryview

_BLOCK = 2880
_CARD = 80
#: A header longer than this is no header: real ones have some hundred cards.
_MAX_HEADER_BLOCKS = 1000
#: The most axes that the standard allows, and more digits than any number of it needs.
_MAX_NAXIS, _MAX_DIGITS = 999, 30
#: A block with the header's last card.
_WITH_END = re.compile(rb"(?s)(?:.{80})*?END     ")
_STRING = re.compile(r"\s*'((?:[^']|'')*)'")


class Header:
    """Keywords of one HDU; values are parsed when asked for.

    Parameters
    ----------
    cards : dict of str to str
        The 80-character card of each keyword.
    """

    def __init__(self, cards: dict[str, str]) -> None:
        self._cards = cards

    def over(self, other: "Header") -> "Header":
        """This header with the keywords of `other` where it has none itself."""
        return Header({**other._cards, **self._cards})

    def cards(self, keys: tuple[str, ...]) -> tuple[str | None, ...]:
        """Cards as they stand, to tell whether two headers say the same; None for keywords that are absent."""
        return tuple(map(self._cards.get, keys))

    def text(self, key: str) -> str:
        """Value as text without surrounding blanks; '' where the keyword is absent or undefined."""
        card = self._cards.get(key)
        if card is None or card[8:10] != "= ":
            return ""
        if "'" in card:  # most values are plain numbers: only where there is a quote it may be a string
            quoted = _STRING.match(card, 10)
            if quoted:
                return quoted[1].replace("''", "'").strip()
        return card[10:].partition("/")[0].strip()

    def number(self, key: str, default: float = math.nan) -> float:
        """Value as a number; the default where the keyword is absent or holds no finite one."""
        try:
            value = float(self.text(key).replace("D", "E").replace("d", "e"))
        except ValueError:
            return default
        return value if math.isfinite(value) else default

    def integer(self, key: str, default: int | None = None) -> int:
        """Value of a keyword that must be a whole number.

        Raises
        ------
        RefusedInput
            'bad_structure' where it is none, or absent with no default.
        """
        text = self.text(key)
        if not text and default is not None:
            return default
        digits = text[1:] if text[:1] in ("+", "-") else text
        if not (digits.isdecimal() and digits.isascii() and len(digits) <= _MAX_DIGITS):
            raise RefusedInput("bad_structure", f"the header's {key} is {text!r}, not a whole number")
        return int(text)


@dataclass(frozen=True)
class Hdu:
    """A header-data unit.

    Attributes
    ----------
    index : int
        Its place in the file, from 0.
    header : Header
    start, size : int
        Where its data begin, and how long they are without padding, in bytes.
    """

    index: int
    header: Header
    start: int
    size: int

    @property
    def name(self) -> str:
        """EXTNAME in upper case."""
        return self.header.text("EXTNAME").upper()

    @property
    def is_table(self) -> bool:
        """Whether it is a binary table."""
        return self.header.text("XTENSION") == "BINTABLE"


def scan(content: Buffer) -> list[Hdu]:
    """All header-data units of a FITS file, each known to have the data that its header promises.

    Parameters
    ----------
    content : bytes or memoryview
        The whole file, uncompressed.

    Raises
    ------
    RefusedInput
        'empty_file', 'not_fits', 'truncated' (in a header, in data) or 'bad_structure'.
    """
    if not len(content):
        raise RefusedInput("empty_file", "the file has no bytes")
    units: list[Hdu] = []
    position = 0
    while (found := _read_header(content, position, len(units))) is not None:
        header, start = found
        size = _data_size(header)
        if start + size > len(content):
            raise RefusedInput(
                "truncated", f"HDU {len(units)} promises {size} bytes of data, the file ends {len(content) - start} on"
            )
        units.append(Hdu(len(units), header, start, size))
        # The last block's padding may be missing: the data are whole without it.
        position = start + size + -size % _BLOCK
    return units


def _read_header(content: Buffer, position: int, index: int) -> tuple[Header, int] | None:
    """Header that starts here, and where its data start; None at the end of the file."""
    expected = b"SIMPLE  =" if index == 0 else b"XTENSION="
    head = bytes(content[position : position + _BLOCK])
    if index == 0 and not head.startswith(expected):
        raise RefusedInput("not_fits", f"the file begins with {head[:16]!r}, not with 'SIMPLE  ='")
    if index and not head.strip(b"\0 "):
        return None
    if not head.startswith(expected):
        raise RefusedInput(
            "bad_structure", f"HDU {index} should begin where there is no header: sizes before it are wrong"
        )
    end = position
    while not _WITH_END.match(bytes(content[end : end + _BLOCK])):
        end += _BLOCK
        if end >= len(content):
            raise RefusedInput("truncated", f"the file ends in the header of HDU {index}")
        if end - position >= _MAX_HEADER_BLOCKS * _BLOCK:
            raise RefusedInput("bad_structure", f"the header of HDU {index} has no end")
    end += _BLOCK
    if end > len(content):
        raise RefusedInput("truncated", f"the file ends in the header of HDU {index}")
    text = str(content[position:end], "latin-1")
    # Backwards, so that of two cards with one keyword the first counts, as in cfitsio.
    starts = range(len(text) - _CARD, -1, -_CARD)
    return Header({text[i : i + 8].rstrip(): text[i : i + _CARD] for i in starts}), end


def _data_size(header: Header) -> int:
    """Bytes of data behind a header, without padding (FITS standard 4.0, equations 1 and 2)."""
    n_axes = header.integer("NAXIS")
    if not 0 <= n_axes <= _MAX_NAXIS:
        raise RefusedInput("bad_structure", f"NAXIS is {n_axes}")
    if n_axes == 0:
        return 0
    elements = math.prod(header.integer(f"NAXIS{i}") for i in range(1, n_axes + 1))
    size = abs(header.integer("BITPIX")) // 8 * header.integer("GCOUNT", 1) * (header.integer("PCOUNT", 0) + elements)
    if size < 0:
        raise RefusedInput("bad_structure", f"the header promises {size} bytes of data")
    return size
