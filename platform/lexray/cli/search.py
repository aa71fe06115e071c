"""`lexray search`: search a release with a sentence or an event file, without a service."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from lexray.errors import ConfigError
from lexray.events.reader import read_events
from lexray.release.aligned import load_aligned
from lexray.release.index import MODALITIES, Hit


def search(release: str, query: str, k: int = 10, modality: str | None = None) -> list[Hit]:
    """The k sources of a release that are nearest to a query.

    Parameters
    ----------
    release : str
        Folder of the release.
    query : str
        Path of an event file, if there is one of that name; else a sentence.
    k : int
        How many.
    modality : {'xray', 'text'}, optional
        Compare with vectors of this modality only.

    Raises
    ------
    LexrayError
        If the release does not open, or the event file is refused.
    """
    if modality is not None and modality not in MODALITIES:
        raise ConfigError(f"--modality: expected {' or '.join(MODALITIES)}, got '{modality}'")
    aligned = load_aligned(release)
    return aligned.search(read_events(query) if Path(query).is_file() else query, k, modality)


def table(hits: list[Hit]) -> Table:
    """For people."""
    shown = Table("score", "source", "class", "what the literature says", box=None, pad_edge=False)
    for hit in hits:
        summary = hit.known.get("summary") or "no summary"
        shown.add_row(f"{hit.score:.3f}", Text(hit.source_id), Text(hit.known.get("class") or ""), Text(summary))
    return shown
