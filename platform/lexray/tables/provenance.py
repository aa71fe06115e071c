"""How an output was made: `_lexray.json` in its folder, written last."""

import json
from typing import Any

from lexray.tables.files import filesystem, write_whole

PROVENANCE_FILE = "_lexray.json"


def read_provenance(out: str) -> dict[str, Any] | None:
    """The provenance that the job stored when it wrote `out`, or None."""
    system, root = filesystem(out)
    path = f"{root}/{PROVENANCE_FILE}"
    if not system.get_file_info(path).is_file:
        return None
    with system.open_input_stream(path) as stream:
        return dict(json.loads(stream.readall()))


def write_provenance(out: str, provenance: dict[str, Any]) -> None:
    """Store how `out` was made; it is written last, so that its presence means the output is complete."""
    system, root = filesystem(out)
    system.create_dir(root, recursive=True)
    write_whole(system, f"{root}/{PROVENANCE_FILE}", json.dumps(provenance, indent=1, default=str).encode())


def remove_provenance(out: str) -> None:
    """Remove the provenance of `out`, before its content changes."""
    system, root = filesystem(out)
    path = f"{root}/{PROVENANCE_FILE}"
    if system.get_file_info(path).is_file:
        system.delete_file(path)
