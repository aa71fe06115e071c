"""`lexray evaluate`: measure everything on the test sources, and write the report.

`OUT/metrics.json` holds one number per key:

- ``heldout_gain.MODEL`` bits per held-out photon over a constant rate, for ``bayesian_blocks``, ``autodecoder``,
  ``true_rate`` (the true shape at a fitted level, as all models have) and ``true_rate_with_level``; ``…_low`` and
  ``…_high`` bound 95 % of bootstrap draws, here and below; ``autodecoder_over_bayesian_blocks``, their difference;
  ``MODEL_share_of_ceiling``, of the true rate's gain on the detections whose true rate is known;
- ``heldout_gain.real_files.FILE.MODEL``, and ``heldout_gain.real_files.over_the_best``: what the autodecoder gains on
  real files over the best of the others on each;
- ``retrieval.DIRECTION.recall_at_10``, ``.recall_at_1pct``, ``.recall_at_5pct``, ``.median_rank`` for ``text_to_xray``
  and ``xray_to_text``, and the same of ``retrieval.chance``;
- ``regression.LABEL.REPRESENTATION.METHOD.r2`` for the labels of `metrics.PROPERTY_LABELS`, the representations
  ``latents``, ``aligned`` and ``text``, and the methods ``ridge`` and ``forest``;
- ``classification.REPRESENTATION.accuracy`` and ``.balanced_accuracy``, and ``classification.majority``.
"""

import tempfile
from functools import partial
from pathlib import Path

from pydantic import Field

from lexray.errors import LexrayError
from lexray.evaluation import inputs, real_files, scoring
from lexray.evaluation.report import captions, groundedness, metrics, report, sections
from lexray.events import validate
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables.files import resolve_path
from lexray.training.splits import read_splits, sources_of


class EvaluateConfig(JobConfig):
    """Configuration of `lexray evaluate`."""

    events: str = Field(description="events table")
    autodecoder: str | None = Field(None, description="trained autodecoder; without it, only baselines are scored")
    latents: str | None = Field(None, description="latents table")
    summaries: str | None = Field(None, description="summaries table, for the report's examples")
    text_embeddings: str | None = Field(None, description="text_embeddings table, to measure what text alone predicts")
    embeddings: str | None = Field(None, description="embeddings table, of the shared space")
    labels: str | None = Field(None, description="labels table or Parquet file: classes and properties")
    true_rates: str | None = Field(None, description="rates that a simulator drew the photons from, for the ceiling")
    rates: str | None = Field(None, description="rates table for the light curves; by default the autodecoder's")
    real_files: list[str] = Field(
        [], description="event files to score the same models on, beside the table; those of the training are left out"
    )
    thinnings: int = Field(3, ge=1, description="times that the photons of each of the real files are split")
    seed: int = Field(0, ge=0, description="seed of the thinning, the bootstrap and the map")
    split_seed: int = Field(0, description="seed of the split into train, val and test")


def run(config: EvaluateConfig, context: JobContext) -> JobResult:
    """Score the test sources, draw, and write the report."""
    splits = read_splits(config.events, config.split_seed)
    metadata = inputs.SourceMetadata(
        splits, inputs.read_labels(config.labels, splits), inputs.read_summaries(config.summaries)
    )
    rate_model = None if config.autodecoder is None else partial(scoring.reconstruct, resolve_path(config.autodecoder))
    models = {} if rate_model is None else {"autodecoder": rate_model}
    if config.real_files and not models:
        raise LexrayError(f"{JOB.name}: 'real_files' are for an autodecoder, and none is given")
    chosen, not_scored = real_files.read_files(config.real_files, config.events, splits)
    with ray_session.session(config.ray):
        scores, left_out = scoring.score_sources(
            config.events,
            sources_of(splits, {"test"}),
            models,
            config.true_rates,
            config.seed,
            context.progress,
        )
        files = real_files.score_files(chosen, models, config.thinnings, config.seed, context.progress)
    results = metrics.EvaluationResults()
    metrics.measure_gain(results, scores, config.seed)
    metrics.measure_real_files(results, files)
    results.left_out += not_scored
    tables = [key for key in JOB.inputs if key != "real_files"]
    steps = report.lineage([path for key in tables if (path := getattr(config, key)) is not None])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures, examples = sections.embedding_section(
            results, folder, metadata, config.embeddings, config.latents, config.text_embeddings, config.seed
        )
        figures |= captions.gain_figures(folder, results, scores, metadata.class_of)
        figures |= sections.training_section(folder, steps, context.run.client)
        ungrounded = groundedness.ungrounded_summaries_table(config.summaries)
        page = report.ReportPage(
            folder=folder,
            results=results,
            origin=report.report_origin(splits, steps, config, context.run.run_id),
            figures=figures,
            light_curves=sections.light_curve_section(
                folder, metadata, scores, config.events, config.rates, config.true_rates, rate_model, context.progress
            ),
            examples=examples,
            caveats=captions.caveats(results, config.true_rates is not None),
            tables=[] if ungrounded is None else [ungrounded],
        )
        refusals = validate.refusals(config.events, left_out)
        return report.publish(
            page, config.out, context, len(scores), metrics.HEADLINE_METRICS, refusals, accepted=len(scores)
        )


JOB = Job(
    name="evaluate",
    config=EvaluateConfig,
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
        "real_files",
    ),
    positional=("events",),
)
