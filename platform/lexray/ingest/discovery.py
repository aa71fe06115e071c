"""Find the event files that the inputs of an ingest name."""

import re
from collections.abc import Sequence
from dataclasses import replace

from lexray.events.extraction.csc_products import find_csc_products
from lexray.tables.files import Location, find_all, resolve_path

#: Endings, in any case, of the files that a folder is searched for; each also with ``.gz`` and ``.fz``.
SUFFIXES = (".fits", ".fit", ".fts", ".evt")
#: Products of the Chandra Source Catalog that are no event files: regions, responses, spectra, images of a source.
_COMPANION = re.compile(r"_(reg|arf|rmf|pha|lc|psf|regimg|regexp|aprates|bayesblks|draws)3\.fits")
_ENDINGS = tuple(suffix + packed for suffix in SUFFIXES for packed in ("", ".gz", ".fz"))


def find_event_files(inputs: Sequence[str]) -> list[Location]:
    """The event files that `inputs` name, each once, sorted by path.

    Parameters
    ----------
    inputs : sequence of str
        As for `lexray.tables.files.find_files`.

    Raises
    ------
    ConfigError
        If an input names nothing, or a folder holds no event file: it says which.
    """
    found = find_all(inputs, _is_event_file, f"{', '.join(SUFFIXES)} file")
    named = {resolve_path(given) for given in inputs}
    # A pattern matches these products too; a file that is named by itself is read, whatever it is called.
    return [_with_csc_products(file) for file in found if file.path in named or not _COMPANION.search(file.path)]


def _with_csc_products(file: Location) -> Location:
    """The file, with a stamp that also changes when its regions or its effective area change or appear."""
    products = find_csc_products(file.path)
    stamps = [file.stamp, *(f"{kind} {found.size} {found.stamp}" for kind, found in sorted(products.items()))]
    return replace(file, stamp=", ".join(stamps)) if products else file


def _is_event_file(path: str) -> bool:
    name = path.lower()
    return name.endswith(_ENDINGS) and not _COMPANION.search(name)
