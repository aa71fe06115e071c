"""Source tables: where the sources are, which of them lie in a field, and how large each one's aperture is."""

import csv
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from astropy import units as u
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lexray.array_types import Float64s, Int64s
from lexray.errors import ConfigError, RefusedInput
from lexray.events.extraction.regions import check_region
from lexray.events.fits.gzip_stream import unpack
from lexray.sources import fold_name
from lexray.tables.files import read_bytes, resolve_path

#: A source table that unpacks to more is refused: ten million sources take half of it as text.
_MAX_BYTES = 2 << 30


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


def read_sources(path: str | Path) -> SourceTable:
    """Read a source table from a local path or a URI; response files that it names lie next to it.

    See `parse_sources` for what it may be.

    Raises
    ------
    ConfigError
        Where it cannot be read, or a row of it cannot be used.
    """
    where = resolve_path(str(path))
    try:
        content = read_bytes(where)
    except OSError as error:
        raise ConfigError(f"source table {path}: {error.strerror or error}") from error
    found = parse_sources(content, str(path))
    folder = where.rpartition("/")[0]
    arf = [name if name is None or "://" in name or name.startswith("/") else f"{folder}/{name}" for name in found.arf]
    return replace(found, arf=arf)


def parse_sources(content: bytes, name: str) -> SourceTable:
    """Source table in a file's bytes.

    Columns, in any case: `source_id`, `ra`, `dec`, and `radius` or `region` or both, the region going before the radius
    in rows that have both; `arf` where wanted. Units are honoured: an angle in any unit that the format can name
    (VOTable, FITS, ECSV, Parquet by the field metadata's ``unit``), without one degrees for positions and arcsec for
    radii. Positions are ICRS.

    Parameters
    ----------
    content : bytes
        CSV, ECSV, FITS, VOTable or Parquet, recognised by their first bytes; may be gzipped.
    name : str
        The table's name in messages.

    Raises
    ------
    ConfigError
        If something is missing, doubled or out of range; the message names file, column and row (from 1).
    """
    table = _Rows(_read(content, name), name)
    n = len(table)
    source_id = table.texts("source_id")
    for i, text in enumerate(source_id):
        if text is None:
            raise table.error("source_id", i, "is empty")
    ids = [str(text) for text in source_id]
    seen: dict[str, int] = {}
    for i, text in enumerate(ids):
        if (first := seen.setdefault(fold_name(text), i)) != i:
            raise table.error("source_id", i, f"'{text}' is also row {first + 1}'s (case, blanks and _ do not count)")
    ra, dec = table.angles("ra", u.deg), table.angles("dec", u.deg)
    table.check("ra", np.isfinite(ra), ra, "is no position")
    table.check("dec", np.abs(dec) <= 90, dec, "is no position: between -90 and 90 degrees")
    if "radius" not in table and "region" not in table:
        raise ConfigError(f"source table {name} has neither a column 'radius' nor 'region'; it has {table.found}")
    region = table.texts("region") if "region" in table else _no_vectors(n)
    radius = table.angles("radius", u.arcsec) if "radius" in table else np.full(n, np.nan)
    for i, text in enumerate(region):
        if text is not None:
            radius[i] = np.nan
            try:
                check_region(text)
            except RefusedInput as refused:
                raise table.error("region", i, refused.detail) from refused
    circles = np.array([text is None for text in region], dtype=bool)
    table.check("radius", ~circles | (np.isfinite(radius) & (radius > 0)), radius, "arcsec is no radius")
    arf = table.texts("arf") if "arf" in table else _no_vectors(n)
    return SourceTable(ids, ra % 360.0, dec, radius, region, arf)


def _no_vectors(n: int) -> list[str | None]:
    return [None] * n


