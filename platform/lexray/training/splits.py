"""The split of an events table's sources, decided in one place for every training and every score."""

from collections.abc import Collection

import numpy as np

from lexray.sources import split, split_keys
from lexray.tables import delta


def read_split_keys(events: str) -> dict[str, str]:
    """Key of each source of an `events` table, shared by those that are one for the split: see `sources.split_keys`."""
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
