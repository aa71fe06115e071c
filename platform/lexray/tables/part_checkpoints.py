"""What a run has written so far, beside its output: a run that was killed goes on from there when it is run again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow.fs

from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.files import filesystem
from lexray.version import __version__


class PartCheckpoints:
    """Fragments of a table that is being written, a small file each in ``OUT.journal``.

    Parameters
    ----------
    out : str
        The table.
    made_of : sequence
        All that decides what is written; what runs of other inputs or settings noted is dropped.
    from_scratch : bool
        Drop what a run of the same noted, too.
    """

    def __init__(self, out: str, made_of: Sequence[Any], *, from_scratch: bool = False) -> None:
        self._out = out
        self._system, root = filesystem(out)
        self._root, key = f"{root}.journal", delta.digest([__version__, *made_of])
        self._folder = f"{self._root}/{key}"
        for info in self._system.get_file_info(pyarrow.fs.FileSelector(self._root, allow_not_found=True)):
            if from_scratch or info.base_name != key:
                self._system.delete_dir(info.path)
        self._system.create_dir(self._folder, recursive=True)

    def finished(self) -> dict[int, Fragment]:
        """Fragments by part, of those whose files are there and whole."""
        found = {}
        for info in self._system.get_file_info(pyarrow.fs.FileSelector(self._folder, allow_not_found=True)):
            fragment = self._read(info.path) if info.extension == "json" else None
            if fragment is not None:
                found[fragment.part] = fragment
        return found

    def _read(self, path: str) -> Fragment | None:
        with self._system.open_input_stream(path) as stream:
            fragment = Fragment(**json.loads(stream.readall()))
        system, root = filesystem(self._out)
        written = system.get_file_info(f"{root}/{fragment.path}")
        return fragment if written.is_file and written.size == fragment.size else None

    def note(self, fragment: Fragment) -> None:
        """A part is done; called by the worker that wrote it, so that a dead driver costs nothing."""
        place = f"{self._folder}/{fragment.part}"
        with self._system.open_output_stream(f"{place}.new") as stream:
            stream.write(json.dumps(asdict(fragment)).encode())
        self._system.move(f"{place}.new", f"{place}.json")  # whole or not at all

    def remove(self) -> None:
        """The table is committed."""
        self._system.delete_dir(self._root)
