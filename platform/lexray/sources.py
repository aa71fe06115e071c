"""What makes two names one source, which split a source falls into, and which part owns it."""

import hashlib
import re

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

SPLITS = ("train", "val", "test")
#: Shares of the sources in train, val and test. The test share is large since retrieval is judged on it.
SPLIT_SHARES = (0.60, 0.15, 0.25)
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


def split(source: str, seed: int = 0) -> str:
    """'train', 'val' or 'test' of a source, the same wherever it is asked.

    Parameters
    ----------
    source : str
        `source_id`, or the key that `split_keys` gives where positions are known.
    seed : int
        Another seed is another split.
    """
    u01 = stable_hash(fold_name(source), f"split{seed}") / 2**64
    return SPLITS[int(np.searchsorted(np.cumsum(SPLIT_SHARES)[:-1], u01, side="right"))]


def split_keys(source_ids: list[str], ra: np.ndarray, dec: np.ndarray) -> list[str]:
    """Key of each row for `split`: sources within 1″ of one another share one.

    Parameters
    ----------
    source_ids : list of str, length N
    ra, dec : f8[N]
        Degrees, ICRS; NaN where unknown.

    Returns
    -------
    list of str
        The smallest folded name of the group of sources that hang together by name or by position.
    """
    names, rows = np.unique([fold_name(s) for s in source_ids], return_inverse=True)
    parent = np.arange(len(names))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(known) > 1:
        sky = SkyCoord(ra[known], dec[known], unit="deg")
        first, second, _, _ = sky.search_around_sky(sky, SAME_SOURCE_ARCSEC * u.arcsec)
        for i, j in zip(rows[known[first]], rows[known[second]], strict=True):
            low, high = sorted((root(int(i)), root(int(j))))
            parent[high] = low
    return [str(names[root(int(row))]) for row in rows]
