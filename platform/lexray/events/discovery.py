"""Which files a person means: files, folders and patterns in, a sorted list of event files out."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lexray.config import resolve_path
from lexray.errors import ConfigError

#: Endings, in any case, of the files that a folder is searched for; each also with ``.gz``.
SUFFIXES = (".fits", ".fit", ".fts", ".evt")
_ENDINGS = tuple(suffix + packed for suffix in SUFFIXES for packed in ("", ".gz"))


def find_event_files(inputs: Sequence[str]) -> list[str]:
    """Absolute paths of the event files that `inputs` name, each once, sorted.

    Parameters
    ----------
    inputs : sequence of str
        Files (taken whatever their ending), folders (every event file below them), or patterns with ``*``, ``?``,
        ``[…]`` and ``**`` (their files as files, their folders as folders).

    Raises
    ------
    ConfigError
        If an input names nothing, or a folder holds no event file: it says which.
    """
    found: set[str] = set()
    for given in inputs:
        path = resolve_path(given)
        if Path(path).exists():
            files = set(_below(path))
        else:
            matches = glob.iglob(path, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
            files = {file for match in matches for file in _below(match)}
        if not files:
            kind = f"no {', '.join(SUFFIXES)} file below it" if Path(path).is_dir() else "no such file, folder or match"
            raise ConfigError(f"inputs: {given}: {kind}")
        found |= files
    return sorted(found)


def _below(path: str) -> Iterator[str]:
    if not Path(path).is_dir():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (f"{folder}/{name}" for name in names if name.lower().endswith(_ENDINGS))
