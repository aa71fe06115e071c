"""The tables that an evaluation reads, joined by source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lexray.array_types import Float32s
from lexray.sources import fold_name
from lexray.tables import delta
from lexray.tables.list_columns import stack_lists
from lexray.training.source_means import source_means


@dataclass(frozen=True)
class Representation:
    """A matrix of features, one row per source.

    Attributes
    ----------
    key, name : str
        In metrics, and for a person.
    rows : f4[N, D]
    splits : list of str, length N
    source_ids : list of str, length N
    standardise : bool
        Whether features want scaling before distances between them mean anything.
    """

    key: str
    name: str
    rows: NDArray[np.float32]
    splits: list[str]
    source_ids: list[str]
    standardise: bool


def read_labels(path: str | None, sources: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Label columns of each source of the events table, by its name there; names are compared folded.

    Parameters
    ----------
    path : str or None
        The `labels` table or Parquet file; None gives no labels.
    sources : mapping
        Keys are the events table's sources.
    """
    if path is None:
        return {}
    name_by_folded = {fold_name(source): source for source in sources}
    return {
        name_by_folded[fold_name(row["source_id"])]: {
            key: value for key, value in row.items() if key not in ("source_id", "part")
        }
        for row in delta.read(path).to_pylist()
        if fold_name(row["source_id"]) in name_by_folded
    }


def read_summaries(path: str | None) -> dict[str, str]:
    """Summary of each source that has one."""
    if path is None:
        return {}
    return {
        row["source_id"]: row["summary"]
        for row in delta.read(path, ["source_id", "summary"]).to_pylist()
        if row["summary"]
    }


def latent_representation(path: str, splits: Mapping[str, str]) -> Representation:
    """Latent and log count rates of each source, means over its detections."""
    rows = delta.read(path, ["source_id", "latent", "log_rate"], order="source_id")
    features = np.concatenate([stack_lists(rows["latent"]), stack_lists(rows["log_rate"])], axis=1)
    return _representation("latents", "latents and count rates", rows, features, splits, unit=False)


def aligned_representations(embeddings: pa.Table, splits: Mapping[str, str]) -> tuple[Representation, Representation]:
    """X-ray embedding of each source, the mean of its detections', and its text's in the shared space; of unit norm."""
    kinds = {"xray": ("aligned", "aligned X-ray embeddings"), "text": ("aligned_text", "aligned text")}
    rows = {modality: embeddings.filter(pc.field("modality") == modality) for modality in kinds}
    xray, text = (
        _representation(*kinds[modality], found, stack_lists(found["embedding"]), splits, unit=True)
        for modality, found in rows.items()
    )
    return xray, text


def text_representation(path: str, splits: Mapping[str, str]) -> Representation:
    """The sentence model's vector of each source's summary: what the words alone hold."""
    rows = delta.read(path, ["source_id", "embedding"], order="source_id")
    return _representation("text", "the text vectors alone", rows, stack_lists(rows["embedding"]), splits, unit=True)


def _representation(
    key: str, name: str, rows: pa.Table, features: Float32s, splits: Mapping[str, str], *, unit: bool
) -> Representation:
    ids = [str(source) for source in rows["source_id"].to_pylist()]
    known = np.array([source in splits for source in ids], dtype=bool)
    sources, means = source_means([s for s, k in zip(ids, known, strict=True) if k], features[known], unit=unit)
    return Representation(key, name, means, [splits[source] for source in sources], sources, standardise=not unit)


@dataclass(frozen=True)
class SourceMetadata:
    """What is known of the events table's sources.

    Attributes
    ----------
    splits : dict
        Source → 'train', 'val' or 'test'.
    labels : dict
        Source → column → value; empty without labels.
    summaries : dict
        Source → summary.
    """

    splits: dict[str, str]
    labels: dict[str, dict[str, Any]]
    summaries: dict[str, str]

    @property
    def class_of(self) -> dict[str, str]:
        """Source → class, where it has one."""
        return {source: row["class"] for source, row in self.labels.items() if isinstance(row.get("class"), str)}


@dataclass(frozen=True)
class EmbeddingPairs:
    """Test sources with both embeddings, row by row.

    Attributes
    ----------
    source_ids : list of str, length N
    xray, text : f4[N, E]
    """

    source_ids: list[str]
    xray: Float32s
    text: Float32s


def pair_test_sources(xray: Representation, text: Representation) -> EmbeddingPairs:
    """Test sources that have X-rays and words."""
    text_row_of = {source: i for i, source in enumerate(text.source_ids)}
    rows = [
        (i, text_row_of[source])
        for i, source in enumerate(xray.source_ids)
        if xray.splits[i] == "test" and source in text_row_of
    ]
    xray_rows, text_rows = [i for i, _ in rows], [j for _, j in rows]
    return EmbeddingPairs([xray.source_ids[i] for i in xray_rows], xray.rows[xray_rows], text.rows[text_rows])
