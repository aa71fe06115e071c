"""Tables of latents and of text vectors → rows of the `embeddings` table, with a trained alignment."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from lexray.array_types import Float32s
from lexray.errors import LexrayError
from lexray.models.alignment.towers import Towers
from lexray.tables import delta
from lexray.tables.files import filesystem
from lexray.tables.list_columns import finite_rows, vectors
from lexray.tables.quarantine import Refusal, not_finite


@dataclass(frozen=True)
class ProjectedTable:
    """A table whose vectors go into the shared space.

    Attributes
    ----------
    path : str
    modality : {'xray', 'text'}
    identity : str
        Column that identifies a row.
    columns : tuple of str
        Columns that the modality's tower takes.
    """

    path: str
    modality: str
    identity: str
    columns: tuple[str, ...]

    @classmethod
    def of_latents(cls, path: str) -> "ProjectedTable":
        """A `latents` table."""
        return cls(path, "xray", "detection_id", ("latent", "log_rate"))

    @classmethod
    def of_texts(cls, path: str) -> "ProjectedTable":
        """A `text_embeddings` table."""
        return cls(path, "text", "source_id", ("embedding",))

    def check(self, towers: Towers, alignment: str) -> None:
        """Refuse a table that is not like the one that an alignment was trained on.

        Raises
        ------
        LexrayError
            If its vectors have another length, or another model made them.
        """
        sizes, made_with = towers.sizes, towers.made_with
        expected = {"latent": sizes.latent_dim, "log_rate": sizes.n_bands, "embedding": sizes.text_dim}
        for column in self.columns:
            _check_width(self.path, column, expected[column], alignment)
        _check_model(self.path, made_with.get("autodecoder" if self.modality == "xray" else "text_model"), alignment)

    def project(self, towers: Towers, rows: pa.Table) -> tuple[pa.Table, list[Refusal]]:
        """Rows of `embeddings` of some of the table's rows, and the rows that are left out.

        Those are left out that have no vector, or one with numbers that are not finite.
        """
        features = [vectors(self.path, rows, name) for name in self.columns]
        finite = finite_rows(np.concatenate(features, axis=1))
        embed: Callable[..., Float32s] = towers.embed_xray if self.modality == "xray" else towers.embed_text
        embedding = embed(*(feature[finite] for feature in features))
        refused, rows = rows.filter(pa.array(~finite)), rows.filter(pa.array(finite))
        columns = {
            "id": rows[self.identity],
            "source_id": rows["source_id"],
            "modality": pa.array([self.modality] * rows.num_rows, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1]),
        }
        refusals = not_finite(self.path, self.identity, refused[self.identity].to_pylist())
        return pa.table(columns).sort_by("id"), refusals


def project_part(
    path: str, part: int, table: ProjectedTable, towers: Towers, out: str, schema: pa.Schema
) -> tuple[delta.Fragment, list[Refusal]]:
    """Project a part of a table and write its vectors as that part of `out`; for `map_parts.results_of_parts`.

    Returns
    -------
    fragment : Fragment
    refusals : list of Refusal
        Rows that were left out.
    """
    projected, refusals = table.project(towers, delta.read(path, parts=[part]))
    return delta.write_part(out, schema, part, projected), refusals


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
