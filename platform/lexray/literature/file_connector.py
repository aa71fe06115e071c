"""The connector of files: their papers are read in order and then matched to the sources."""

from collections.abc import Sequence
from itertools import chain, islice

from lexray.literature.connectors import FoundPapers, PaperMatch
from lexray.literature.crossmatch import SourceCatalogue
from lexray.literature.papers import Paper, read_papers
from lexray.literature.sources import TargetSource
from lexray.tables.quarantine import Refusal

#: Papers that are held in memory at a time.
_CHUNK = 10_000


class FileConnector:
    """Papers of JSONL, CSV and Parquet files.

    Parameters
    ----------
    files : sequence of str
    catalogue : SourceCatalogue
        Sources that papers are matched to. A paper about none of them keeps its own source name.
    radius : float
        Largest separation of a match by position, arcsec.
    """

    def __init__(self, files: Sequence[str], catalogue: SourceCatalogue, radius: float) -> None:
        self._files, self._catalogue, self._radius = files, catalogue, radius
        self._n_papers = 0

    def counts(self) -> dict[str, int]:
        """Counts of files and papers so far."""
        return {"files": len(self._files), "papers": self._n_papers}

    def papers(self, sources: Sequence[TargetSource] = (), known: Sequence[PaperMatch] = ()) -> FoundPapers:
        """Papers of all files; see `connectors.Connector`. A file is read whole whichever sources are asked for."""
        found = chain.from_iterable(map(read_papers, self._files))
        while items := list(islice(found, _CHUNK)):
            yield from (item for item in items if isinstance(item, Refusal))
            papers = [item for item in items if isinstance(item, Paper)]
            self._n_papers += len(papers)
            for paper, match in zip(papers, self._catalogue.match(papers, self._radius), strict=True):
                yield PaperMatch(paper, match, "file")
