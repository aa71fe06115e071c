"""`lexray evaluate autodecoder`: how well a trained autodecoder reconstructs, and what its representation holds.

`OUT/metrics.json` holds one number per key:

- ``heldout_gain.MODEL`` as `lexray evaluate` writes it, for ``autodecoder``, ``bayesian_blocks``, ``kernel``,
  ``total_variation``, ``baseline.NAME`` and ``true_rate``, with ``…_share_of_ceiling`` and ``autodecoder_over_MODEL``;
- ``heldout_gain.real_files.FILE.MODEL``, and ``heldout_gain.real_files.over_the_best``: what the autodecoder gains on
  real files over the best of the others on each;
- ``heldout_gain.by_group.GROUP.MODEL`` and ``heldout_gain.by_counts.BIN.MODEL``;
- ``regression.PROPERTY.REPRESENTATION.METHOD.r2`` for the properties of `lexray.evaluation.report.autodecoder`, the
  representations ``latents`` and ``log_rate``, the methods ``ridge`` and ``forest``;
- ``anomalies.share_below_1pct``.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from lexray.evaluation import inputs, real_files, scoring
from lexray.evaluation.report import captions, metrics, report, sections
from lexray.evaluation.report.autodecoder import (
    add_grouped_gains,
    anomaly_table,
    detections_of_split,
    fit_baselines,
    measure_detection_properties,
    rate_intervals_68,
    rate_models,
    representation_section,
    sample_by_hash,
)
from lexray.events import validate
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.training.splits import read_splits, sources_of

#: Metrics of the job's result.
HEADLINE_METRICS = (
    *(f"heldout_gain.{name}" for name in ("autodecoder", "bayesian_blocks", "kernel", "total_variation", "true_rate")),
    "heldout_gain.autodecoder_share_of_ceiling",
    *(f"regression.{name}.latents.forest.r2" for name in ("hr_hs", "rms", "variability_odds")),
)


class EvaluateAutodecoderConfig(JobConfig):
    """Configuration of `lexray evaluate autodecoder`."""

    former_keys: ClassVar = {"beside": "baseline_autodecoders", "kind": "group_by"}

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of the trained autodecoder")
    baseline_autodecoders: list[str] = Field(
        [], description="folders of other trained autodecoders, of any type, to compare with"
    )
    latents: str | None = Field(None, description="its latents table; without it nothing is read off representations")
    labels: str | None = Field(None, description="labels table or Parquet file")
    group_by: str = Field("class", description="label column to group by")
    true_rates: str | None = Field(None, description="rates that a simulator drew the photons from, for the ceiling")
    real_files: list[str] = Field(
        [], description="event files to score the same models on, beside the table; those of the training are left out"
    )
    thinnings: int = Field(3, ge=1, description="times that the photons of each of the real files are split")
    chosen_on: int = Field(300, ge=0, description="training detections on which baselines choose; 0 leaves them out")
    probed: int = Field(4000, ge=0, description="most detections to read properties off")
    seed: int = Field(0, ge=0, description="seed of the thinning, the probes and the bootstrap")
    split_seed: int = Field(0, description="seed of the split into train, val and test")


def run(config: EvaluateAutodecoderConfig, context: JobContext) -> JobResult:
    """Score the test sources, probe the representation, draw, and write the report."""
    splits = read_splits(config.events, config.split_seed)
    groups = {source: row.get(config.group_by) for source, row in inputs.read_labels(config.labels, splits).items()}
    group_of = {source: str(group) for source, group in groups.items() if group is not None}
    headers = delta.read(config.events, ["detection_id", "source_id", "n_events"], order="detection_id")
    latents = None if config.latents is None else delta.read(config.latents, order="detection_id")
    chosen, not_scored = real_files.read_files(config.real_files, config.events, splits)
    models, names = rate_models(config.autodecoder, config.baseline_autodecoders)
    with ray_session.session(config.ray):
        chosen_on = sample_by_hash(detections_of_split(headers, splits, "train"), config.chosen_on, "baselines")
        baselines, notes, left_out = fit_baselines(config.events, chosen_on, config.seed)
        scores, invalid = scoring.score_sources(
            config.events,
            sources_of(splits, {"test"}),
            baselines | models,
            config.true_rates,
            config.seed,
            context.progress,
        )
        files = real_files.score_files(chosen, baselines | models, config.thinnings, config.seed, context.progress)
        encoded = [] if latents is None else latents["detection_id"].to_pylist()
        probed = sample_by_hash(encoded, config.probed, "probes")
        properties, unmeasured = measure_detection_properties(
            config.events, probed, config.true_rates, context.progress
        )
    left_out |= invalid | unmeasured
    looked_at = {*chosen_on, *detections_of_split(headers, splits, "test"), *probed}
    results = metrics.EvaluationResults()
    metrics.measure_gain(results, scores, config.seed, names)
    metrics.measure_real_files(results, files, names)
    results.left_out += not_scored
    group_of_detection = {s.detection_id: group_of[s.source_id] for s in scores if s.source_id in group_of}
    add_grouped_gains(results, "by_group", metrics.gains_by_group(scores, group_of_detection, names))
    steps = report.lineage([path for path in (config.autodecoder, config.latents, config.labels) if path is not None])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures = captions.gain_figures(folder, results, scores, group_of, names, config.group_by)
        by_counts, gains = captions.count_bin_figure(folder, scores, names)
        add_grouped_gains(results, "by_counts", gains)
        figures |= by_counts
        anomalies = None
        if latents is None:
            results.left_out.append("what the representation holds, and anomalies: no latents table was given")
        else:
            figures |= representation_section(results, latents, properties, splits, config.seed, folder)
            counts = dict(zip(headers["detection_id"].to_pylist(), headers["n_events"].to_pylist(), strict=True))
            anomalies = anomaly_table(results, latents, group_of, counts)
        figures |= sections.training_section(folder, steps, context.run.client)
        page = report.ReportPage(
            folder=folder,
            results=results,
            origin=report.report_origin(splits, steps, config, context.run.run_id),
            figures=figures,
            light_curves=sections.light_curve_section(
                folder,
                inputs.SourceMetadata(splits, {source: {"class": name} for source, name in group_of.items()}, {}),
                scores,
                config.events,
                None,
                config.true_rates,
                partial(scoring.reconstruct, config.autodecoder),
                context.progress,
                partial(rate_intervals_68, config.autodecoder),
            ),
            examples=[],
            caveats=[*notes, *captions.caveats(results, config.true_rates is not None)],
            job=JOB.name,
            title="How well the rates are reconstructed",
            tables=[] if anomalies is None else [anomalies],
        )
        refusals = validate.refusals(config.events, left_out)
        accepted = len(looked_at - left_out.keys())
        return report.publish(page, config.out, context, len(scores), HEADLINE_METRICS, refusals, accepted)


JOB = Job(
    name="evaluate autodecoder",
    config=EvaluateAutodecoderConfig,
    run=run,
    inputs=("events", "autodecoder", "baseline_autodecoders", "latents", "labels", "true_rates", "real_files"),
    positional=("events",),
)
