"""The parts that a run has finished, stored next to its output: a killed run continues with the others."""

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
    """Fragments of a table that is being written, a small file each in ``OUT.part_checkpoints``.

    Parameters
    ----------
    out : str
        The table.
    depends_on : sequence
        Everything that the parts depend on; records of runs with other inputs or settings are dropped.
    from_scratch : bool
        Drop the records of the same inputs and settings, too.
    """

    def __init__(self, out: str, depends_on: Sequence[Any], *, from_scratch: bool = False) -> None:
        self._out = out
        self._system, root = filesystem(out)
        self._root, key = f"{root}.part_checkpoints", delta.digest([__version__, *depends_on])
        self._folder = f"{self._root}/{key}"
        for info in self._system.get_file_info(pyarrow.fs.FileSelector(self._root, allow_not_found=True)):
            if from_scratch or info.base_name != key:
                self._system.delete_dir(info.path)
        self._system.create_dir(self._folder, recursive=True)

    def finished(self) -> dict[int, Fragment]:
        """Fragments by part, as far as their files exist and are complete."""
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

    def write(self, fragment: Fragment) -> None:
        """Record a finished part; the worker that wrote it calls this, so that nothing is lost if the driver dies."""
        place = f"{self._folder}/{fragment.part}"
        with self._system.open_output_stream(f"{place}.new") as stream:
            stream.write(json.dumps(asdict(fragment)).encode())
        self._system.move(f"{place}.new", f"{place}.json")  # whole or not at all

    def remove(self) -> None:
        """Delete the records, once the table is committed."""
        self._system.delete_dir(self._root)
