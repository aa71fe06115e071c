"""Files on disks, in object stores and on web servers: a person's paths, patterns, lists and URIs → each file once.

Local paths go through the operating system, the URIs that pyarrow knows (``s3://``, ``gs://`` …) through pyarrow.fs,
``https://`` through fsspec. Credentials and endpoints come from the environment, as each store's own tools take them
(AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS …). A URI that holds them itself is refused: paths are written to
tables, logs and MLflow.
"""

import fnmatch
import functools
import glob
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from lexray.errors import ConfigError, one_line

#: Files of a store that a process fetches ahead of the one it works on: a store answers slowly, but many at once.
_FETCHED_AHEAD = 16
_WEB = ("http", "https")
#: Schemes whose URIs begin with a bucket, which has neither a user nor a port.
_BUCKETS = ("s3", "s3a", "gs", "gcs")
#: User name by which Google's store is read without credentials.
_ANONYMOUS = "anonymous@"
#: Keys of a URI's query that hold a secret, or the signature of a signed link.
_SECRET = re.compile(
    r"secret|passw|token|signature|credential|session|^sig$|(access|account|api|sas|private)[-_]?key|^key$|^auth",
    re.IGNORECASE,
)
_WHERE_CREDENTIALS_BELONG = {
    "s3": "they belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile that AWS_PROFILE names",
    "gs": "they belong in the file that GOOGLE_APPLICATION_CREDENTIALS names",
}
_OF_OTHERS = (
    "download such files first, or name them in an object store that takes its credentials from the environment"
)


def require_local_path(path: str) -> str:
    """Validator of keys that name a local folder.

    Raises
    ------
    ValueError
        If `path` is a URI.
    """
    if "://" in path:
        raise ValueError("it takes a local folder, which all nodes of a cluster mount; object stores hold tables only")
    return path


def resolve_path(path: str) -> str:
    """Absolute form of a local path, also of one behind the ``@`` of a list; URIs (``s3://…``) stay as they are.

    Raises
    ------
    ConfigError
        If a URI holds credentials.
    """
    if path.startswith("@"):
        return "@" + resolve_path(path[1:])
    if "://" not in path:
        return str(Path(path).expanduser().resolve())
    refuse_credentials(path)
    return path


def refuse_credentials(uri: str) -> None:
    """Refuse a URI that holds a key, a password or a signature, without repeating it: see `credentials_in`.

    Raises
    ------
    ConfigError
        It says where credentials belong.
    """
    if problem := credentials_in(uri):
        raise ConfigError(problem)


def credentials_in(uri: str) -> str:
    """Why a URI is refused that holds a key, a password or a signature, and where they belong; else ''.

    Parameters
    ----------
    uri : str
        With a scheme. Refused are a user's name before a bucket (``s3://KEY:SECRET@bucket``; Google's ``anonymous``
        is none) and before a web host (``https://TOKEN@host``), a password before any host, and a query, parameter or
        fragment that names a secret (``?secret_key=…``, ``?X-Amz-Signature=…``, ``;jsessionid=…``).
    """
    scheme, _, rest = uri.partition("://")
    place = re.split("[?#]", rest, maxsplit=1)[0]
    parameters = re.split("[?&;#]", rest)[1:]
    user, at, host = place.partition("/")[0].rpartition("@")
    names_bucket, names_nobody = scheme.lower() in _BUCKETS, scheme.lower() in (*_BUCKETS, *_WEB)
    # A secret may hold a slash: then what stands before the slash ends in neither a bucket nor a port.
    cut_off = ":" in host if names_bucket else not re.fullmatch(r"[^:]*(:\d*)?|\[.*\](:\d*)?", host)
    names_secret = any(_SECRET.search(item.partition("=")[0]) for item in parameters)
    if not (cut_off or names_secret or (at and (":" in user or (names_nobody and f"{user}@" != _ANONYMOUS)))):
        return ""
    return (
        f"a {scheme}:// path holds credentials, which would be written to tables and logs: leave them out of it; "
        f"{_WHERE_CREDENTIALS_BELONG.get(scheme.lower(), _OF_OTHERS)}"
    )


def filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """pyarrow file system and path of a local path or an object store's URI."""
    system, path = pyarrow.fs.FileSystem.from_uri(resolve_path(uri))
    return system, path


def write_whole(system: pyarrow.fs.FileSystem, path: str, content: bytes) -> None:
    """Write a small file that appears whole or not at all, whoever reads it meanwhile."""
    temporary = f"{path}.{uuid.uuid4().hex}"
    with system.open_output_stream(temporary) as stream:
        stream.write(content)
    system.move(temporary, path)


@dataclass(frozen=True, order=True)
class Location:
    """A file, with the size and stamp by which a change is noticed.

    Attributes
    ----------
    path : str
        Absolute path, or URI.
    size : int
        Bytes; −1 where a web server does not say.
    stamp : str
        Modification time in nanoseconds, or a web server's ETag or Last-Modified; '' where it sends neither.
    """

    path: str
    size: int
    stamp: str


def find_files(given: str, wanted: Callable[[str], bool]) -> list[Location]:
    """Files that one input names, sorted.

    Parameters
    ----------
    given : str
        A file (read whatever it is called); a folder (every wanted file below it); a pattern with ``*``, ``?``,
        ``[…]`` and ``**`` (in a URI without ``?``, which begins its query); or ``@`` and a list of any of these, one
        a line, relative ones to the list's folder, with ``#`` before a comment.
    wanted : callable
        Whether a file below a folder is to be taken, by its path.

    Returns
    -------
    list of Location
        Empty where the input names nothing.

    Raises
    ------
    ConfigError
        If a list cannot be read, or a store refuses access.
    """
    if given.startswith("@"):
        return sorted({found for line in _lines(given) for found in find_files(line, wanted)})
    path = resolve_path(given)
    if "://" not in path:
        return sorted(_local(path, wanted))
    try:
        return sorted(_of_web(path, wanted) if path.startswith(_WEB) else _of_store(path, wanted))
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise ConfigError(f"{given}: cannot be looked into: {one_line(error)}") from None


def sha256_of(path: Path) -> str:
    """Hash of a local file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_bytes(path: str) -> bytes:
    """Content of a file.

    Raises
    ------
    OSError
        If it cannot be read; FileNotFoundError if it is not there.
    """
    if "://" not in path:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs half as much as reading the file)
            return file.read()
    if path.startswith(_WEB):
        return bytes(_web(path.partition(":")[0]).cat_file(path))
    system, inner = _store_of(path)
    with system.open_input_stream(inner) as stream:
        return bytes(stream.read())


def contents(paths: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
    """Each file's path with its content, or with the error of its reading; files in stores are fetched ahead."""
    paths = list(paths)
    if all("://" not in path for path in paths):
        yield from ((path, _content(path)) for path in paths)
        return
    with ThreadPoolExecutor(_FETCHED_AHEAD) as pool:
        left = iter(paths)
        ahead: list[tuple[str, Future[bytes | OSError]]] = []
        while ahead := ahead + [
            (path, pool.submit(_content, path)) for path in islice(left, _FETCHED_AHEAD - len(ahead))
        ]:
            path, fetched = ahead.pop(0)
            yield path, fetched.result()


def _content(path: str) -> bytes | OSError:
    try:
        return read_bytes(path)
    except OSError as error:
        return error
    except Exception as error:  # aiohttp's are no OSErrors
        return OSError(one_line(error))


def _lines(given: str) -> list[str]:
    path = resolve_path(given.removeprefix("@"))
    try:
        text = read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given}: cannot be read as a list of files: {one_line(error)}") from None
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    folder = path.rpartition("/")[0]
    return [line if "://" in line or line.startswith("/") else f"{folder}/{line}" for line in lines if line]


def _local(path: str, wanted: Callable[[str], bool]) -> Iterator[Location]:
    # Path.glob takes no absolute pattern.
    matches = {path} if Path(path).exists() else set(glob.iglob(path, recursive=True))  # noqa: PTH207
    for match in matches:
        yield from _below(match, wanted)


