"""`lexray evaluate`: measure everything on the test sources, and write the report.

`OUT/metrics.json` holds one number a key:

- ``heldout_gain.MODEL`` bits per held-out photon over a constant rate, for ``bayesian_blocks``, ``autodecoder``,
  ``true_rate`` (the true shape at a fitted level, as all models have) and ``true_rate_with_level``; ``…_low`` and
  ``…_high`` bound 95 % of bootstrap draws, here and below; ``heldout_gain.MODEL_share_of_ceiling``;
- ``retrieval.DIRECTION.recall_at_10``, ``.recall_at_1pct``, ``.recall_at_5pct``, ``.median_rank`` for ``text_to_xray``
  and ``xray_to_text``, and the same of ``retrieval.chance``;
- ``regression.LABEL.REPRESENTATION.METHOD.r2`` for the labels of `findings.PROPERTIES`, the representations
  ``latents``, ``aligned`` and ``text``, and the methods ``ridge`` and ``forest``;
- ``classification.REPRESENTATION.accuracy`` and ``.balanced_accuracy``, and ``classification.majority``.
"""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.compute as pc
import pyarrow.fs
import ray
from pydantic import Field

from lexray import cluster, storage
from lexray.autodecoding import load_autodecoder
from lexray.config import JobConfig
from lexray.evaluation import figures, findings, inputs, pictures, space
from lexray.evaluation.baselines import bayesian_blocks, constant
from lexray.evaluation.figures import LightCurve
from lexray.evaluation.findings import Findings
from lexray.evaluation.heldout import PiecewiseRate, RateModel, Score, score_models
from lexray.evaluation.report import Page, Picture, Step, lineage, render
from lexray.events.eventlist import EventList, from_table
from lexray.job import Context, Job, Outcome
from lexray.splits import read_splits, sources_of

#: Most light curves of real files in the report.
_MAX_REAL = 6


class Config(JobConfig):
    """Configuration of `evaluate`."""

    events: str = Field(description="events table")
    autodecoder: str | None = Field(None, description="folder of a trained autodecoder; without it no gain of ours")
    latents: str | None = Field(None, description="latents table")
    summaries: str | None = Field(None, description="summaries table, for the report's examples")
    text_embeddings: str | None = Field(None, description="text_embeddings table: what the words alone hold")
    embeddings: str | None = Field(None, description="embeddings table, of the shared space")
    labels: str | None = Field(None, description="labels table or Parquet file: classes and properties")
    true_rates: str | None = Field(None, description="rates that a simulator drew the photons from, for the ceiling")
    rates: str | None = Field(None, description="rates table for the light curves; else the autodecoder is asked")
    seed: int = Field(0, ge=0, description="seed of the thinning, the bootstrap and the map")
    split_seed: int = Field(0, description="seed of the split into train, val and test")


def run(config: Config, context: Context) -> Outcome:
    """Score the test sources, draw, and write the report."""
    splits = read_splits(config.events, config.split_seed)
    labels = inputs.read_labels(config.labels, splits)
    class_of = {source: row["class"] for source, row in labels.items() if isinstance(row.get("class"), str)}
    summaries = inputs.read_summaries(config.summaries)
    found = Findings()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with cluster.session(config.ray):
            scores = _score(config, context, sources_of(splits, {"test"}))
        findings.measure_gain(found, scores, config.seed)
        drawn = pictures.gain_pictures(folder, found, scores, class_of)
        examples = _measure_space(config, found, splits, labels, class_of, summaries, folder, drawn)
        steps = lineage([path for key in JOB.inputs if (path := getattr(config, key)) is not None])
        drawn |= _training_curves(folder, steps, context)
        page = Page(
            folder=folder,
            findings=found,
            sources={name: list(splits.values()).count(name) for name in ("train", "val", "test")},
            steps=steps,
            config=config.model_dump(mode="json", exclude={"tracking", "ray", "force"}),
            mlflow_run=context.run.run_id,
            pictures=drawn,
            light_curves=_light_curves(config, context, scores, splits, class_of, folder),
            examples=examples,
            caveats=pictures.caveats(found, config.true_rates is not None),
        )
        (folder / "metrics.json").write_text(json.dumps(found.metrics, indent=1, sort_keys=True) + "\n")
        (folder / "report.html").write_text(render(page), encoding="utf-8")
        context.run.metrics(found.metrics)
        context.run.artifact(folder)
        system, root = storage.filesystem(config.out)
        system.create_dir(root, recursive=True)
        pyarrow.fs.copy_files(str(folder), root, pyarrow.fs.LocalFileSystem(), system)
    for line in found.left_out:
        context.progress.say(f"    left out: {line}")
    counts = {f"{name}_sources": n for name, n in page.sources.items()}
    counts |= {"test_detections": len(scores), "pictures": len(drawn) + len(page.light_curves)}
    return Outcome(counts=counts, metrics={k: found.metrics[k] for k in findings.HEADLINES if k in found.metrics})


def _score(config: Config, context: Context, test: set[str]) -> list[Score]:
    """Held-out likelihoods of all models over the test sources, one Ray task a part of the events table."""
    parts = list(storage.part_files(config.events))
    sources = storage.read(config.events, ["source_id"])["source_id"].to_pylist()
    wanted = ray.put(test)
    task_of = ray.remote(_score_part)
    waiting = [task_of.remote(config.model_dump(), part, wanted) for part in parts]
    scores: list[Score] = []
    with context.progress.task("detections scored", total=sum(source in test for source in sources)) as task:
        while waiting:
            done, waiting = ray.wait(waiting)
            for part in ray.get(done):
                scores += part
                task.advance(len(part))
    return sorted(scores, key=lambda score: score.detection_id)


