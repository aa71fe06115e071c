"""FITS headers and the structure of a file, checked against its size before any library reads its data.

cfitsio trusts a header: told of more rows than a file holds it can return rubbish or crash. Walking the headers first
costs a few blocks of 2,880 bytes and turns every such file into a refusal (FITS standard 4.0, sections 3 and 4).
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from lexray.errors import RefusedInput

_BLOCK = 2880
_CARD = 80
_GZIP_MAGIC = b"\x1f\x8b"
#: A header longer than this is no header: real ones have some hundred cards.
_MAX_HEADER_BLOCKS = 1000
_MAX_NAXIS = 999
_STRING = re.compile(r"\s*'((?:[^']|'')*)'")


@dataclass(frozen=True)
class Column:
    """A column of a binary table: its name as written, its unit, and the integer that means 'no value'."""

    name: str
    unit: str
    null: int | None


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

    def number(self, key: str) -> float:
        """Value as a number; NaN where the keyword is absent or holds none."""
        try:
            return float(self.text(key).replace("D", "E").replace("d", "e"))
        except ValueError:
            return float("nan")

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
        if not re.fullmatch(r"[+-]?\d{1,30}", text):
            raise RefusedInput("bad_structure", f"the header's {key} is {text!r}, not a whole number")
        return int(text)

    @cached_property
    def columns(self) -> dict[str, int]:
        """Numbers, from 1, of a binary table's columns by lower-case name; of two with one name the first."""
        found: dict[str, int] = {}
        for number in range(1, self.integer("TFIELDS", 0) + 1):
            found.setdefault(self.text(f"TTYPE{number}").lower(), number)
        return found

    def column(self, number: int) -> Column:
        """One of `columns`."""
        null = self.integer(f"TNULL{number}") if self.text(f"TNULL{number}") else None
        return Column(self.text(f"TTYPE{number}"), self.text(f"TUNIT{number}"), null)


@dataclass(frozen=True)
class Hdu:
    """A header-data unit: its place in the file, counted from 0, and its header."""

    index: int
    header: Header

    @property
    def name(self) -> str:
        """EXTNAME in upper case."""
        return self.header.text("EXTNAME").upper()

    @property
    def is_table(self) -> bool:
        """Whether it is a binary table."""
        return self.header.text("XTENSION") == "BINTABLE"

    @property
    def rows(self) -> int:
        """Rows of a table."""
        return self.header.integer("NAXIS2")


def scan(path: Path) -> list[Hdu]:
    """All header-data units of a FITS file, plain or gzipped, each known to have the data that its header promises.

    Raises
    ------
    RefusedInput
        'empty_file', 'not_fits', 'truncated' (in a header, in data, in the gzip stream) or 'bad_structure'.
    OSError
        If the file cannot be opened.
    """
    with path.open("rb") as raw:
        magic = raw.read(len(_GZIP_MAGIC))
        if not magic:
            raise RefusedInput("empty_file", "the file has no bytes")
        raw.seek(0)
        if magic != _GZIP_MAGIC:
            return list(_units(raw))
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                return list(_units(stream))  # type: ignore[arg-type]
        except EOFError:
            raise RefusedInput("truncated", "the gzip stream ends before its end mark") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise RefusedInput("bad_gzip", f"the gzip stream is damaged: {error}") from None


def _units(stream: BinaryIO) -> Iterator[Hdu]:
    index = 0
    while True:
        header = _read_header(stream, index)
        if header is None:
            return
        size = _data_size(header)
        end = stream.tell() + size
        if size and not _has_byte(stream, end - 1):
            raise RefusedInput("truncated", f"HDU {index} promises {size} bytes of data, the file ends before")
        # The last block's padding may be missing: the data are whole without it.
        stream.seek(end + -size % _BLOCK)
        yield Hdu(index, header)
        index += 1


def _has_byte(stream: BinaryIO, position: int) -> bool:
    stream.seek(position)
    return stream.read(1) != b""


def _read_header(stream: BinaryIO, index: int) -> Header | None:
    """Header that starts here; None at the end of the file."""
    expected = b"SIMPLE  =" if index == 0 else b"XTENSION="
    content = stream.read(_BLOCK)
    if index == 0 and not content.startswith(expected):
        raise RefusedInput("not_fits", f"the file begins with {content[:16]!r}, not with 'SIMPLE  ='")
    if index and not content.strip(b"\0 "):
        return None
    if not content.startswith(expected):
        raise RefusedInput(
            "bad_structure", f"HDU {index} should begin where there is no header: sizes before it are wrong"
        )
    while not _has_end(content[-_BLOCK:]):
        block = stream.read(_BLOCK)
        if len(content) % _BLOCK or not block:
            raise RefusedInput("truncated", f"the file ends in the header of HDU {index}")
        if len(content) >= _MAX_HEADER_BLOCKS * _BLOCK:
            raise RefusedInput("bad_structure", f"the header of HDU {index} has no end")
        content += block
    text = content.decode("latin-1")
    # Backwards, so that of two cards with one keyword the first counts, as in cfitsio.
    starts = range(len(text) // _CARD * _CARD - _CARD, -1, -_CARD)
    return Header({text[i : i + 8].rstrip(): text[i : i + _CARD] for i in starts})


def _has_end(block: bytes) -> bool:
    at = block.find(b"END     ")
    while at >= 0 and at % _CARD:
        at = block.find(b"END     ", at + 1)
    return at >= 0


def _data_size(header: Header) -> int:
    """Bytes of data behind a header, without padding (FITS standard 4.0, equations 1 and 2)."""
    n_axes = header.integer("NAXIS")
    if not 0 <= n_axes <= _MAX_NAXIS:
        raise RefusedInput("bad_structure", f"NAXIS is {n_axes}")
    if n_axes == 0:
        return 0
    elements = 1
    for i in range(1, n_axes + 1):
        elements *= header.integer(f"NAXIS{i}")
    size = abs(header.integer("BITPIX")) // 8 * header.integer("GCOUNT", 1) * (header.integer("PCOUNT", 0) + elements)
    if size < 0:
        raise RefusedInput("bad_structure", f"the header promises {size} bytes of data")
    return size
