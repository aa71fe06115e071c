"""Assemble a release from trained models, vectors and tables, which are checked against one another."""

import shutil
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from lexray.errors import LexrayError
from lexray.inference.autodecoder import load_autodecoder
from lexray.llm.sentence_encoder import TextEncoder
from lexray.models.alignment.towers import Towers
from lexray.release.index import SearchIndex, index_rows
from lexray.release.manifest import (
    ALIGNMENT,
    AUTODECODER_DIR,
    HEADS,
    INDEX,
    Release,
    ReleaseManifest,
    SentenceModelRef,
)
from lexray.runtime.config import BaseConfig
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.provenance import PROVENANCE_FILE, read_provenance
from lexray.training.heads import fit_heads_to_tables
from lexray.training.splits import read_splits, split

_EVENT_COLUMNS = ("source_id", "mission", "n_events", "exposure", "ra", "dec")
#: Inputs that are folders or tables, whose versions the manifest records.
INPUT_KEYS = ("autodecoder", "alignment", "embeddings", "summaries", "labels", "events")


class ReleaseParts(BaseConfig):
    """The parts of a release: keys of `lexray index`."""

    autodecoder: str = Field(description="folder that `train autodecoder` wrote")
    alignment: str = Field(description="folder that `train alignment` wrote")
    embeddings: str = Field(description="embeddings table: the vectors that can be found")
    summaries: str | None = Field(None, description="summaries table, for what is said of what is found")
    labels: str | None = Field(None, description="labels table, to fit heads for classes and properties to")
    events: str | None = Field(None, description="events table, for counts and positions of what is found")
    text_model: str = Field("all-MiniLM-L6-v2", description="sentence model that the alignment was trained with")
    split_seed: int = Field(0, description="the split whose train and val sources the heads are fitted to")

    def versions(self) -> dict[str, str]:
        """Version of each input that is given."""
        return {key: delta.version(path) for key, path in self._given().items()}

    def _given(self) -> dict[str, str]:
        return {key: path for key in INPUT_KEYS if (path := getattr(self, key)) is not None}

    def existing(self, out: str, versions: dict[str, str]) -> Release | None:
        """The release at `out`, if it is whole and was made of these versions of the inputs."""
        try:
            found = Release.open(out)
        except LexrayError:  # also where there is none
            return None
        made_of = found.manifest.inputs, found.manifest.split_seed, found.manifest.text_model.name
        return found if made_of == (versions, self.split_seed, self.text_model) else None

    def write(self, folder: Path, versions: dict[str, str], progress: Progress) -> ReleaseManifest:
        """Write everything of a release but its manifest, which is returned.

        Parameters
        ----------
        folder : Path
            The draft.
        versions : dict of str
            Of the inputs, looked up before they are read.
        progress : Progress

        Raises
        ------
        LexrayError
            If the alignment was trained with another text model, or the vectors are not the alignment's.
        """
        for name in (AUTODECODER_DIR, ALIGNMENT):
            shutil.copytree(
                getattr(self, name), folder / name, ignore=shutil.ignore_patterns(PROVENANCE_FILE, "checkpoints")
            )
        autodecoder, towers = load_autodecoder(folder / AUTODECODER_DIR), Towers.load(folder / ALIGNMENT)
        encoder = self._encoder_of(towers)
        embeddings = delta.read(self.embeddings, order="id")
        if embeddings.schema.field("embedding").type.list_size != towers.sizes.dimension:
            raise LexrayError(f"{self.embeddings}: vectors are not of the alignment at {self.alignment}; project again")
        events = None if self.events is None else delta.read(self.events, _EVENT_COLUMNS)
        labels = None if self.labels is None else delta.read(self.labels)
        if labels is not None:
            with progress.task("heads"):
                fit_heads_to_tables(embeddings, labels, self._splits(embeddings)).save(folder / HEADS)
        summaries = None if self.summaries is None else delta.read(self.summaries)
        index = SearchIndex.build(folder / INDEX, index_rows(embeddings, summaries, labels, events))
        modalities = embeddings["modality"].to_pylist()
        return ReleaseManifest(
            dimension=towers.sizes.dimension,
            n_bands=autodecoder.n_bands,
            text_model=SentenceModelRef(
                name=self.text_model,
                sha256=encoder.sha256,
                dimension=encoder.dimension,
                query_prefix=encoder.model.query_prefix,
            ),
            counts={
                "sources": len(set(embeddings["source_id"].to_pylist())),
                "vectors": len(index),
                "xray": modalities.count("xray"),
                "text": modalities.count("text"),
            },
            inputs=versions,
            split_seed=self.split_seed,
            mlflow_runs=self._mlflow_runs(),
        )

    def _encoder_of(self, towers: Towers) -> TextEncoder:
        """The text model, if it is the one that the towers were trained with."""
        encoder = TextEncoder(self.text_model)
        if encoder.dimension != towers.sizes.text_dim:
            raise LexrayError(
                f"text_model: {self.text_model} gives vectors of {encoder.dimension} numbers, the alignment at "
                f"{self.alignment} was trained on {towers.sizes.text_dim}; name the model it was trained with"
            )
        trained_with = towers.made_with.get("text_model", self.text_model)
        if trained_with != self.text_model:
            raise LexrayError(
                f"text_model: the alignment at {self.alignment} was trained with {trained_with}, not {self.text_model}"
            )
        return encoder

    def _splits(self, embeddings: pa.Table) -> dict[str, str]:
        """Split of each source; by name alone where no positions are given."""
        return (
            {source: split(source, self.split_seed) for source in embeddings["source_id"].to_pylist()}
            if self.events is None
            else read_splits(self.events, self.split_seed)
        )

    def _mlflow_runs(self) -> dict[str, str]:
        """MLflow run that made each input, as far as its provenance says."""
        provenance = {key: read_provenance(path) or {} for key, path in self._given().items()}
        runs = {key: written.get("report", {}).get("mlflow_run") for key, written in provenance.items()}
        return {key: run_id for key, run_id in runs.items() if run_id}
