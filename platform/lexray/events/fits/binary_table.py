"""Columns of a FITS binary table as NumPy arrays, straight from the file's bytes (FITS standard 4.0, section 7.3).

An event file is read for two or three of its twenty columns. Here a column is a strided view of the file's bytes until
it is asked for as numbers; nothing else of the table is touched or copied, and content never reaches any C library.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexray.array_types import Bools, Float64s, Int64s
from lexray.errors import RefusedInput
from lexray.events.fits.headers import Buffer, Hdu, Header

#: Big-endian NumPy type of the TFORM codes that hold numbers, and the bytes of a value of every code but bits.
_TYPES = {"B": ">u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
#: TZERO of numbers whose highest bit is flipped where they are stored: unsigned ones, of one byte signed ones (FITS
#: standard 4.0, table 19).
_FLIPPED = {"B": -(2.0**7), "I": 2.0**15, "J": 2.0**31, "K": 2.0**63}
#: Larger whole numbers have no float of their own.
_MAX_ZERO = 2.0**53
_WIDTHS = {"B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "L": 1, "A": 1, "C": 8, "M": 16, "P": 8, "Q": 16}
_KEV = {"ev": 1e-3, "kev": 1.0}
_FORM = re.compile(r"(\d{0,9})([LXBIJKAEDCMPQ])")


@dataclass(frozen=True)
class Column:
    """A column of a binary table.

    Attributes
    ----------
    number : int
        From 1, as in the keywords TTYPEn, TCRPXn …
    name, unit : str
        As written.
    code : str
        TFORM's letter.
    repeat : int
        Values a row.
    offset, width : int
        Bytes before it in a row, and its own.
    null : int or None
        The integer that means 'no value'.
    scale, zero : float
        TSCAL and TZERO: a value is zero + scale × what is stored.
    """

    number: int
    name: str
    unit: str
    code: str
    repeat: int
    offset: int
    width: int
    null: int | None
    scale: float
    zero: float

    @property
    def flipped(self) -> bool:
        """Whether it holds unsigned numbers, or signed bytes, which FITS stores with the highest bit flipped."""
        return self.scale == 1 and self.zero == _FLIPPED.get(self.code)


class BinaryTable:
    """A binary table in a file's bytes.

    Parameters
    ----------
    hdu : Hdu
        Known to have its data: one of `lexray.events.fits.headers.scan`.
    content : bytes or memoryview
        The file.

    Raises
    ------
    RefusedInput
        'bad_structure' where the columns do not fill the rows.
    """

    def __init__(self, hdu: Hdu, content: Buffer) -> None:
        rows, width = hdu.header.integer("NAXIS2"), hdu.header.integer("NAXIS1")
        if rows < 0 or width < 0 or rows * width > hdu.size:
            raise RefusedInput("bad_structure", f"{hdu.name} cannot have {rows} rows of {width} bytes")
        self._content, self._start = content, hdu.start
        self._open(hdu, rows, width, form="TFORM")

    def _open(self, hdu: Hdu, rows: int, width: int, form: str) -> None:
        self.header: Header = hdu.header
        self.name: str = hdu.name
        self.rows: int = rows
        self._row_width = width
        keys = _keys(hdu.header.integer("TFIELDS", 0), form)
        self._columns = _lay_out(self.name, form, keys, hdu.header.cards(keys))
        if any(column.offset + column.width > width for column in self._columns.values()):
            raise RefusedInput("bad_structure", f"the columns of {self.name} are wider than its rows")

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._columns

    @property
    def columns(self) -> list[str]:
        """Names as written."""
        return [column.name for column in self._columns.values()]

    def column(self, name: str) -> Column:
        """A column by its name in any case.

        Raises
        ------
        RefusedInput
            'missing_column'.
        """
        try:
            return self._columns[name.lower()]
        except KeyError:
            raise RefusedInput(
                "missing_column", f"{self.name} has no column '{name}'; it has {', '.join(self.columns) or 'none'}"
            ) from None

    def numbers(self, name: str) -> Float64s:
        """A column as f8[N], scaled, NaN where it holds its null value.

        Raises
        ------
        RefusedInput
            'missing_column', or 'bad_column' where it does not hold one number per row.
        """
        column = self.column(name)
        stored = self._stored(column)
        if column.flipped:
            values = _flip(stored).astype(np.float64)  # 2⁶³ added as a float would round small numbers off
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # damaged bytes are judged by what they give
                values = stored.astype(np.float64)
                if column.scale != 1 or column.zero != 0:
                    values *= column.scale
                    values += column.zero
        if column.null is not None and stored.dtype.kind in "iu":
            values[stored == column.null] = np.nan
        return values

    def integers(self, name: str) -> Int64s:
        """A column of whole numbers as i8[N]: flags, grades, detectors. Null values stay what they are.

        Raises
        ------
        RefusedInput
            'missing_column', or 'bad_column' where it does not hold one whole number of at most 63 bits a row.
        """
        column = self.column(name)
        stored = self._stored(column)
        if column.flipped:
            values = _flip(stored)
            if np.any(values > np.iinfo(np.int64).max):
                raise RefusedInput("bad_column", f"column '{column.name}' holds whole numbers of 64 bits")
            return values.astype(np.int64)
        exact = column.scale == 1 and column.zero.is_integer() and abs(column.zero) <= _MAX_ZERO
        if stored.dtype.kind not in "iu" or not exact:
            raise RefusedInput("bad_column", f"column '{column.name}' does not hold whole numbers")
        return stored.astype(np.int64) + int(column.zero)

    def vectors(self, name: str) -> Float64s:
        """A column of several numbers a row as f8[N, repeat], scaled.

        Raises
        ------
        RefusedInput
            'missing_column', or 'bad_column' where it holds no numbers.
        """
        column = self.column(name)
        if column.code not in _TYPES or column.repeat < 1:
            raise RefusedInput("bad_column", f"column '{column.name}' of {self.name} holds no numbers")
        stored = self._view(column, _TYPES[column.code], column.repeat)
        return column.zero + column.scale * stored.astype(np.float64)

    def texts(self, name: str) -> list[str]:
        """A column of text, each up to its first null character.

        Raises
        ------
        RefusedInput
            'missing_column', or 'bad_column' where it holds none.
        """
        column = self.column(name)
        if column.code != "A":
            raise RefusedInput("bad_column", f"column '{column.name}' of {self.name} holds no text")
        return [bytes(row).split(b"\0")[0].decode("latin-1") for row in self._view(column, ">u1", column.width)]

    def bits(self, name: str) -> Bools:
        """A column of bits as b1[N, bits], the first bit first; a whole number's bits from its highest to its lowest.

        Raises
        ------
        RefusedInput
            'missing_column', or 'bad_column' where it holds neither.
        """
        column = self.column(name)
        if column.code not in "XBIJK":
            raise RefusedInput("bad_column", f"column '{column.name}' holds no bits")
        n_bits = column.repeat if column.code == "X" else 8 * column.width
        octets = self._view(column, ">u1", column.width)
        if column.flipped and column.width:
            octets = octets.copy()
            octets[:, :: _WIDTHS[column.code]] ^= 0x80
        return np.unpackbits(octets, axis=1, count=n_bits).astype(bool)

    def _stored(self, column: Column) -> NDArray[Any]:
        """One number a row as it is stored, a view of the file's bytes."""
        if column.repeat != 1 or column.code not in "BIJKED":
            raise RefusedInput("bad_column", f"column '{column.name}' does not hold one number per row")
        return self._view(column, _TYPES[column.code], 1)[:, 0]

    def _view(self, column: Column, kind: str, n: int) -> NDArray[Any]:
        if not self.rows * n:
            return np.zeros((self.rows, n), kind)  # a view of no bytes may not begin where the file ends
        strides = self._row_width, np.dtype(kind).itemsize
        return np.ndarray((self.rows, n), kind, self._content, self._start + column.offset, strides)


