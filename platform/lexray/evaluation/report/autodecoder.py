"""What `lexray evaluate autodecoder` measures in addition to the held-out gain of every evaluation."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexray.evaluation import cells, gregory_loredo, intervals, scoring, tables, total_variation
from lexray.evaluation.heldout import PiecewiseRate, RateModel
from lexray.evaluation.inputs import Representation
from lexray.evaluation.kernel import GaussianKernel
from lexray.evaluation.report.captions import property_figure
from lexray.evaluation.report.metrics import MODEL_LABELS, EvaluationResults, MetricRow, measure_properties
from lexray.evaluation.report.report import CaptionedFigure, ReportTable
from lexray.events import validate
from lexray.events.eventlist import EventList
from lexray.inference.autodecoder import load_autodecoder
from lexray.inference.photons import photons_of
from lexray.runtime.map_parts import results_of_parts
from lexray.runtime.progress import Progress
from lexray.sources import stable_hash
from lexray.tables.files import resolve_path
from lexray.tables.list_columns import stack_lists

#: What is read off a detection's representation: hardness of its counts, the arsinh of the log10 of its variability
#: odds, and the rms of the true rate.
PROPERTY_LABELS = {
    "hr_ms": "hardness, medium–soft",
    "hr_hs": "hardness, hard–soft",
    "rms": "fractional rms of the true rate",
    "variability_odds": "Gregory–Loredo odds",
}
ANOMALIES_SECTION = "Anomalies"
#: Detections in the anomalies' table.
_MAX_ANOMALIES = 15
#: The probability below which a detection is counted as an anomaly.
_ANOMALY_P_VALUE = 0.01


def detections_of_split(headers: pa.Table, splits: Mapping[str, str], split: str) -> list[str]:
    """Detections of a split that have photons, by `detection_id`, `source_id` and `n_events` of an events table."""
    return [
        row["detection_id"] for row in headers.to_pylist() if row["n_events"] and splits.get(row["source_id"]) == split
    ]


def sample_by_hash(names: Collection[str], n: int, purpose: str) -> list[str]:
    """At most `n` of the names, the same in whichever order they come."""
    return sorted(names, key=lambda name: (stable_hash(name, purpose), name))[:n]


def fit_baselines(
    events: str, detection_ids: Sequence[str], seed: int
) -> tuple[dict[str, RateModel], list[str], dict[str, str]]:
    """The best fixed kernel and the penalised fit of each source alone, both chosen on training detections.

    Returns
    -------
    dict
        Name to model; empty where there is nothing to choose on.
    list of str
        What was chosen, for a person.
    dict
        What is wrong with each detection that was left out.
    """
    n_bands = validate.usual_bands(events)
    where = pc.field("detection_id").isin(pa.array(detection_ids, pa.string()))
    valid, left_out = scoring.valid_events(events, where, n_bands)
    by_id = {e.detection_id: e for e in valid if len(e)}
    training = [by_id[name] for name in detection_ids if name in by_id]
    if not training:
        return {}, [], left_out
    photons = photons_of(training, n_bands)
    kernel, fit = GaussianKernel.best(photons, seed), total_variation.TotalVariationFit.best(photons, seed)
    notes = [
        f"The kernel is {100 * kernel.width:.2g} % of a detection's length wide, with {100 * kernel.floor:.0f} % of a "
        "constant rate mixed in.",
        f"The penalties of each source's own fit are {fit.mean:g} nats a unit of log-rate of the mean over the bands "
        f"and {fit.deviation:g} of a band's deviation from it; an infinite one leaves all bands one shape.",
        f"Both were chosen by their held-out gain on {len(training)} training detections.",
    ]
    return {"kernel": cells.as_rate_model(kernel), "total_variation": cells.as_rate_model(fit)}, notes, left_out


def rate_models(autodecoder: str, baseline_autodecoders: Sequence[str]) -> tuple[dict[str, RateModel], dict[str, str]]:
    """Models of trained folders, and the labels of all models of the evaluation, in order."""
    models: dict[str, RateModel] = {"autodecoder": partial(scoring.reconstruct, resolve_path(autodecoder))}
    others: dict[str, str] = {}
    for folder in baseline_autodecoders:
        name = load_autodecoder(folder).name
        key = f"baseline.{name}"
        while key in others:
            key += "_"
        others[key] = name if name not in others.values() else f"{name} ({folder})"
        models[key] = partial(scoring.reconstruct, resolve_path(folder))
    # The others stand before ours, as `MODEL_LABELS` has its baselines.
    ours = list(MODEL_LABELS).index("autodecoder")
    labels = list(MODEL_LABELS.items())
    return models, dict([*labels[:ours], *others.items(), *labels[ours:]])


def rate_intervals_68(autodecoder: str, events: Sequence[EventList]) -> list[intervals.RateInterval] | None:
    """The 68 % interval of each detection's rate; None where this model type gives none."""
    return intervals.rate_intervals(load_autodecoder(autodecoder), events, 0.68)


