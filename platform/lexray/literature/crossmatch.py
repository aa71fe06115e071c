"""Match papers to the sources of an events table: by folded name first, else by position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from numpy.typing import NDArray

from lexray.array_types import Float64s
from lexray.literature.astrometry import p_chance, separation
from lexray.literature.papers import Paper
from lexray.literature.sources import TargetSource, finite_or_none, mission_radii
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.list_columns import floats

#: Radius in arcsec in which our sources are counted, for the probability that one lies near by chance.
_COUNTING_RADIUS = 120.0


@dataclass(frozen=True)
class Match:
    """The source that a paper was matched to.

    Attributes
    ----------
    source_id : str
        The events table's, or the paper's own where nothing matches.
    matched_by : 'name', 'position' or None
    separation : float or None
        Between the paper's object and the source's nearest detection, arcsec; None where either is unknown.
    error_source, error_object : float or None
        Radii in arcsec that hold the positions with a probability of 95 %.
    proper_motion : float or None
        The object's way in arcsec from its catalogue's epoch to the observation's.
    p_chance : float or None
        Probability that an unrelated object lies as near, of a match by position.
    object : str or None
        A catalogue's name of the object that the paper was found by.
    identifiers : tuple of str
        All names of it that are known.
    """

    source_id: str
    matched_by: str | None
    separation: float | None
    error_source: float | None = None
    error_object: float | None = None
    proper_motion: float | None = None
    p_chance: float | None = None
    object: str | None = None
    identifiers: tuple[str, ...] = ()


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
    error : f8[N]
        Radii in arcsec that hold those positions with a probability of 95 %, infinite or NaN where unknown.
    """

    names: dict[str, str]
    source_ids: NDArray[np.object_]
    ra: Float64s
    dec: Float64s
    error: Float64s

    @classmethod
    def read(cls, events: str, error: float | None = None) -> "SourceCatalogue":
        """Sources of an events table, with one `error` of all positions, or by default that of each mission."""
        rows = delta.read(events, ["source_id", "ra", "dec", "mission"], order="source_id")
        source_ids = np.array(rows["source_id"].to_pylist(), dtype=object)
        ra, dec = floats(rows["ra"]), floats(rows["dec"])
        placed = np.isfinite(ra) & np.isfinite(dec)
        errors = mission_radii(rows["mission"]) if error is None else np.full(len(ra), error)
        # Reversed, so that of several spellings of one name the first in the alphabet stays.
        names = {fold_name(source): source for source in source_ids[::-1]}
        return cls(names, source_ids[placed], ra[placed], dec[placed], errors[placed])

    @classmethod
    def of(cls, sources: Sequence[TargetSource]) -> "SourceCatalogue":
        """Sources that are looked for, each at one position."""
        placed = sorted((s for s in sources if s.ra is not None and s.dec is not None), key=lambda s: s.source_id)
        ra, dec, error = (
            np.array([getattr(s, key) for s in placed], dtype=np.float64) for key in ("ra", "dec", "error")
        )
        names = {fold_name(source.source_id): source.source_id for source in sources}
        return cls(names, np.array([s.source_id for s in placed], dtype=object), ra, dec, error)

    def __add__(self, other: "SourceCatalogue") -> "SourceCatalogue":
        """The sources of both; for a name that both have, this catalogue's entry."""
        columns = [
            np.concatenate([getattr(one, name) for one in (self, other)])
            for name in ("source_ids", "ra", "dec", "error")
        ]
        order = np.argsort(columns[0], kind="stable")
        return SourceCatalogue(other.names | self.names, *(column[order] for column in columns))

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
        by_position = [i for i in range(len(papers)) if named[i] is None and to_nearest[i] <= radius]
        chance = dict(
            zip(by_position, self._p_chance([papers[i] for i in by_position], to_nearest[by_position]), strict=True)
        )
        matches = []
        for i, (paper, name) in enumerate(zip(papers, named, strict=True)):
            if name is not None:
                matches.append(Match(name, "name", finite_or_none(to_named[i]), identifiers=_both(name, paper)))
            elif i in chance:
                nearby = str(self.source_ids[nearest[i]])
                matches.append(
                    Match(
                        nearby,
                        "position",
                        float(to_nearest[i]),
                        error_source=finite_or_none(self.error[nearest[i]]),
                        p_chance=chance[i],
                        identifiers=_both(nearby, paper),
                    )
                )
            else:
                matches.append(Match(paper.source_id, None, None, identifiers=(paper.source_id,)))
        return matches

    def _p_chance(self, papers: Sequence[Paper], apart: Float64s) -> list[float]:
        """Probability that an unrelated one of our sources lies as near to the position that a paper gives."""
        if not papers:
            return []
        sky = SkyCoord(*_positions(papers), unit="deg")
        paper, detection, _, _ = search_around_sky(
            sky, SkyCoord(self.ra, self.dec, unit="deg"), _COUNTING_RADIUS * u.arcsec
        )
        _, source = np.unique(self.source_ids.astype(str), return_inverse=True)
        pairs = np.unique(np.stack([paper, source[detection]]), axis=1)  # a source of many detections counts once
        n_field = np.bincount(pairs[0], minlength=len(papers))
        return [float(p) for p in p_chance(apart, n_field, _COUNTING_RADIUS)]

    def _nearest(self, papers: Sequence[Paper]) -> tuple[NDArray[np.int64], Float64s]:
        """Nearest placed detection of each paper and its separation in arcsec, infinite where there is none."""
        index, apart = np.zeros(len(papers), dtype=np.int64), np.full(len(papers), np.inf)
        ra, dec = _positions(papers)
        placed = np.flatnonzero(np.isfinite(ra))
        if len(placed) and len(self.source_ids):
            sky = SkyCoord(ra[placed], dec[placed], unit="deg")
            index[placed], angles, _ = sky.match_to_catalog_sky(SkyCoord(self.ra, self.dec, unit="deg"))
            apart[placed] = angles.to_value(u.arcsec)
        return index, apart

    def _separation(self, papers: Sequence[Paper], names: Sequence[str | None]) -> Float64s:
        """Arcsec between each paper and the nearest detection of the source `names` gives it, infinite if unknown."""
        wanted = np.array([name or "" for name in names], dtype=object)
        first = np.searchsorted(self.source_ids, wanted, side="left")
        count = np.searchsorted(self.source_ids, wanted, side="right") - first
        # One pair for each detection of each paper's source, without a loop over papers.
        paper = np.repeat(np.arange(len(papers)), count)
        detection = np.arange(len(paper)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        ra, dec = _positions(papers)
        apart = separation(ra[paper], dec[paper], self.ra[detection], self.dec[detection])
        smallest = np.full(len(papers), np.inf)
        np.fmin.at(smallest, paper, apart)
        return smallest


def _positions(papers: Sequence[Paper]) -> Float64s:
    """f8[2, P]: right ascension and declination in degrees, NaN where unknown."""
    return np.array([[p.ra for p in papers], [p.dec for p in papers]], dtype=np.float64)


def _both(name: str, paper: Paper) -> tuple[str, ...]:
    return tuple(dict.fromkeys([name, paper.source_id]))