class _Rows:
    """A table's columns by lower-case name."""

    def __init__(self, table: Table, name: str) -> None:
        self._name, self._table = name, table
        self._columns: dict[str, Any] = {}
        for column in table.colnames:
            self._columns.setdefault(column.strip().lower(), table[column])
        self.found = ", ".join(table.colnames) or "none"

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def error(self, column: str, row: int, what: str) -> ConfigError:
        return ConfigError(f"source table {self._name}, row {row + 1}: {column} {what}")

    def check(self, column: str, good: NDArray[np.bool_], values: Float64s, what: str) -> None:
        """Raise for the first row that is not good."""
        if not np.all(good):
            row = int(np.argmin(good))
            raise self.error(column, row, f"{values[row]:g} {what}")

    def texts(self, column: str) -> list[str | None]:
        """A column as text, None where it is empty or masked."""
        values, masked = self._column(column)
        shown = zip(values.tolist(), masked.tolist(), strict=True)
        texts = [None if hidden or value is None else str(value).strip() for value, hidden in shown]
        return [text or None for text in texts]

    def angles(self, column: str, unit: u.UnitBase) -> Float64s:
        """A column in `unit`, NaN where it is masked."""
        values, masked = self._column(column)
        own = self._columns[column].unit
        try:
            numbers = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(
                f"source table {self._name}: {column} must be numbers, in {unit} or with a unit; "
                f"it begins with {str(values[0])!r}"
            ) from None
        numbers[masked] = np.nan
        # Catalogues write hours of right ascension as 'h', which is a time.
        own = u.hourangle if own == u.hour else own
        if own is None or own == u.dimensionless_unscaled:
            return numbers
        try:
            return np.array((numbers * own).to_value(unit), dtype=np.float64)
        except u.UnitConversionError:
            raise ConfigError(f"source table {self._name}: {column} is in {own}, which is no angle") from None

    def _column(self, column: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A column's values, and which of them are masked."""
        if column not in self._columns:
            raise ConfigError(f"source table {self._name} has no column '{column}'; it has {self.found}")
        values = np.asarray(self._columns[column])
        return values, np.broadcast_to(getattr(self._columns[column], "mask", False), values.shape)


def _read(content: bytes, name: str) -> Table:
    try:
        content = unpack(content, _MAX_BYTES)
        start = content[:512].lstrip()
        if not start:
            raise ValueError("it is empty")
        if start.startswith(b"PAR1"):
            return _read_parquet(content)
        if start.startswith(b"SIMPLE  ="):
            table = Table.read(BytesIO(content), format="fits", hdu=1)
        elif start.startswith(b"<"):
            table = Table.read(BytesIO(content), format="votable", use_names_over_ids=True)
        elif start.startswith(b"# %ECSV"):
            table = Table.read(content.decode().splitlines(), format="ascii.ecsv")
        else:
            return _read_csv(content)
    except Exception as error:  # each format's reader has errors of its own
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"source table {name} cannot be read ({said}); it must be CSV, ECSV, FITS, VOTable or Parquet"
        ) from error
    table.convert_bytestring_to_unicode()
    return table


def _read_csv(content: bytes) -> Table:
    content = content.removeprefix(b"\xef\xbb\xbf")
    while content.startswith(b"#"):
        content = content.partition(b"\n")[2]
    names = next(csv.reader([content.partition(b"\n")[0].decode()]))
    # A name stays text: "0012" is not the number 12.
    as_text = dict.fromkeys((name for name in names if name.strip().lower() == "source_id"), pa.string())
    return _from_arrow(
        pa_csv.read_csv(
            BytesIO(content),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=as_text),
        )
    )


def _read_parquet(content: bytes) -> Table:
    stored = pq.read_table(BytesIO(content))
    if b"table_meta_yaml" in (stored.schema.metadata or {}):
        return Table.read(BytesIO(content), format="parquet")  # astropy's own, with its units
    return _from_arrow(stored)


def _from_arrow(stored: pa.Table) -> Table:
    table = Table()
    for field in stored.schema:
        column = stored[field.name]
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        hidden = column.is_null().to_numpy()
        if pa.types.is_null(field.type):  # a column with no value in it
            values = np.full(len(column), np.nan)
        else:
            values = column.to_numpy() if numeric else np.array(column.to_pylist(), dtype=object)
        unit = (field.metadata or {}).get(b"unit", b"").decode() or None
        table[field.name] = MaskedColumn(values, mask=hidden, unit=unit)
    return table