def energies(table: BinaryTable, name: str, default: str) -> Float64s:
    """A column of energies in keV, f8[N]; `default` is its unit where the file does not say.

    Raises
    ------
    RefusedInput
        As `BinaryTable.numbers`; 'bad_unit' where it is neither in eV nor in keV.
    """
    unit = table.column(name).unit or default
    if unit.lower() not in _KEV:
        raise RefusedInput("bad_unit", f"column '{name}' is in {unit!r}, expected eV or keV")
    return table.numbers(name) * _KEV[unit.lower()]


def _flip(stored: NDArray[Any]) -> NDArray[Any]:
    """Numbers whose highest bit was flipped to be stored: unsigned ones of signed, signed ones of unsigned."""
    size = stored.dtype.itemsize
    bits = stored.view(f">u{size}") ^ (1 << (8 * size - 1))
    return bits if stored.dtype.kind == "i" else bits.view(f"i{size}")


_KEYWORDS = ("TTYPE", "TUNIT", "TNULL", "TSCAL", "TZERO")
#: FITS allows no more columns.
_MAX_FIELDS = 999


@lru_cache
def _keys(n_fields: int, form: str) -> tuple[str, ...]:
    """Keywords that describe a table's columns, `form` the one that holds their formats."""
    if not 0 <= n_fields <= _MAX_FIELDS:
        raise RefusedInput("bad_structure", f"TFIELDS is {n_fields}")
    return tuple(f"{keyword}{n}" for n in range(1, n_fields + 1) for keyword in (*_KEYWORDS, form))


@lru_cache  # an archive's files have one layout, of twenty columns each
def _lay_out(table: str, form: str, keys: tuple[str, ...], cards: tuple[str | None, ...]) -> dict[str, Column]:
    """Columns by lower-case name; of two with one name the first."""
    header = Header({key: card for key, card in zip(keys, cards, strict=True) if card is not None})
    found: dict[str, Column] = {}
    offset = 0
    for n in range(1, len(keys) // (len(_KEYWORDS) + 1) + 1):
        parsed = _FORM.match(header.text(f"{form}{n}"))
        if parsed is None:
            raise RefusedInput("bad_structure", f"{form}{n} of {table} is {header.text(f'{form}{n}')!r}")
        code, repeat = parsed[2], int(parsed[1] or 1)
        column = Column(
            number=n,
            name=header.text(f"TTYPE{n}"),
            unit=header.text(f"TUNIT{n}"),
            code=code,
            repeat=repeat,
            offset=offset,
            width=(repeat + 7) // 8 if code == "X" else repeat * _WIDTHS[code],
            null=header.integer(f"TNULL{n}") if code in "BIJK" and header.text(f"TNULL{n}") else None,
            scale=header.number(f"TSCAL{n}", 1.0),
            zero=header.number(f"TZERO{n}", 0.0),
        )
        found.setdefault(column.name.lower(), column)
        offset += column.width
    return found
