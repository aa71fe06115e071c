"""The connector of files: their papers are read in order and then matched to the sources."""

from collections import Counter
from collections.abc import Iterator, Sequence

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
        self._counts: Counter[str] = Counter(files=len(files))

    def counts(self) -> dict[str, int]:
        """Counts of files and papers so far."""
        return {"files": self._counts["files"], "papers": self._counts["papers"]}

    def papers(self, sources: Sequence[TargetSource] = (), known: Sequence[PaperMatch] = ()) -> FoundPapers:
        """Papers of all files; see `connectors.Connector`. A file is read whole whichever sources are asked for."""
        papers: list[Paper] = []
        for file in self._files:
            for item in read_papers(file):
                if isinstance(item, Refusal):
                    yield item
                    continue
                papers.append(item)
                if len(papers) == _CHUNK:
                    yield from self._matched(papers)
                    papers = []
        yield from self._matched(papers)

    def _matched(self, papers: Sequence[Paper]) -> Iterator[PaperMatch]:
        self._counts["papers"] += len(papers)
        for paper, match in zip(papers, self._catalogue.match(papers, self._radius), strict=True):
            yield PaperMatch(paper, match, "file")
