"""`lexray ingest`: whole archives with broken files among them, on Ray."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pytest

from conftest import Cli
from doubles.s3_server import BUCKET, s3_server
from event_files import GOOD_PI, write_event_file
from lexray.errors import EXIT_DONE, EXIT_TOO_MANY_REFUSED, ConfigError, LexrayError
from lexray.events.arrow import from_table
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.reader import read_events
from lexray.ingest.discovery import find_event_files
from lexray.jobs.ingest import JOB, IngestConfig
from lexray.runtime.config import parse
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.files import filesystem
from lexray.tables.schemas import EVENTS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def ingest(*inputs: Path | str, out: Path, **keys: Any) -> JobReport:
    config = parse(IngestConfig, {"inputs": [str(path) for path in inputs], "out": str(out), **keys})
    return execute(JOB, config, Progress())


def make_archive(folder: Path, n: int = 30) -> Path:
    """Good files of all missions; every second one a new source, each observed twice."""
    folder.mkdir(parents=True)
    for i in range(n):
        mission = list(GOOD_PI)[i % 3]
        generator = np.random.default_rng(i)
        columns = {"TIME": generator.uniform(990, 1110, 100 + i), "PI": generator.integers(0, 1025, 100 + i)}
        header = {"OBS_ID": str(1000 + i), "SRCNAME": f"SRC {i // 2}"}
        write_event_file(folder / f"{i:03d}.fits", mission, columns, header=header)
    return folder


def corrupt_files(folder: Path) -> dict[str, str]:
    """Add files that cannot be read, and say for which reason each."""
    good = (folder / "000.fits").read_bytes()
    (folder / "empty.fits").write_bytes(b"")
    (folder / "text.evt").write_text("this is no FITS file\n" * 200)
    (folder / "cut.fits").write_bytes(good[: len(good) // 2])
    (folder / "cut.fits.gz").write_bytes(gzip.compress(good)[:-100])
    write_event_file(folder / "babasone.evt", header={"TELESCOP": "babasone"})
    write_event_file(folder / "dark.fits", columns={"time": np.zeros(0), "pi": np.zeros(0, int)})
    return {
        "empty.fits": "empty_file",
        "text.evt": "not_fits",
        "cut.fits": "truncated",
        "cut.fits.gz": "truncated",
        "babasone.evt": "unknown_mission",
        "dark.fits": "no_events",
    }


def test_broken_files_stop_nothing_and_everything_is_accounted_for(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    broken = corrupt_files(archive)
    report = ingest(archive, out=tmp_path / "events")
    counts = report.counts

    quarantined = delta.read(report.refusals).to_pylist()
    assert {Path(row["file"]).name: row["reason"] for row in quarantined} == broken
    assert all(row["stage"] == "ingest" and row["detail"] for row in quarantined)
    assert (counts["files"], counts["detections"], counts["sources"]) == (36, 30, 15)
    assert counts["refused_truncated"] == 2
    assert report.refused_fraction == pytest.approx(6 / 36)
    assert report.exit_code == EXIT_DONE

    rows = delta.read(str(tmp_path / "events"))
    assert counts["events_in"] == sum(100 + i for i in range(30))
    assert counts["events_in"] == counts["events_kept"] + sum(counts[f"dropped_{cause}"] for cause in CAUSES)
    assert counts["events_kept"] == sum(rows["n_events"].to_pylist())
    for name, part in zip(rows["source_id"].to_pylist(), rows["part"].to_pylist(), strict=True):
        assert part == delta.part_of(name, 16)


def test_rows_are_what_the_reader_says_and_plain_parquet_reads_them(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", n=6)
    ingest(archive, out=tmp_path / "events")
    written = {e.file: e for e in from_table(delta.read(str(tmp_path / "events")))}
    for file in archive.iterdir():
        expected, found = read_events(file), written[str(file)]
        np.testing.assert_array_equal(found.time, expected.time)
        np.testing.assert_array_equal(found.energy, expected.energy)
        np.testing.assert_array_equal(found.gti.start, expected.gti.start)
        assert (found.detection_id, found.exposure, found.bands, found.flags, found.sha256) == (
            expected.detection_id,
            expected.exposure,
            expected.bands,
            expected.flags,
            expected.sha256,
        )
    plain = pyarrow.dataset.dataset(tmp_path / "events", format="parquet", exclude_invalid_files=True)
    assert plain.count_rows() == 6


def test_same_rows_however_the_work_is_cut(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", n=12)
    for copy in ("000", "007"):  # another content, the same identifier
        content = (archive / f"{copy}.fits").read_bytes()
        (archive / f"{copy}b.fits").write_bytes(content + b"\0" * 2880)
    files = sorted(archive.iterdir())
    ingest(archive, out=tmp_path / "a")
    ingest(*reversed(files), out=tmp_path / "b", files_per_task=1)
    a, b = (delta.read(str(tmp_path / out), order="detection_id") for out in ("a", "b"))
    assert a.equals(b)


def test_colliding_identifiers_get_their_hash_and_copies_count_once(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    first = write_event_file(archive / "b.fits")
    second = write_event_file(archive / "c.fits", columns={"time": [1001.0], "pi": [100]})
    other = write_event_file(archive / "d.fits", header={"OBS_ID": "2"})
    for copy in ("a.fits", "z.fits"):
        shutil.copy(first, archive / copy)
    shutil.copy(other, archive / "y.fits")
    report = ingest(archive, out=tmp_path / "events", files_per_task=2)
    rows = {row["file"]: row for row in delta.read(str(tmp_path / "events")).to_pylist()}

    assert sorted(rows) == [str(archive / name) for name in ("a.fits", "c.fits", "d.fits")]
    for file in (archive / "a.fits", second):
        assert rows[str(file)]["detection_id"] == f"chandra:10027:acis:M82:{rows[str(file)]['sha256'][:8]}"
    assert rows[str(other)]["detection_id"] == "chandra:2:acis:M82"
    assert report.counts["ids_disambiguated"] == 2
    assert report.counts["refused_duplicate"] == 3
    assert report.counts["events_in"] == 21
    details = {Path(row["file"]).name: row["detail"] for row in delta.read(report.refusals).to_pylist()}
    assert details["z.fits"] == f"the same bytes as {archive / 'a.fits'}"
    assert set(details) == {"b.fits", "y.fits", "z.fits"}


def test_too_many_refused_is_exit_code_3_and_an_empty_quarantine_exists(tmp_path: Path) -> None:
    good = write_event_file(tmp_path / "good.fits")
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"")
    assert ingest(bad, out=tmp_path / "none").exit_code == EXIT_TOO_MANY_REFUSED
    assert delta.read(str(tmp_path / "none")).num_rows == 0
    assert ingest(good, bad, out=tmp_path / "half", max_bad_fraction=0.4).exit_code == EXIT_TOO_MANY_REFUSED
    report = ingest(good, out=tmp_path / "all")
    assert report.exit_code == EXIT_DONE
    assert delta.read(report.refusals).num_rows == 0


def test_a_new_file_behind_a_pattern_is_noticed(tmp_path: Path) -> None:
    write_event_file(tmp_path / "a.fits")
    pattern, out = str(tmp_path / "*.fits"), tmp_path / "events"
    assert not ingest(pattern, out=out).skipped
    assert ingest(pattern, out=out).skipped
    write_event_file(tmp_path / "b.fits", header={"OBS_ID": "2"})
    report = ingest(pattern, out=out)
    assert not report.skipped
    assert delta.read(str(out)).num_rows == 2


# What has changed -----------------------------------------------------------------------------------------------------


def content_of(table: Path | str) -> str:
    """Hash of a table's rows, whatever order and files they lie in."""
    rows = delta.read(str(table), columns=EVENTS.names, order="detection_id")
    return hashlib.sha256(repr(rows.to_pylist()).encode()).hexdigest()


