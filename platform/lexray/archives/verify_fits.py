"""Whether a downloaded file is whole: a FITS file, plain or gzipped, from its first byte to its last."""

import gzip
import zlib
from pathlib import Path

from lexray.errors import RefusedInput


def check_whole(path: Path) -> bool:
    """Read a file through; returns whether it is gzipped.

    What a server calls its content is not believed: the first bytes say whether it is gzipped, its checksum and length
    whether all of it came.

    Raises
    ------
    RefusedInput
        'bad_gzip' where the stream is broken, 'truncated' where the last block is not full, 'not_fits' where it is
        something else, an error page say, whose first words are told.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # with which every gzip stream begins
    try:
        with gzip.open(path) if packed else path.open("rb") as content:
            head = content.read(200)
            size = len(head)
            while chunk := content.read(1 << 20):
                size += len(chunk)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise RefusedInput("bad_gzip", f"the gzip stream is broken: {error}") from None
    if not head.startswith(b"SIMPLE  ="):
        words = " ".join(head.decode("ascii", "replace").split())[:80]
        raise RefusedInput("not_fits", f"the answer is no FITS file; it begins: {words!r}")
    if size % 2880:  # FITS files are made of blocks of this size (FITS standard 4.0, section 3.1)
        raise RefusedInput("truncated", f"the file ends within a block, after {size} bytes")
    return packed
