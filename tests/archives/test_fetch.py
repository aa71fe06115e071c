"""Fetching from an archive over real HTTP: what comes, what is asked how often, and what happens when it goes wrong."""

import asyncio
import gzip
import itertools
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.archive_server import Archive, archive_server, downloaded
from doubles.loopback import Fault
from lexray.archives.csc import aperture_radius, box, canonical_name
from lexray.archives.csc_output import write_tables
from lexray.errors import EXIT_DONE, EXIT_TOO_MANY_REFUSED, ConfigError, LexrayError
from lexray.jobs.fetch import JOB, FetchConfig
from lexray.runtime.config import parse
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.web import retry
from lexray.web.retry import USER_AGENT, RetryPolicy, retry_after
from lexray.web.tap import quoted

M82 = (148.96, 69.68)
#: Waits short enough for a test; what is measured sets its own.
QUICK = {"first_wait": 0.01, "requests_per_second": 1000.0, "timeout": 5.0, "connections": 3}


@pytest.fixture
def archive() -> Iterator[Archive]:
    """Six sources around M82, 1′ apart along the declination, of which four have been observed in one or two fields."""
    with archive_server() as found:
        for i in range(6):
            observations = [(10027 + i, 5), (11000 + i, 7)][: i % 3]
            found.add_source(f"2CXO J0955{i:02d}.0+694046", M82[0], M82[1] + i / 60, observations)
        yield found


Fetch = Callable[..., JobReport]


@pytest.fixture
def fetch(archive: Archive, tmp_path: Path) -> Fetch:
    """Runs the job against the archive; keys of `http` may be given as they are."""

    def run(**keys: Any) -> JobReport:
        http = {**QUICK, **{key: keys.pop(key) for key in list(keys) if key in RetryPolicy.model_fields}}
        values = {"tap": f"{archive.url}/tap", "files": f"{archive.url}/files", "out": str(tmp_path / "csc")}
        columns = ["name", "ra", "dec", "significance", "var_flag", "likelihood_class"]
        return execute(JOB, parse(FetchConfig, {**values, "columns": columns, "http": http, **keys}), Progress())

    return run


def names_file(folder: Path, *lines: str) -> str:
    path = folder / "names.txt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def quarantined(report: JobReport) -> list[tuple[str, str]]:
    rows = delta.read(report.refusals, ["file", "reason"], order="file").to_pylist()
    return [(row["file"], row["reason"]) for row in rows]


# What comes -----------------------------------------------------------------------------------------------------------


