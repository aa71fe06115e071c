"""Which source of an events table a paper is about: by folded name first, else by position."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord, angular_separation
from numpy.typing import NDArray

from lexray import storage
from lexray.literature.files import Paper
from lexray.schemas import LITERATURE
from lexray.sources import fold_name

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """What a paper's source is called here.

    Attributes
    ----------
    source_id : str
        The events table's, or the paper's own where nothing matches.
    matched_by : 'name', 'position' or None
    separation : float or None
        Between the paper's position and the source's nearest detection, arcsec; None where either is unknown.
    """

    source_id: str
    matched_by: str | None
    separation: float | None


@dataclass(frozen=True)
class SourceCatalogue:
    """Names and positions of the sources that have been observed.

    Attributes
    ----------
    names : dict
        `source_id` by folded name.
    source_ids : str[N]
        Source of each detection whose position is known, sorted.
    ra, dec : f8[N]
        Of those detections, deg ICRS.
    """

    names: dict[str, str]
    source_ids: NDArray[np.object_]
    ra: Float64s
    dec: Float64s

    @classmethod
    def empty(cls) -> "SourceCatalogue":
        """A catalogue that nothing matches."""
        return cls({}, np.empty(0, dtype=object), np.empty(0), np.empty(0))

    @classmethod
    def read(cls, events: str) -> "SourceCatalogue":
        """Sources of an events table."""
        rows = storage.read(events, ["source_id", "ra", "dec"], order="source_id")
        source_ids = np.array(rows["source_id"].to_pylist(), dtype=object)
        ra, dec = (np.array(rows[key].to_pylist(), dtype=np.float64) for key in ("ra", "dec"))
        known = np.isfinite(ra) & np.isfinite(dec)
        # Reversed, so that of several spellings of one name the first in the alphabet stays.
        names = {fold_name(source): source for source in source_ids[::-1]}
        return cls(names, source_ids[known], ra[known], dec[known])

    def match(self, papers: Sequence[Paper], radius: float) -> list[Match]:
        """Find the source of each paper.

        Parameters
        ----------
        papers : sequence of Paper
            Length P.
        radius : float
            Largest separation of a match by position, arcsec. A match by name holds at any separation: an imager's
            file may give the pointing's position and a paper the galaxy's.

        Returns
        -------
        list of Match
            In the papers' order. Of several sources within the radius the nearest wins.
        """
        named = [self.names.get(fold_name(paper.source_id)) for paper in papers]
        to_named = self._separation(papers, named)
        nearest, to_nearest = self._nearest(papers)
        matches = []
        for i, paper in enumerate(papers):
            name = named[i]
            if name is not None:
                matches.append(Match(name, "name", float(to_named[i]) if np.isfinite(to_named[i]) else None))
            elif to_nearest[i] <= radius:
                matches.append(Match(str(self.source_ids[nearest[i]]), "position", float(to_nearest[i])))
            else:
                matches.append(Match(paper.source_id, None, None))
        return matches

    def _nearest(self, papers: Sequence[Paper]) -> tuple[NDArray[np.int64], Float64s]:
        """Nearest placed detection of each paper and its separation in arcsec, infinite where there is none."""
        index = np.zeros(len(papers), dtype=np.int64)
        separation = np.full(len(papers), np.inf)
        ra, dec = _positions(papers)
        placed = np.flatnonzero(np.isfinite(ra))
        if len(placed) and len(self.source_ids):
            sky = SkyCoord(ra[placed], dec[placed], unit="deg")
            found, apart, _ = sky.match_to_catalog_sky(SkyCoord(self.ra, self.dec, unit="deg"))
            index[placed], separation[placed] = found, apart.to_value(u.arcsec)
        return index, separation

    def _separation(self, papers: Sequence[Paper], names: Sequence[str | None]) -> Float64s:
        """Arcsec between each paper and the nearest detection of the source `names` gives it, infinite if unknown."""
        wanted = np.array([name or "" for name in names], dtype=object)
        first = np.searchsorted(self.source_ids, wanted, side="left")
        count = np.searchsorted(self.source_ids, wanted, side="right") - first
        # One pair for each detection of each paper's source, without a loop over papers.
        paper = np.repeat(np.arange(len(papers)), count)
        detection = np.arange(len(paper)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        ra, dec = np.radians(_positions(papers))
        apart = angular_separation(
            ra[paper], dec[paper], np.radians(self.ra[detection]), np.radians(self.dec[detection])
        )
        smallest = np.full(len(papers), np.inf)
        np.fmin.at(smallest, paper, np.degrees(apart) * 3600)
        return smallest


def _positions(papers: Sequence[Paper]) -> Float64s:
    """f8[2, P]: right ascension and declination in degrees, NaN where unknown."""
    return np.array([[p.ra for p in papers], [p.dec for p in papers]], dtype=np.float64)


def to_table(papers: Sequence[Paper], matches: Sequence[Match]) -> pa.Table:
    """Rows of the `literature` table."""
    columns = [name for name in LITERATURE.names if name in Paper.__dataclass_fields__]
    rows = [
        {key: getattr(paper, key) for key in columns} | asdict(match)
        for paper, match in zip(papers, matches, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=LITERATURE)
