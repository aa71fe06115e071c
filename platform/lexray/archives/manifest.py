"""What has been fetched already: one line per file, appended as it arrives; a killed run costs what was in flight."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class DownloadEntry:
    """A file of the archive and what is known of it here.

    Attributes
    ----------
    key : str
        What was asked for.
    path : str
        Where it lies below the folder; '' until it is whole.
    size : int
        Bytes; 0 until it is whole.
    name : str
        The archive's name of it.
    validator : str
        ETag, or the date of the last change, of the version that is being fetched or was; '' where there is none.
    """

    key: str
    name: str = ""
    path: str = ""
    size: int = 0
    validator: str = ""


class DownloadManifest:
    """Entries by key, in ``manifest.jsonl`` of a folder; the last line of a key counts.

    Parameters
    ----------
    folder : Path
        That files lie in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "manifest.jsonl"
        self._entries: dict[str, DownloadEntry] = {}
        content = self._file.read_text() if self._file.exists() else ""
        if content and not content.endswith("\n"):
            # A run was killed while it wrote the last line: what comes next must not be glued to it.
            with self._file.open("a") as file:
                file.write("\n")
        for line in content.splitlines():
            try:
                entry = DownloadEntry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self._entries[entry.key] = entry

    def __getitem__(self, key: str) -> DownloadEntry:
        return self._entries.get(key, DownloadEntry(key))

    def is_whole(self, key: str) -> bool:
        """Whether the file lies there as it arrived."""
        entry = self[key]
        path = self._folder / entry.path  # of a file that is not whole yet the folder itself, which is no file
        return path.is_file() and path.stat().st_size == entry.size

    def add(self, entry: DownloadEntry) -> None:
        """Remember an entry; on disk before this returns."""
        if self._entries.get(entry.key) != entry:
            self._entries[entry.key] = entry
            with self._file.open("a") as file:
                file.write(json.dumps(asdict(entry)) + "\n")
