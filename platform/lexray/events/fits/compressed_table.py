"""Binary tables that fpack has compressed: column by column, in tiles of rows (FITS standard 4.0, section 10.3)."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexray.errors import RefusedInput
from lexray.events.fits.binary_table import BinaryTable, Column
from lexray.events.fits.gzip_stream import MAX_BYTES
from lexray.events.fits.headers import Buffer, Hdu
from lexray.events.fits.rice import unpack_rice

#: Big-endian numbers of a descriptor: how many bytes a tile takes, and where in the heap.
_DESCRIPTORS = {"P": ">i4", "Q": ">i8"}
_GZIP = 16 + zlib.MAX_WBITS


class CompressedTable(BinaryTable):
    """A table whose columns are decompressed when they are asked for; else as `BinaryTable`.

    Raises
    ------
    RefusedInput
        'bad_structure' where the tiles do not hold what the header promises, or are packed in a way that the standard
        does not know; 'too_large' where it promises more than any observation has.
    """

    def __init__(self, hdu: Hdu, content: Buffer) -> None:
        header = hdu.header
        self._packed = BinaryTable(hdu, content)
        rows, width = header.integer("ZNAXIS2"), header.integer("ZNAXIS1")
        if rows < 0 or width < 0:
            raise RefusedInput("bad_structure", f"{hdu.name} cannot have {rows} rows of {width} bytes")
        if rows * width > MAX_BYTES:
            raise RefusedInput("too_large", f"{hdu.name} promises {rows} rows")
        self._hdu, self._file = hdu, content
        self._tile_rows = header.integer("ZTILELEN")
        if self._tile_rows < 1:
            raise RefusedInput("bad_structure", f"ZTILELEN of {hdu.name} is {self._tile_rows}")
        self._open(hdu, rows, width, form="ZFORM")

    def _view(self, column: Column, kind: str, n: int) -> NDArray[Any]:
        if not self.rows * n:
            return np.zeros((self.rows, n), kind)
        tiles = [self._tile(column, tile) for tile in range(-(-self.rows // self._tile_rows))]
        return np.frombuffer(b"".join(tiles), kind).reshape(self.rows, n)

    def _tile(self, column: Column, tile: int) -> bytes:
        """A column's values in one tile, as a plain table would hold them one after the other."""
        rows = min(self._tile_rows, self.rows - tile * self._tile_rows)
        size, value = rows * column.width, 1 if column.code == "X" else column.width // column.repeat
        codec = self.header.text(f"ZCTYP{column.number}")
        stored = self._stored_tile(column, tile)
        try:
            if codec == "RICE_1":
                unpacked = unpack_rice(stored, rows * column.repeat, value)
            elif codec in ("GZIP_1", "GZIP_2"):
                unpacked = zlib.decompressobj(_GZIP).decompress(stored, size + 1)
            else:
                raise RefusedInput("bad_structure", f"column '{column.name}' is packed by {codec!r}, unknown to FITS")
        except (zlib.error, ValueError, TypeError) as error:
            raise RefusedInput("bad_structure", f"column '{column.name}' cannot be unpacked: {error}") from None
        if len(unpacked) != size:
            raise RefusedInput("bad_structure", f"column '{column.name}' holds {len(unpacked)} bytes, not {size}")
        # GZIP_2 has the bytes of one significance side by side.
        return np.frombuffer(unpacked, np.uint8).reshape(value, -1).T.tobytes() if codec == "GZIP_2" else unpacked

    def _stored_tile(self, column: Column, tile: int) -> memoryview:
        descriptor = self._packed.column(column.name)
        if descriptor.code not in _DESCRIPTORS or descriptor.repeat != 1 or tile >= self._packed.rows:
            raise RefusedInput("bad_structure", f"column '{column.name}' has no tile {tile}")
        length, offset = self._packed._view(descriptor, _DESCRIPTORS[descriptor.code], 2)[tile].tolist()
        heap = self._hdu.header.integer("THEAP", self._hdu.header.integer("NAXIS1") * self._packed.rows)
        if min(length, offset, heap) < 0 or heap + offset + length > self._hdu.size:
            raise RefusedInput("bad_structure", f"tile {tile} of column '{column.name}' lies outside the file")
        start = self._hdu.start + heap + offset
        return memoryview(self._file)[start : start + length]


def open_table(hdu: Hdu, content: Buffer) -> BinaryTable:
    """A binary table of a file, plain or compressed."""
    return CompressedTable(hdu, content) if hdu.header.text("ZTABLE") == "T" else BinaryTable(hdu, content)
