"""The columns of a person's table of sources: one reader of its formats for every job that takes such a table."""

import csv
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from astropy import units as u
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from lexray.array_types import Float64s
from lexray.errors import ConfigError, one_line
from lexray.events.fits.gzip_stream import unpack
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.files import read_bytes, resolve_path

#: The columns that are read, and the unit of their numbers; None for text. `position_error` is a radius at 95 %.
COLUMNS = {
    "source_id": None,
    "ra": u.deg,
    "dec": u.deg,
    "radius": u.arcsec,
    "region": None,
    "arf": None,
    "position_error": u.arcsec,
    "mjd": u.day,
}
#: Other names of theirs. CSC's `err_ellipse_r0` is its error ellipse's major radius at 95 %.
_ALIASES = {"position_error": "err_ellipse_r0", "mjd": "t_ref_mjd"}
#: A source table that unpacks to more is refused: ten million sources take half of it as text.
_MAX_BYTES = 2 << 30


def read_source_columns(path: str, called: Mapping[str, str] | None = None) -> "SourceColumns":
    """Read a source table.

    Parameters
    ----------
    path : str
        Local path or URI of a CSV, ECSV, FITS, VOTable or Parquet file, recognised by its first bytes, which may be
        gzipped; or one of our tables, the `labels` that ``lexray fetch csc`` writes, say.
    called : mapping of str to str, optional
        What the table calls some of `COLUMNS`, where not that.

    Raises
    ------
    ConfigError
        If it cannot be read, or lacks a column that is required or that `called` names.
    """
    hint = "" if called is None else " (see source_columns)"
    called = called or {}
    unknown = sorted(set(called) - set(COLUMNS))
    if unknown:
        raise ConfigError(f"source_columns: '{unknown[0]}' is none of {', '.join(COLUMNS)}")
    names: dict[str, tuple[str, ...]] = {
        **{column: (column, _ALIASES.get(column, column)) for column in COLUMNS},
        **{column: (name,) for column, name in called.items()},
    }
    try:
        if not path.startswith(("http://", "https://")) and delta.is_table(path):  # web servers hold no tables of ours
            all_names = delta.dataset(path).schema.names
            wanted = {name.lower() for usual in names.values() for name in usual}
            table = _from_arrow(delta.read(path, [name for name in all_names if name.strip().lower() in wanted]))
        else:
            table = _read(read_bytes(resolve_path(path)), path, names["source_id"])
            all_names = table.colnames
    except (OSError, pa.ArrowInvalid) as error:
        said = str(getattr(error, "strerror", None) or one_line(error))
        raise ConfigError(f"source table {path}: {said}") from error
    by_lower = {name.strip().lower(): table[name] for name in reversed(table.colnames)}  # the first of two alike
    columns, found_names = {}, ", ".join(all_names) or "none"
    for column, usual in names.items():
        found = [by_lower[name.lower()] for name in usual if name.lower() in by_lower]
        if found:
            columns[column] = found[0]
        elif column in called or column in ("source_id", "ra", "dec"):
            raise ConfigError(f"source table {path}: there is no column '{usual[0]}'; it has {found_names}{hint}")
    return SourceColumns(path, len(table), columns, found_names)


