"""The Chandra Source Catalog: which sources it has where, and which files each of their detections has.

Release 2.1 (Evans et al. 2024, ApJS 274, 22). Three things are distinguished: a *master source* on the sky; a
*detection* of it in a stack of observations; and the detection's region in one observation (`obsid`, `obi`,
`region_id`), which files are made of. The tables and how they are joined: https://cxc.cfa.harvard.edu/csc/cli/adql.html
and https://cxc.cfa.harvard.edu/csc/faq/src-detect_mapping.html; the names of files:
https://cxc.cfa.harvard.edu/csc/data_products/.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units as u
from astropy.coordinates import SkyCoord

from lexray.archives.downloads import Downloads
from lexray.archives.manifest import DownloadEntry
from lexray.errors import LexrayError, RefusedInput
from lexray.web.tap import Tap, quoted

TAP_URL = "https://cda.cfa.harvard.edu/csc21tap"
FILES_URL = "https://cda.cfa.harvard.edu/csccli"
#: What the file service calls each product, by the end of its files' names.
PRODUCTS = {"regevt3": "regevt3", "reg3": "srcreg", "arf3": "arf"}
#: Columns of the master table that become labels: where, how bright, how hard, how variable.
COLUMNS = (
    "name",
    "ra",
    "dec",
    "err_ellipse_r0",
    "err_ellipse_r1",
    "err_ellipse_ang",
    "significance",
    "likelihood",
    "likelihood_class",
    "conf_flag",
    "extent_flag",
    "sat_src_flag",
    "streak_src_flag",
    "var_flag",
    "var_inter_hard_flag",
    "flux_aper_b",
    "flux_aper_lolim_b",
    "flux_aper_hilim_b",
    "flux_aper_s",
    "flux_aper_m",
    "flux_aper_h",
    "hard_hm",
    "hard_ms",
    "hard_hs",
    "var_intra_index_b",
    "var_inter_index_b",
    "var_intra_prob_b",
    "var_inter_prob_b",
    "acis_time",
    "hrc_time",
)
#: Names in one query of the master table, and sources in one of detections; these are halved where the service cuts
#: its answer off.
_NAMES_A_QUERY, _SOURCES_A_QUERY = 100, 50


@dataclass(frozen=True, order=True)
class Detection:
    """A source's region in one observation: what the archive keeps files of."""

    obsid: int
    obi: int
    region_id: int

    def key(self, product: str) -> str:
        """Name of one of its files in our accounts."""
        return f"{self.obsid}.{self.obi}.{self.region_id}/{product}"


def canonical_name(name: str) -> str:
    """A source's name as the catalogue writes it: ``2CXO_J004242.5+411635`` becomes ``2CXO J004242.5+411635``."""
    return re.sub(r"2CXO[\s_]*J", "2CXO J", " ".join(name.split()), count=1, flags=re.IGNORECASE)


