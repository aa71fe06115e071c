"""Products next to a per-source event file of the Chandra Source Catalog: its regions and its effective area."""

import re
from functools import lru_cache
from pathlib import Path

from lexray.events.extraction.regions import region_file_of
from lexray.tables.files import Location, find_files

#: The version in a product's name (N028): each product's counts by itself.
_VERSION = re.compile(r"(?<=\d)N\d{3}(?=_)")


def find_csc_products(event_file: str) -> dict[str, Location]:
    """Find the regions ('reg3') and effective area ('arf3') next to a file, as far as they exist.

    The file's own version of each is preferred, and then the latest.

    Parameters
    ----------
    event_file : str
        Path or URI; only a per-source event file has products.
    """
    regions = region_file_of(event_file)
    if regions is None:
        return {}
    wanted = {"reg3": regions, "arf3": regions.replace("_reg3.fits", "_arf3.fits")}
    return {kind: found for kind, path in wanted.items() if (found := _find(path)) is not None}


def _find(path: str) -> Location | None:
    exact = find_files(path, lambda _: True)
    if exact:
        return exact[0]
    if "://" in path:
        return max(find_files(_VERSION.sub("N*", path), lambda _: True), default=None)
    folder, _, name = path.rpartition("/")
    place = Path(folder or ".")
    if not place.is_dir():
        return None
    pattern = re.compile(_VERSION.sub("N[0-9][0-9][0-9]", re.escape(name)))
    versions = [other for other in _names(str(place), place.stat().st_mtime_ns) if pattern.fullmatch(other)]
    return find_files(str(place / max(versions)), lambda _: True)[0] if versions else None


@lru_cache(maxsize=16)  # a folder may hold all files of a catalogue, and its listing is the same for each of them
def _names(folder: str, changed: int) -> tuple[str, ...]:
    """Names of the regions and areas in a folder that changed last at a time."""
    return tuple(path.name for path in Path(folder).iterdir() if "_reg3" in path.name or "_arf3" in path.name)
