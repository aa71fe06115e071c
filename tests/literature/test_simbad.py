"""SIMBAD over real HTTP: which object a source is, by how much chance, which papers come, and what goes wrong."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from doubles.literature_server import LiteratureServices, literature_server
from doubles.loopback import Fault
from lexray.errors import ConfigError, LexrayError
from lexray.jobs.literature import JOB, LiteratureConfig
from lexray.literature import astrometry
from lexray.literature.connectors import PaperMatch
from lexray.literature.simbad import SimbadConfig, SimbadConnector
from lexray.literature.sources import TargetSource, sources_from_events
from lexray.runtime.config import parse
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.tables.schemas import EVENTS
from lexray.web.cache import Cache

ARCSEC = 1 / 3600
QUICK = {"first_wait": 0.01, "requests_per_second": 1000.0, "timeout": 5.0, "attempts": 3}
ULX = (13.770208, -37.695417)
#: MJD of 2020-01-01, twenty years after J2000.
TWENTY_YEARS = 51544.5 + 20 * 365.25


@pytest.fixture
def services() -> Iterator[LiteratureServices]:
    with literature_server() as found:
        yield found


Papers = Callable[..., tuple[list[PaperMatch], list[Refusal], SimbadConnector]]


@pytest.fixture
def papers(services: LiteratureServices, tmp_path: Path) -> Papers:
    """Asks SIMBAD for sources; keys of its configuration may be given."""

    def ask(*sources: TargetSource, **keys: Any) -> tuple[list[PaperMatch], list[Refusal], SimbadConnector]:
        http = {**QUICK, **keys.pop("http", {})}
        config = parse(SimbadConfig, {"url": f"{services.url}/simbad", "http": http, **keys})
        simbad = SimbadConnector(config, Cache(tmp_path / "cache", 1.0))
        items = list(simbad.papers(sources))
        found = [item for item in items if isinstance(item, PaperMatch)]
        return found, [item for item in items if isinstance(item, Refusal)], simbad

    return ask


def at(name: str, ra: float, dec: float, error: float | None = 1.0, mjd: float | None = TWENTY_YEARS) -> TargetSource:
    return TargetSource(name, ra, dec, error, mjd)


# Which object a source is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NGC 300 ULX1", "NGC_300_ULX1", "ngc300 ulx1", "NGC  300   ULX1", "SN 2010da"])
def test_a_name_is_found_however_it_is_written(services: LiteratureServices, papers: Papers, name: str) -> None:
    names = ["NAME NGC 300 ULX1", "SN 2010da", "2XMM J005504.8-374143"]
    oid = services.add_object(names, *ULX, error=200.0)
    services.add_object(["NGC   300"], 13.72, -37.68)
    services.add_paper("2018MNRAS.476L..45C", "Discovery of pulsations", {oid: 41}, year=2018, n_objects=2)
    (found,), _, _ = papers(at(name, ULX[0], ULX[1] + 2 * ARCSEC, error=0.5))
    row = found.row()
    assert (row["source_id"], row["matched_by"], row["object"]) == (name, "name", "NAME NGC 300 ULX1")
    known = ["NGC 300 ULX1", "SN 2010da", "2XMM J005504.8-374143"]  # as people write them, and read them in papers
    assert row["identifiers"] == list(dict.fromkeys([*known, name]))
    assert row["separation"] == pytest.approx(2.0, abs=1e-3)
    assert row["error_object"] == pytest.approx(0.2 * np.sqrt(-2 * np.log(0.05)))
    assert (row["bibcode"], row["year"], row["n_objects"], row["n_mentions"]) == ("2018MNRAS.476L..45C", 2018, 2, 41)
    assert (row["found_by"], row["p_chance"], row["abstract"]) == ("simbad", None, None)


def test_a_source_without_a_position_has_its_name(services: LiteratureServices, papers: Papers) -> None:
    oid = services.add_object(["M  82"], 148.97, 69.68)
    services.add_paper("2007Sci...1", "A galaxy", {oid: 1}, abstract="It has <SUP>12</SUP>CO &amp; dust.")
    (found,), _, _ = papers(TargetSource("M82"), TargetSource("M81"))
    assert (found.match.separation, found.match.error_source, found.match.proper_motion) == (None, None, None)
    assert found.paper.abstract == "It has ^12CO & dust."


def test_a_position_is_matched_within_both_errors(services: LiteratureServices, papers: Papers) -> None:
    oid = services.add_object(["Gaia DR3 1"], 10.0, 20.0, error=100.0)
    services.add_paper("2020A&A...1", "Stars", {oid: 1})
    # Both errors at 95 % add in quadrature; 99 % of true pairs lie within 1.24 of that.
    reach = np.hypot(1.0, 0.1 * np.sqrt(-2 * np.log(0.05))) * np.sqrt(np.log(0.01) / np.log(0.05))
    inside = at("inside", 10.0, 20.0 + 0.99 * reach * ARCSEC)
    found, _, simbad = papers(inside, at("outside", 10.0, 20.0 + 1.01 * reach * ARCSEC))
    assert [f.match.source_id for f in found] == ["inside"]
    match = found[0].match
    assert match.matched_by == "position"
    assert match.separation == pytest.approx(0.99 * reach, abs=1e-4)
    assert (match.error_source, match.error_object) == (1.0, pytest.approx(0.2448, abs=1e-4))
    assert match.p_chance == pytest.approx(1 - np.exp(-((0.99 * reach / 120) ** 2)), rel=1e-3)
    counts = simbad.counts()
    assert (counts["matched_by_position"], counts["unmatched"], counts["asked"]) == (1, 1, 2)


def test_no_match_is_further_than_the_radius(services: LiteratureServices, papers: Papers) -> None:
    oid = services.add_object(["cluster"], 10.0, 20.0, error=60_000.0)
    services.add_paper("2020A&A...1", "A cluster", {oid: 1})
    source = at("x", 10.0, 20.0 + 8 * ARCSEC)
    assert papers(source, radius=7.0)[0] == []
    assert len(papers(source, radius=9.0)[0]) == 1


def test_without_an_error_of_its_own_a_source_is_not_matched_by_position(
    services: LiteratureServices, papers: Papers
) -> None:
    oid = services.add_object(["x"], 10.0, 20.0)
    services.add_paper("2020A&A...1", "Stars", {oid: 1})
    assert papers(at("nicer", 10.0, 20.0, error=None))[0] == []


def test_an_object_without_an_error_gets_the_configured_one(services: LiteratureServices, papers: Papers) -> None:
    oid = services.add_object(["x"], 10.0, 20.0, error=None)
    services.add_paper("2020A&A...1", "Stars", {oid: 1})
    (found,), _, _ = papers(at("s", 10.0, 20.0 + 1.5 * ARCSEC), position_error=2.0)
    assert found.match.error_object == pytest.approx(2.0)


@pytest.mark.parametrize("motion", [(0.0, 150.0), (-300.0, 0.0), (-798.6, 10_328.1)])
def test_stars_are_looked_for_where_they_were(
    services: LiteratureServices, papers: Papers, motion: tuple[float, float]
) -> None:
    ra, dec = 100.0, 5.0
    oid = services.add_object(["a star that moves"], ra, dec, error=10.0, pm=motion)
    services.add_object(["a star that does not say"], ra, dec, error=10.0)
    services.add_paper("2020A&A...1", "Stars", {oid: 1})
    # A straight line is good enough for twenty years of an arcsecond.
    then = at("then", ra + 0.02 * motion[0] * ARCSEC / np.cos(np.radians(dec)), dec + 0.02 * motion[1] * ARCSEC)
    (found,), _, _ = papers(then)
    assert found.match.object == "a star that moves"
    assert found.match.proper_motion == pytest.approx(0.02 * np.hypot(*motion), rel=1e-3)
    assert found.match.separation < 0.05
    assert papers(at("unknown epoch", then.ra or 0, then.dec or 0, mjd=None))[0] == []


def test_of_several_candidates_the_most_probable_is_taken(services: LiteratureServices, papers: Papers) -> None:
    star = services.add_object(["star"], 10.0, 20.0 + 0.5 * ARCSEC, error=50.0)
    vague = services.add_object(["vague"], 10.0, 20.0 + 0.2 * ARCSEC, error=3000.0)
    services.add_object(["twin a"], 50.0, 20.0 + 0.5 * ARCSEC, error=50.0)
    services.add_object(["twin b"], 50.0, 20.0 - 0.5 * ARCSEC, error=50.0)
    for oid in (star, vague):
        services.add_paper(f"paper{oid}", "Stars", {oid: 1})
    (found,), _, simbad = papers(at("s", 10.0, 20.0), at("t", 50.0, 20.0))
    assert found.match.object == "star", "nearer, but its position says little"
    assert simbad.counts()["ambiguous"] == 1, "twins cannot be told apart, a vague position is no rival"
    assert simbad.counts()["matched_by_position"] == 2


def test_chance_grows_with_the_field(services: LiteratureServices, papers: Papers) -> None:
    oid = services.add_object(["x"], 10.0, 20.0)
    services.add_paper("2020A&A...1", "Stars", {oid: 1})
    for i in range(39):
        services.add_object([f"y{i}"], 10.0 + (10 + 2 * i) * ARCSEC, 20.0)
    services.add_object(["outside the field"], 10.0, 20.0 + 130 * ARCSEC)
    (found,), _, _ = papers(at("s", 10.0, 20.0 + 1.0 * ARCSEC))
    assert found.match.p_chance == pytest.approx(1 - np.exp(-40 / 120**2), rel=1e-4)


# The statistics, by simulation ----------------------------------------------------------------------------------------


def test_under_chance_alone_the_probability_is_uniform() -> None:
    generator = np.random.default_rng(3)
    side, radius, n = 400.0, 120.0, 400
    p = []
    for _ in range(1500):
        x, y = generator.uniform(-side / 2, side / 2, (2, generator.poisson(n)))
        r = np.hypot(x, y)
        p.append(astrometry.p_chance(np.array([r.min()]), np.array([(r < radius).sum()]), radius)[0])
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_errors_at_one_level_hold_the_share_that_they_say() -> None:
    generator = np.random.default_rng(4)
    n, sigma_source, sigma_object = 200_000, 0.6, 0.3
    errors = [generator.normal(0, sigma, (2, n)) for sigma in (sigma_source, sigma_object)]
    apart = np.hypot(*(errors[0] - errors[1]))
    r90 = np.quantile(np.hypot(*errors[0]), 0.9)
    error_source = astrometry.to_confidence(float(r90), 0.9)
    error_object = sigma_object * astrometry.radius_in_sigma(0.95)
    assert np.mean(apart < np.hypot(error_source, error_object)) == pytest.approx(0.95, abs=0.003)
    reach = np.hypot(sigma_source, sigma_object) * astrometry.radius_in_sigma(0.99)
    assert np.mean(apart < reach) == pytest.approx(0.99, abs=0.001)


@given(st.floats(0.01, 100), st.floats(0.05, 0.999))
def test_levels_of_confidence_convert_into_one_another(radius: float, share: float) -> None:
    sigma = radius / astrometry.radius_in_sigma(share)
    assert stats.rayleigh.cdf(radius / sigma) == pytest.approx(share)
    assert stats.rayleigh.cdf(astrometry.to_confidence(radius, share) / sigma) == pytest.approx(0.95)


# Asking ---------------------------------------------------------------------------------------------------------------


def crowd(services: LiteratureServices, n: int = 12, n_papers: int = 3) -> list[TargetSource]:
    """Sources with papers each, a third of them known by position alone."""
    sources = []
    for i in range(n):
        oid = services.add_object([f"Obj X-{i}", f"2MASS J{i:08d}"], 10.0 + i, 20.0)
        for j in range(n_papers):
            services.add_paper(f"{2000 + j}ApJ...{i}", f"On {i}, {j}", {oid: 1 + j})
        sources.append(at(f"Obj X-{i}" if i % 3 else f"mine {i}", 10.0 + i, 20.0))
    return sources


def source_bibcodes(found: list[PaperMatch]) -> set[tuple[str, str | None]]:
    return {(f.match.source_id, f.paper.bibcode) for f in found}


def test_many_sources_take_five_queries(services: LiteratureServices, papers: Papers) -> None:
    found, _, simbad = papers(*crowd(services))
    assert len(source_bibcodes(found)) == 36
    assert len(services.requests) == 5 == simbad.counts()["requests"]


@pytest.mark.parametrize("limit", [2, 7])
def test_what_is_cut_off_is_asked_for_again(services: LiteratureServices, papers: Papers, limit: int) -> None:
    sources = crowd(services, n=3, n_papers=5)
    services.database.execute("DELETE FROM ident WHERE id LIKE '2MASS%'")
    services.limit = limit
    found, refused, _ = papers(*sources)
    assert (len(found), len(source_bibcodes(found)), refused) == (15, 15, [])


def test_a_second_time_nothing_is_asked(services: LiteratureServices, papers: Papers) -> None:
    sources = crowd(services, n=6)
    services.limit = 8
    first = source_bibcodes(papers(*sources, batch_size=4)[0])
    assert len(first) == 18
    services.requests.clear()
    again, _, simbad = papers(*sources, batch_size=4)
    assert (source_bibcodes(again), services.requests, simbad.counts()["requests"]) == (first, [], 0)


def test_a_new_source_is_the_only_one_that_is_asked_for(services: LiteratureServices, papers: Papers) -> None:
    sources = crowd(services, n=7)
    for batch in (4, 3):  # the first one moves all others into other batches
        papers(*sources[1:], batch_size=batch)
        services.requests.clear()
        found, _, simbad = papers(*sources, batch_size=batch)
        assert {f.match.source_id for f in found} == {source.source_id for source in sources}
        assert simbad.counts()["requests"] == len(services.requests) == (5 if batch == 4 else 0)
        assert services.database.execute("SELECT COUNT(*) FROM TAP_UPLOAD.sources").fetchone() == (1,)


@given(
    st.lists(st.text(max_size=30) | st.sampled_from(["x' OR '1'='1", "</TD>", '"; DROP TABLE basic; --', "\x00", "é"]))
)
@settings(max_examples=20, deadline=None)
def test_no_name_can_be_more_than_a_name(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    with literature_server() as services:
        services.add_object(["X-1"], 10.0, 20.0)
        config = parse(SimbadConfig, {"url": f"{services.url}/simbad", "http": QUICK})
        simbad = SimbadConnector(config, Cache(tmp_path_factory.mktemp("cache"), 1.0))
        assert list(simbad.papers([TargetSource(name) for name in names])) == []
        sent = services.database.execute("SELECT name FROM TAP_UPLOAD.sources").fetchall() if services.requests else []
        assert {name for (name,) in sent} >= {
            n for n in names if n.isascii() and n.isprintable() and n.strip() == n != ""
        }
        assert services.database.execute("SELECT COUNT(*) FROM basic").fetchone() == (1,)


@pytest.mark.parametrize("kind", ["500", "503", "429", "cut"])
def test_what_passes_is_asked_for_again(services: LiteratureServices, papers: Papers, kind: str) -> None:
    sources = crowd(services)
    services.troubles["simbad/sync"] += [Fault(kind, times=2)]
    found, _, simbad = papers(*sources)
    assert (len(source_bibcodes(found)), simbad.counts()["requests"]) == (36, 7)


def test_a_slow_answer_is_a_lost_one(services: LiteratureServices, papers: Papers) -> None:
    sources = crowd(services)
    services.troubles["simbad/sync"] += [Fault("slow", seconds=1.0)]
    assert len(papers(*sources, http={"timeout": 0.3})[0]) == 36


def test_nobody_asks_before_the_service_said(services: LiteratureServices, papers: Papers) -> None:
    sources = crowd(services)
    services.troubles["simbad/sync"] += [Fault("429", retry_after="1")]
    papers(*sources)
    assert services.requests[1].at - services.requests[0].at >= 0.99


def test_half_a_votable_is_asked_for_once_more(services: LiteratureServices, papers: Papers) -> None:
    sources = crowd(services)
    services.troubles["has_ref"] += [Fault("garbage")]
    found, refused, simbad = papers(*sources)
    assert (len(source_bibcodes(found)), refused, simbad.counts()["requests"]) == (36, [], 6)


@pytest.mark.parametrize(
    ("kind", "said"), [("garbage", "no VOTable"), ("503", "does not answer"), ("page", "no VOTable")]
)
def test_a_service_that_is_broken_ends_it_in_one_line(
    services: LiteratureServices, papers: Papers, kind: str, said: str
) -> None:
    sources = crowd(services)
    services.troubles["simbad/sync"] += [Fault(kind, times=10_000)]
    with pytest.raises(LexrayError, match=said) as caught:
        papers(*sources)
    assert "\n" not in str(caught.value)
    assert len(services.requests) <= 10, "it is not asked for each source"


@pytest.mark.parametrize("i", [0, 7, 11])
def test_a_source_that_breaks_the_service_is_refused_alone(
    services: LiteratureServices, papers: Papers, i: int
) -> None:
    sources = [replace(source, source_id=f"No {n}.") for n, source in enumerate(crowd(services))]
    services.troubles[f"No {i}."] += [Fault("garbage", times=10_000)]
    found, refused, _ = papers(*sources)
    assert [(r.file, r.reason) for r in refused] == [(f"No {i}.", "simbad_bad_answer")]
    assert len(source_bibcodes(found)) == 33


# The cache ------------------------------------------------------------------------------------------------------------


def test_a_damaged_entry_is_asked_for_again(services: LiteratureServices, papers: Papers, tmp_path: Path) -> None:
    sources = crowd(services)
    first = source_bibcodes(papers(*sources)[0])
    services.requests.clear()
    with sqlite3.connect(tmp_path / "cache" / "answers.sqlite") as database:
        keys = [key for (key,) in database.execute("SELECT key FROM answers ORDER BY key")]
        database.execute("UPDATE answers SET body = CAST(substr(body, 1, 20) AS BLOB) WHERE key = ?", [keys[0]])
    assert source_bibcodes(papers(*sources)[0]) == first
    assert len(services.requests) == 1


def test_a_damaged_file_is_begun_anew(services: LiteratureServices, papers: Papers, tmp_path: Path) -> None:
    sources = crowd(services)
    first = source_bibcodes(papers(*sources)[0])
    path = tmp_path / "cache" / "answers.sqlite"
    content = path.read_bytes()
    for damaged in (b"not a database at all" * 100, content[:100] + b"\xff" * (len(content) - 100)):
        path.write_bytes(damaged)
        services.requests.clear()
        assert source_bibcodes(papers(*sources)[0]) == first
        assert len(services.requests) == 5


def test_answers_grow_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, days=2.0)
    cache.put(b"answer", "question", {"a": 1})
    assert cache.get("question", {"a": 1}) == b"answer"
    assert cache.get("question", {"a": 2}) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1.9 * 86_400)
    assert cache.get("question", {"a": 1}) == b"answer"
    monkeypatch.setattr(time, "time", lambda: now + 2.1 * 86_400)
    assert cache.get("question", {"a": 1}) is None


def test_many_may_write_at_once(tmp_path: Path) -> None:
    def write(who: int) -> None:
        cache = Cache(tmp_path, 1.0)
        for i in range(20):
            cache.put(f"{who} {i}".encode() * 100, who, i)
            cache.put(b"shared", "all", i)
        cache.close()

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache = Cache(tmp_path, 1.0)
    assert all(cache.get(who, i) == f"{who} {i}".encode() * 100 for who in range(4) for i in range(20))
    assert cache.hits == 80


def test_a_full_disk_ends_it_in_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **keys: Any) -> sqlite3.Connection:
        database = connect(*args, **keys)
        database.execute("PRAGMA max_page_count = 5")
        return database

    monkeypatch.setattr(sqlite3, "connect", small)
    cache = Cache(tmp_path, 1.0)
    cache.put(b"answer", "question")
    noise = np.random.default_rng(0).bytes(100_000)
    with pytest.raises(LexrayError, match=r"^cache: \S+answers\.sqlite: database or disk is full$"):
        cache.put_all([(b"small", ("another",)), (noise, ("large",))])
    assert (cache.get("question"), cache.get("another")) == (b"answer", None), "all of them or none"
    cache.put(b"small", "another")
    assert cache.get("another") == b"small"


def test_a_cache_that_is_closed_keeps_its_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1.0)
    cache.put(b"answer", "question")
    cache.close()
    with pytest.raises(LexrayError, match=r"cache: .*closed"):
        cache.get("question")
    assert Cache(tmp_path, 1.0).get("question") == b"answer"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache: .*name another folder"):
        Cache(tmp_path / "file", 1.0)


# The job --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def literature(services: LiteratureServices, tmp_path: Path) -> Callable[..., tuple[JobReport, list[dict[str, Any]]]]:
    """Runs the job with SIMBAD for the sources of a CSV file."""

    def run(asked: list[TargetSource], **keys: Any) -> tuple[JobReport, list[dict[str, Any]]]:
        lines = [f"{s.source_id},{s.ra},{s.dec},{s.error}" for s in asked]
        (tmp_path / "sources.csv").write_text("\n".join(["source_id,ra,dec,position_error", *lines]))
        simbad = {"url": f"{services.url}/simbad", "http": QUICK} | keys.pop("simbad", {})
        values = {"connectors": ["simbad"], "sources": str(tmp_path / "sources.csv"), "simbad": simbad}
        report = execute(
            JOB, parse(LiteratureConfig, {**values, "out": str(tmp_path / "literature"), **keys}), Progress()
        )
        return report, delta.read(report.out).to_pylist()

    return run


def test_catalogues_are_last_or_left_out(services: LiteratureServices, literature: Any) -> None:
    oid = services.add_object(["Obj X-1"], 10.0, 20.0)
    services.add_paper("2015Cat...1", "A catalogue", {oid: 1}, n_objects=900)
    services.add_paper("2016Cat...2", "A large catalogue", {oid: 1}, n_objects=90_000, year=2016)
    services.add_paper("2001ApJ...1", "The nature of an X-ray source", {oid: 30}, n_objects=1)
    services.add_paper("2001ApJ...2", None, {oid: 1})
    services.add_paper("2002ApJ...3", "Sources of a field", {oid: 4}, n_objects=60)
    report, rows = literature([at("Obj X-1", 10.0, 20.0)])
    assert [row["bibcode"] for row in rows] == ["2001ApJ...1", "2002ApJ...3", "2015Cat...1"]
    assert (report.counts["left_out_catalogues"], report.counts["simbad_no_text"]) == (1, 1)
    assert (report.counts["simbad_matched_by_name"], report.counts["from_simbad"]) == (1, 3)
    _, rows = literature([at("Obj X-1", 10.0, 20.0)], max_objects=None, max_papers=2)
    assert [row["bibcode"] for row in rows] == ["2001ApJ...1", "2002ApJ...3"]
    _, rows = literature([at("Obj X-1", 10.0, 20.0)], max_objects=None)
    assert [row["bibcode"] for row in rows][2:] == ["2016Cat...2", "2015Cat...1"]


def test_a_run_that_failed_goes_on_where_it_ended(
    services: LiteratureServices, literature: Any, tmp_path: Path
) -> None:
    sources = crowd(services)
    services.troubles["has_ref"] += [Fault("slow"), Fault("503", times=3)]
    with pytest.raises(LexrayError, match="does not answer"):
        literature(sources, simbad={"batch_size": 6})
    assert not delta.is_table(str(tmp_path / "literature"))
    services.requests.clear()
    report, rows = literature(sources, simbad={"batch_size": 6})
    assert (len(rows), len(services.requests), report.counts["from_cache"]) == (36, 1, 38)
    services.requests.clear()
    again, rows = literature(sources, simbad={"batch_size": 6}, force=True)
    assert (len(rows), services.requests, again.counts["from_cache"]) == (36, [], 44)


def events_of(path: Path, *rows: dict[str, Any]) -> str:
    detections = [{"detection_id": f"{i}", **row} for i, row in enumerate(rows)]
    delta.write(str(path), "events", EVENTS, pa.Table.from_pylist(detections, schema=EVENTS))
    return str(path)


def test_sources_come_from_events_with_their_missions_errors(
    services: LiteratureServices, literature: Any, tmp_path: Path
) -> None:

    for i, name in enumerate(["chandra", "nicer", "field"]):
        oid = services.add_object([f"object {name}"], 10.0 + i, 20.0 + 1.2 * ARCSEC)
        services.add_paper(f"2020ApJ...{i}", "Stars", {oid: 1})
    events = events_of(
        tmp_path / "events",
        {"source_id": "a", "ra": 10.0, "dec": 20.0, "mission": "chandra", "t_ref_mjd": 58849.0},
        {"source_id": "b", "ra": 11.0, "dec": 20.0, "mission": "nicer", "t_ref_mjd": 58849.0},
        {"source_id": "c", "ra": 12.0, "dec": 20.0, "mission": "chandra", "flags": ["whole_field"]},
    )
    _, rows = literature([], sources=None, events=events)
    assert [(row["source_id"], row["object"]) for row in rows] == [("a", "object chandra")]
    assert rows[0]["error_source"] == pytest.approx(1.1 * np.sqrt(np.log(0.05) / np.log(0.1)))
    _, rows = literature([], sources=None, events=events, position_error=2.0)
    assert {row["source_id"] for row in rows} == {"a", "b"}


def test_of_a_sources_detections_the_best_in_the_middle_stands_for_it(tmp_path: Path) -> None:
    chandra = [("A_1", 1.0, 58000.0), ("A 1", 2.0, 57000.0), ("a1", 3.0, 59000.0), ("A 1", None, 58001.0)]
    rows = [
        {"source_id": name, "ra": ra, "dec": 20.0, "mission": "chandra", "t_ref_mjd": mjd} for name, ra, mjd in chandra
    ]
    rows += [{"source_id": "A 1", "ra": 9.0, "dec": 20.0, "mission": "nustar", "t_ref_mjd": 58000.0}]
    field: dict[str, Any] = {"source_id": "B", "ra": 5.0, "dec": 20.0, "mission": "chandra"}
    rows += [field | {"flags": ["pile_up", "whole_field"]}, field | {"source_id": "C", "mission": "nicer"}]
    error = astrometry.mission_error("chandra")
    assert sources_from_events(events_of(tmp_path / "events", *rows)) == [
        TargetSource("A_1", 1.0, 20.0, error, 58000.0),
        TargetSource("B"),
        TargetSource("C", 5.0, 20.0),
    ]
    assert sources_from_events(events_of(tmp_path / "none")) == []


def test_a_source_tables_columns_may_have_other_names(
    services: LiteratureServices, literature: Any, tmp_path: Path
) -> None:
    oid = services.add_object(["x"], 10.0, 20.0)
    services.add_paper("2020ApJ...1", "Stars", {oid: 1})
    (tmp_path / "csc.csv").write_text("CSCv2_name,CSCv2_RA,CSCv2_DEC,CSCv2_PU\n2CXO J1,10.0,20.0,0.79\n2CXO J2,,,\n")
    called = {"source_id": "CSCv2_name", "ra": "CSCv2_RA", "dec": "CSCv2_DEC", "position_error": "CSCv2_PU"}
    _, rows = literature([], sources=str(tmp_path / "csc.csv"), source_columns=called)
    assert [(row["source_id"], row["error_source"]) for row in rows] == [("2CXO J1", 0.79)]
    with pytest.raises(ConfigError, match="there is no column 'source_id'; it has CSCv2_name"):
        literature([], sources=str(tmp_path / "csc.csv"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"inputs": [], "connectors": []}, "name files in inputs, or services in connectors"),
        ({"sources": None}, "an events table in events, or a table in sources"),
        ({"connectors": ["simbat"]}, "connectors.0"),
        ({"simbad": {"radius": 0}}, "simbad.radius"),
        ({"cache": "s3://bucket/cache"}, "cache: it takes a local folder"),
    ],
)
def test_wrong_configuration_is_named(literature: Any, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        literature([at("x", 1.0, 2.0)], **keys)