class SourceColumns:
    """The columns of a source table, by the names of `COLUMNS`; one that the table does not have holds no values.

    Parameters
    ----------
    name : str
        The table's name in messages.
    n : int
        Its rows.
    columns : mapping of str to astropy.table.Column
    found : str
        All columns of the table, for messages.
    """

    def __init__(self, name: str, n: int, columns: Mapping[str, Any], found: str) -> None:
        self._name, self._n, self._columns, self.found = name, n, columns, found

    def __len__(self) -> int:
        return self._n

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def error(self, column: str, row: int, what: str) -> ConfigError:
        """What is wrong with a value; rows count from 0 here, from 1 in the message."""
        return ConfigError(f"source table {self._name}, row {row + 1}: {column} {what}")

    def check(self, column: str, good: NDArray[np.bool_], values: Float64s, what: str) -> None:
        """Raise for the first row that is not good."""
        if not np.all(good):
            row = int(np.argmin(good))
            raise self.error(column, row, f"{values[row]:g} {what}")

    def source_ids(self) -> list[str]:
        """Names of the sources.

        Raises
        ------
        ConfigError
            Where a row has none.
        """
        texts = self.texts("source_id")
        for row, text in enumerate(texts):
            if text is None or not fold_name(text):
                raise self.error("source_id", row, "is empty")
        return [str(text) for text in texts]

    def positions(self, required: bool = True) -> tuple[Float64s, Float64s]:
        """Right ascension, 0 ≤ ra < 360, and declination, degrees, f8[n] each; NaN in both where either is absent.

        Raises
        ------
        ConfigError
            Where a position is none, or absent although it is required.
        """
        ra, dec = self.numbers("ra"), self.numbers("dec")
        absent = np.isnan(ra) | np.isnan(dec)
        allowed = absent & (not required)
        between = (ra >= -180) & (ra <= 360)
        self.check("ra", between | allowed, ra, "is no position: between 0 and 360 degrees, or -180 and 180")
        self.check("dec", (np.abs(dec) <= 90) | allowed, dec, "is no position: between -90 and 90 degrees")
        return np.where(absent, np.nan, ra % 360.0), np.where(absent, np.nan, dec)

    def texts(self, column: str) -> list[str | None]:
        """A column as text, None where it is empty or masked."""
        if column not in self:
            return [None] * len(self)
        values, masked = self._values(column)
        shown = zip(values.tolist(), masked.tolist(), strict=True)
        return [None if hidden or value is None else str(value).strip() or None for value, hidden in shown]

    def numbers(self, column: str) -> Float64s:
        """A column in its unit of `COLUMNS`, f8[n], NaN where it is masked.

        Raises
        ------
        ConfigError
            Where it holds no numbers, or its own unit cannot be converted.
        """
        if column not in self:
            return np.full(len(self), np.nan)
        values, masked = self._values(column)
        own, unit = self._columns[column].unit, COLUMNS[column]
        try:
            numbers = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            row = next(row for row, value in enumerate(values) if not _is_number(value))
            raise self.error(
                column, row, f"must be numbers, in {unit} or with a unit, not {str(values[row])[:40]!r}"
            ) from None
        numbers[masked] = np.nan
        if own is None or own == u.dimensionless_unscaled:
            return numbers
        own = u.hourangle if own == u.hour else own  # catalogues write hours of right ascension as 'h', which is a time
        try:
            return np.array((numbers * own).to_value(unit), dtype=np.float64)
        except ValueError:  # also where astropy does not know the unit
            raise ConfigError(
                f"source table {self._name}: {column} is in {own}, which is no {unit.physical_type}"
            ) from None

    def _values(self, column: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A column's values, and which of them are masked."""
        values = np.asarray(self._columns[column])
        return values, np.broadcast_to(getattr(self._columns[column], "mask", False), values.shape)


def _is_number(value: Any) -> bool:
    try:
        return value is None or float(value) is not None
    except (TypeError, ValueError):
        return False


def _read(content: bytes, name: str, texts: Sequence[str]) -> Table:
    """A table in a file's bytes; `texts` are columns that stay text where a format does not tell it from numbers."""
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
            return _read_csv(content, texts)
    except Exception as error:  # each format's reader has errors of its own
        raise ConfigError(
            f"source table {name} cannot be read ({one_line(error)[:200]}); "
            "it must be CSV, ECSV, FITS, VOTable or Parquet"
        ) from error
    table.convert_bytestring_to_unicode()
    return table


def _read_csv(content: bytes, texts: Sequence[str]) -> Table:
    content = content.removeprefix(b"\xef\xbb\xbf")
    while content.startswith(b"#"):
        content = content.partition(b"\n")[2]
    names = next(csv.reader([content.partition(b"\n")[0].decode()]))
    # A name stays text: "0012" is not the number 12.
    wanted = {name.lower() for name in texts}
    as_text = {name: pa.string() for name in names if name.strip().lower() in wanted}
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
        if pa.types.is_null(field.type):  # a column with no value in it
            values = np.full(len(column), np.nan)
        else:
            values = column.to_numpy() if numeric else np.array(column.to_pylist(), dtype=object)
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        # Columns of no use here may have units that only their author knows.
        known = u.Unit(unit, parse_strict="silent") if unit else None
        table[field.name] = MaskedColumn(values, mask=column.is_null().to_numpy(), unit=known)
    return table
