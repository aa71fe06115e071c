"""What makes two names one source, and which part of a table owns it."""

import hashlib
import re

#: Detections nearer than this are one source (DESIGN.md).
SAME_SOURCE_ARCSEC = 1.0


def fold_name(name: str) -> str:
    """Form in which names are compared: case, spaces and underscores do not count.

    >>> fold_name("NGC_300_ULX1") == fold_name("NGC 300 ULX1")
    True
    """
    return re.sub(r"[\s_]+", "", name).casefold()


def name_from_position(ra: float, dec: float) -> str:
    """IAU-style name from a position in degrees (ICRS): ``J123456.7-012345``, truncated and not rounded."""
    # Rounded far below a digit first: 10° must not become 39 min 59.9 s by the last bit of a float.
    tenths = int(round(ra % 360 / 15 * 36_000, 6)) % 864_000
    arcsec = int(round(abs(dec) * 3600, 6))
    minutes, seconds = divmod(tenths / 10, 60)
    hms = f"{int(minutes) // 60:02d}{int(minutes) % 60:02d}{seconds:04.1f}"
    return f"J{hms}{'-' if dec < 0 else '+'}{arcsec // 3600:02d}{arcsec // 60 % 60:02d}{arcsec % 60:02d}"


def stable_hash(text: str, salt: object = "") -> int:
    """64-bit hash that is the same in every process, machine and version."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{text}".encode(), digest_size=8).digest(), "big")


def part_of(source_id: str, n_parts: int) -> int:
    """Part that owns a source, in 0 … n_parts − 1."""
    return stable_hash(fold_name(source_id), "part") % n_parts
