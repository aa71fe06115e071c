"""Write the `literature` table, one row per paper and source; papers wait on disk until all are collected."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lexray.literature.connectors import PaperMatch
from lexray.literature.deduplicate import deduplicate, select_papers
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.schemas import LITERATURE

_ROWS_PER_FILE = 10_000


@dataclass
class WrittenLiterature:
    """The table's files, and how many papers were kept, merged and left out.

    Attributes
    ----------
    fragments : list of Fragment
        For `delta.commit`.
    counts : Counter
        papers, duplicates (of files), without_abstract, left_out_catalogues, left_out_surplus, left_out_no_text;
        matched_by_name, matched_by_position, unmatched; from_file, from_simbad, from_ads.
    sources : set of str
        Matched sources that have a paper.
    """

    fragments: list[Fragment] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)


class LiteratureTableWriter:
    """Collects papers and writes the table; use it in a ``with`` block.

    Memory holds one part at a time, so that the literature on a large archive need not fit.

    Parameters
    ----------
    out : str
        The table.
    n_parts : int
        Its parts.
    max_objects : int or None
        Papers that treat more objects are left out.
    max_papers : int or None
        Papers of a source that are kept, the best ranked first.
    """

    def __init__(self, out: str, n_parts: int, max_objects: int | None, max_papers: int | None) -> None:
        self._out, self._n_parts = out, n_parts
        self.max_objects, self.max_papers = max_objects, max_papers
        self._folder = tempfile.TemporaryDirectory(prefix="lexray-literature-")
        self._fragments: dict[int, list[str]] = {}

    def __enter__(self) -> "LiteratureTableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, found: Iterable[PaperMatch]) -> None:
        """Store papers on disk until `write`."""
        items = iter(found)
        while some := list(islice(items, _ROWS_PER_FILE)):
            rows = pa.Table.from_pylist([item.row() for item in some], schema=LITERATURE)
            for fragment in delta.write_by_source(self._folder.name, LITERATURE, self._n_parts, rows):
                self._fragments.setdefault(fragment.part, []).append(fragment.path)

    def write(self) -> WrittenLiterature:
        """Write the table's files, the rows of a source together and the best first."""
        written = WrittenLiterature()
        for part in sorted(self._fragments):
            rows = [
                row
                for of_one in self._sources(part)
                for row in _select_source_papers(of_one, written, self.max_objects, self.max_papers)
            ]
            if rows:
                table = pa.Table.from_pylist(rows, schema=LITERATURE)
                written.fragments.append(delta.write_part(self._out, LITERATURE, part, table))
        return written

    def _sources(self, part: int) -> Iterator[list[dict[str, Any]]]:
        """Rows of a part, source by source."""

        def key(row: dict[str, Any]) -> str:
            return fold_name(row["source_id"])

        paths = [Path(self._folder.name, path) for path in self._fragments[part]]
        rows = [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]
        # sorted() keeps the order of a source's rows
        return (list(of_one) for _, of_one in groupby(sorted(rows, key=key), key))


def _select_source_papers(
    rows: list[dict[str, Any]], written: WrittenLiterature, max_objects: int | None, max_papers: int | None
) -> list[dict[str, Any]]:
    merged = deduplicate(rows)
    with_text = [row for row in merged if row["title"] or row["abstract"] or row["body"]]
    kept, catalogues, surplus = select_papers(with_text, max_objects, max_papers)
    of_files = [row for row in rows if row["found_by"] == "file"]
    written.counts.update(
        papers=len(kept),
        duplicates=len(of_files) - len(deduplicate(of_files)),
        without_abstract=sum(not (row["abstract"] or row["body"]) for row in kept),
        left_out_no_text=len(merged) - len(with_text),
        left_out_catalogues=catalogues,
        left_out_surplus=surplus,
    )
    written.counts.update(f"from_{row['found_by']}" for row in kept)
    written.counts.update(f"matched_by_{row['matched_by']}" if row["matched_by"] else "unmatched" for row in kept)
    written.sources |= {row["source_id"] for row in kept if row["matched_by"]}
    return kept
