"""The extractive engine on Ray Data: terms of all sources' papers are counted first, then each part is summarized."""

from collections import Counter
from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import pyarrow as pa
import ray
import ray.data

from lexray.runtime.map_parts import PartFunction
from lexray.summaries.extractive import Corpus, ExtractiveSummarizer, papers_by_source, summarize_part
from lexray.tables import delta


def count_corpus(literature: str) -> Corpus:
    """Terms of all sources' papers, counted part by part and added up on the driver."""

    def count(row: dict[str, Any]) -> dict[str, Any]:
        rows = delta.read(literature, ["source_id", "title", "abstract", "body"], parts=[row["part"]])
        found = Corpus.of(papers_by_source(rows).values())
        terms, counts = list(found.frequency), list(found.frequency.values())
        return {"n_sources": found.n_sources, "terms": terms, "counts": counts}

    parts = list(delta.part_files(literature))
    if not parts:
        return Corpus()
    counted = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map(count)
    return reduce(
        add,
        (
            Corpus(row["n_sources"], Counter(dict(zip(row["terms"], row["counts"], strict=True))))
            for row in counted.iter_rows()
        ),
    )


def part_function(corpus: Corpus, max_words: int, mask_names: bool, min_grounded: float) -> Callable[[], PartFunction]:
    """What makes the function of `map_parts.map_parts`, in each of its workers."""
    return partial(_make_part_function, ray.put(corpus), max_words, mask_names, min_grounded)


def _make_part_function(
    found: "ray.ObjectRef[Corpus]", max_words: int, mask_names: bool, min_grounded: float
) -> PartFunction:
    engine = ExtractiveSummarizer(ray.get(found), max_words, mask_names, min_grounded)

    def summarize(_: int, rows: pa.Table) -> pa.Table:
        return summarize_part(rows, engine)

    return summarize
