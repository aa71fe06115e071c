"""The texts of a table, which of them lack a vector, and the rows of `text_embeddings` that hold the vectors."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lexray.errors import ConfigError, LexrayError
from lexray.llm.sentence_encoder import Vectors, unit_vectors
from lexray.tables import delta
from lexray.tables.files import resolve_path
from lexray.tables.quarantine import Refusal
from lexray.tables.row_checkpoints import MissingRow, RowCheckpoints, TableVersion


@dataclass(frozen=True)
class TextColumn(TableVersion):
    """A column of texts in one version of a table with `source_id`, one row per source.

    Attributes
    ----------
    column : str
    include_ungrounded : bool
        Read summaries, too, that say more than their papers do. Failed ones have no text.
    """

    column: str
    include_ungrounded: bool

    @classmethod
    def of(cls, table: str, column: str = "summary", include_ungrounded: bool = False) -> "TextColumn":
        """A column of a table's present version.

        Raises
        ------
        ConfigError
            If the column is absent or holds no text; the message names the columns that do.
        """
        schema = delta.dataset(table).schema
        texts = [
            field.name
            for field in schema
            if field.type in (pa.string(), pa.large_string()) and field.name != "source_id"
        ]
        if "source_id" not in schema.names or not delta.is_table(table):
            raise ConfigError(f"{table}: it is not a Lexray table with a column 'source_id'")
        if column not in texts:
            raise ConfigError(f"column '{column}': {table} has no such texts, but {', '.join(texts)}")
        return cls(table, delta.version(table), column, include_ungrounded)

    def n_rows(self) -> int:
        """Rows, with or without a text."""
        return int(self._dataset.count_rows())

    def count(self, part: int) -> int:
        """Texts of a part, which are counted where they are stored: none becomes a Python string."""
        return int(self._dataset.count_rows(filter=self._texts_of(part)))

    def read(self, part: int, sources: Collection[str] | None = None) -> dict[str, str]:
        """Text of each source of a part that has one, in the order of the names; by default of all sources.

        Raises
        ------
        LexrayError
            If a source has several rows: it could have one vector only.
        """
        wanted = self._texts_of(part)
        if sources is not None:
            wanted &= pc.field("source_id").isin(pa.array(sources, pa.string()))
        columns = {"source_id": pc.field("source_id"), "text": pc.field(self.column)}
        rows = self._dataset.to_table(columns, filter=wanted).sort_by("source_id")
        names = rows["source_id"].to_pylist()
        repeated = next((name for name, following in pairwise(names) if name == following), None)
        if repeated is not None:
            raise LexrayError(
                f"{self.table}: several rows of source '{repeated}' have a text in '{self.column}', and a source has "
                "one vector; make one row of them first"
            )
        return dict(zip(names, rows["text"].to_pylist(), strict=True))

    def _texts_of(self, part: int) -> pc.Expression:
        """The rows of a part that have a text to embed."""
        valid = pc.utf8_length(pc.utf8_trim_whitespace(pc.field(self.column))) > 0
        if _holds_summaries(self.table, self.version) and "status" in self._dataset.schema.names:
            valid &= pc.field("status").isin(["ok", "ungrounded"] if self.include_ungrounded else ["ok"])
        return valid & (pc.field("part") == part)


@lru_cache(maxsize=2)
def _holds_summaries(table: str, version: str) -> bool:
    """Whether a table's column `status` says what became of a summary; other tables' may say anything."""
    return bool(DeltaTable(resolve_path(table), version=delta.version_number(version)).metadata().name == "summaries")


@dataclass(frozen=True)
class EmbeddingSpec:
    """What decides a text's vector. The engine does not: vLLM and sentence-transformers compute the same.

    Attributes
    ----------
    model : str
        Its name, which the rows hold.
    prefix : str
        Put before each text.
    model_hash : str
        Hash of all else that a vector depends on: weights, pooling, longest text.
    fixes_dimension : bool
        Whether the model behind the name is always the same, and with it the length of its vectors.
    """

    model: str
    prefix: str
    model_hash: str
    fixes_dimension: bool = True

    def key(self, text: str) -> str:
        """Hash of all that the vector of a text depends on."""
        return delta.digest([self.model, self.prefix, self.model_hash, text])


@dataclass(frozen=True)
class Provenance:
    """Which engine and which model made a row: columns of `text_embeddings`."""

    engine: str
    engine_version: str
    model: str
    revision: str


@dataclass(frozen=True)
class BatchResult:
    """The result of one batch of texts, or of several together.

    Attributes
    ----------
    n_rows : int
        Vectors that were written.
    n_tokens : int
        Tokens that the model read for them.
    failures : tuple of Refusal
        Texts that have no vector, by their source.
    began, ended : float
        Unix time when the model was asked for them, and when they were written, s.
    """

    n_rows: int = 0
    n_tokens: int = 0
    failures: tuple[Refusal, ...] = ()
    began: float = float("inf")
    ended: float = 0.0

    def __add__(self, other: "BatchResult") -> "BatchResult":
        return BatchResult(
            self.n_rows + other.n_rows,
            self.n_tokens + other.n_tokens,
            self.failures + other.failures,
            min(self.began, other.began),
            max(self.ended, other.ended),
        )


@dataclass(frozen=True)
class EmbeddingWriter:
    """Writes vectors to row checkpoints as they come.

    Attributes
    ----------
    rows : RowCheckpoints
        Of a table of `schemas.text_embeddings`.
    provenance : Provenance
    """

    rows: RowCheckpoints
    provenance: Provenance

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self.rows.schema.field("embedding").type.list_size)

    def write(
        self,
        texts: Sequence[MissingRow[str]],
        vectors: Sequence[Vectors],
        truncated: Sequence[bool | None],
        n_tokens: int,
        began: float,
        failures: Sequence[Refusal] = (),
    ) -> BatchResult:
        """Write the vectors f4[T] of a batch, scaled to length 1; one that is zero or not finite is a failure.

        Parameters
        ----------
        texts : sequence of MissingRow
        vectors : sequence of f4[T]
        truncated : sequence of bool or None
            Whether the model read only the beginning; None where that is unknown.
        n_tokens : int
            Tokens that the model read.
        began : float
            Unix time when it was asked, s.
        failures : sequence of Refusal
            Texts of the batch that have failed already.
        """
        wrong = [self._wrong(vector) for vector in vectors]
        invalid = (
            Refusal(text.source_id, "invalid_vector", why) for text, why in zip(texts, wrong, strict=True) if why
        )
        bad = (*failures, *invalid)
        good = [i for i, why in enumerate(wrong) if not why]
        for part in dict.fromkeys(texts[i].part for i in good):
            chosen = [i for i in good if texts[i].part == part]
            self.rows.write(part, self._rows(chosen, texts, vectors, truncated))
        return BatchResult(len(good), n_tokens, bad, began, time.time())

    def _wrong(self, vector: Vectors) -> str:
        if vector.shape != (self.dimension,):
            return f"it has {vector.size} numbers, not {self.dimension}"
        if not np.isfinite(vector).all():
            return "not all its numbers are finite"
        return "" if vector.any() else "all its numbers are 0"

    def _rows(
        self,
        chosen: list[int],
        texts: Sequence[MissingRow[str]],
        vectors: Sequence[Vectors],
        truncated: Sequence[bool | None],
    ) -> pa.Table:
        flat = pa.array(unit_vectors(np.stack([vectors[i] for i in chosen])).ravel(), pa.float32())
        return pa.table(
            {
                "source_id": pa.array([texts[i].source_id for i in chosen], pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, self.dimension),
                "truncated": pa.array([truncated[i] for i in chosen], pa.bool_()),
                "key": pa.array([texts[i].key for i in chosen], pa.string()),
            }
            | {name: pa.array([value] * len(chosen), pa.string()) for name, value in vars(self.provenance).items()}
        )