class Catalogue:
    """The catalogue's tables.

    Parameters
    ----------
    tap : Tap
    schema : str
        In which the tables lie: 'csc21', or 'csc2' for release 2.0.
    columns : sequence of str
        Of the master table; name, ra and dec are among them whether named or not.
    page : int
        Rows of one query of sources.
    """

    def __init__(self, tap: Tap, schema: str = "csc21", columns: Sequence[str] = COLUMNS, page: int = 5000) -> None:
        self._tap, self.schema, self._page = tap, schema, page
        self._columns = ", ".join(f"m.{name}" for name in dict.fromkeys(("name", "ra", "dec", *columns)))

    def cone(self, ra: float, dec: float, radius: float) -> pa.Table:
        """Master sources around a position.

        Parameters
        ----------
        ra, dec : float
            Degrees, ICRS.
        radius : float
            Arcmin.
        """
        found = self._pages(box(ra, dec, radius))
        # The service knows no circles (its ADQL has no geometry), so it gives a box, and we cut.
        sky = SkyCoord(np.asarray(found["ra"], dtype=float), np.asarray(found["dec"], dtype=float), unit="deg")
        inside = sky.separation(SkyCoord(ra, dec, unit="deg")) <= radius * u.arcmin
        return found.filter(pa.array(np.atleast_1d(inside)))

    def named(self, names: Iterable[str]) -> pa.Table:
        """Master sources with one of these names, as the catalogue writes them."""
        wanted = _chunks(sorted(set(names)), _NAMES_A_QUERY)
        return pa.concat_tables([self._pages(f"m.name IN ({_list(some)})") for some in wanted])

    def selected(self, adql: str) -> pa.Table:
        """Rows of somebody's own query; it has to select name, ra and dec.

        Raises
        ------
        LexrayError
            If it does not, or if the service has more rows than it gave.
        """
        answer = self._tap.query(adql)
        if not {"name", "ra", "dec"} <= set(answer.rows.column_names):
            raise LexrayError(
                "the query has to select name, ra and dec of the sources; it has " + ", ".join(answer.rows.column_names)
            )
        if answer.cut_off:
            raise LexrayError(
                f"the service cut the answer off after {answer.rows.num_rows} rows (OVERFLOW): ask for fewer, in "
                "several queries, or set maxrec to more than there are, if the service allows it"
            )
        return answer.rows

    def detections(self, names: Sequence[str], instruments: Sequence[str], match_types: Sequence[str]) -> pa.Table:
        """Detections of sources in single observations, sorted, each once for each of its sources.

        Parameters
        ----------
        names : sequence of str
        instruments : sequence of str
            'ACIS', 'HRC'.
        match_types : sequence of str
            'u' for detections that belong to one source alone, 'a' for those that several may claim, 'n' for places
            without a detection.

        Returns
        -------
        pyarrow.Table
            Columns name, obsid, obi, region_id, instrument, match_type, theta (off-axis angle in arcmin) and livetime
            (s).
        """
        pieces = [
            piece
            for some in _chunks(names, _SOURCES_A_QUERY)
            for piece in self._detections(some, instruments, match_types)
        ]
        return pa.concat_tables([_NO_DETECTIONS, *pieces]).sort_by(
            [(column, "ascending") for column in ("name", "obsid", "obi", "region_id")]
        )

    def _detections(
        self, names: Sequence[str], instruments: Sequence[str], match_types: Sequence[str]
    ) -> Iterator[pa.Table]:
        s = self.schema
        answer = self._tap.query(
            "SELECT DISTINCT m.name, o.obsid, o.obi, o.region_id, o.instrument, a.match_type, o.theta, o.livetime "
            f"FROM {s}.master_source m, {s}.master_stack_assoc a, {s}.observation_source o, "
            f"{s}.stack_observation_assoc b, {s}.stack_source s "
            f"WHERE m.name IN ({_list(names)}) "
            f"AND o.instrument IN ({_list(instruments)}) AND a.match_type IN ({_list(match_types)}) "
            "AND m.name = a.name "
            "AND s.detect_stack_id = a.detect_stack_id AND s.region_id = a.region_id "
            "AND s.detect_stack_id = b.detect_stack_id AND s.region_id = b.region_id "
            "AND o.obsid = b.obsid AND o.obi = b.obi AND o.region_id = b.region_id"
        )
        if not answer.cut_off:
            yield answer.rows.select(_NO_DETECTIONS.column_names).cast(_NO_DETECTIONS.schema)
        elif len(names) == 1:
            raise LexrayError(f"the service cuts off the detections of {names[0]} after {answer.rows.num_rows}")
        else:
            half = len(names) // 2
            yield from self._detections(names[:half], instruments, match_types)
            yield from self._detections(names[half:], instruments, match_types)

    def _pages(self, where: str) -> pa.Table:
        """All master sources that a condition holds for, a page at a time, each beginning behind the last one's name.

        ADQL has no OFFSET; what is ordered by a unique column needs none. A page that the service cuts off is a shorter
        page.
        """
        pages: list[pa.Table] = []
        last = ""
        while True:
            behind = f" AND m.name > {quoted(last)}" if last else ""
            answer = self._tap.query(
                f"SELECT TOP {self._page} {self._columns} FROM {self.schema}.master_source m "
                f"WHERE ({where}){behind} ORDER BY m.name"
            )
            n = answer.rows.num_rows
            if n or not pages:
                pages.append(answer.rows)
            if n == 0 or (n < self._page and not answer.cut_off):
                return pa.concat_tables(pages)
            before, last = last, pc.max(answer.rows["name"]).as_py()
            if last <= before:
                raise LexrayError(f"the service's pages do not go on after {last!r}; it does not sort as it compares")


