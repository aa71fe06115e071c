"""Sections of the report, each from its tables to metrics and figures."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from lexray.evaluation import inputs, intervals, tables
from lexray.evaluation.heldout import DetectionScore, PiecewiseRate
from lexray.evaluation.report import captions, embedding_map, metrics, plots, report
from lexray.events.eventlist import EventList
from lexray.runtime.progress import Progress
from lexray.tables import delta

#: Most light curves of real files in the report.
_MAX_REAL_LIGHT_CURVES = 6
#: Most panels of training curves.
_MAX_CURVES = 12


def embedding_section(
    found: metrics.EvaluationResults,
    folder: Path,
    metadata: inputs.SourceMetadata,
    embeddings: str | None,
    latents: str | None,
    text_embeddings: str | None,
    seed: int,
) -> tuple[dict[str, report.CaptionedFigure], list[report.RetrievalExample]]:
    """Retrieval, properties and classes, with their figures and examples; what lacks its table is left out by name."""
    figures: dict[str, report.CaptionedFigure] = {}
    examples: list[report.RetrievalExample] = []
    representations = [] if latents is None else [inputs.latent_representation(latents, metadata.splits)]
    if embeddings is None:
        found.left_out.append("retrieval and the map: no embeddings table was given")
    else:
        xray, text = inputs.aligned_representations(delta.read(embeddings), metadata.splits)
        representations.append(xray)
        pairs = inputs.pair_test_sources(xray, text)
        if pairs.source_ids:
            ranks = metrics.measure_retrieval(found, pairs.xray, pairs.text, seed)
            figures |= captions.embedding_map_figures(folder, pairs, ranks, metadata.class_of, seed)
            examples = captions.retrieval_examples(pairs, ranks["text → X-ray"], metadata.class_of, metadata.summaries)
        else:
            found.left_out.append("retrieval and the map: no test source has both X-rays and words")
    if text_embeddings is not None:
        representations.append(inputs.text_representation(text_embeddings, metadata.splits))
    if metadata.labels:
        probes = metrics.measure_properties(found, representations, metadata.labels, seed)
        neighbours = metrics.measure_classes(found, representations, metadata.class_of, seed)
        figures |= captions.probe_figures(folder, probes, neighbours)
    else:
        found.left_out.append("properties and classes: no labels were given, or none for these sources")
    return figures, examples


def light_curve_section(
    folder: Path,
    metadata: inputs.SourceMetadata,
    scores: Sequence[DetectionScore],
    events: str,
    rates: str | None,
    true_rates: str | None,
    reconstruct: Callable[[Sequence[EventList]], Sequence[PiecewiseRate]] | None,
    progress: Progress,
    interval_model: Callable[[Sequence[EventList]], Sequence[intervals.RateInterval] | None] | None = None,
) -> list[report.CaptionedFigure]:
    """Light curves of the best, the median and the worst of the test, and of real files wherever they fall.

    Parameters
    ----------
    folder : Path
        Folder of the figures.
    metadata : SourceMetadata
        Splits and classes.
    scores : sequence of DetectionScore
        Of the test detections.
    events, rates, true_rates : str or None
        Tables.
    reconstruct : callable, optional
        Gives the rates that `rates` lacks.
    progress : Progress
        Counts the light curves.
    interval_model : callable, optional
        Gives the rates' 68 % intervals, or None.
    """
    names: dict[str, tuple[str, float | None]] = {
        score.detection_id: (f"{name.capitalize()} of the test", gained)
        for name, (score, gained) in captions.example_detections(scores).items()
    }
    table = delta.read(events, ["detection_id", "source_id", "mission", "flags"], order="detection_id")
    real = [
        row
        for row in table.to_pylist()
        if row["mission"] not in ("chandra", "") or "whole_field" in (row["flags"] or [])
    ]
    for row in real[:_MAX_REAL_LIGHT_CURVES]:
        names.setdefault(row["detection_id"], (f"A real file ({metadata.splits[row['source_id']]})", None))
    shown = tables.read_detections(events, list(names))
    truth, reconstructed = tables.read_rates(true_rates, shown), tables.read_rates(rates, shown)
    missing = [e for e in shown if e.detection_id not in reconstructed]
    if reconstruct is not None and missing:
        reconstructed |= {e.detection_id: rate for e, rate in zip(missing, reconstruct(missing), strict=True)}
    found = interval_model(shown) if interval_model is not None and shown else None
    bounds: Sequence[intervals.RateInterval | None] = found or [None] * len(shown)
    made = []
    with progress.task("light curves", total=len(shown)) as task:
        for i, e in enumerate(shown):
            why, gained = names[e.detection_id]
            curve = plots.LightCurveData(e, reconstructed.get(e.detection_id), truth.get(e.detection_id), bounds[i])
            made.append(
                captions.light_curve_figure(
                    folder, f"lightcurve-{i + 1}", curve, why, metadata.class_of.get(e.source_id, ""), gained
                )
            )
            task.advance()
    return made


def training_section(
    folder: Path, steps: Sequence[report.LineageStep], client: MlflowClient
) -> dict[str, report.CaptionedFigure]:
    """How the trainings behind the tables went, where the tracking server knows their runs."""
    histories: dict[str, list[tuple[int, float]]] = {}
    for step in (step for step in steps if step.job.startswith("train") and step.mlflow_run):
        try:
            for name in sorted(client.get_run(step.mlflow_run).data.metrics):
                history = sorted(client.get_metric_history(step.mlflow_run, name), key=lambda m: m.timestamp)
                # A job's closing figures are logged last and at step 0: no part of the curve.
                points = [(m.step, m.value) for i, m in enumerate(history) if m.step > 0 or i == 0]
                if len(points) >= 3 and len({value for _, value in points}) > 1:
                    histories[f"{step.job.removeprefix('train ')}: {name}"] = points
        except mlflow.exceptions.MlflowException:  # tracked elsewhere
            continue
    if not histories:
        return {}
    first = dict(list(histories.items())[:_MAX_CURVES])
    return {
        "training": report.CaptionedFigure(
            plots.save_figure(folder, "training", partial(embedding_map.training_curves, histories=first)),
            "How the trainings went",
            "Metrics as MLflow recorded them, against the trainings' own steps.",
            "Line charts of " + ", ".join(first),
        )
    }