def measure_detection_properties(
    events: str, detection_ids: Collection[str], true_rates: str | None, progress: Progress
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """`PROPERTY_LABELS` of detections, one Ray task a part of the events table.

    Returns
    -------
    dict
        Detection → property → value.
    dict
        What is wrong with each detection that was left out.
    """
    if not detection_ids:
        return {}, {}
    truth = None if true_rates is None else resolve_path(true_rates)
    n_bands = validate.usual_bands(events)
    properties: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    with progress.task("variability odds", total=len(detection_ids)) as task:
        for part, invalid in results_of_parts(_properties_of_part, events, list(detection_ids), truth, n_bands):
            properties |= part
            left_out |= invalid
            task.advance(len(part))
    return properties, left_out


def _properties_of_part(
    events: str, part: int, detection_ids: Collection[str], true_rates: str | None, n_bands: int
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    where = (pc.field("part") == part) & pc.field("detection_id").isin(pa.array(detection_ids, pa.string()))
    detections, left_out = scoring.valid_events(events, where, n_bands)
    truth = tables.read_rates(true_rates, detections)
    properties = {}
    for e in detections:
        # Odds run from 10⁻³ to 10⁵⁰⁰: in their logarithm a few bright sources would be all that counts.
        values = {"variability_odds": float(np.arcsinh(gregory_loredo.log10_odds(e)))}
        if len(e.bands) >= 3:
            values |= {"hr_ms": e.hardness_ratio(0, 1), "hr_hs": e.hardness_ratio(0, 2)}
        if e.detection_id in truth:
            values["rms"] = true_rms(truth[e.detection_id], e)
        properties[e.detection_id] = values
    return properties, left_out


def true_rms(rate: PiecewiseRate, events: EventList) -> float:
    """Fractional rms of a rate within good time, all bands together."""
    total, good = rate.rate.sum(axis=0), events.gti.exposure(rate.edges)
    mean = np.average(total, weights=good)
    return float(np.sqrt(np.average((total / mean - 1) ** 2, weights=good)))


def detection_features(latents: pa.Table, splits: Mapping[str, str]) -> list[Representation]:
    """Representation and log count rates of each detection, and the latter alone: what needs no autodecoder.

    Parameters
    ----------
    latents : table
        Rows of the `latents` table.
    splits : mapping
        Source → split.
    """
    rates = stack_lists(latents["log_rate"])
    both = np.concatenate([stack_lists(latents["latent"]), rates], axis=1)
    ids = [str(name) for name in latents["detection_id"].to_pylist()]
    parts = [splits[str(source)] for source in latents["source_id"].to_pylist()]
    return [
        Representation("latents", "representation and count rates", both, parts, ids, standardise=True),
        Representation("log_rate", "count rates alone", rates, parts, ids, standardise=True),
    ]


def representation_section(
    results: EvaluationResults,
    latents: pa.Table,
    properties: Mapping[str, Mapping[str, float]],
    splits: Mapping[str, str],
    seed: int,
    folder: Path,
) -> dict[str, CaptionedFigure]:
    """What the representation holds of the properties of `measure_detection_properties`: metrics, rows and a figure."""
    features = detection_features(latents.filter(pc.field("detection_id").isin(list(properties))), splits)
    probes = measure_properties(results, features, properties, seed, PROPERTY_LABELS, "latents", PROPERTY_LABELS)
    return property_figure(
        folder,
        probes,
        ("latents",),
        PROPERTY_LABELS,
        "Each point is a test detection; on the dashed line the prediction is right. Predicted from the "
        "representation and the count rates by the better of the table's methods.",
    )


def add_grouped_gains(results: EvaluationResults, grouping: str, gains: Mapping[str, Mapping[str, float]]) -> None:
    """Add the gains of `metrics.gains_by_group` to the metrics, as ``heldout_gain.GROUPING.GROUP.MODEL``."""
    results.metrics |= {
        f"heldout_gain.{grouping}.{group}.{model}": value
        for group, models in gains.items()
        for model, value in models.items()
    }


def anomaly_table(
    results: EvaluationResults, latents: pa.Table, group_of: Mapping[str, str], counts: Mapping[str, int]
) -> ReportTable | None:
    """The detections that are least likely under the model, the least likely first; None without such a score.

    Parameters
    ----------
    results : EvaluationResults
        Gets the share of detections with a small p-value, which is the probability itself where the population is
        like the training's.
    latents : table
        Rows of the `latents` table.
    group_of : mapping
        Source → class or kind.
    counts : mapping
        Detection → photons.
    """
    if not {"anomaly", "p_value"} <= set(latents.column_names):
        return None
    rows = [
        row
        for row in latents.select(("detection_id", "source_id", "anomaly", "p_value")).to_pylist()
        if row["anomaly"] is not None
    ]
    if not rows:
        results.left_out.append("anomalies: the latents table has no score")
        return None
    known = [row["p_value"] for row in rows if row["p_value"] is not None]
    if known:
        share = float(np.mean(np.asarray(known) < _ANOMALY_P_VALUE))
        results.metrics["anomalies.n_detections"] = len(rows)
        what = "detections with a p-value below 1 %"
        results.measure(
            "anomalies.share_below_1pct",
            ANOMALIES_SECTION,
            MetricRow(what, share, None, None, _ANOMALY_P_VALUE, "as simulated", len(known), "%"),
        )
    rows.sort(key=lambda r: (1.0 if r["p_value"] is None else r["p_value"], -r["anomaly"], r["detection_id"]))
    return ReportTable(
        "Anomalies",
        "The detections that are least likely under the model and the population that it learned, of all splits. The "
        "p-value is the share of simulated detections, of similar total counts, that are as unlikely.",
        ("Detection", "Kind", "Photons", "Score", "p-value"),
        [_anomaly_row(row, group_of, counts) for row in rows[:_MAX_ANOMALIES]],
        numbers=(1, 2, 3, 4),
    )


def _anomaly_row(row: Mapping[str, Any], group_of: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    name = row["detection_id"]
    p = "" if row["p_value"] is None else f"{row['p_value']:.2g}"
    return [name, group_of.get(row["source_id"], ""), f"{counts.get(name, 0):,}", f"{row['anomaly']:.2f}", p]