def test_cone_brings_labels_sources_detections_and_files(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    report = fetch(cone="148.96 69.68 2.5")
    assert (report.counts["sources"], report.counts["detections"], report.counts["files"]) == (3, 3, 6)
    out = tmp_path / "csc"
    labels = delta.read(str(out / "labels"), order="source_id")
    assert labels["source_id"].to_pylist() == [f"2CXO J0955{i:02d}.0+694046" for i in range(3)]
    assert labels["likelihood_class"].to_pylist() == ["TRUE"] * 3
    assert labels.schema.field("ra").metadata == {b"unit": b"deg", b"meaning": b"the ra"}
    sources = pq.read_table(out / "sources.parquet").to_pydict()
    np.testing.assert_allclose(sources["dec"], [M82[1], M82[1] + 1 / 60, M82[1] + 2 / 60])
    assert sources["radius"] == [1.0, 1.9, 1.9]  # 1″ where there is no detection; 1″ + 10″ (3′/10′)² at 3′
    rows = pq.read_table(out / "detections.parquet").to_pylist()
    assert [(row["obsid"], row["region_id"]) for row in rows] == [(10028, 5), (10029, 5), (11002, 7)]
    for row in rows:
        for product in ("regevt3", "reg3"):
            path = out / "events" / row[product]
            assert path.parent.name == f"{row['obsid']:05d}"
            assert path.read_bytes() == archive.files[path.name.removesuffix(".gz")]


def test_whoever_asks_says_who(archive: Archive, fetch: Fetch) -> None:
    fetch(cone="148.96 69.68 2.5")
    assert {r.headers["User-Agent"] for r in archive.requests} == {USER_AGENT}
    assert USER_AGENT.startswith("lexray/")


def test_names_may_be_written_as_papers_do_and_unknown_ones_are_said(fetch: Fetch, tmp_path: Path) -> None:
    names = names_file(
        tmp_path, "# mine", "2CXO_J095501.0+694046", "2CXO  J095504.0+694046  # the other", "", "2CXO J000000.0+000000"
    )
    report = fetch(names=names)
    assert report.counts["sources"] == 2
    assert quarantined(report) == [("2CXO J000000.0+000000", "unknown_source")]
    assert (report.counts["detections"], report.exit_code) == (2, EXIT_DONE)


def test_no_name_can_be_more_than_a_name(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    hostile = ["x' OR 'x' = 'x", "'); DROP TABLE csc21.master_source; --", "2CXO J095501.0+694046' --"]
    report = fetch(names=names_file(tmp_path, *hostile, "2CXO J095501.0+694046"), max_bad_fraction=1.0)
    assert report.counts["sources"] == 1
    assert sorted(file for file, _ in quarantined(report)) == sorted(hostile)
    assert len(archive.database.execute("SELECT name FROM csc21.master_source").fetchall()) == 6


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_quoted_text_is_one_literal(text: str) -> None:
    literal = quoted(text)
    assert literal[0] == literal[-1] == "'"
    assert literal[1:-1].replace("''", "").count("'") == 0
    assert literal[1:-1].replace("''", "'") == text


def test_adql_of_ones_own_brings_its_columns(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "q.adql").write_text(
        "SELECT m.name, m.ra, m.dec, 2 * m.significance AS twice\n"
        "FROM csc21.master_source m, csc21.master_stack_assoc a WHERE m.name = a.name"
    )
    report = fetch(adql=str(tmp_path / "q.adql"), products=["arf3"])
    labels = delta.read(str(tmp_path / "csc" / "labels"), order="source_id")
    assert labels["twice"].to_pylist() == [15.0] * 4  # sources with two detections came twice, and are one
    assert {name.rpartition("_")[2] for name in downloaded(tmp_path / "csc" / "events")} == {"arf3.fits"}
    assert report.counts["files"] == 6


def test_positions_of_single_precision_are_written_as_they_are(tmp_path: Path) -> None:
    position = {"ra": pa.array([148.625], pa.float32()), "dec": pa.array([-5.5], pa.float32())}
    of_none = pa.table({"name": pa.array([], pa.string()), "theta": pa.array([], pa.float64())})
    write_tables(tmp_path, pa.table({"name": ["2CXO J095430.0-053000"], **position}), of_none, 2.0)
    written = pq.read_table(tmp_path / "sources.parquet")
    assert written.to_pylist() == [{"source_id": "2CXO J095430.0-053000", "ra": 148.625, "dec": -5.5, "radius": 2.0}]
    assert written.schema.types[1:] == [pa.float64()] * 3


def test_only_the_instruments_and_matches_asked_for(archive: Archive, fetch: Fetch) -> None:
    archive.add_source("2CXO J000000.1+000000", 10.0, 0.0, [(500, 1)], instrument="HRC")
    archive.add_source("2CXO J000000.2+000000", 10.0, 0.0, [(501, 1)], match_type="a")
    assert fetch(cone="10 0 1").counts["detections"] == 0
    assert fetch(cone="10 0 1", instruments=["ACIS", "HRC"], match_types=["u", "a"]).counts["detections"] == 2


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("page", "limit"), [(5000, 1000), (2, 1000), (5000, 2), (3, 2)])
def test_every_source_comes_however_little_the_service_gives_at_once(
    archive: Archive, fetch: Fetch, mode: str, page: int, limit: int
) -> None:
    archive.limit = limit
    report = fetch(cone="148.96 69.68 30", page=page, mode=mode)
    assert (report.counts["sources"], report.counts["detections"]) == (6, 6)
    assert not archive.jobs  # none is left with the service


def test_a_query_may_take_its_time(archive: Archive, fetch: Fetch) -> None:
    archive.phases = ["QUEUED", "EXECUTING", "COMPLETED"]
    assert fetch(cone="148.96 69.68 30", mode="async", names=None).counts["sources"] == 6


def test_a_query_that_is_cut_off_is_refused_and_said(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    archive.limit = 4
    (tmp_path / "q.adql").write_text("SELECT name, ra, dec FROM csc21.master_source")
    with pytest.raises(LexrayError, match=r"cut the answer off after 4 rows \(OVERFLOW\)") as caught:
        fetch(adql=str(tmp_path / "q.adql"))
    assert "\n" not in str(caught.value)


@given(st.floats(0, 360), st.floats(-90, 90) | st.floats(80, 90) | st.floats(-90, -80), st.floats(0.01, 600))
@settings(max_examples=200, deadline=None)
def test_the_box_holds_the_whole_circle(ra: float, dec: float, radius: float) -> None:
    points = SkyCoord(ra, dec, unit="deg").directional_offset_by(
        np.arange(0, 360, 0.5) * u.deg, radius * (1 - 1e-9) * u.arcmin
    )
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE sky (ra REAL, dec REAL)")
    database.executemany("INSERT INTO sky VALUES (?, ?)", np.stack([points.ra.deg, points.dec.deg], axis=1).tolist())
    condition = box(ra, dec, radius)
    assert database.execute(f"SELECT count(*) FROM sky m WHERE {condition}").fetchone() == (len(points),)


@pytest.mark.parametrize("ra", ["0.001", "359.999"])
def test_a_cone_across_ra_0(archive: Archive, fetch: Fetch, ra: str) -> None:
    archive.add_source("2CXO J000000.4+100000", 0.002, 10.0, [])
    archive.add_source("2CXO J235959.5+100000", 359.998, 10.0, [])
    archive.add_source("2CXO J000100.0+100000", 0.25, 10.0, [])
    assert fetch(cone=f"{ra} 10 1").counts["sources"] == 2


# Coming back ----------------------------------------------------------------------------------------------------------


def test_what_is_whole_is_not_asked_for_again(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    fetch(cone="148.96 69.68 30")
    before = downloaded(tmp_path / "csc" / "events")
    gone = next((tmp_path / "csc" / "events").rglob("*r0007_regevt3.fits.gz"))
    short = next((tmp_path / "csc" / "events").rglob("*r0005_reg3.fits.gz"))
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    archive.requests.clear()
    report = fetch(cone="148.96 69.68 30", force=True)
    assert len(archive.asked("/files/")) == len(archive.asked("retrieveFile")) == 2  # and no name is asked for again
    assert (report.counts["fetched"], report.counts["there_already"]) == (2, 10)
    assert downloaded(tmp_path / "csc" / "events") == before


def test_another_run_without_anything_to_do_asks_nothing(archive: Archive, fetch: Fetch) -> None:
    fetch(cone="148.96 69.68 3")
    archive.requests.clear()
    assert fetch(cone="148.96 69.68 3").skipped
    assert not archive.requests


def test_a_line_that_was_half_written_costs_its_file(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    fetch(cone="148.96 69.68 30")
    manifest = tmp_path / "csc" / "events" / "manifest.jsonl"
    manifest.write_text(manifest.read_text()[:-20])
    for again, expected in enumerate((1, 0)):
        archive.requests.clear()
        fetch(cone="148.96 69.68 30", force=True)
        assert len(archive.asked("retrieveFile")) == expected, again


KILLED = """
import sys
from lexray.jobs.fetch import JOB
from lexray.runtime.config import parse
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
url, out = sys.argv[1:]
http = {"first_wait": 0.01, "requests_per_second": 1000.0, "connections": 1}
keys = {"columns": ["name"], "tap": f"{url}/tap", "files": f"{url}/files", "out": out, "cone": "148.96 69.68 30"}
execute(JOB, parse(JOB.config, {**keys, "http": http}), Progress())
"""


def test_a_killed_run_costs_what_was_in_flight(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    archive.troubles["r0007_regevt3"] += [Fault("slow", seconds=60.0)]
    command = [sys.executable, "-c", KILLED, archive.url, str(tmp_path / "csc")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 60
        while not archive.asked("retrieveFile", "r0007_regevt3") and time.monotonic() < deadline:
            time.sleep(0.02)
        run.kill()
    came = len(archive.asked("retrieveFile")) - 1
    assert 0 < came < 12
    archive.requests.clear()
    report = fetch(cone="148.96 69.68 30", columns=["name"])
    assert len(archive.asked("retrieveFile")) == 12 - came == report.counts["fetched"]
    assert {name: gzip.decompress(c) for name, c in downloaded(tmp_path / "csc" / "events").items()} == {
        name: gzip.decompress(c) for name, c in archive.files.items() if not name.endswith("arf3.fits")
    }


def test_a_file_that_is_cut_off_goes_on_where_it_ended(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    archive.troubles["retrieveFile"] += [Fault("cut"), Fault("cut")]
    report = fetch(cone="148.96 69.68 1.5", products=["regevt3"])
    (name,) = downloaded(tmp_path / "csc" / "events")
    size = len(archive.files[name])
    starts = [int(r.headers.get("Range", "bytes=0-")[6:-1]) for r in archive.asked("retrieveFile")]
    assert starts == [0, size // 2, size // 2 + (size - size // 2) // 2]
    assert all(r.headers.get("If-Range") for r in archive.asked("retrieveFile")[1:])
    assert report.counts["bytes"] == size
    assert downloaded(tmp_path / "csc" / "events")[name] == archive.files[name]
    assert not list((tmp_path / "csc").rglob("*.part"))


def test_without_ranges_it_begins_anew(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    archive.ranges = False
    archive.troubles["retrieveFile"] += [Fault("cut")]
    report = fetch(cone="148.96 69.68 1.5", products=["regevt3"])
    ((name, content),) = downloaded(tmp_path / "csc" / "events").items()
    assert content == archive.files[name]
    assert report.counts["bytes"] == len(content) // 2 + len(content)


def test_halves_of_two_versions_are_never_joined(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    archive.troubles["retrieveFile"] += [Fault("cut", times=6)]
    assert fetch(cone="148.96 69.68 1.5", products=["regevt3"]).exit_code == EXIT_TOO_MANY_REFUSED
    (name,) = [n for n in archive.files if n.endswith("r0005_regevt3.fits") and "10028" in n]
    archive.files[name] = gzip.compress(gzip.decompress(archive.files[name]), compresslevel=1, mtime=5)
    archive.versions[name] += 1
    fetch(cone="148.96 69.68 1.5", products=["regevt3"], force=True)
    assert downloaded(tmp_path / "csc" / "events")[name] == archive.files[name]


# Going wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "kind"),
    [("retrieveFile", kind) for kind in ("500", "503", "429", "reset", "cut", "broken gzip", "page")]
    + [("browse", kind) for kind in ("500", "503", "429", "reset", "page")],
)
def test_what_passes_is_asked_for_again(archive: Archive, fetch: Fetch, tmp_path: Path, place: str, kind: str) -> None:
    archive.troubles[place] += [Fault(kind, times=2)]
    report = fetch(cone="148.96 69.68 30")
    assert (report.counts["fetched"], report.counts["retries"]) == (12, 2)
    assert len(archive.asked("/files/")) == 12 + 12 + 2 == report.counts["requests"]
    assert all(content == archive.files[name] for name, content in downloaded(tmp_path / "csc" / "events").items())


def test_a_slow_answer_is_a_lost_one(archive: Archive, fetch: Fetch) -> None:
    archive.troubles["retrieveFile"] += [Fault("slow", seconds=3.0)]
    report = fetch(cone="148.96 69.68 1.5", products=["regevt3"], timeout=0.5)
    assert (report.counts["fetched"], report.counts["retries"]) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("500", "http_500"), ("reset", "connection"), ("broken gzip", "bad_gzip"), ("page", "not_fits")],
)
def test_what_does_not_pass_is_recorded_and_the_rest_goes_on(
    archive: Archive, fetch: Fetch, kind: str, reason: str
) -> None:
    archive.troubles["acisf10028_000N028_r0005_reg3"] += [Fault(kind, times=100)]
    report = fetch(cone="148.96 69.68 30", attempts=3)
    assert quarantined(report) == [("10028.0.5/reg3", reason)]
    assert len(archive.asked("retrieveFile", "acisf10028_000N028_r0005_reg3")) == 3
    assert (report.counts["fetched"], report.counts[f"refused_{reason}"], report.exit_code) == (11, 1, EXIT_DONE)


def test_what_is_not_there_is_asked_for_once(archive: Archive, fetch: Fetch) -> None:
    archive.troubles["acisf10028_000N028_r0005_regevt3"] += [Fault("404", times=100)]
    del archive.files["acisf11002_000N028_r0007_reg3.fits"]
    report = fetch(cone="148.96 69.68 30", max_bad_fraction=0.1)
    assert quarantined(report) == [("10028.0.5/regevt3", "http_404"), ("11002.0.7/reg3", "no_product")]
    assert len(archive.asked("retrieveFile", "acisf10028_000N028_r0005_regevt3")) == 1
    assert report.exit_code == EXIT_TOO_MANY_REFUSED
    assert report.refused_fraction == pytest.approx(2 / 12)


def test_a_files_name_cannot_lead_out_of_the_folder(archive: Archive, fetch: Fetch, tmp_path: Path) -> None:
    archive.files["../../evil.fits"] = archive.files.pop("acisf10028_000N028_r0005_reg3.fits")
    archive.renamed["acisf10028_000N028_r0005_reg3.fits"] = "../../evil.fits"
    report = fetch(cone="148.96 69.68 30")
    assert quarantined(report) == [("10028.0.5/reg3", "bad_name")]
    assert not list(tmp_path.rglob("*evil*"))


# Being polite ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["retrieveFile", "tap/sync"])
@pytest.mark.parametrize("status", ["503", "429"])
def test_nobody_asks_before_the_server_said(archive: Archive, fetch: Fetch, place: str, status: str) -> None:
    archive.troubles[place] += [Fault(status, retry_after="1")]
    fetch(cone="148.96 69.68 30", connections=1)
    told = archive.asked(place)[0]
    assert min(r.at - told.at for r in archive.requests if r.at > told.at) >= 0.99


def test_a_server_that_wants_us_much_later_is_left_alone(archive: Archive, fetch: Fetch) -> None:
    archive.troubles["r0005_reg3"] += [Fault("503", retry_after="3600", times=100)]
    report = fetch(cone="148.96 69.68 1.5")
    assert quarantined(report) == [("10028.0.5/reg3", "wait_too_long")]
    assert len(archive.asked("retrieveFile", "r0005_reg3")) == 1


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after({"Retry-After": "120"}) == 120
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after({"Retry-After": format_datetime(soon, usegmt=True)}) == pytest.approx(90, abs=2)
    assert retry_after({"Retry-After": format_datetime(soon - timedelta(days=1), usegmt=True)}) == 0
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


@given(st.integers(1, 12), st.floats(0, 10), st.floats(0, 100), st.none() | st.floats(0, 2000), st.integers(0, 20))
@settings(deadline=None)
def test_waits_grow_are_bounded_and_never_shorter_than_asked(
    attempts: int, first: float, longest: float, asked: float | None, attempt: int
) -> None:
    policy = RetryPolicy(attempts=attempts, first_wait=first, longest_wait=longest, patience=1000)
    wait = policy.wait(attempt, asked, np.random.default_rng(0))
    if attempt + 1 >= attempts or (asked is not None and asked > 1000):
        assert wait is None
    else:
        assert wait is not None
        step = min(first * 2**attempt, longest)
        assert max(step / 2, asked or 0) <= wait <= max(step, asked or 0)


def test_requests_keep_the_pace(archive: Archive, fetch: Fetch) -> None:
    start = time.monotonic()
    fetch(cone="148.96 69.68 30", requests_per_second=20.0, connections=8)
    assert len(archive.asked("/files/")) == 24
    assert time.monotonic() - start >= 23 / 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock for `retry` whose time passes only while somebody sleeps."""

    def sleep(seconds: float) -> None:
        assert seconds >= 0
        fake.now += seconds

    async def sleep_asynchronously(seconds: float) -> None:
        sleep(seconds)

    fake = SimpleNamespace(now=100.0, sleep=sleep, monotonic=lambda: fake.now)
    monkeypatch.setattr(retry, "time", fake)
    monkeypatch.setattr(asyncio, "sleep", sleep_asynchronously)
    return fake


@pytest.mark.parametrize("tasks", [1, 8])
async def test_a_rate_limiter_spaces_what_begins_and_a_pause_holds_for_all_tasks(
    clock: SimpleNamespace, tasks: int
) -> None:
    limiter = retry.RateLimiter(20.0)
    begun = []

    async def ask() -> None:
        for _ in range(24 // tasks):
            await limiter.acquire()
            begun.append(clock.now)
            if len(begun) == 12:
                limiter.pause(7.0)  # one of them is told to come back later

    await asyncio.gather(*(ask() for _ in range(tasks)))
    assert begun[0] == 100.0, "the first begins at once"
    np.testing.assert_allclose(np.diff(begun), [1 / 20] * 11 + [7.0] + [1 / 20] * 11)
    limiter.acquire_blocking()
    assert clock.now == pytest.approx(begun[-1] + 1 / 20)
    clock.now += 60
    assert [limiter.acquire_blocking() or clock.now for _ in range(3)] == pytest.approx(
        [begun[-1] + 60.05, begun[-1] + 60.1, begun[-1] + 60.15]
    ), "what was not used before is no credit"


@pytest.mark.parametrize("asked", [None, 1.0, 30.0])
async def test_a_failed_request_comes_back_no_sooner_than_asked_and_neither_does_another(
    clock: SimpleNamespace, asked: float | None
) -> None:
    limiter = retry.RateLimiter(1000.0)
    begun = []

    async def request() -> None:
        await limiter.acquire()
        begun.append(clock.now)
        if len(begun) == 1:
            raise retry.Retryable("http_503", "not now", asked)

    retrier = retry.Retrier(RetryPolicy(first_wait=0.01), limiter)
    await asyncio.gather(retrier.with_retries(request), retrier.with_retries(request))
    assert (len(begun), retrier.retries) == (3, 1)
    assert min(begun[1:]) - begun[0] >= (asked or 0.001)


def test_no_more_connections_than_allowed(archive: Archive, fetch: Fetch) -> None:
    archive.troubles["retrieveFile"] += [Fault("slow", seconds=0.1, times=12)]
    fetch(cone="148.96 69.68 30", connections=2, products=["regevt3"])
    times = sorted(r.at for r in archive.asked("retrieveFile"))
    assert all(third - first >= 0.09 for first, third in zip(times, itertools.islice(times, 2, None), strict=False))


# The TAP service's troubles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_the_service_says_of_a_query_is_one_line(fetch: Fetch, tmp_path: Path, mode: str) -> None:
    (tmp_path / "q.adql").write_text("SELECT name, ra, dec FROM csc21.no_such_table")
    with pytest.raises(LexrayError, match=r"/tap refuses the query: .*ADQL: no such table") as caught:
        fetch(adql=str(tmp_path / "q.adql"), mode=mode)
    assert "\n" not in str(caught.value)


def test_half_a_votable_is_one_line(archive: Archive, fetch: Fetch) -> None:
    archive.troubles["tap/sync"] += [Fault("garbage")]
    with pytest.raises(LexrayError, match=r"/tap: the answer is no VOTable: ") as caught:
        fetch(cone="148.96 69.68 30")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", ["500", "503", "429", "reset"])
def test_a_query_is_asked_again(archive: Archive, fetch: Fetch, kind: str) -> None:
    archive.troubles["tap/sync"] += [Fault(kind, times=2)]
    assert fetch(cone="148.96 69.68 30").counts["sources"] == 6
    assert len(archive.asked("tap/sync")) == 4


def test_a_service_that_does_not_answer_is_named(archive: Archive, fetch: Fetch) -> None:
    archive.troubles["tap/sync"] += [Fault("503", times=100)]
    with pytest.raises(LexrayError, match=r"/tap does not answer \(asked 3 times\): 503"):
        fetch(cone="148.96 69.68 30", attempts=3)
    with pytest.raises(LexrayError, match=r"127\.0\.0\.1:9/tap does not answer \(asked 2 times\)"):
        fetch(cone="148.96 69.68 30", tap="http://127.0.0.1:9/tap", attempts=2)


def test_a_query_without_names_and_positions_is_refused(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "q.adql").write_text("SELECT name, ra FROM csc21.master_source")
    with pytest.raises(LexrayError, match="has to select name, ra and dec of the sources; it has name, ra"):
        fetch(adql=str(tmp_path / "q.adql"))


# Configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "give one of cone, adql and names, not none"),
        ({"cone": "1 2 3", "names": "x"}, "not cone and names"),
        ({"cone": "1 2"}, "'cone': .* RA DEC RADIUS"),
        ({"cone": "1 95 3"}, "DEC −90 … 90"),
        ({"cone": "1 2 north"}, "'cone.2'"),
        ({"cone": "1 2 3", "out": "s3://bucket/csc"}, "local folder"),
        ({"cone": "1 2 3", "products": ["evt2"]}, "'products.0'"),
        ({"cone": "1 2 3", "columns": ["name, ra; DROP"]}, "'columns.0'"),
        ({"names": "/nowhere/names.txt"}, "names: /nowhere/names.txt: No such file"),
    ],
)
def test_wrong_configuration_is_named(fetch: Fetch, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fetch(**keys)


def test_names_are_written_in_many_ways() -> None:
    for name in ("2CXO J095501.0+694046", "2CXO_J095501.0+694046", " 2cxo  j095501.0+694046", "2CXOJ095501.0+694046"):
        assert canonical_name(name) == "2CXO J095501.0+694046"
    assert canonical_name("M82 X-1") == "M82 X-1"


def test_apertures_grow_off_axis() -> None:
    assert aperture_radius(0) == 1
    assert aperture_radius(10) == pytest.approx(11)
