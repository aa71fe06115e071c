"""`lexray index`: complete a release, the folder that goes into service."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, Field

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
    MANIFEST_FILE,
    Release,
    ReleaseManifest,
    SentenceModelRef,
    check_overwrite,
    create_draft,
    publish,
    seal,
)
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.tables.files import require_local_path
from lexray.tables.provenance import PROVENANCE_FILE, read_provenance
from lexray.training.heads import fit_heads_to_tables
from lexray.training.splits import read_splits, split

_EVENT_COLUMNS = ("source_id", "mission", "n_events", "exposure", "ra", "dec")
_INPUT_KEYS = ("autodecoder", "alignment", "embeddings", "summaries", "labels", "events")


class IndexConfig(JobConfig):
    """Configuration of `index`."""

    out: Annotated[str, AfterValidator(require_local_path)] = Field(
        description="folder of the release, on a local disk"
    )
    autodecoder: str = Field(description="folder that `train autodecoder` wrote")
    alignment: str = Field(description="folder that `train alignment` wrote")
    embeddings: str = Field(description="embeddings table: the vectors that can be found")
    summaries: str | None = Field(None, description="summaries table, for what is said of what is found")
    labels: str | None = Field(None, description="labels table, to fit heads for classes and properties to")
    events: str | None = Field(None, description="events table, for counts and positions of what is found")
    text_model: str = Field("all-MiniLM-L6-v2", description="sentence model that the alignment was trained with")
    replace: bool = Field(
        False, description="put the new release in the place of another that lies at `out`; `force` does so too"
    )
    split_seed: int = Field(0, description="the split whose train and val sources the heads are fitted to")


def run(config: IndexConfig, context: JobContext) -> JobResult:
    """Put the release together beside its place, then move it there."""
    inputs = {key: delta.version(path) for key in _INPUT_KEYS if (path := getattr(config, key)) is not None}
    existing = _existing_release(config, inputs)
    if existing is not None:
        context.progress.say(f"  release {existing.id} is made of these inputs; kept as it is")
        return _outcome(existing.manifest)
    replace = config.replace or config.force
    check_overwrite(config.out, replace)
    folder = create_draft(config.out)
    try:
        manifest = seal(folder, _write_contents(folder, config, inputs, context))
        published = publish(folder, config.out, replace)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    context.run.tags({"release": published.id})
    context.run.dictionary(manifest.model_dump(mode="json"), MANIFEST_FILE)
    return _outcome(published.manifest)


def _existing_release(config: IndexConfig, inputs: dict[str, str]) -> Release | None:
    """The release at `out`, if it is whole and was made of the same inputs."""
    if config.force or not (Path(config.out) / MANIFEST_FILE).is_file():
        return None
    try:
        found = Release.open(config.out)
    except LexrayError:
        return None
    manifest = found.manifest
    same = (
        manifest.inputs == inputs
        and manifest.split_seed == config.split_seed
        and manifest.text_model.name == config.text_model
    )
    return found if same else None


def _write_contents(folder: Path, config: IndexConfig, inputs: dict[str, str], context: JobContext) -> ReleaseManifest:
    """Write everything of a release but its manifest."""
    for name in (AUTODECODER_DIR, ALIGNMENT):
        shutil.copytree(
            getattr(config, name), folder / name, ignore=shutil.ignore_patterns(PROVENANCE_FILE, "checkpoints")
        )
    autodecoder, towers = load_autodecoder(folder / AUTODECODER_DIR), Towers.load(folder / ALIGNMENT)
    encoder = TextEncoder(config.text_model)
    if encoder.dimension != towers.sizes.text_dim:
        raise LexrayError(
            f"text_model: {config.text_model} gives vectors of {encoder.dimension} numbers, the alignment at "
            f"{config.alignment} was trained on {towers.sizes.text_dim}; name the model it was trained with"
        )
    trained_with = towers.made_with.get("text_model", config.text_model)
    if trained_with != config.text_model:
        raise LexrayError(
            f"text_model: the alignment at {config.alignment} was trained with {trained_with}, not {config.text_model}"
        )
    embeddings = delta.read(config.embeddings, order="id")
    if embeddings.schema.field("embedding").type.list_size != towers.sizes.dimension:
        raise LexrayError(f"{config.embeddings}: vectors are not of the alignment at {config.alignment}; project again")
    events = None if config.events is None else delta.read(config.events, _EVENT_COLUMNS)
    labels = None if config.labels is None else delta.read(config.labels)
    if labels is not None:
        with context.progress.task("heads"):
            heads = fit_heads_to_tables(embeddings, labels, _splits(config, embeddings))
            heads.save(folder / HEADS)
    summaries = None if config.summaries is None else delta.read(config.summaries)
    index = SearchIndex.build(folder / INDEX, index_rows(embeddings, summaries, labels, events))
    modalities = embeddings["modality"].to_pylist()
    return ReleaseManifest(
        dimension=towers.sizes.dimension,
        n_bands=autodecoder.n_bands,
        text_model=SentenceModelRef(
            name=config.text_model,
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
        inputs=inputs,
        split_seed=config.split_seed,
        mlflow_runs=_mlflow_runs(config),
    )


def _splits(config: IndexConfig, embeddings: pa.Table) -> dict[str, str]:
    """Split of each source; by name alone where no positions are given."""
    if config.events is not None:
        return read_splits(config.events, config.split_seed)
    return {source: split(source, config.split_seed) for source in embeddings["source_id"].to_pylist()}


def _mlflow_runs(config: IndexConfig) -> dict[str, str]:
    """MLflow run that made each input, as far as its provenance says."""
    runs: dict[str, str] = {}
    for key in _INPUT_KEYS:
        path = getattr(config, key)
        provenance: dict[str, Any] = (read_provenance(path) or {}) if path is not None else {}
        run_id = provenance.get("report", {}).get("mlflow_run")
        if run_id:
            runs[key] = run_id
    return runs


def _outcome(manifest: ReleaseManifest) -> JobResult:
    return JobResult(
        counts={"release": manifest.release, **manifest.counts}, metrics={}, taken=manifest.counts.get("vectors", 0)
    )


JOB = Job(
    name="index",
    config=IndexConfig,
    run=run,
    inputs=_INPUT_KEYS,
    positional=("autodecoder", "alignment", "embeddings"),
    summary="Complete a release: models, heads, text model and search index in one folder.",
)
