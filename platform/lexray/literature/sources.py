"""The sources whose papers are collected: those of an events table, of a source table, or of both."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexray.errors import ConfigError
from lexray.literature.astrometry import mission_error
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.files import filesystem

#: Columns of a source table. CSC's `err_ellipse_r0` is its error ellipse's major radius at 95 %.
COLUMNS = ("source_id", "ra", "dec", "position_error", "mjd")
_COLUMN_ALIASES = {"position_error": ("err_ellipse_r0",), "mjd": ("t_ref_mjd",)}


@dataclass(frozen=True)
class TargetSource:
    """A source on the sky.

    Attributes
    ----------
    source_id : str
    ra, dec : float or None
        Degrees, ICRS; both or neither.
    error : float or None
        Radius in arcsec that holds the position with a probability of 95 %; None where it is good for no match.
    mjd : float or None
        Time of the position.
    """

    source_id: str
    ra: float | None = None
    dec: float | None = None
    error: float | None = None
    mjd: float | None = None


def sources_from_events(events: str, error: float | None = None) -> list[TargetSource]:
    """Sources of an events table, sorted by name.

    The detection with the smallest position error represents a source; of several the middle one in time. A detection
    of a whole field has the pointing's position: it gives a name and no position.

    Parameters
    ----------
    events : str
        The table.
    error : float, optional
        Radius at 95 % in arcsec of all positions; by default `astrometry.MISSION_ERRORS`.
    """
    # Columns throughout: detections are many more than sources.
    rows = delta.read(events, ["source_id", "ra", "dec", "t_ref_mjd", "mission", "flags"])
    if not rows.num_rows:
        return []
    names, spelling = np.unique(_objects(rows["source_id"]), return_inverse=True)
    groups: dict[str, int] = {}
    group = np.array([groups.setdefault(fold_name(name), len(groups)) for name in names])[spelling]
    ra, dec, mjd = (_floats(rows[name]) for name in ("ra", "dec", "t_ref_mjd"))
    placed = np.isfinite(ra) & np.isfinite(dec) & ~_whole_field(rows["flags"])
    radius = np.where(placed, _radii(rows["mission"]) if error is None else error, np.inf)
    ra, dec = np.where(placed, ra, np.nan), np.where(placed, dec, np.nan)
    # A source's best detections come first; without any error, those with a position.
    order = np.lexsort([spelling, dec, ra, mjd, np.isnan(mjd), ~placed, radius, group])
    rank = np.stack([group, radius, placed])[:, order]
    tiers = np.flatnonzero(np.append(True, (rank[:, 1:] != rank[:, :-1]).any(axis=0)))
    first_tiers = np.searchsorted(tiers, np.searchsorted(group[order], np.arange(len(groups))))
    ends = np.append(tiers, len(order))[first_tiers + 1]
    middle = order[(tiers[first_tiers] + ends - 1) // 2]
    return [
        TargetSource(str(names[spelling[i]]), _known(ra[i]), _known(dec[i]), _known(radius[i]), _known(mjd[i]))
        for i in middle.tolist()
    ]


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(), dtype=object)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """With NaN for null."""
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _whole_field(flags: pa.ChunkedArray) -> np.ndarray:
    """Which detections are flagged so."""
    lists = flags.combine_chunks()
    flagged = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), "whole_field"))
    found = np.zeros(len(flags), dtype=bool)
    found[flagged.to_numpy()] = True
    return found


def _radii(missions: pa.ChunkedArray) -> np.ndarray:
    """`astrometry.mission_error` of each row, infinite where there is none."""
    encoded = missions.combine_chunks().dictionary_encode(null_encoding="encode")
    errors = [mission_error(mission) for mission in encoded.dictionary.to_pylist()]
    radii = np.array([np.inf if one is None else one for one in errors])
    return np.asarray(radii[encoded.indices.to_numpy()])


def sources_from_table(path: str, column_names: Mapping[str, str], error: float | None = None) -> list[TargetSource]:
    """Sources of a source table, in its order.

    Parameters
    ----------
    path : str
        A CSV or Parquet file, or one of our tables (the `labels` that ``lexray fetch csc`` writes, say), with the
        columns `source_id`, `ra`, `dec` (deg, ICRS) and, where known, `position_error` (radius at 95 %, arcsec) and
        `mjd`.
    column_names : mapping
        What the table calls these columns, where not that.
    error : float, optional
        Radius at 95 % in arcsec where the table has none.

    Raises
    ------
    ConfigError
        If it cannot be read, lacks a column, or a value is none.
    """
    unknown = sorted(set(column_names) - set(COLUMNS))
    if unknown:
        raise ConfigError(f"source_columns: '{unknown[0]}' is none of {', '.join(COLUMNS)}")
    sources: dict[str, TargetSource] = {}
    columns: dict[str, str | None] | None = None
    for place, row in _rows(path):
        columns = columns or _columns(path, list(row), column_names)
        name = _value(row, columns["source_id"])
        if name is None or not fold_name(str(name)):
            raise ConfigError(f"sources: {path}: {place} has no source_id")
        ra, dec, radius, mjd = (_number(path, place, row, columns[key]) for key in COLUMNS[1:])
        placed = ra is not None and dec is not None
        if placed and not (0 <= ra <= 360 and -90 <= dec <= 90):  # type: ignore[operator]
            raise ConfigError(f"sources: {path}: {place}: no position in degrees: ra {ra:g}, dec {dec:g}")
        if radius is not None and radius <= 0:
            raise ConfigError(f"sources: {path}: {place}: position_error is {radius:g}, it takes arcsec above 0")
        if not placed:
            ra = dec = None
        radius = (radius or error) if placed else None
        sources.setdefault(fold_name(str(name)), TargetSource(str(name), ra, dec, radius, mjd))
    return list(sources.values())


def merge_sources(of_table: Sequence[TargetSource], of_events: Sequence[TargetSource]) -> list[TargetSource]:
    """Sources of both, sorted by name, each once: under the events table's name, at the source table's position.

    An epoch that the source table does not know is the events table's.
    """
    observed = {fold_name(source.source_id): source for source in of_events}
    listed = {fold_name(source.source_id): source for source in of_table}
    joined = []
    for key in sorted({**observed, **listed}):
        seen, listed_source = observed.get(key), listed.get(key)
        if seen is None or listed_source is None:
            joined.append(seen or listed_source)
            continue
        better = listed_source if listed_source.ra is not None else seen
        mjd = listed_source.mjd if listed_source.mjd is not None else seen.mjd
        joined.append(TargetSource(seen.source_id, better.ra, better.dec, better.error or seen.error, mjd))
    return [source for source in joined if source is not None]


def _rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    system, root = filesystem(path)
    try:
        if path.lower().endswith(".csv"):
            with system.open_input_stream(root) as stream:
                text = stream.readall().decode("utf-8-sig")
            for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
                yield f"line {number}", row
        else:
            for number, row in enumerate(delta.read(path).to_pylist(), start=1):
                yield f"row {number}", row
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise ConfigError(f"sources: {path}: {str(error).splitlines()[0]}") from None


def _columns(path: str, found: Sequence[str], called: Mapping[str, str]) -> dict[str, str | None]:
    """The table's name of each of `COLUMNS`, or None."""
    by_lower = {name.strip().lower(): name for name in found if name}
    columns: dict[str, str | None] = {}
    for key in COLUMNS:
        wanted = [called[key]] if key in called else [key, *_COLUMN_ALIASES.get(key, ())]
        columns[key] = next((by_lower[name.lower()] for name in wanted if name.lower() in by_lower), None)
        if columns[key] is None and (key in called or key in ("source_id", "ra", "dec")):
            has = ", ".join(map(str, found))
            raise ConfigError(f"sources: {path}: there is no column '{wanted[0]}'; it has {has} (see source_columns)")
    return columns


def _value(row: Mapping[str, Any], column: str | None) -> Any:
    value = None if column is None else row.get(column)
    return None if value is None or (isinstance(value, str) and not value.strip()) else value


def _number(path: str, place: str, row: Mapping[str, Any], column: str | None) -> float | None:
    value = _value(row, column)
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"sources: {path}: {place}: {column} is not a number: {str(value)[:40]!r}") from None
    return number if number is not None and np.isfinite(number) else None