def _below(path: str, wanted: Callable[[str], bool], seen: frozenset[str] = frozenset()) -> Iterator[Location]:
    if not os.path.isdir(path):  # noqa: PTH112 (a million of them: without an object each)
        yield _on_disk(path, os.stat(path))  # noqa: PTH116
        return
    seen = seen | {os.path.realpath(path)}
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                if not entry.is_symlink() or os.path.realpath(entry.path) not in seen:  # a link may lead back up
                    yield from _below(entry.path, wanted, seen)
            elif wanted(entry.path):
                try:
                    yield _on_disk(entry.path, entry.stat())
                except OSError:  # gone meanwhile, or a link to nowhere: whoever reads it will say so
                    yield Location(entry.path, -1, "")


def _on_disk(path: str, status: os.stat_result) -> Location:
    return Location(path, status.st_size, str(status.st_mtime_ns))


def _of_store(uri: str, wanted: Callable[[str], bool]) -> Iterator[Location]:
    system, path = _store_of(uri)
    scheme, _, rest = uri.partition("://")
    query = "?" + rest.partition("?")[2] if "?" in rest else ""
    user = _ANONYMOUS if rest.startswith(_ANONYMOUS) else ""

    def location(info: pyarrow.fs.FileInfo) -> Location:
        return Location(f"{scheme}://{user}{info.path}{query}", info.size, str(info.mtime_ns))

    if any(mark in path for mark in "*["):
        # A store has no folders to walk: everything below the part before the first wildcard is listed and matched.
        base = path[: min(path.index(mark) for mark in "*[" if mark in path)].rpartition("/")[0]
        matches = _pattern(path).fullmatch
        infos = system.get_file_info(pyarrow.fs.FileSelector(base, recursive=True))
        yield from (location(info) for info in infos if info.is_file and matches(info.path))
        return
    info = system.get_file_info(path.rstrip("/"))
    if info.is_file:
        yield location(info)
    elif info.type == pyarrow.fs.FileType.Directory:
        infos = system.get_file_info(pyarrow.fs.FileSelector(info.path, recursive=True))
        yield from (location(info) for info in infos if info.is_file and wanted(info.path))


def _pattern(path: str) -> re.Pattern[str]:
    """Regular expression of a pattern: a star stays within a folder, ``**/`` is any number of them."""
    folders = [r"(?:[^/]+/)*" if part == "**" else _within_folder(part) + "/" for part in path.split("/")]
    return re.compile("".join(folders).removesuffix("/"))


def _within_folder(part: str) -> str:
    return fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").replace(".*", "[^/]*")


def _of_web(url: str, wanted: Callable[[str], bool]) -> Iterator[Location]:
    web = _web(url.partition(":")[0])
    links = [link for link in web.find(url) if wanted(link)] if url.endswith("/") else [url]
    for link in links:
        try:
            info = web.info(link)
        except FileNotFoundError as error:  # fsspec's word for whatever went wrong
            if error.__cause__ is None or getattr(error.__cause__, "status", None) == 404:
                continue
            raise OSError(one_line(error.__cause__)) from None
        stamp = info.get("ETag") or info.get("Last-Modified") or ""
        yield Location(link, -1 if info.get("size") is None else int(info["size"]), stamp)


@functools.cache
def _store(authority: str) -> pyarrow.fs.FileSystem:
    return pyarrow.fs.FileSystem.from_uri(authority)[0]


def _store_of(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """File system, one a bucket and process, and path in it."""
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    bucket = place.partition("/")[0]
    return _store(f"{scheme}://{bucket}" + (f"?{query}" if query else "")), place.removeprefix(_ANONYMOUS)


@functools.cache
def _web(scheme: str) -> Any:
    import fsspec

    return fsspec.filesystem(scheme)


def find_all(inputs: Sequence[str], wanted: Callable[[str], bool], kind: str) -> list[Location]:
    """Files that several inputs name, each once, sorted.

    Parameters
    ----------
    inputs, wanted
        As for `find_files`.
    kind : str
        Kind of files, for the error message.

    Raises
    ------
    ConfigError
        If an input names nothing; the message says which.
    """
    found: set[Location] = set()
    for given in inputs:
        files = find_files(given, wanted)
        if not files:
            empty = "://" not in given and Path(resolve_path(given)).is_dir()
            raise ConfigError(f"inputs: {given}: {f'no {kind} below it' if empty else 'no such file, folder or match'}")
        found.update(files)
    return sorted(found)