def _score_part(values: dict[str, Any], part: int, test: set[str]) -> list[Score]:
    config = Config(**values)
    rows = storage.dataset(config.events).to_table(
        filter=(pc.field("part") == part) & pc.field("source_id").isin(list(test))
    )
    events = [e for e in from_table(rows) if len(e)]
    if not events:
        return []
    truth = inputs.read_rates(config.true_rates, events)
    models: dict[str, RateModel] = {
        "constant": lambda fits: [constant(fit) for fit in fits],
        "bayesian_blocks": lambda fits: [bayesian_blocks(fit) for fit in fits],
        "true_rate": lambda fits: [truth.get(fit.detection_id) for fit in fits],
    }
    if config.autodecoder is not None:
        models["autodecoder"] = partial(_reconstruct, config.autodecoder)
    return score_models(events, models, {"true_rate_with_level": models["true_rate"]}, config.seed)


def _reconstruct(folder: str, events: Sequence[EventList]) -> list[PiecewiseRate]:
    return [PiecewiseRate(edges, rate) for edges, rate in load_autodecoder(folder).rates(events)]


def _measure_space(
    config: Config,
    found: Findings,
    splits: dict[str, str],
    labels: dict[str, dict[str, Any]],
    class_of: dict[str, str],
    summaries: dict[str, str],
    folder: Path,
    drawn: dict[str, Picture],
) -> list[Any]:
    """Retrieval, probes and classes, with their pictures; returns the report's examples."""
    examples = []
    representations = [] if config.latents is None else [inputs.latent_features(config.latents, splits)]
    if config.embeddings is None:
        found.left_out.append("retrieval and the map: no embeddings table was given")
    else:
        table = storage.read(config.embeddings)
        xray, text = inputs.aligned_features(table, splits), inputs.aligned_text(table, splits)
        representations.append(xray)
        pairs = inputs.test_pairs(xray, text)
        if pairs.source_ids:
            ranks = findings.measure_retrieval(found, pairs.xray, pairs.text, config.seed)
            drawn |= pictures.space_pictures(folder, pairs, ranks, class_of, config.seed)
            examples = pictures.examples(pairs, ranks["text → X-ray"], class_of, summaries)
        else:
            found.left_out.append("retrieval and the map: no test source has both X-rays and words")
    if config.text_embeddings is not None:
        representations.append(inputs.text_features(config.text_embeddings, splits))
    if not labels:
        found.left_out.append("properties and classes: no labels were given, or none for these sources")
        return examples
    probes = findings.measure_properties(found, representations, labels, config.seed)
    neighbours = findings.measure_classes(found, representations, class_of, config.seed)
    drawn |= pictures.probe_pictures(folder, probes, neighbours)
    return examples


def _light_curves(
    config: Config,
    context: Context,
    scores: list[Score],
    splits: dict[str, str],
    class_of: dict[str, str],
    folder: Path,
) -> list[Picture]:
    """Best, median and worst of the test, and real files wherever they fall."""
    chosen = pictures.chosen_detections(scores)
    names: dict[str, tuple[str, float | None]] = {
        score.detection_id: (f"{name.capitalize()} of the test", gained) for name, (score, gained) in chosen.items()
    }
    table = storage.read(config.events, ["detection_id", "source_id", "mission", "flags"], order="detection_id")
    real = [row for row in table.to_pylist() if row["mission"] != "chandra" or "whole_field" in (row["flags"] or [])]
    for row in real[:_MAX_REAL]:
        names.setdefault(row["detection_id"], (f"A real file ({splits[row['source_id']]})", None))
    events = inputs.read_detections(config.events, list(names))
    truth = inputs.read_rates(config.true_rates, events)
    rates = inputs.read_rates(config.rates, events)
    left = [e for e in events if e.detection_id not in rates]
    if config.autodecoder is not None and left:
        found = _reconstruct(config.autodecoder, left)
        rates |= {e.detection_id: rate for e, rate in zip(left, found, strict=True)}
    made = []
    with context.progress.task("light curves", total=len(events)) as task:
        for i, e in enumerate(events):
            why, gained = names[e.detection_id]
            curve = LightCurve(e, rates.get(e.detection_id), truth.get(e.detection_id))
            kind = class_of.get(e.source_id, "")
            made.append(pictures.light_curve_picture(folder, f"lightcurve-{i + 1}", curve, why, kind, gained))
            task.advance()
    return made


def _training_curves(folder: Path, steps: list[Step], context: Context) -> dict[str, Picture]:
    """How the trainings behind these tables went, where this tracking server knows their runs."""
    histories: dict[str, list[tuple[int, float]]] = {}
    for step in steps:
        if not step.job.startswith("train") or not step.mlflow_run:
            continue
        try:
            for name in sorted(context.run.client.get_run(step.mlflow_run).data.metrics):
                points = [(m.step, m.value) for m in context.run.client.get_metric_history(step.mlflow_run, name)]
                if len({step for step, _ in points}) >= 3:
                    histories[f"{step.job.removeprefix('train ')}: {name}"] = points
        except mlflow.exceptions.MlflowException:  # tracked elsewhere
            continue
    if not histories:
        return {}
    first = dict(list(histories.items())[:9])
    return {
        "training": Picture(
            figures.draw(folder, "training", partial(space.training_curves, histories=first)),
            "How the trainings went",
            "Metrics as MLflow recorded them, against the trainings' own steps.",
            "Line charts of " + ", ".join(first),
        )
    }


JOB = Job(
    name="evaluate",
    config=Config,
    run=run,
    inputs=(
        "events",
        "autodecoder",
        "latents",
        "summaries",
        "text_embeddings",
        "embeddings",
        "labels",
        "true_rates",
        "rates",
    ),
    positional=("events",),
    summary="Measure everything, and write the report.",
)
