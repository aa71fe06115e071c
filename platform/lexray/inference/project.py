"""Tables of latents and of text vectors → rows of the `embeddings` table, with a trained alignment."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
from numpy.typing import NDArray

from lexray.errors import LexrayError
from lexray.models.alignment.towers import Towers
from lexray.tables import delta
from lexray.tables.files import filesystem
from lexray.tables.list_columns import finite_rows, vectors
from lexray.tables.quarantine import Refusal


@dataclass(frozen=True)
class ProjectedTable:
    """A table whose vectors go into the shared space.

    Attributes
    ----------
    path : str
    modality : {'xray', 'text'}
    identity : str
        Column that identifies a row.
    project : callable
        Turns (towers, path, rows of the table) into rows of `embeddings`: `project_latents` or `project_texts`.
    """

    path: str
    modality: str
    identity: str
    project: Callable[[Towers, str, pa.Table], pa.Table]

    def refusals(self, written: Sequence[Mapping[str, str]]) -> list[Refusal]:
        """Rows of the table that have no vector among the `id` and `modality` of those written."""
        done = {row["id"] for row in written if row["modality"] == self.modality}
        detail = f"{self.identity} {{}}: its vector is missing or holds numbers that are not finite"
        names = delta.read(self.path, [self.identity], order=self.identity)[self.identity].to_pylist()
        return [Refusal(self.path, "not_finite", detail.format(name)) for name in names if name not in done]


def project_part(
    path: str, part: int, table: ProjectedTable, towers: Towers, out: str, schema: pa.Schema
) -> delta.Fragment:
    """Project a part of a table and write its vectors as that part of `out`; for `map_parts.results_of_parts`."""
    rows = table.project(towers, path, delta.read(path, parts=[part]))
    return delta.write_part(out, schema, part, rows)


def load_towers(path: str) -> Towers:
    """Load what `lexray train alignment` wrote, from a folder or an object store.

    Raises
    ------
    LexrayError
        If there is no alignment there.
    """
    system, root = filesystem(path)
    with tempfile.TemporaryDirectory() as folder:
        try:
            pyarrow.fs.copy_files(root, folder, source_filesystem=system)
            return Towers.load(folder)
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            raise LexrayError(f"{path}: no alignment here; 'lexray train alignment --out {path}' makes one") from None


def check_latents(towers: Towers, alignment: str, latents: str) -> None:
    """Refuse a latents table that is not like the training's.

    Raises
    ------
    LexrayError
        If its vectors have another length, or another autodecoder made them.
    """
    _check_width(latents, "latent", towers.sizes.latent_dim, alignment)
    _check_width(latents, "log_rate", towers.sizes.n_bands, alignment)
    _check_model(latents, towers.made_with.get("autodecoder"), alignment)


def check_texts(towers: Towers, alignment: str, text_embeddings: str) -> None:
    """Refuse a text_embeddings table that is not like the training's; see `check_latents`."""
    _check_width(text_embeddings, "embedding", towers.sizes.text_dim, alignment)
    _check_model(text_embeddings, towers.made_with.get("text_model"), alignment)


def project_latents(towers: Towers, table: str, rows: pa.Table) -> pa.Table:
    """Rows of a `latents` table → rows of `embeddings`; those with missing or non-finite numbers are left out."""
    features = vectors(table, rows, "latent"), vectors(table, rows, "log_rate")
    finite = finite_rows(np.concatenate(features, axis=1))
    latent, log_rate = (feature[finite] for feature in features)
    return _rows(rows, finite, "detection_id", "xray", towers.embed_xray(latent, log_rate))


def project_texts(towers: Towers, table: str, rows: pa.Table) -> pa.Table:
    """Rows of a `text_embeddings` table → rows of `embeddings`; see `project_latents`."""
    text = vectors(table, rows, "embedding")
    finite = finite_rows(text)
    return _rows(rows, finite, "source_id", "text", towers.embed_text(text[finite]))


def _rows(
    rows: pa.Table, finite: NDArray[np.bool_], identity: str, modality: str, embedding: NDArray[np.float32]
) -> pa.Table:
    rows = rows.filter(pa.array(finite))
    columns = {
        "id": rows[identity],
        "source_id": rows["source_id"],
        "modality": pa.array([modality] * rows.num_rows, pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1]),
    }
    return pa.table(columns).sort_by("id")


def _check_width(table: str, column: str, expected: int, alignment: str) -> None:
    first = delta.dataset(table).head(1, columns=[column], filter=pc.field(column).is_valid())
    found = len(first[column][0]) if first.num_rows else expected
    if found != expected:
        raise LexrayError(
            f"{table}: '{column}' has {found} numbers per row, the alignment {alignment} was trained on {expected}; "
            "use the models that its training used, or train another alignment"
        )


def _check_model(table: str, expected: str | None, alignment: str) -> None:
    found = delta.read(table, ["model"])["model"].unique().to_pylist()
    others = sorted(str(name) for name in found if name != expected)
    if expected and others:
        raise LexrayError(
            f"{table}: its vectors are by {', '.join(others)}, the alignment {alignment} was trained on those by "
            f"{expected}, and vectors of two models do not compare"
        )
