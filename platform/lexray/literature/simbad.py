"""Papers from SIMBAD: match a source to one of its objects, and read the papers on that object.

The tables (https://simbad.cds.unistra.fr/simbad/tap/tapsearch.html): `basic` has objects, their positions (ICRS, epoch
J2000, error ellipse of one standard deviation in mas, https://simbad.cds.unistra.fr/guide/errell.htx) and proper
motions; `ident` all their names; `has_ref` which paper has which object, and how often (`obj_freq`); `ref` the papers,
and how many objects each has (`nbobject`). A name in a query is compared as SIMBAD compares names, whatever its spaces.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table
from pydantic import Field

from lexray.errors import LexrayError
from lexray.literature import astrometry
from lexray.literature.connectors import FoundPapers, PaperMatch
from lexray.literature.crossmatch import Match
from lexray.literature.names import best_known_first
from lexray.literature.papers import Paper
from lexray.literature.plaintext import plain_text
from lexray.literature.sources import TargetSource, finite_or_none
from lexray.runtime.config import BaseConfig
from lexray.tables.quarantine import Refusal
from lexray.web.cache import Cache
from lexray.web.retry import RetryPolicy
from lexray.web.tap import NoTable, QueryRefused, Tap

#: Proper motion that every cone leaves room for, and the greatest there is (Barnard's star), mas/yr.
_TYPICAL_PROPER_MOTION, _MAX_PROPER_MOTION = 100.0, 10_400.0
#: Widest circle in arcsec in which fast stars are looked for.
_MAX_RADIUS = 300.0
#: A candidate that is less probable than this among its rivals is ambiguous.
_MIN_PROBABILITY = 0.9
#: After so many sources in a row that fail, the service itself counts as broken.
_MAX_CONSECUTIVE_FAILURES = 20

_PROBE = "SELECT TOP 1 oid FROM basic"
_OBJECT = "b.oid, b.main_id, b.ra, b.dec, b.coo_err_maj, b.pmra, b.pmdec, b.pm_err_maj"
_BY_NAME = (
    f"SELECT s.asked, s.spelling, {_OBJECT} FROM TAP_UPLOAD.sources AS s "
    "JOIN ident AS i ON s.name = i.id JOIN basic AS b ON b.oid = i.oidref"
)
# Most objects hardly move: those are looked for nearby. The few that do may have come from further.
_BY_POSITION = (
    f"SELECT s.asked, {_OBJECT} FROM (SELECT asked, ra, dec, near, far FROM TAP_UPLOAD.sources) AS s, basic AS b "
    "WHERE CONTAINS(POINT('ICRS', b.ra, b.dec), CIRCLE('ICRS', s.ra, s.dec, s.far)) = 1 "
    "AND (CONTAINS(POINT('ICRS', b.ra, b.dec), CIRCLE('ICRS', s.ra, s.dec, s.near)) = 1 "
    f"OR b.pmra * b.pmra + b.pmdec * b.pmdec > {_TYPICAL_PROPER_MOTION**2})"
)
_COUNT_OBJECTS = (
    "SELECT s.asked, COUNT(*) AS n FROM (SELECT asked, ra, dec, field FROM TAP_UPLOAD.sources) AS s, basic AS b "
    "WHERE CONTAINS(POINT('ICRS', b.ra, b.dec), CIRCLE('ICRS', s.ra, s.dec, s.field)) = 1 GROUP BY s.asked"
)
_NAMES = "SELECT s.asked, i.id FROM TAP_UPLOAD.sources AS s JOIN ident AS i ON i.oidref = s.oid"
# YEAR is a word of the language (ADQL 2.0, section 2.1.2), so as a name it stands in quotes.
_PAPERS = (
    'SELECT s.asked, h.oidbibref, h.obj_freq, r.bibcode, r."year", r.title, r.abstract, r.nbobject '
    "FROM TAP_UPLOAD.sources AS s JOIN has_ref AS h ON h.oidref = s.oid JOIN ref AS r ON r.oidbib = h.oidbibref"
)
#: Continues a single object's papers behind the last one of an answer that was cut off.
_MORE_PAPERS = " WHERE h.oidbibref > {after} ORDER BY h.oidbibref"

Row = dict[str, Any]
#: The object that a source is, by the source's place: its `oid`, and how it was matched.
Counterparts = dict[int, tuple[int, Match]]


class SimbadConfig(BaseConfig):
    """How SIMBAD is asked."""

    former_keys: ClassVar = {"batch": "batch_size"}

    url: str = Field("https://simbad.cds.unistra.fr/simbad/sim-tap", description="its TAP service")
    radius: float = Field(10.0, gt=0, le=120, description="no match by position is further apart, arcsec")
    share: float = Field(
        0.99, gt=0, lt=1, description="a match lies within the radius that holds this share of true pairs"
    )
    position_error: float = Field(
        1.0, gt=0, description="radius at 95 % of positions that SIMBAD gives no error of, arcsec"
    )
    field: float = Field(2.0, gt=0, le=30, description="radius in which its objects are counted for p_chance, arcmin")
    batch_size: int = Field(500, ge=1, le=10_000, description="sources in one query")
    http: RetryPolicy = RetryPolicy(requests_per_second=4.0)


class SimbadConnector:
    """Papers of SIMBAD, by name and else by position.

    Parameters
    ----------
    config : SimbadConfig
    cache : Cache
    warn : callable, optional
        Called with a line for each request that is repeated.
    """

    def __init__(self, config: SimbadConfig, cache: Cache, warn: Callable[[str], None] = lambda line: None) -> None:
        self._config, self._cache = config, cache
        self._tap = Tap(config.url, config.http, warn=warn)
        self._counts: Counter[str] = Counter()
        self._sound, self._failures = False, 0

    def counts(self) -> dict[str, int]:
        """Counts of requests and matches so far."""
        names = ("asked", "matched_by_name", "matched_by_position", "ambiguous", "unmatched", "papers", "no_text")
        return {name: self._counts[name] for name in names} | {"requests": self._tap.session.made}

    def papers(self, sources: Sequence[TargetSource], known: Sequence[PaperMatch] = ()) -> FoundPapers:
        """Papers on the objects that some sources are; see `connectors.Connector`.

        Raises
        ------
        LexrayError
            If the service does not answer, or answers no query as it should.
        """
        for first in range(0, len(sources), self._config.batch_size):
            yield from self._batch(sources[first : first + self._config.batch_size])

    def _batch(self, sources: Sequence[TargetSource]) -> FoundPapers:
        self._counts["asked"] += len(sources)
        refused: dict[int, Refusal] = {}
        found = self._by_name(sources, refused)
        found |= self._by_position(sources, [i for i in range(len(sources)) if i not in found], refused)
        uploads = [{"asked": i, "oid": oid} for i, (oid, _) in sorted(found.items())]
        names = _by_source(self._ask(_NAMES, uploads, sources, refused))
        papers = list(self._ask(_PAPERS, uploads, sources, refused, _MORE_PAPERS))
        matches = {i: _with_names(match, names.get(i, ())) for i, (_, match) in found.items()}
        self._counts.update(f"matched_by_{match.matched_by}" for i, match in matches.items() if i not in refused)
        self._counts["unmatched"] += len(sources) - len(found.keys() | refused.keys())
        yield from refused.values()
        for row in papers:
            i = row["asked"]
            if i not in refused and (paper := self._paper(row, sources[i], matches[i])):
                yield PaperMatch(paper, matches[i], "simbad")

    def _paper(self, row: Row, source: TargetSource, match: Match) -> Paper | None:
        title, abstract = plain_text(row["title"]), plain_text(row["abstract"])
        if not row["bibcode"] or not (title or abstract):
            self._counts["no_text"] += 1
            return None
        self._counts["papers"] += 1
        return Paper(
            source_id=match.object or source.source_id,
            bibcode=row["bibcode"],
            year=_to_int(row["year"]),
            title=title,
            abstract=abstract,
            n_objects=_to_int(row["nbobject"]),
            n_mentions=_to_int(row["obj_freq"]),
        )

    # Which object a source is --------------------------------------------------------------------------------------

    def _by_name(self, sources: Sequence[TargetSource], refused: dict[int, Refusal]) -> Counterparts:
        uploads = [
            {"asked": i, "spelling": number, "name": name}
            for i, source in enumerate(sources)
            for number, name in enumerate(_spellings(source.source_id))
        ]
        found = self._ask(_BY_NAME, uploads, sources, refused)
        # Worst first, so that the first spelling's first object stays.
        worst_first = sorted(found, key=lambda row: (row["spelling"], row["oid"]), reverse=True)
        rows = list({row["asked"]: row for row in worst_first}.values())
        return {
            row["asked"]: _counterpart(row, sources[row["asked"]], pair, "name")
            for row, pair in zip(rows, self._pairs(rows, sources), strict=True)
        }

    def _by_position(
        self, sources: Sequence[TargetSource], left: Sequence[int], refused: dict[int, Refusal]
    ) -> Counterparts:
        uploads = [
            _circle(i, source, self._config.radius)
            for i in left
            if (source := sources[i]).ra is not None and source.error is not None and i not in refused
        ]
        rows = list(self._ask(_BY_POSITION, uploads, sources, refused))
        rivals: dict[int, list[tuple[float, Row, _Pair]]] = {}
        for row, pair in zip(rows, self._pairs(rows, sources), strict=True):
            reach = pair.sigma * astrometry.radius_in_sigma(self._config.share)
            if pair.separation is not None and pair.separation <= min(reach, self._config.radius):
                density = math.exp(-0.5 * (pair.separation / pair.sigma) ** 2) / pair.sigma**2
                rivals.setdefault(row["asked"], []).append((density, row, pair))
        field = self._config.field
        near = [{"asked": i, "ra": sources[i].ra, "dec": sources[i].dec, "field": field / 60} for i in rivals]
        n_field = {row["asked"]: row["n"] for row in self._ask(_COUNT_OBJECTS, near, sources, refused)}
        found = {}
        for i, candidates in rivals.items():
            density, row, pair = min(candidates, key=lambda item: (-item[0], item[1]["oid"]))
            self._counts["ambiguous"] += density < _MIN_PROBABILITY * sum(item[0] for item in candidates)
            chance = astrometry.p_chance(np.array([pair.separation]), np.array([n_field.get(i, 1)]), field * 60)
            found[i] = _counterpart(row, sources[i], pair, "position", float(chance[0]))
        return found

    def _pairs(self, rows: Sequence[Row], sources: Sequence[TargetSource]) -> list["_Pair"]:
        """Each row's object and its source, brought to one epoch."""
        asked = [sources[row["asked"]] for row in rows]
        # What is None becomes NaN.
        ra, dec, pm_ra, pm_dec = (
            np.array([row[name] for row in rows], dtype=float) for name in ("ra", "dec", "pmra", "pmdec")
        )
        source_ra, source_dec, mjd = (
            np.array([getattr(source, name) for source in asked], dtype=float) for name in ("ra", "dec", "mjd")
        )
        there = astrometry.propagate_positions(ra, dec, pm_ra, pm_dec, mjd)
        apart = astrometry.separation(source_ra, source_dec, *there)
        motion = astrometry.separation(ra, dec, *there)
        per_sigma = astrometry.radius_in_sigma(astrometry.CONFIDENCE)
        pairs = []
        for i, (row, source) in enumerate(zip(rows, asked, strict=True)):
            given = row["coo_err_maj"] or 0.0
            sigma = given / 1000 if given > 0 else self._config.position_error / per_sigma
            drift = (row["pm_err_maj"] or 0.0) / 1000 * abs(astrometry.years_since_2000(source.mjd))
            sigma = math.hypot(sigma, drift)
            moves = row["pmra"] is not None and row["pmdec"] is not None and source.mjd is not None
            pairs.append(
                _Pair(
                    separation=finite_or_none(apart[i]),
                    sigma=math.hypot(sigma, (source.error or 0.0) / per_sigma),
                    error_object=sigma * per_sigma,
                    proper_motion=float(motion[i]) if moves else None,
                )
            )
        return pairs

    # Asking --------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        adql: str,
        uploads: Sequence[Row],
        sources: Sequence[TargetSource],
        refused: dict[int, Refusal],
        more: str | None = None,
    ) -> Iterator[Row]:
        """Rows of a query for all sources in `uploads`; they are halved where it is cut off or refused.

        A source whose query fails even alone goes to `refused`.
        """
        by_source = _by_source(row for row in uploads if row["asked"] not in refused)
        for i, mine in list(by_source.items()):
            kept = self._kept(adql, mine)
            if kept is not None and not kept.cut_off:
                yield from ({"asked": i, **row} for row in kept.rows)
                del by_source[i]
        asked, uploads = sorted(by_source), [row for mine in by_source.values() for row in mine]
        if not asked:
            return
        answer = None
        try:
            answer = self._answer(adql, uploads)
            self._sound, self._failures = True, 0
        except (QueryRefused, NoTable) as error:
            if len(asked) == 1:
                self._failures += 1
                if self._failures > _MAX_CONSECUTIVE_FAILURES or not self._is_sound():
                    raise
                reason = "query_refused" if isinstance(error, QueryRefused) else "bad_answer"
                refused[asked[0]] = Refusal(sources[asked[0]].source_id, f"simbad_{reason}", str(error))
                return
        if len(asked) > 1 and (answer is None or answer.cut_off):
            middle = asked[len(asked) // 2]
            yield from self._ask(adql, [r for r in uploads if r["asked"] < middle], sources, refused, more)
            yield from self._ask(adql, [r for r in uploads if r["asked"] >= middle], sources, refused, more)
        elif answer is not None and not answer.cut_off:
            yield from answer.rows
        elif answer is not None and more is None:
            detail = f"{self._config.url} cuts its answer off after {len(answer.rows)} rows"
            refused[asked[0]] = Refusal(sources[asked[0]].source_id, "simbad_overflow", detail)
        elif more is not None:
            yield from self._pages(adql + more, uploads)

    def _is_sound(self) -> bool:
        """Whether the service answers at all; if so, the failure is the source's."""
        if not self._sound:
            try:
                self._sound = self._tap.query(_PROBE).rows.num_rows == 1
            except (QueryRefused, NoTable):
                return False
        return self._sound

    def _pages(self, adql: str, uploads: Sequence[Row]) -> Iterator[Row]:
        """All rows of one source, each page behind the last row of the one before."""
        after = -1
        while True:
            answer = self._answer(adql.format(after=after), uploads)
            yield from answer.rows
            if not answer.cut_off:
                return
            before, after = after, max((row["oidbibref"] for row in answer.rows), default=after)
            if after <= before:
                raise LexrayError(f"{self._config.url}: its pages do not go on after {after}")

    def _answer(self, adql: str, uploads: Sequence[Row]) -> "_QueryResult":
        """Answer to a query, cached by source, so that it does not depend on the other sources of the query."""
        by_source = _by_source(uploads)
        if len(by_source) == 1:
            ((i, mine),) = by_source.items()
            if kept := self._kept(adql, mine):
                return _QueryResult([{"asked": i, **row} for row in kept.rows], kept.cut_off)
        table = {"sources": Table({name: [row[name] for row in uploads] for name in uploads[0]})}
        try:
            answer = self._tap.query(adql, table)
        except NoTable:
            answer = self._tap.query(adql, table)  # it may have been broken on the way
        rows = answer.rows.to_pylist()
        came: dict[int, list[Row]] = {i: [] for i in by_source}
        for row in rows:
            if row["asked"] not in came:
                raise LexrayError(f"{self._config.url}: it answers for a source that was not asked for")
            came[row["asked"]].append({name: value for name, value in row.items() if name != "asked"})
        if len(by_source) == 1 or not answer.cut_off:  # of several sources nobody knows whose rows are missing
            self._cache.put_all(
                (json.dumps({"rows": came[i], "cut_off": answer.cut_off}).encode(), self._key(adql, mine))
                for i, mine in by_source.items()
            )
        return _QueryResult(rows, answer.cut_off)

    def _kept(self, adql: str, mine: Sequence[Row]) -> "_QueryResult | None":
        """A source's cached answer without the column `asked`, or None."""
        body = self._cache.get(*self._key(adql, mine))
        return None if body is None else _QueryResult(**json.loads(body))

    def _key(self, adql: str, mine: Sequence[Row]) -> tuple[Any, ...]:
        uploads = [{name: value for name, value in row.items() if name != "asked"} for row in mine]
        return ("tap", self._config.url, adql, uploads)


@dataclass(frozen=True)
class _QueryResult:
    """Rows of an answer, and whether the service left some out."""

    rows: list[Row]
    cut_off: bool


@dataclass(frozen=True)
class _Pair:
    """An object near a source: arcsec, at the source's epoch; `sigma` of either coordinate's difference."""

    separation: float | None
    sigma: float
    error_object: float
    proper_motion: float | None


def _counterpart(
    row: Row, source: TargetSource, pair: _Pair, how: str, chance: float | None = None
) -> tuple[int, Match]:
    return row["oid"], Match(
        source_id=source.source_id,
        matched_by=how,
        separation=pair.separation,
        error_source=source.error,
        error_object=pair.error_object if row["ra"] is not None else None,
        proper_motion=pair.proper_motion,
        p_chance=chance,
        object=" ".join(row["main_id"].split()),
    )


def _with_names(match: Match, rows: Sequence[Row]) -> Match:
    known = best_known_first([match.object or "", *(" ".join(row["id"].split()) for row in rows)])
    return replace(match, identifiers=tuple(dict.fromkeys([*known, match.source_id])))


def _spellings(name: str) -> list[str]:
    """How a name may be written in SIMBAD: as it is, and with single blanks for blanks and underscores.

    Names there are printable ASCII; what is not need not be asked for.
    """
    spaced = " ".join(name.replace("_", " ").split())
    return [name for name in dict.fromkeys([name, spaced]) if name.isascii() and name.isprintable() and name.strip()]


def _by_source(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["asked"], []).append(row)
    return found


def _circle(i: int, source: TargetSource, radius: float) -> Row:
    """Circles in degrees around a source: in which any object is looked for, and in which fast ones are."""
    years = abs(astrometry.years_since_2000(source.mjd))
    near = radius + _TYPICAL_PROPER_MOTION / 1000 * years
    far = min(radius + _MAX_PROPER_MOTION / 1000 * years, max(near, _MAX_RADIUS))
    return {"asked": i, "ra": source.ra, "dec": source.dec, "near": near / 3600, "far": far / 3600}


def _to_int(value: Any) -> int | None:
    return None if value is None else int(value)
