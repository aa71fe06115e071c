"""The split of sources into train, validation and test, decided in one place for every training and every score."""

from collections.abc import Collection

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lexray.sources import SAME_SOURCE_ARCSEC, fold_name, stable_hash
from lexray.tables import delta

SPLITS = ("train", "val", "test")
#: Shares of the sources in train, val and test. The test share is large since retrieval is judged on it.
SPLIT_SHARES = (0.60, 0.15, 0.25)


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
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    first = second = np.zeros(0, dtype=np.int64)
    if len(known) > 1:
        sky = SkyCoord(ra[known], dec[known], unit="deg")
        first, second, _, _ = sky.search_around_sky(sky, SAME_SOURCE_ARCSEC * u.arcsec)
    pairs = coo_array((np.ones(len(first)), (rows[known[first]], rows[known[second]])), shape=2 * (len(names),))
    _, group = connected_components(pairs, directed=False)
    _, smallest = np.unique(group, return_index=True)  # names are sorted
    return [str(name) for name in names[smallest[group[rows]]]]


def read_split_keys(events: str) -> dict[str, str]:
    """Key of each source of an `events` table, shared by those that are one for the split: see `split_keys`."""
    rows = delta.read(events, ["source_id", "ra", "dec"])
    sources = rows["source_id"].to_pylist()
    ra, dec = (rows[name].to_numpy().astype(np.float64) for name in ("ra", "dec"))
    return dict(zip(sources, split_keys(sources, ra, dec), strict=True))


def read_splits(events: str, seed: int = 0) -> dict[str, str]:
    """Split of each source of an `events` table: 'train', 'val' or 'test'.

    Parameters
    ----------
    events : str
        Table; only names and positions are read.
    seed : int
        The configuration's `split_seed`, the same in every job.
    """
    return {source: split(key, seed) for source, key in read_split_keys(events).items()}


def sources_of(splits: dict[str, str], wanted: Collection[str]) -> set[str]:
    """Sources that fall into one of the splits `wanted`."""
    return {source for source, where in splits.items() if where in wanted}
