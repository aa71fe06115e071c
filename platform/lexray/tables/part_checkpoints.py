"""The parts that a run has finished, stored next to its output: a killed run continues with the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.fs

from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.files import filesystem, write_whole
from lexray.version import __version__


@dataclass(frozen=True)
class FinishedPart:
    """What a worker made of a part.

    Attributes
    ----------
    fragments : sequence of Fragment
        Its file in each output.
    refused : mapping
        What is wrong with each row that was left out, by its name.
    """

    fragments: Sequence[Fragment]
    refused: Mapping[str, str]

    def to_json(self) -> str:
        """For a file, or the way to the driver."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "FinishedPart":
        """What `to_json` wrote."""
        stored = json.loads(text)
        return cls([Fragment(**fragment) for fragment in stored["fragments"]], stored["refused"])


class PartCheckpoints:
    """Finished parts of tables that are being written, a small file each in ``OUT.part_checkpoints``.

    Parameters
    ----------
    outputs : sequence of str
        The tables; the records lie next to the first.
    depends_on : sequence
        Everything that the parts depend on; records of runs with other inputs, settings or outputs are dropped.
    from_scratch : bool
        Drop the records of the same inputs and settings, too.
    """

    def __init__(self, outputs: Sequence[str], depends_on: Sequence[Any], *, from_scratch: bool = False) -> None:
        self._outputs = list(outputs)
        self._system, root = filesystem(outputs[0])
        self._root, key = f"{root}.part_checkpoints", delta.digest([__version__, self._outputs, *depends_on])
        self._folder = f"{self._root}/{key}"
        for info in self._system.get_file_info(pyarrow.fs.FileSelector(self._root, allow_not_found=True)):
            if from_scratch or info.base_name != key:
                self._system.delete_dir(info.path)
        self._system.create_dir(self._folder, recursive=True)

    def finished(self) -> dict[int, FinishedPart]:
        """Finished parts by their numbers, as far as their files exist and are complete."""
        found = {}
        for info in self._system.get_file_info(pyarrow.fs.FileSelector(self._folder, allow_not_found=True)):
            if info.extension != "json":
                continue
            with self._system.open_input_stream(info.path) as stream:
                part = FinishedPart.from_json(stream.readall())
            if all(map(_is_complete, self._outputs, part.fragments)):
                found[int(info.base_name.removesuffix(".json"))] = part
        return found

    def write(self, part: int, finished: FinishedPart) -> None:
        """Record a finished part; the worker that wrote it calls this, so that nothing is lost if the driver dies."""
        write_whole(self._system, f"{self._folder}/{part}.json", finished.to_json().encode())

    def remove(self) -> None:
        """Delete the records, once the tables are committed."""
        self._system.delete_dir(self._root)


def _is_complete(table: str, fragment: Fragment) -> bool:
    system, root = filesystem(table)
    written = system.get_file_info(f"{root}/{fragment.path}")
    return bool(written.is_file and written.size == fragment.size)