def test_only_what_is_new_or_has_changed_is_read(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "archive", n=8), tmp_path / "events"
    assert ingest(archive, out=out).counts["files_new"] == 8
    write_event_file(archive / "new.fits", header={"OBS_ID": "5000"})
    write_event_file(archive / "001.fits", "nicer", header={"OBS_ID": "6000", "SRCNAME": "OTHER"})
    (archive / "002.fits").unlink()
    # Its content is gone, its size and time are not: it is not looked at again.
    kept = archive / "003.fits"
    status = kept.stat()
    kept.write_bytes(b"\0" * status.st_size)
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))

    counts = ingest(archive, out=out).counts
    assert [counts[f"files_{name}"] for name in ("new", "changed", "unchanged", "gone")] == [1, 1, 6, 1]
    names = {Path(row["file"]).name for row in delta.read(str(out), columns=["file"]).to_pylist()}
    assert names == {file.name for file in archive.iterdir()}

    checked = ingest(archive, out=out, verify="sha256").counts
    assert [checked[f"files_{name}"] for name in ("new", "changed", "unchanged", "gone")] == [0, 1, 7, 0]
    assert checked["refused_not_fits"] == 1
    ingest(archive, out=tmp_path / "from_scratch")
    assert content_of(out) == content_of(tmp_path / "from_scratch")
    again = archive / "004.fits"
    status = again.stat()
    again.write_bytes(b"\0" * status.st_size)
    os.utime(again, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ingest(archive, out=out).counts["files_unchanged"] == 8
    assert ingest(archive, out=out, verify="sha256").counts["files_changed"] == 1


def test_a_copy_counts_where_its_original_turns_out_to_have_changed(tmp_path: Path) -> None:
    original, out = write_event_file(tmp_path / "a.fits"), tmp_path / "events"
    shutil.copy(original, tmp_path / "b.fits")
    assert ingest(tmp_path / "*.fits", out=out).counts["refused_duplicate"] == 1
    status = original.stat()
    original.write_bytes(b"\0" * status.st_size)
    os.utime(original, ns=(status.st_atime_ns, status.st_mtime_ns))
    ingest(tmp_path / "*.fits", out=out, verify="sha256")
    assert [Path(row["file"]).name for row in delta.read(str(out)).to_pylist()] == ["b.fits"]


def test_what_could_not_be_fetched_is_tried_again(tmp_path: Path) -> None:
    good, out = write_event_file(tmp_path / "a.fits"), tmp_path / "events"
    (tmp_path / "b.fits").symlink_to(tmp_path / "elsewhere" / "b.fits")
    assert ingest(tmp_path, out=out).counts["refused_no_such_file"] == 1
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(good, tmp_path / "elsewhere" / "b.fits")
    report = ingest(tmp_path / "*.fits", out=out)
    assert not report.skipped
    assert "refused_no_such_file" not in report.counts


def test_steps_end_where_one_run_would(tmp_path: Path) -> None:
    """Copies and shared identifiers that come and go leave what a single run over the last state gives."""
    archive, out = tmp_path / "archive", tmp_path / "events"
    archive.mkdir()

    def write(name: str, pi: int) -> None:
        write_event_file(archive / name, columns={"time": [1001.0, 1002.0], "pi": [pi, pi]})

    def step(expected: dict[str, int]) -> None:
        counts = ingest(archive, out=out, n_parts=2).counts
        assert {key: counts[key] for key in expected} == expected
        fresh = tmp_path / f"from_scratch{len(list(tmp_path.iterdir()))}"
        ingest(archive, out=fresh, n_parts=2)
        assert content_of(out) == content_of(fresh)
        for one, other in (("quarantine", "quarantine"), ("files", "files")):
            columns = ["file", "reason", "detail"]
            assert delta.read(f"{out}.{one}", columns, order="file") == delta.read(
                f"{fresh}.{other}", columns, order="file"
            )

    write("b.fits", 100)
    step({"detections": 1, "ids_disambiguated": 0})
    write("c.fits", 101)
    step({"detections": 2, "ids_disambiguated": 2})
    shutil.copy(archive / "b.fits", archive / "a.fits")  # it is first by name, so it counts and b does not
    step({"detections": 2, "refused_duplicate": 1})
    (archive / "a.fits").unlink()
    step({"detections": 2, "files_gone": 1})
    (archive / "c.fits").unlink()
    step({"detections": 1, "ids_disambiguated": 0})


def test_other_settings_read_everything_again(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "archive", n=3), tmp_path / "events"
    ingest(archive, out=out)
    assert ingest(archive, out=out, min_events=2).counts["files_changed"] == 3


_KILLED = """
import os, signal, sys
from lexray.cli.app import main
from lexray.tables import delta

moment = sys.argv.pop(1)
commit = delta.commit_over
def killed(table, name, *rest):
    if name == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(table, name, *rest)
delta.commit_over = killed
main()
"""


@pytest.mark.parametrize("moment", ["files", "events"])
def test_a_run_that_is_killed_leaves_the_table_and_the_next_run_right(
    join_session: None, tmp_path: Path, moment: str
) -> None:
    """Killed with all rows written and nothing committed, and with the account committed and the events not."""
    archive, out = make_archive(tmp_path / "archive", n=4), tmp_path / "events"
    ingest(archive, out=out)
    before = content_of(out)
    write_event_file(archive / "new.fits", header={"OBS_ID": "5000"})
    (archive / "000.fits").unlink()
    command = [sys.executable, "-c", _KILLED, moment, "ingest", str(archive), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert content_of(out) == before

    counts = ingest(archive, out=out).counts
    assert [counts[f"files_{name}"] for name in ("new", "changed", "unchanged", "gone")] == [1, 0, 3, 1]
    ingest(archive, out=tmp_path / "from_scratch")
    assert content_of(out) == content_of(tmp_path / "from_scratch")


def test_of_two_runs_at_once_one_fails_and_neither_harms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run writes the table while the first is about to; `make soak` starts two processes at once."""
    first, second = (make_archive(tmp_path / name, n=n) for name, n in (("a", 3), ("b", 5)))
    out, commit = tmp_path / "events", delta.commit_over

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(delta, "commit_over", commit)
        assert ingest(second, out=out).exit_code == EXIT_DONE
        return commit(*arguments)

    monkeypatch.setattr(delta, "commit_over", overtaken)
    with pytest.raises(LexrayError, match="another run wrote this table meanwhile; nothing was changed, run again"):
        ingest(first, out=out)
    ingest(second, out=tmp_path / "from_scratch")
    assert content_of(out) == content_of(tmp_path / "from_scratch")


def balances(index: pa.Table) -> bool:
    """Whether in every file that was read the events in are those kept plus those dropped by each cause."""
    read = index.filter(pc.is_valid(index["events_in"]))
    total = sum(np.asarray(read[f"dropped_{cause}"]) for cause in CAUSES) + np.asarray(read["events_kept"])
    return bool(np.all(total == np.asarray(read["events_in"])))


@pytest.mark.scale
def test_ten_thousand_files_of_which_one_in_a_hundred_is_broken(tmp_path: Path, scale: float) -> None:
    n = round(10_000 * scale)
    good = write_event_file(tmp_path / "good.fits", columns={"time": [1001.0], "pi": [100]}).read_bytes()
    archive = tmp_path / "archive"
    archive.mkdir()
    for i in range(n):
        content = good.replace(b"'10027   '", b"'%-8d'" % i)
        (archive / f"{i:05d}.fits").write_bytes(content if i % 100 else content[: 100 + i])
    report = ingest(archive, out=tmp_path / "events")
    assert report.counts["detections"] == n - n // 100
    assert sum(n for key, n in report.counts.items() if key.startswith("refused_")) == n // 100
    assert report.exit_code == EXIT_DONE
    account = delta.read(f"{tmp_path}/events.files")
    assert (account.num_rows, balances(account)) == (n, True)
    names = {int(Path(row["file"]).stem) for row in delta.read(report.refusals).to_pylist()}
    assert names == set(range(0, n, 100))


_AGAIN_WITH_A_NEW_FILE = """
import json, sys
from pathlib import Path
from lexray.jobs.ingest import JOB, IngestConfig
from lexray.runtime.config import RayConfig
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.runtime.ray_session import session
from lexray.tables.files import filesystem

inputs, out, local, new = sys.argv[1:]
config = IngestConfig(inputs=[inputs], out=out)
with session(RayConfig()):
    counts = [execute(JOB, config, Progress()).counts]
    store, path = filesystem(new)
    with store.open_output_stream(path) as stream:
        stream.write(Path(local).read_bytes())
    counts.append(execute(JOB, config, Progress()).counts)
print(json.dumps(counts))
"""


def test_from_one_store_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, since Ray's workers find the store by the environment that they were started in."""
    archive = make_archive(tmp_path / "archive", n=4)
    new = write_event_file(tmp_path / "new.fits", header={"OBS_ID": "5000"})
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store, root = filesystem(f"s3://{BUCKET}/in")
        for file in archive.iterdir():
            with store.open_output_stream(f"{root}/{file.name}") as stream:
                stream.write(file.read_bytes())
        out = f"s3://{BUCKET}/tables/events"
        arguments = [f"s3://{BUCKET}/in/*.fits", out, str(new), f"s3://{BUCKET}/in/new.fits"]
        command = [sys.executable, "-c", _AGAIN_WITH_A_NEW_FILE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        first, again = json.loads(done.stdout)
        assert (first["detections"], first["files_new"]) == (4, 4)
        assert [again[f"files_{name}"] for name in ("new", "changed", "unchanged", "gone")] == [1, 0, 4, 0]
        assert delta.read(out).num_rows == 5


def test_bands_by_configuration(tmp_path: Path) -> None:
    file = write_event_file(tmp_path / "a.fits")
    ingest(file, out=tmp_path / "events", bands={"chandra": [0.5, 2, 8]})
    assert delta.read(str(tmp_path / "events"))["bands"].to_pylist() == [[0.5, 2.0, 8.0]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"inputs": ["nowhere/*.fits"]}, "nowhere/\\*.fits"),
        ({"inputs": []}, "'inputs'"),
        ({"out": __file__}, r"out: .*test_ingest\.py is a file; name a folder"),
        ({"out": f"{__file__}/below"}, r"out: .*test_ingest\.py is a file; name a folder"),
        ({"bands": {"rosat": [0.1, 2]}}, "no mission 'rosat'"),
        ({"bands": {"nustar": [0.5, 2]}}, "measures from 3 to 79 keV"),
        ({"bands": {"chandra": [2, 1]}}, "must increase"),
        ({"n_part": 4}, "did you mean 'n_parts'"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        execute(JOB, parse(IngestConfig, {"inputs": [str(tmp_path)], "out": str(tmp_path / "out"), **keys}), Progress())


def test_folders_are_searched_and_files_taken_as_given(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    csc_products = ("acisf1_000N001_r0001_reg3.fits", "acisf1_000N001_r0001_arf3.fits.gz")  # of event files, and none
    files = ("a.fits", "deep/b.EVT", "deep/er/c.fits.gz", "deep/er/d.fit", "e.fits.fz", "notes.txt", "t.parquet")
    for name in (*files, *csc_products):
        (tmp_path / name).touch()
    found = find_event_files([str(tmp_path), str(tmp_path / "notes.txt"), str(tmp_path / "d*" / "b.*")])
    names = [str(Path(file.path).relative_to(tmp_path)) for file in found]
    assert names == sorted(files[:-1])


def test_a_folder_without_event_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=f"{tmp_path}: no .fits"):
        find_event_files([str(tmp_path)])


def test_real_archive_from_the_command_line(cli: Cli, real_events: Path, tmp_path: Path) -> None:
    """A process of its own, with a Ray session of its own: stdout holds one JSON object and nothing else."""
    done = cli.process("ingest", real_events, "--out", tmp_path / "events", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"]["detections"] == 5
    assert report["counts"]["refused_unknown_mission"] == 1
    (refused,) = delta.read(f"{tmp_path}/events.quarantine").to_pylist()
    assert (Path(refused["file"]).name, refused["reason"]) == ("nomission.evt", "unknown_mission")
    rows = delta.read(str(tmp_path / "events"), order="detection_id").to_pylist()
    names = ["M82", "M82", "NGC_300_ULX1", "PSR_J0218+4232", "Fake X-1"]
    assert [row["source_id"] for row in rows] == names
    assert [row["exposure"] for row in rows[:2]] == pytest.approx([857.37, 857.37], abs=0.01)


def test_command_line_shows_what_became_of_everything(cli: Cli, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", n=3)
    (archive / "empty.fits").touch()
    said = [line.split() for line in cli("ingest", archive, "--out", tmp_path / "events").stderr.splitlines()]
    shown = {words[0]: words[1:] for words in said if words}
    assert shown["files"] == ["4", "4", "new;", *shown["files"][3:]]
    assert shown["refused"] == ["1", "1", "empty", "file"]
    assert shown["detections"] == ["3", "of", "2", "sources"]
    assert shown["events"][:2] == ["in", "303"]
    assert int(shown["kept"][0]) + int(shown["dropped"][0]) == 303


def test_command_line_says_which_input_names_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli.process("ingest", tmp_path / "nowhere", "--out", tmp_path / "events")
    assert done.returncode == 2
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr
