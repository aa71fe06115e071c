"""`lexray evaluate autodecoder`: how well a trained autodecoder reconstructs, and what its representation holds.

`OUT/metrics.json` holds one number a key:

- ``heldout_gain.MODEL`` as `lexray evaluate` writes it, for ``autodecoder``, ``bayesian_blocks``, ``kernel``,
  ``total_variation``, ``baseline.NAME`` and ``true_rate``, with ``…_share_of_ceiling`` and ``autodecoder_over_MODEL``;
- ``heldout_gain.by_kind.KIND.MODEL`` and ``heldout_gain.by_counts.BIN.MODEL``;
- ``regression.PROPERTY.REPRESENTATION.METHOD.r2`` for the properties of `lexray.evaluation.report.autodecoder`, the
  representations ``latents`` and ``log_rate``, the methods ``ridge`` and ``forest``;
- ``anomalies.share_below_1pct``.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lexray.evaluation import inputs
from lexray.evaluation.inputs import SourceMetadata
from lexray.evaluation.report import captions, metrics
from lexray.evaluation.report.autodecoder import (
    PROPERTY_LABELS,
    anomaly_table,
    detection_features,
    fit_baselines,
    measure_detection_properties,
    rate_intervals_68,
    rate_models,
    sample_by_hash,
)
from lexray.evaluation.report.metrics import EvaluationResults
from lexray.evaluation.report.report import ReportPage, lineage, write_report
from lexray.evaluation.report.sections import light_curve_section, training_section
from lexray.evaluation.scoring import reconstruct, score_sources
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.training.splits import SPLITS, read_splits, sources_of

#: Label columns that detections are grouped by where the configuration names none: the first that the labels have.
_GROUP_COLUMNS = ("kind", "class")


class EvaluateAutodecoderConfig(JobConfig):
    """Configuration of `evaluate autodecoder`."""

    former_keys: ClassVar = {"beside": "baseline_autodecoders", "kind": "group_by"}

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of the trained autodecoder")
    baseline_autodecoders: list[str] = Field(
        [], description="folders of other trained autodecoders, of any type, to compare with"
    )
    latents: str | None = Field(None, description="its latents table; without it nothing is read off representations")
    labels: str | None = Field(None, description="labels table or Parquet file")
    group_by: str | None = Field(None, description="label column to group by; by default 'kind', else 'class'")
    true_rates: str | None = Field(None, description="rates that a simulator drew the photons from, for the ceiling")
    chosen_on: int = Field(300, ge=0, description="training detections on which baselines choose; 0 leaves them out")
    probed: int = Field(4000, ge=0, description="most detections to read properties off")
    seed: int = Field(0, ge=0, description="seed of the thinning, the probes and the bootstrap")
    split_seed: int = Field(0, description="seed of the split into train, val and test")


def run(config: EvaluateAutodecoderConfig, context: JobContext) -> JobResult:
    """Score the test sources, probe the representation, draw, and write the report."""
    splits = read_splits(config.events, config.split_seed)
    metadata = SourceMetadata(splits, inputs.read_labels(config.labels, splits), {})
    column = config.group_by or next(
        (c for c in _GROUP_COLUMNS if any(c in row for row in metadata.labels.values())), "class"
    )
    group_of = {source: str(row[column]) for source, row in metadata.labels.items() if row.get(column) is not None}
    table = delta.read(config.events, ["detection_id", "source_id", "n_events"], order="detection_id")
    models, names = rate_models(config.autodecoder, config.baseline_autodecoders)
    found = EvaluationResults()
    with ray_session.session(config.ray):
        training = _detections_of_split(table, splits, "train")
        baseline_ids = sample_by_hash(training, config.chosen_on, "baselines")
        baselines, said = fit_baselines(config.events, baseline_ids, config.seed)
        test = sources_of(splits, {"test"})
        scores = score_sources(
            config.events, test, baselines | models, config.true_rates, config.seed, context.progress
        )
        latents = None if config.latents is None else delta.read(config.latents, order="detection_id")
        probed = [] if latents is None else latents["detection_id"].to_pylist()
        properties = measure_detection_properties(
            config.events,
            sample_by_hash(probed, config.probed, "probes"),
            config.true_rates,
            context.progress,
        )
    metrics.measure_gain(found, scores, config.seed, names)
    group_of_detection = {s.detection_id: group_of[s.source_id] for s in scores if s.source_id in group_of}
    _add_grouped_metrics(found, "by_kind", metrics.gains_by_group(scores, group_of_detection, names))
    listing, probes = None, {}
    if latents is None:
        found.left_out.append("what the representation holds, and anomalies: no latents table was given")
    else:
        kept = latents.filter(pc.field("detection_id").isin(list(properties)))
        probes = metrics.measure_properties(
            found,
            detection_features(kept, splits),
            properties,
            config.seed,
            PROPERTY_LABELS,
            "latents",
            PROPERTY_LABELS,
        )
        counts = dict(zip(table["detection_id"].to_pylist(), table["n_events"].to_pylist(), strict=True))
        listing = anomaly_table(found, latents, group_of, counts)
    steps = lineage([path for path in (config.autodecoder, config.latents, config.labels) if path is not None])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drawn = captions.gain_figures(folder, found, scores, group_of, names, column)
        by_counts, gains = captions.count_bin_figure(folder, scores, names)
        _add_grouped_metrics(found, "by_counts", gains)
        drawn |= by_counts | captions.property_figure(
            folder,
            probes,
            ("latents",),
            PROPERTY_LABELS,
            "Each point is a test detection; on the dashed line the prediction is right. Predicted from the "
            "representation and the count rates by the better of the table's methods.",
        )
        drawn |= training_section(folder, steps, context.run.client)
        page = ReportPage(
            folder=folder,
            findings=found,
            sources={name: list(splits.values()).count(name) for name in SPLITS},
            steps=steps,
            config=config.model_dump(mode="json", exclude={"tracking", "ray", "force"}),
            mlflow_run=context.run.run_id,
            pictures=drawn,
            light_curves=light_curve_section(
                folder,
                SourceMetadata(splits, {source: {"class": name} for source, name in group_of.items()}, {}),
                scores,
                config.events,
                None,
                config.true_rates,
                partial(reconstruct, config.autodecoder),
                context.progress,
                partial(rate_intervals_68, config.autodecoder),
            ),
            examples=[],
            caveats=[*said, *captions.caveats(found, config.true_rates is not None)],
            job=JOB.name,
            title="How well the rates are reconstructed",
            listings=[] if listing is None else [listing],
        )
        write_report(page, config.out, context.run)
    for line in found.left_out:
        context.progress.say(f"    left out: {line}")
    counts = {f"{name}_sources": n for name, n in page.sources.items()}
    counts |= {"test_detections": len(scores), "pictures": len(drawn) + len(page.light_curves)}
    return JobResult(counts=counts, metrics={k: found.metrics[k] for k in HEADLINE_METRICS if k in found.metrics})


HEADLINE_METRICS = (
    *(f"heldout_gain.{name}" for name in ("autodecoder", "bayesian_blocks", "kernel", "total_variation", "true_rate")),
    "heldout_gain.autodecoder_share_of_ceiling",
    *(f"regression.{name}.latents.forest.r2" for name in ("hr_hs", "rms", "variability_odds")),
)


def _detections_of_split(table: pa.Table, splits: dict[str, str], wanted: str) -> list[str]:
    """Detections of a split that have photons."""
    return [
        row["detection_id"] for row in table.to_pylist() if row["n_events"] and splits.get(row["source_id"]) == wanted
    ]


def _add_grouped_metrics(found: EvaluationResults, key: str, gains: dict[str, dict[str, float]]) -> None:
    for group, models in gains.items():
        for model, value in models.items():
            found.metrics[f"heldout_gain.{key}.{group}.{model}"] = value


JOB = Job(
    name="evaluate autodecoder",
    config=EvaluateAutodecoderConfig,
    run=run,
    inputs=("events", "autodecoder", "baseline_autodecoders", "latents", "labels", "true_rates"),
    positional=("events",),
    summary="Measure how well an autodecoder reconstructs rates, and write the report.",
)