def box(ra: float, dec: float, radius: float) -> str:
    """ADQL condition that holds in the smallest box of right ascension and declination around a circle.

    Parameters
    ----------
    ra, dec : float
        Degrees.
    radius : float
        Arcmin.
    """
    r = radius / 60 + 1e-8  # some more, for the digits that are not written; the circle is cut exactly
    condition = f"m.dec BETWEEN {dec - r:.10f} AND {dec + r:.10f}"
    if abs(dec) + r >= 90:
        return condition  # a pole is inside: every right ascension is
    # Tangent meridians of a small circle; wider than r / cos(dec).
    half = np.degrees(np.arcsin(np.sin(np.radians(r)) / np.cos(np.radians(dec))))
    low, high = (ra - half) % 360, (ra + half) % 360
    between = f"m.ra BETWEEN {low:.10f} AND {high:.10f}"
    return f"{condition} AND " + (between if low <= high else f"(m.ra >= {low:.10f} OR m.ra <= {high:.10f})")


def aperture_radius(theta: float) -> float:
    """Radius in arcsec that holds 90 % of a point source's counts at `theta` arcmin off axis.

    The approximation r₉₀ = 1″ + 10″ (θ/10′)² at 1.5 keV of Hickox & Markevitch (2006, ApJ 645, 95).
    """
    return 1.0 + 10.0 * (theta / 10.0) ** 2


async def file_name(downloads: Downloads, url: str, release: str, detection: Detection, product: str) -> str:
    """What the archive calls a product of a detection; it has a version number in it that only the archive knows.

    Raises
    ------
    RefusedInput
        'no_product' where there is none, 'bad_name' where the answer is no file's name, and as `Downloads.json`.
    """
    packageset = f"{detection.obsid}.{detection.obi}.{detection.region_id}/{PRODUCTS[product]}/"
    answer = await downloads.json(f"{url}/browse", {"packageset": packageset, "version": release})
    items = [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []
    name = max((str(item["filename"]) for item in items if item.get("filename")), default="")
    if not name:
        raise RefusedInput("no_product", f"the archive has no {product} of {packageset.split('/')[0]}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):  # it becomes a path on this machine
        raise RefusedInput("bad_name", f"the archive names a file {name[:80]!r}")
    return name


async def fetch_product(downloads: Downloads, url: str, release: str, detection: Detection, product: str) -> bool:
    """Get a product of a detection; False where it lay there whole already.

    Files go to ``OBSID/NAME``, so that the products of a detection lie side by side.

    Raises
    ------
    RefusedInput
        As `file_name` and `Downloads.fetch`.
    """
    key = detection.key(product)
    if downloads.manifest.is_whole(key):
        return False
    name = downloads.manifest[key].name
    if not name:
        name = await file_name(downloads, url, release, detection, product)
        downloads.manifest.add(DownloadEntry(key, name))  # another run need not ask
    params = {"filename": name, "filetype": PRODUCTS[product], "version": release}
    await downloads.fetch(key, f"{url}/retrieveFile", params, f"{detection.obsid:05d}/{name}")
    return True


_NO_DETECTIONS = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("obsid", pa.int64()),
        pa.field("obi", pa.int64()),
        pa.field("region_id", pa.int64()),
        pa.field("instrument", pa.string()),
        pa.field("match_type", pa.string()),
        pa.field("theta", pa.float64(), metadata={"unit": "arcmin"}),
        pa.field("livetime", pa.float64(), metadata={"unit": "s"}),
    ]
).empty_table()


def _list(texts: Sequence[str]) -> str:
    return ", ".join(quoted(text) for text in texts)


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[first : first + size] for first in range(0, len(items), size))
