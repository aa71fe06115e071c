"""Heads of the aligned space, fitted to tables of vectors and labels."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lexray.models.alignment.heads import Heads, fit_heads
from lexray.tables.list_columns import stack_lists
from lexray.training.source_means import source_means


def fit_heads_to_tables(
    embeddings: pa.Table, labels: pa.Table, split_of: Mapping[str, str], class_column: str = "class"
) -> Heads:
    """Fit heads to the X-ray rows of an `embeddings` table and a `labels` table, one row per source.

    Parameters
    ----------
    embeddings, labels : pyarrow.Table
        As `schemas` has them.
    split_of : mapping
        Split of each source, as `splits.read_splits` gives it; sources that it lacks are left out.
    class_column : str
        The column of classes.
    """
    rows = embeddings.filter(pc.field("modality") == "xray")
    names, x = source_means([str(s) for s in rows["source_id"].to_pylist()], stack_lists(rows["embedding"]), unit=True)
    row_of = {source: i for i, source in enumerate(labels["source_id"].to_pylist())}
    known = [i for i, name in enumerate(names) if name in row_of and name in split_of]
    picked = labels.take([row_of[names[i]] for i in known])
    return fit_heads(x[known], picked.to_pydict(), [split_of[names[i]] for i in known], class_column)
