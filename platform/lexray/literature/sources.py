"""The sources whose papers are collected: those of an events table, of a source table, or of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexray.events.source_columns import read_source_columns
from lexray.literature.astrometry import mission_error
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.list_columns import floats


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
    names, spelling = np.unique(rows["source_id"].to_numpy().astype(object), return_inverse=True)
    groups: dict[str, int] = {}
    group = np.array([groups.setdefault(fold_name(name), len(groups)) for name in names])[spelling]
    ra, dec, mjd = (floats(rows[name]) for name in ("ra", "dec", "t_ref_mjd"))
    placed = np.isfinite(ra) & np.isfinite(dec) & ~_whole_field(rows["flags"])
    radius = np.where(placed, mission_radii(rows["mission"]) if error is None else error, np.inf)
    ra, dec = np.where(placed, ra, np.nan), np.where(placed, dec, np.nan)
    # A source's best detections come first; without any error, those with a position.
    order = np.lexsort([spelling, dec, ra, mjd, np.isnan(mjd), ~placed, radius, group])
    rank = np.stack([group, radius, placed])[:, order]
    tiers = np.flatnonzero(np.append(True, (rank[:, 1:] != rank[:, :-1]).any(axis=0)))
    first_tiers = np.searchsorted(tiers, np.searchsorted(group[order], np.arange(len(groups))))
    ends = np.append(tiers, len(order))[first_tiers + 1]
    middle = order[(tiers[first_tiers] + ends - 1) // 2]
    return [
        TargetSource(
            str(names[spelling[i]]),
            finite_or_none(ra[i]),
            finite_or_none(dec[i]),
            finite_or_none(radius[i]),
            finite_or_none(mjd[i]),
        )
        for i in middle.tolist()
    ]


def finite_or_none(value: float) -> float | None:
    """A number, or None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def _whole_field(flags: pa.ChunkedArray) -> np.ndarray:
    """Which detections are flagged so."""
    lists = flags.combine_chunks()
    flagged = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), "whole_field"))
    found = np.zeros(len(flags), dtype=bool)
    found[flagged.to_numpy()] = True
    return found


def mission_radii(missions: pa.ChunkedArray) -> np.ndarray:
    """`astrometry.mission_error` of each row, infinite where there is none."""
    encoded = missions.combine_chunks().dictionary_encode(null_encoding="encode")
    radii = np.array([mission_error(mission) for mission in encoded.dictionary.to_pylist()])
    return np.asarray(radii[encoded.indices.to_numpy()])


def sources_from_table(path: str, column_names: Mapping[str, str], error: float | None = None) -> list[TargetSource]:
    """Sources of a source table, in its order.

    Parameters
    ----------
    path : str
        As for `lexray.events.source_columns.read_source_columns`, with the columns `source_id`, `ra`, `dec` (deg, ICRS)
        and, where known, `position_error` (radius at 95 %, arcsec) and `mjd`; the first of rows with one name counts.
    column_names : mapping
        What the table calls these columns, where not that.
    error : float, optional
        Radius at 95 % in arcsec where the table has none.

    Raises
    ------
    ConfigError
        If it cannot be read, lacks a column, or a value is none.
    """
    table = read_source_columns(path, column_names)
    ra, dec = table.positions(required=False)
    radius, mjd = table.numbers("position_error"), table.numbers("mjd")
    table.check("position_error", ~(radius <= 0), radius, "arcsec is no radius")
    sources: dict[str, TargetSource] = {}
    for i, name in enumerate(table.source_ids()):
        own_error = (finite_or_none(radius[i]) or error) if np.isfinite(ra[i]) else None
        source = TargetSource(name, finite_or_none(ra[i]), finite_or_none(dec[i]), own_error, finite_or_none(mjd[i]))
        sources.setdefault(fold_name(name), source)
    return list(sources.values())


def merge_sources(of_table: Sequence[TargetSource], of_events: Sequence[TargetSource]) -> list[TargetSource]:
    """Sources of both, sorted by name, each once: under the events table's name, at the source table's position.

    An epoch that the source table does not know is the events table's.
    """
    observed = {fold_name(source.source_id): source for source in of_events}
    listed = {fold_name(source.source_id): source for source in of_table}
    joined = observed | listed
    for key in observed.keys() & listed.keys():
        seen, own = observed[key], listed[key]
        better = own if own.ra is not None else seen
        mjd = own.mjd if own.mjd is not None else seen.mjd
        joined[key] = TargetSource(seen.source_id, better.ra, better.dec, better.error or seen.error, mjd)
    return [joined[key] for key in sorted(joined)]
