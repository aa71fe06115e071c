"""The search index of a release, in LanceDB: vectors of the shared space, with metadata of their sources."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lexray.errors import LexrayError
from lexray.sources import fold_name

TABLE_NAME = "sources"
MODALITIES = ("xray", "text")


@dataclass(frozen=True)
class Hit:
    """A source that was found.

    Attributes
    ----------
    source_id : str
    score : float
        Cosine between the query and the nearest of the source's vectors, −1 to 1.
    scores : dict
        The best cosine by modality, 'xray' and 'text', of the vectors that were asked for and that the source has.
    known : dict
        Metadata of the source: summary, class, bibcodes, n_events …
    """

    source_id: str
    score: float
    scores: dict[str, float]
    known: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"source_id": self.source_id, "score": self.score, "scores": self.scores, **self.known}


def schema(dimension: int) -> pa.Schema:
    """Columns of the index for vectors of `dimension` numbers."""
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("source_id", pa.string()),
            pa.field("modality", pa.string()),
            pa.field("embedding", pa.list_(pa.float32(), dimension)),
            pa.field("summary", pa.string()),
            pa.field("bibcodes", pa.list_(pa.string())),
            pa.field("class", pa.string()),
            pa.field("labels", pa.string()),  # every other label of the source, as JSON
            pa.field("missions", pa.list_(pa.string())),
            pa.field("n_detections", pa.int32()),
            pa.field("n_events", pa.int64()),
            pa.field("exposure", pa.float64()),
            pa.field("ra", pa.float64()),
            pa.field("dec", pa.float64()),
        ]
    )


def index_rows(
    embeddings: pa.Table, summaries: pa.Table | None, labels: pa.Table | None, events: pa.Table | None
) -> pa.Table:
    """Rows of the index, one per vector, with metadata of its source.

    Parameters
    ----------
    embeddings : pyarrow.Table
        The `embeddings` table.
    summaries, labels : pyarrow.Table, optional
        Those tables.
    events : pyarrow.Table, optional
        Columns `source_id`, `mission`, `n_events`, `exposure`, `ra`, `dec` of the `events` table.
    """
    metadata: dict[str, dict[str, Any]] = {}
    columns = ["source_id", "summary", "summary_unmasked", "bibcodes"]
    for row in [] if summaries is None else summaries.select(columns).to_pylist():
        text = row["summary_unmasked"] or row["summary"]  # people may know the name
        metadata.setdefault(fold_name(row["source_id"]), {}).update(summary=text, bibcodes=row["bibcodes"])
    for row in [] if labels is None else labels.to_pylist():
        rest = {key: value for key, value in row.items() if key not in ("source_id", "class", "part")}
        others = json.dumps({key: value for key, value in rest.items() if _is_json_scalar(value)})
        metadata.setdefault(fold_name(row["source_id"]), {}).update({"class": row.get("class"), "labels": others})
    for source, entry in ({} if events is None else _detection_totals(events)).items():
        metadata.setdefault(source, {}).update(entry)
    whole = [
        {**metadata.get(fold_name(row["source_id"]), {}), **row}
        for row in embeddings.select(["id", "source_id", "modality", "embedding"]).to_pylist()
    ]
    return pa.Table.from_pylist(whole, schema=schema(embeddings.schema.field("embedding").type.list_size))


def _is_json_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and bool(np.isfinite(value)))


def _detection_totals(events: pa.Table) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in events.to_pylist():
        about = found.setdefault(
            fold_name(row["source_id"]),
            {"missions": [], "n_detections": 0, "n_events": 0, "exposure": 0.0, "ra": row["ra"], "dec": row["dec"]},
        )
        about["missions"] = sorted({*about["missions"], row["mission"]})
        about["n_detections"] += 1
        about["n_events"] += row["n_events"] or 0
        about["exposure"] += row["exposure"] or 0.0
    return found


class SearchIndex:
    """Nearest sources by cosine. Safe to ask from several threads."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._n_rows = int(table.count_rows())
        self._approximate = bool(table.list_indices())
        self.dimension = int(table.schema.field("embedding").type.list_size)

    def __len__(self) -> int:
        return self._n_rows

    @classmethod
    def build(cls, folder: str | Path, table: pa.Table, ann_rows: int = 10_000) -> "SearchIndex":
        """Write the index into an empty folder.

        Parameters
        ----------
        folder : str or Path
            Where it goes.
        table : pyarrow.Table
            As `index_rows` gives it.
        ann_rows : int
            From this many rows on, build an approximate index of the vectors. Below, an exact scan takes milliseconds,
            and an approximate index would only lose neighbours.

        Raises
        ------
        LexrayError
            If there are no rows, or a vector is not finite.
        """
        if table.num_rows == 0:
            raise LexrayError("the embeddings table is empty: there is nothing to search")
        flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if not np.isfinite(flat).all():
            raise LexrayError("the embeddings table holds vectors that are not finite; project them again")
        table_written = _connect(folder).create_table(TABLE_NAME, table)
        if table.num_rows >= ann_rows:
            table_written.create_index(metric="cosine", vector_column_name="embedding", index_type="IVF_HNSW_SQ")
        return cls(table_written)

    @classmethod
    def open(cls, folder: str | Path) -> "SearchIndex":
        """Open an index for reading."""
        return cls(_connect(folder).open_table(TABLE_NAME))

    def search(self, vector: ArrayLike, k: int = 10, modality: str | None = None) -> list[Hit]:
        """The k sources with the vectors nearest to `vector`, best first.

        Parameters
        ----------
        vector : f4[E]
            In the release's space; any length but zero.
        k : int
            How many.
        modality : {'xray', 'text'}, optional
            Compare with vectors of this modality only; by default with all of them.

        Raises
        ------
        ValueError
            If the vector has another dimension, is not finite or is zero.
        """
        query = self._checked(vector)
        # Several rows belong to one source: take more until there are k sources or no rows are left.
        n_rows = 4 * k
        while True:
            rows = self._nearest(query, min(n_rows, self._n_rows), modality)
            hits = _by_source(rows)
            if len(hits) >= k or len(rows) < n_rows:
                return hits[:k] if modality is not None else self._both(query, hits[:k])
            n_rows *= 4

    def _both(self, query: NDArray[np.float32], hits: list[Hit]) -> list[Hit]:
        """Hits with the cosine of their other modality too, whose vectors may lie too far away to have been found."""
        names = ", ".join("'" + hit.source_id.replace("'", "''") + "'" for hit in hits)
        if not names:
            return hits
        asked = self._table.search(query, vector_column_name="embedding").distance_type("cosine").bypass_vector_index()
        asked = asked.where(f"source_id IN ({names})", prefilter=True).select(["source_id", "modality", "_distance"])
        rows = asked.limit(self._n_rows).to_arrow().to_pylist()
        scores: dict[str, dict[str, float]] = {hit.source_id: {} for hit in hits}
        for row in rows:  # nearest first
            scores[row["source_id"]].setdefault(row["modality"], 1.0 - float(row["_distance"]))
        return [replace(hit, scores=scores[hit.source_id]) for hit in hits]

    def _nearest(self, query: NDArray[np.float32], limit: int, modality: str | None) -> list[dict[str, Any]]:
        search = self._table.search(query, vector_column_name="embedding").distance_type("cosine").limit(limit)
        if self._approximate:
            search = search.refine_factor(10)  # ten times the rows wanted, ranked again by their exact distance
        if modality is not None:
            if modality not in MODALITIES:
                raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, got '{modality}'")
            search = search.where(f"modality = '{modality}'", prefilter=True)
        return list(search.to_arrow().drop_columns(["embedding"]).to_pylist())

    def _checked(self, vector: ArrayLike) -> NDArray[np.float32]:
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.dimension,):
            raise ValueError(f"vectors of this release have {self.dimension} numbers, got {query.size}")
        if not np.isfinite(query).all() or not query.any():
            raise ValueError("the vector must be finite and not zero")
        return query


def _by_source(rows: list[dict[str, Any]]) -> list[Hit]:
    """Hits in the order of their best row."""
    hits: dict[str, Hit] = {}
    for row in rows:
        score = 1.0 - float(row["_distance"])
        hit = hits.setdefault(row["source_id"], Hit(row["source_id"], score, {}, _metadata(row)))
        hit.scores.setdefault(row["modality"], score)
    return list(hits.values())


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    left_out = ("id", "source_id", "modality", "labels", "_distance")
    known = {key: value for key, value in row.items() if key not in left_out}
    return {**known, "labels": json.loads(row["labels"] or "{}")}


def _connect(folder: str | Path) -> Any:
    # LanceDB warns at each fork of a process that holds it. A pipeline imports every job and then starts Ray: by forks.
    import lancedb

    return lancedb.connect(str(folder))
