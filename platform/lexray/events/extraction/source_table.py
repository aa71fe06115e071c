"""Source tables: where the sources are, which of them lie in a field, and how large each one's aperture is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lexray.array_types import Float64s, Int64s
from lexray.errors import ConfigError, RefusedInput
from lexray.events.extraction.regions import check_region
from lexray.events.source_columns import read_source_columns
from lexray.sources import fold_name
from lexray.tables.files import resolve_path


@dataclass(frozen=True)
class SourceTable:
    """Sources to extract from fields.

    Attributes
    ----------
    source_id : list of str, length S
        No two alike.
    ra, dec : f8[S]
        Degrees, ICRS.
    radius : f8[S]
        Of the circular aperture, arcsec; NaN where a region is given instead.
    region : list of (str or None), length S
        DS9 or CIAO text, see `lexray.events.extraction.regions.parse_region`.
    arf : list of (str or None), length S
        The source's effective-area file, as the table names it.
    """

    source_id: list[str]
    ra: Float64s
    dec: Float64s
    radius: Float64s
    region: list[str | None]
    arf: list[str | None]

    def __len__(self) -> int:
        return len(self.source_id)

    def near(self, ra: float, dec: float, degrees: float) -> Int64s:
        """Sources within a circle on the sky.

        Parameters
        ----------
        ra, dec, degrees : float
            Centre and radius; 180° is the whole sky.

        Returns
        -------
        i8[n]
            Their places in the table, increasing.
        """
        if not len(self):
            return np.empty(0, np.int64)
        chord = 2 * np.sin(np.radians(min(degrees, 180.0)) / 2)
        # A hair more, so that a source on the circle's edge does not depend on rounding.
        found = self._index.query_ball_point(_unit_vectors(ra, dec), chord + 1e-12, return_sorted=True)
        return np.asarray(found, dtype=np.int64)

    @cached_property
    def _index(self) -> Any:
        """Tree over the sources' unit vectors: a field's are found without looking at the rest."""
        return cKDTree(_unit_vectors(self.ra, self.dec))


def _unit_vectors(ra: Float64s | float, dec: Float64s | float) -> Float64s:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def read_sources(path: str) -> SourceTable:
    """Read a source table.

    Columns, in any case: `source_id`, `ra`, `dec`, and `radius` or `region` or both, the region going before the radius
    in rows that have both; `arf` where wanted, a response file next to the table. Units are honoured: an angle in any
    unit that the format can name (VOTable, FITS, ECSV, Parquet by the field metadata's ``unit``), without one degrees
    for positions and arcsec for radii. Positions are ICRS.

    Parameters
    ----------
    path : str
        As for `lexray.events.source_columns.read_source_columns`.

    Raises
    ------
    ConfigError
        If something is missing, doubled or out of range; the message names file, column and row (from 1).
    """
    table = read_source_columns(path)
    ids = table.source_ids()
    seen: dict[str, int] = {}
    for i, text in enumerate(ids):
        if (first := seen.setdefault(fold_name(text), i)) != i:
            raise table.error("source_id", i, f"'{text}' is also row {first + 1}'s (case, blanks and _ do not count)")
    ra, dec = table.positions()
    if "radius" not in table and "region" not in table:
        raise ConfigError(f"source table {path} has neither a column 'radius' nor 'region'; it has {table.found}")
    region, radius = table.texts("region"), table.numbers("radius")
    for i, shape in enumerate(region):
        if shape is not None:
            radius[i] = np.nan
            try:
                check_region(shape)
            except RefusedInput as refused:
                raise table.error("region", i, refused.detail) from refused
    circles = np.array([text is None for text in region], dtype=bool)
    table.check("radius", ~circles | (np.isfinite(radius) & (radius > 0)), radius, "arcsec is no radius")
    folder = resolve_path(path).rpartition("/")[0]
    arf = [
        name if name is None or "://" in name or name.startswith("/") else f"{folder}/{name}"
        for name in table.texts("arf")
    ]
    return SourceTable(ids, ra, dec, radius, region, arf)
