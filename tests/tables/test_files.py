"""Files in folders, patterns, lists, object stores and on web servers."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest

from doubles.s3_server import BUCKET, s3_server
from lexray.errors import ConfigError, LexrayError
from lexray.events.reader import read_events
from lexray.jobs.registry import load_job
from lexray.runtime.config import parse
from lexray.tables import delta, files
from lexray.tables.files import contents, find_files, read_bytes, resolve_path
from lexray.tables.schemas import QUARANTINE

NAMES = ["a.fits", "b.txt", "deep/c.evt", "deep/er/d.fits"]


def wanted(path: str) -> bool:
    return path.endswith((".fits", ".evt"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "archive"


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    files._store.cache_clear()
    system, path = pyarrow.fs.FileSystem.from_uri(f"s3://{BUCKET}")
    for name in NAMES:
        with system.open_output_stream(f"{path}/files/{name}") as stream:
            stream.write(name.encode())
    return f"s3://{BUCKET}"


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ["a.fits", "deep/c.evt", "deep/er/d.fits"]),
        ("b.txt", ["b.txt"]),
        ("*.t*", ["b.txt"]),
        ("**/*.fits", ["a.fits", "deep/er/d.fits"]),
        ("d??p", ["deep/c.evt", "deep/er/d.fits"]),
        ("nothing*", []),
    ],
)
def test_local_files(folder: Path, given: str, expected: list[str]) -> None:
    found = find_files(f"{folder}/{given}", wanted)
    assert [str(Path(file.path).relative_to(folder)) for file in found] == expected
    for file in found:
        status = Path(file.path).stat()
        assert (file.size, file.stamp) == (status.st_size, str(status.st_mtime_ns))


def test_a_list_names_files_beside_it_and_elsewhere(folder: Path, tmp_path: Path) -> None:
    listed = folder / "deep" / "files.lis"
    listed.write_text(f"c.evt  # the first\n\n# nothing\n../a.fits\n{folder}/b.txt\n")
    found = [Path(file.path).resolve() for file in find_files(f"@{listed}", wanted)]
    assert sorted(found) == sorted(folder / name for name in ("a.fits", "b.txt", "deep/c.evt"))
    with pytest.raises(ConfigError, match=r"nowhere\.lis: cannot be read as a list"):
        find_files(f"@{tmp_path}/nowhere.lis", wanted)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("files", ["a.fits", "deep/c.evt", "deep/er/d.fits"]),
        ("files/", ["a.fits", "deep/c.evt", "deep/er/d.fits"]),
        ("files/b.txt", ["b.txt"]),
        ("files/**/*.fits", ["a.fits", "deep/er/d.fits"]),
        ("files/deep/*.evt", ["deep/c.evt"]),
        ("elsewhere", []),
    ],
)
def test_files_of_a_store(bucket: str, given: str, expected: list[str]) -> None:
    found = find_files(f"{bucket}/{given}", wanted)
    assert [file.path for file in found] == [f"{bucket}/files/{name}" for name in expected]
    for file, name in zip(found, expected, strict=True):
        assert file.size == len(name)
        assert int(file.stamp) > 0
        assert read_bytes(file.path) == name.encode()


def test_a_key_may_hold_an_at_and_a_star_stays_within_a_folder(bucket: str) -> None:
    system, path = pyarrow.fs.FileSystem.from_uri(bucket)
    with system.open_output_stream(f"{path}/odd/x@y.fits") as stream:
        stream.write(b"odd")
    (found,) = find_files(f"{bucket}/odd", wanted)
    assert (found.path, read_bytes(found.path)) == (f"{bucket}/odd/x@y.fits", b"odd")
    assert find_files(f"{bucket}/odd/x@y.fits", wanted) == [found]
    assert [file.path for file in find_files(f"{bucket}/files/*.fits", wanted)] == [f"{bucket}/files/a.fits"]


def test_a_link_that_leads_back_and_one_that_leads_nowhere(folder: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "dangling.fits").symlink_to(folder / "none.fits")
    found = {Path(file.path).name: file for file in find_files(str(folder), wanted)}
    assert set(found) == {"a.fits", "c.evt", "d.fits", "dangling.fits"}
    assert found["dangling.fits"].size == -1


def test_files_of_a_web_server(web: str) -> None:
    (found,) = find_files(f"{web}/deep/c.evt", wanted)
    assert (found.path, found.size) == (f"{web}/deep/c.evt", len("deep/c.evt"))
    assert found.stamp
    assert f"{web}/a.fits" in [file.path for file in find_files(f"{web}/", wanted)]
    assert find_files(f"{web}/none.fits", wanted) == []


def test_contents_come_in_order_and_an_error_stops_nothing(bucket: str, folder: Path, web: str) -> None:
    paths = [f"{bucket}/files/{name}" for name in NAMES] * 10
    assert list(contents(paths)) == [(path, path.removeprefix(f"{bucket}/files/").encode()) for path in paths]
    mixed = [f"{folder}/none", f"{bucket}/none", f"{web}/none", f"{folder}/a.fits"]
    found = dict(contents(mixed))
    assert found.pop(f"{folder}/a.fits") == b"a.fits"
    assert all(isinstance(error, FileNotFoundError) for error in found.values())


def test_a_store_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9/a\.fits: cannot be looked into"):
        find_files("http://127.0.0.1:9/a.fits", wanted)


def test_of_two_writers_in_a_store_one_fails_and_says_so(bucket: str) -> None:
    """The store's conditional writes carry the log: a commit over a version that is no longer the last one fails."""
    table = f"{bucket}/table"
    rows = [pa.table({"file": [name]}) for name in "abc"]
    fragments = [delta.write_part(table, QUARANTINE, 0, row) for row in rows]
    assert delta.commit_over(table, "quarantine", QUARANTINE, fragments[:1], None, ("mark", 7)) == 0
    with pytest.raises(LexrayError, match="another run wrote this table"):
        delta.commit_over(table, "quarantine", QUARANTINE, fragments[1:2], None, ("mark", 8))
    assert delta.commit_over(table, "quarantine", QUARANTINE, fragments[1:2], 0, ("mark", 8)) == 1
    with pytest.raises(LexrayError, match="another run wrote this table"):
        delta.commit_over(table, "quarantine", QUARANTINE, fragments[2:], 0, ("mark", 9))
    assert delta.read_mark(table, "mark") == (1, 8)
    assert delta.read(table)["file"].to_pylist() == ["b"]


_SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{_SECRET}@bucket/a.fits",
        f"s3://AKIAEXAMPLE:{_SECRET}/K7MDENG@bucket/a.fits",
        f"s3://{_SECRET}@bucket/",
        f"@s3://AKIAEXAMPLE:{_SECRET}@bucket/files.lis",
        f"s3://bucket/a.fits?region=eu&secret_key={_SECRET}",
        f"gs://name:{_SECRET}@bucket/a.fits",
        f"https://name:{_SECRET}@archive.org/a.fits",
        f"https://name:{_SECRET}/7@archive.org/a.fits",
        f"https://bucket.s3.amazonaws.com/a.fits?X-Amz-Expires=60&X-Amz-Signature={_SECRET}",
        f"https://account.blob.core.windows.net/c/a.fits?sv=2024&sig={_SECRET}",
        f"https://archive.org/a.fits?access_token={_SECRET}",
        f"https://{_SECRET}@archive.org/a.fits",
        f"https://archive.org/a.fits?sessionid={_SECRET}",
        f"https://archive.org/a.fits;jsessionid={_SECRET}",
        f"https://archive.org/a.fits#token={_SECRET}",
    ],
)
def test_a_path_that_holds_credentials_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match="credentials") as refused:
        find_files(uri, wanted)
    assert _SECRET not in str(refused.value)
    with pytest.raises(ConfigError, match="'inputs'") as refused:
        parse(load_job("ingest").config, {"inputs": [uri], "out": "events"}, "lexray ingest")
    assert _SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/odd/x@y:z.fits",
        "s3://bucket/a.fits?region=eu-west-1&endpoint_override=localhost:9000",
        "gs://anonymous@bucket/a.fits",
        "https://archive.org:8443/a.fits?obsid=10027&keyword=x",
        "https://[::1]:8443/a.fits",
        "hdfs://somebody@namenode:8020/a.fits",
        "abfs://container@account.dfs.core.windows.net/a.fits",
        "https://archive.org/a;b.fits#section",
    ],
)
def test_a_path_without_credentials_is_taken(uri: str) -> None:
    assert resolve_path(uri) == uri


def test_a_list_of_files_and_the_way_to_read_one_refuse_credentials_too(tmp_path: Path) -> None:
    uri = f"s3://AKIAEXAMPLE:{_SECRET}@bucket/a.fits"
    (tmp_path / "files.lis").write_text(uri)
    for use in (lambda: find_files(f"@{tmp_path}/files.lis", wanted), lambda: read_events(uri)):
        with pytest.raises(ConfigError, match="AWS_PROFILE") as refused:
            use()
        assert _SECRET not in str(refused.value)
