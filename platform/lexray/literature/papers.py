"""Papers from files: JSONL, CSV and Parquet, one paper a line or row.

Columns that are read, in any case: `source_id`, `ra`, `dec` (deg, ICRS), `bibcode`, `arxiv`, `year`, `title`,
`abstract`, `body`, `n_objects`, `n_citations`, `n_mentions`. Others are ignored.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from lexray.errors import ConfigError, RefusedInput, first_line
from lexray.sources import fold_name, name_from_position
from lexray.tables.files import filesystem
from lexray.tables.quarantine import Refusal

FORMATS = ("jsonl", "ndjson", "csv", "parquet")
_TEXTS = ("bibcode", "arxiv", "title", "abstract", "body")
_INTEGERS = ("year", "n_objects", "n_citations", "n_mentions")
_INT32_MAX = 2**31 - 1
_PARQUET_ROWS = 1024


@dataclass(frozen=True)
class Paper:
    """A paper as a file or a service gives it.

    Attributes
    ----------
    source_id : str
        The source that it says the paper is about; a name made from the position where it gives only that.
    ra, dec : float or None
        The source's position, deg ICRS; both or neither.
    """

    source_id: str
    ra: float | None = None
    dec: float | None = None
    bibcode: str | None = None
    arxiv: str | None = None
    year: int | None = None
    title: str | None = None
    abstract: str | None = None
    body: str | None = None
    n_objects: int | None = None
    n_citations: int | None = None
    n_mentions: int | None = None


def paper_files(inputs: Iterable[str]) -> list[str]:
    """Files behind paths, patterns and URIs; a folder gives those below it that have a known ending.

    Raises
    ------
    ConfigError
        If nothing lies at a path.
    """
    files: list[str] = []
    for path in inputs:
        system, root = filesystem(path)
        info = system.get_file_info(root)
        if info.type == pyarrow.fs.FileType.NotFound:
            matching = [] if "://" in path else sorted(map(str, Path("/").glob(root.removeprefix("/"))))
            if not matching:
                raise ConfigError(f"inputs: {path}: no such file or folder")
            files += matching
        elif info.type != pyarrow.fs.FileType.Directory:
            files.append(path)
        else:
            found = system.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
            below = sorted(f.path.removeprefix(root) for f in found if f.is_file and _format(f.path) in FORMATS)
            files += [path.rstrip("/") + name for name in below]
    return files


def read_papers(path: str) -> Iterator[Paper | Refusal]:
    """Papers of one file in its order; what is malformed comes as a `Refusal` in its place.

    Reasons: `unknown_format`, `unreadable_file`, `bad_encoding`, `bad_json`, `bad_row`, and those of `parse_paper`.
    """
    reader = {"jsonl": _jsonl, "ndjson": _jsonl, "csv": _csv, "parquet": _parquet}.get(_format(path))
    if reader is None:
        yield Refusal(path, "unknown_format", f"papers are read from files that end in {', '.join(FORMATS)}")
        return
    system, root = filesystem(path)
    try:
        for place, row in reader(system, root):
            try:
                yield parse_paper(_object(row))
            except RefusedInput as refused:
                yield Refusal(path, refused.reason, f"{place}: {refused.detail}")
    except (OSError, pa.ArrowException, csv.Error) as error:
        yield Refusal(path, "unreadable_file", first_line(error))


def parse_paper(row: Mapping[str, Any]) -> Paper:
    """A paper from one line's or row's values.

    Raises
    ------
    RefusedInput
        `no_source_id` where neither a name nor a position is given, `no_text` where there is neither abstract nor
        body, `bad_value` where a column does not hold what it should, `bad_encoding` where a text is no Unicode.
    """
    values = {str(key).strip().lower(): value for key, value in row.items()}
    ra, dec = _position(values)
    name = _text(values, "source_id") or ""
    if not fold_name(name):
        if ra is None or dec is None:
            raise RefusedInput("no_source_id", "neither a source_id nor a position")
        name = name_from_position(ra, dec)
    texts = {key: _text(values, key) for key in _TEXTS}
    if not texts["abstract"] and not texts["body"]:
        raise RefusedInput("no_text", f"a paper on {name} has neither an abstract nor a body")
    integers = {key: _integer(values, key) for key in _INTEGERS}
    return Paper(source_id=name, ra=ra, dec=dec, **texts, **integers)  # type: ignore[arg-type]


def _format(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _jsonl(system: pyarrow.fs.FileSystem, path: str) -> Iterator[tuple[str, Any]]:
    with system.open_input_stream(path) as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            if line.strip():
                yield f"line {number}", _json(line)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RefusedInput("bad_encoding", f"not UTF-8: {error.reason} at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return RefusedInput("bad_json", str(error))


def _csv(system: pyarrow.fs.FileSystem, path: str) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(_INT32_MAX)  # a paper's body is longer than the module's default of 131,072 characters
    with system.open_input_stream(path) as stream:
        # Bytes that are not UTF-8 become lone surrogates, for which the row alone is refused later.
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.DictReader(lines)
        for row in reader:
            place = f"line {reader.line_num}"
            # DictReader puts superfluous fields under the key None and fills absent ones with None.
            if None in row or None in row.values():
                expected = len(reader.fieldnames or ())
                yield place, RefusedInput("bad_row", f"the row does not have the header's {expected} columns")
            else:
                yield place, row


def _parquet(system: pyarrow.fs.FileSystem, path: str) -> Iterator[tuple[str, Any]]:
    with system.open_input_file(path) as file:
        batches = pyarrow.parquet.ParquetFile(file).iter_batches(_PARQUET_ROWS)
        for number, row in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), start=1):
            yield f"row {number}", row


def _object(row: Any) -> Mapping[str, Any]:
    if isinstance(row, RefusedInput):
        raise row
    if not isinstance(row, Mapping):
        raise RefusedInput("bad_json", f"expected an object, found {type(row).__name__}")
    return row


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # CSV and Parquet writers turn names such as '4151' into numbers
    if not isinstance(value, str):
        raise RefusedInput("bad_value", f"{key} is {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedInput("bad_encoding", f"{key} holds characters that are not Unicode") from None
    return value.strip() or None


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RefusedInput("bad_value", f"{key} is not a number: {str(value)[:80]!r}") from None
    return None if math.isnan(number) else number


def _integer(values: Mapping[str, Any], key: str) -> int | None:
    number = _number(values, key)
    if number is None:
        return None
    if not number.is_integer() or not 0 <= number <= _INT32_MAX:
        raise RefusedInput("bad_value", f"{key} is not a whole number of 0 or more: {number:g}")
    return int(number)


def _position(values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    ra, dec = _number(values, "ra"), _number(values, "dec")
    if (ra is None) != (dec is None):
        raise RefusedInput("bad_value", "ra and dec come together, one is missing")
    if ra is not None and dec is not None and not (0 <= ra <= 360 and -90 <= dec <= 90):
        raise RefusedInput("bad_value", f"no position in degrees: ra {ra:g}, dec {dec:g}")
    return ra, dec
