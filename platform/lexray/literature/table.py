"""All that was found, collected on disk by parts and made into the `literature` table: one row a paper and source."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lexray.literature.connectors import Found
from lexray.literature.deduplicate import merge, select
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.schemas import LITERATURE

_AT_ONCE = 10_000


@dataclass
class Written:
    """What became of the papers.

    Attributes
    ----------
    fragments : list of Fragment
        For `delta.commit`.
    counts : Counter
        papers, duplicates (of files), without_abstract, left_out_catalogues, left_out_surplus, left_out_no_text;
        matched_by_name, matched_by_position, unmatched; from_file, from_simbad, from_ads.
    sources : set of str
        Those that have a paper and were matched.
    """

    fragments: list[Fragment] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)


class Bibliography:
    """Papers as they are found; use it in a ``with`` block.

    Memory holds one part at a time, so that an archive's literature need not fit.

    Parameters
    ----------
    n_parts : int
        Parts of the table.
    """

    def __init__(self, n_parts: int) -> None:
        self._n_parts = n_parts
        self._folder = tempfile.TemporaryDirectory(prefix="lexray-literature-")
        self._fragments: dict[int, list[str]] = {}

    def __enter__(self) -> "Bibliography":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, found: Iterable[Found]) -> None:
        """Keep what was found."""
        items = iter(found)
        while some := list(islice(items, _AT_ONCE)):
            rows = pa.Table.from_pylist([item.row() for item in some], schema=LITERATURE)
            for fragment in delta.write_by_source(self._folder.name, LITERATURE, self._n_parts, rows):
                self._fragments.setdefault(fragment.part, []).append(fragment.path)

    def write(self, out: str, max_objects: int | None, max_papers: int | None) -> Written:
        """Write the table's files, the rows of a source together and the best first.

        Parameters
        ----------
        out : str
            The table.
        max_objects : int or None
            Papers that treat more objects are left out.
        max_papers : int or None
            Papers of a source.
        """
        written = Written()
        for part in sorted(self._fragments):
            rows = []
            for of_one in self._sources(part):
                rows += _kept(of_one, written, max_objects, max_papers)
            if rows:
                table = pa.Table.from_pylist(rows, schema=LITERATURE)
                written.fragments.append(delta.write_part(out, LITERATURE, part, table))
        return written

    def _sources(self, part: int) -> Iterator[list[dict[str, Any]]]:
        """Rows of a part, source by source."""

        def key(row: dict[str, Any]) -> str:
            return fold_name(row["source_id"])

        paths = [Path(self._folder.name, path) for path in self._fragments[part]]
        rows = [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]
        for _, of_one in groupby(sorted(rows, key=key), key):  # sorted() keeps the order of a source's rows
            yield list(of_one)


def _kept(
    rows: list[dict[str, Any]], written: Written, max_objects: int | None, max_papers: int | None
) -> list[dict[str, Any]]:
    counts = written.counts
    merged = merge(rows)
    told = [row for row in merged if row["title"] or row["abstract"] or row["body"]]
    kept, catalogues, surplus = select(told, max_objects, max_papers)
    of_files = [row for row in rows if row["found_by"] == "file"]
    counts["duplicates"] += len(of_files) - len(merge(of_files))
    counts["papers"] += len(kept)
    counts["left_out_no_text"] += len(merged) - len(told)
    counts["left_out_catalogues"] += catalogues
    counts["left_out_surplus"] += surplus
    for row in kept:
        counts["without_abstract"] += not (row["abstract"] or row["body"])
        counts[f"from_{row['found_by']}"] += 1
        counts[f"matched_by_{row['matched_by']}" if row["matched_by"] else "unmatched"] += 1
        if row["matched_by"]:
            written.sources.add(row["source_id"])
    return kept
