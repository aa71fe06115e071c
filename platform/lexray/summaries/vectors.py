"""Texts to embed out of a `summaries` table, and their vectors as rows of `text_embeddings`."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lexray import storage
from lexray.schemas import text_embeddings
from lexray.summaries.encoder import TextModel, Vectors

#: Summaries that failed have no text.
_USABLE = (pc.field("status") == "ok") & (pc.utf8_length(pc.field("summary")) > 0)


@dataclass(frozen=True)
class Written:
    """A file of vectors that no commit has added yet, and how many of its texts were truncated."""

    fragment: storage.Fragment
    truncated: int


def count_texts(summaries: str) -> int:
    """How many rows of a summaries table have a text."""
    return int(storage.dataset(summaries).count_rows(filter=_USABLE))


def read_texts(summaries: str, part: int) -> pa.Table:
    """`source_id` and `summary` of a part's rows that have a text, in the order of the names."""
    where = _USABLE & (pc.field("part") == part)
    return storage.dataset(summaries).to_table(["source_id", "summary"], filter=where).sort_by("source_id")


def write_vectors(out: str, part: int, model: TextModel, source_ids: list[str], vectors: Vectors) -> storage.Fragment:
    """Write vectors f4[N, T] of N sources that `part` owns."""
    rows = pa.table(
        {
            "source_id": pa.array(source_ids, pa.string()),
            "model": pa.array([model.name] * len(source_ids), pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), model.dimension),
        }
    )
    return storage.write_part(out, text_embeddings(model.dimension), part, rows)
