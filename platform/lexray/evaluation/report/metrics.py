"""From tables in memory to metrics: what `metrics.json` holds and the report shows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexray.evaluation import retrieval
from lexray.evaluation.heldout import DetectionScore, gain, gain_interval
from lexray.evaluation.inputs import Representation
from lexray.evaluation.real_files import FileGain, over_the_best
from lexray.evaluation.regression import NeighbourResult, ProbeResult, classify_by_neighbours, probe

#: Models of the held-out gain, by their names in metrics, with their labels in the report.
MODEL_LABELS = {
    "constant": "constant rate",
    "bayesian_blocks": "Bayesian Blocks",
    "kernel": "best fixed kernel",
    "total_variation": "each source alone (TV)",
    "autodecoder": "autodecoder",
    "true_rate": "true rate (ceiling)",
    "true_rate_with_level": "true rate, its level known too",
}
#: What a gain is not compared with as with a baseline.
_NOT_BASELINES = ("constant", "autodecoder", "true_rate", "true_rate_with_level")
#: Figures that a job's end prints; all of them are in metrics.json.
HEADLINE_METRICS = (
    "heldout_gain.autodecoder",
    "heldout_gain.bayesian_blocks",
    "heldout_gain.autodecoder_over_bayesian_blocks",
    "heldout_gain.true_rate",
    "heldout_gain.autodecoder_share_of_ceiling",
    "retrieval.text_to_xray.recall_at_10",
    "retrieval.xray_to_text.recall_at_10",
    "retrieval.chance.recall_at_10",
    "retrieval.n_sources",
    "classification.aligned.accuracy",
    "classification.latents.accuracy",
    "classification.majority",
    "regression.hr_hs.aligned.ridge.r2",
    "regression.hr_hs.latents.ridge.r2",
    "regression.rms.aligned.forest.r2",
    "regression.rms.latents.forest.r2",
)


def _number(value: Any) -> float:
    return float("nan") if value is None or isinstance(value, str) else float(value)


@dataclass(frozen=True)
class MetricRow:
    """A line of the report's table. What is None is left empty.

    Values, intervals and baselines are in the same unit.

    Attributes
    ----------
    what : str
        What is measured.
    value : float
    low, high : float or None
        95 % interval.
    baseline : float or None
        What chance or the baseline gives.
    baseline_name : str
    n : int
        How many were judged.
    unit : str
        'bits', '%', 'R²' or 'rank'.
    strong : bool
        Whether it is one of the figures that this is about.
    """

    what: str
    value: float
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    baseline_name: str = ""
    n: int = 0
    unit: str = ""
    strong: bool = False


@dataclass
class EvaluationResults:
    """What was measured: `metrics` by dotted name, and the table's `sections` of rows."""

    metrics: dict[str, float] = field(default_factory=dict)
    sections: dict[str, list[MetricRow]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def measure(self, metric: str, section: str, row: MetricRow) -> None:
        """Append a row, and take its value and its interval into the metrics: `metric`, ``…_low`` and ``…_high``."""
        self.metrics[metric] = row.value
        if row.low is not None and row.high is not None:
            self.metrics |= {f"{metric}_low": row.low, f"{metric}_high": row.high}
        self.sections.setdefault(section, []).append(row)


#: Labels that are probed, where the table has them, with the representation's method.
PROPERTY_LABELS = {
    "hr_ms": "hardness, medium–soft",
    "hr_hs": "hardness, hard–soft",
    "rms": "variability, fractional rms",
}
GAIN_SECTION, RETRIEVAL_SECTION, PROBES_SECTION, CLASSES_SECTION = (
    "Reconstruction: held-out gain",
    "Retrieval between text and X-rays",
    "Properties predicted from the representations",
    "Classes by nearest neighbours",
)


def measure_gain(
    results: EvaluationResults,
    scores: Sequence[DetectionScore],
    seed: int,
    models: Mapping[str, str] = MODEL_LABELS,
) -> None:
    """Held-out gain of every model over the detections that it has a rate for, and what the autodecoder adds to each.

    The share of the ceiling is taken over the detections with a known true rate alone, for both.

    Parameters
    ----------
    results : EvaluationResults
        Takes metrics and rows.
    scores : sequence of DetectionScore
        Of the test detections.
    seed : int
        Of the bootstrap.
    models : mapping
        Labels by name.
    """
    if not scores:
        results.left_out.append("held-out gain: no detection of a test source has photons")
        return
    results.metrics |= {
        "heldout_gain.n_detections": len(scores),
        "heldout_gain.n_sources": len({s.source_id for s in scores}),
        "heldout_gain.n_held_out_photons": sum(s.n_held for s in scores),
        "heldout_gain.constant": 0.0,
    }
    for model, name in models.items():
        scored = [s for s in scores if model in s.log_likelihood]
        if model == "constant" or not scored:
            continue
        measured, strong = _pooled_gain_interval(scored, model, seed), model == "autodecoder"
        results.measure(
            f"heldout_gain.{model}",
            GAIN_SECTION,
            MetricRow(name, *measured, 0.0, "constant rate", len(scored), "bits", strong=strong),
        )
    baselines = {name: label for name, label in models.items() if name not in _NOT_BASELINES}
    for model, label in baselines.items():
        both = [s for s in scores if {model, "autodecoder"} <= set(s.log_likelihood)]
        if both:
            measured = _pooled_gain_interval(both, "autodecoder", seed, model)
            what = f"autodecoder less {label}, source by source"
            results.measure(
                f"heldout_gain.autodecoder_over_{model}",
                GAIN_SECTION,
                MetricRow(what, *measured, 0.0, "no difference", len(both), "bits"),
            )
    known = [s for s in scores if {"true_rate", "autodecoder"} <= set(s.log_likelihood)]
    if known and (ceiling := _pooled_gain(known, "true_rate")) > 0:
        for model in ("autodecoder", *baselines):
            if all(model in s.log_likelihood for s in known):
                results.metrics[f"heldout_gain.{model}_share_of_ceiling"] = _pooled_gain(known, model) / ceiling


def measure_real_files(
    results: EvaluationResults, files: Sequence[FileGain], models: Mapping[str, str] = MODEL_LABELS
) -> None:
    """Gain of the autodecoder on single files beside the best baseline of each, and what it adds to these in all.

    Parameters
    ----------
    results : EvaluationResults
        Takes metrics and rows, those of the section that `measure_gain` fills.
    files : sequence of FileGain
    models : mapping
        As for `measure_gain`.
    """
    if not files:
        return
    baselines = [name for name in models if name not in _NOT_BASELINES and name in files[0].by_block]
    for file in files:
        best, what = file.best(baselines), f"real file {file.name}"
        interval = file.interval("autodecoder")
        row = MetricRow(
            what, file.gain("autodecoder"), *interval, file.gain(best), models[best], file.n_photons, "bits"
        )
        results.measure(f"heldout_gain.real_files.{file.name}.autodecoder", GAIN_SECTION, row)
        results.metrics |= {f"heldout_gain.real_files.{file.name}.{name}": file.gain(name) for name in baselines}
    over = over_the_best(files, "autodecoder", baselines)
    others = models[baselines[0]] if len(baselines) == 1 else "the best of the others on each"
    what = f"real files, autodecoder less {others}"
    n_photons = sum(file.n_photons for file in files)
    row = MetricRow(what, *over, 0.0, "no difference", n_photons, "bits", strong=True)
    results.measure("heldout_gain.real_files.over_the_best", GAIN_SECTION, row)


def gains_by_group(
    scores: Sequence[DetectionScore], group_of: Mapping[str, str], models: Mapping[str, str] = MODEL_LABELS
) -> dict[str, dict[str, float]]:
    """Held-out gain in bits per photon: group → model's name → gain.

    Parameters
    ----------
    scores : sequence of DetectionScore
    group_of : mapping
        Detection → group; detections that it lacks are left out.
    models : mapping
        As for `measure_gain`.
    """
    members: dict[str, list[DetectionScore]] = {}
    for s in scores:
        if s.detection_id in group_of:
            members.setdefault(group_of[s.detection_id], []).append(s)
    return {
        group: {
            model: _pooled_gain(with_it, model)
            for model in models
            if model != "constant" and (with_it := [s for s in mine if model in s.log_likelihood])
        }
        for group, mine in members.items()
    }


def _likelihoods(
    scores: Sequence[DetectionScore], model: str, against: str
) -> tuple[list[float], list[float], list[int]]:
    """Log-likelihoods of two models by detection, and held-out photons."""
    ours, others = ([s.log_likelihood[name] for s in scores] for name in (model, against))
    return ours, others, [s.n_held for s in scores]


def _pooled_gain(scores: Sequence[DetectionScore], model: str, against: str = "constant") -> float:
    return gain(*_likelihoods(scores, model, against))


def _pooled_gain_interval(
    scores: Sequence[DetectionScore], model: str, seed: int, against: str = "constant"
) -> tuple[float, float, float]:
    sources = [s.source_id for s in scores]
    return _pooled_gain(scores, model, against), *gain_interval(*_likelihoods(scores, model, against), sources, seed)


def measure_retrieval(
    found: EvaluationResults, xray: NDArray[Any], text: NDArray[Any], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Retrieval both ways over paired rows; returns the ranks by direction."""
    n = len(xray)
    by_chance = retrieval.chance(n)
    found.metrics |= {"retrieval.n_sources": n} | {f"retrieval.chance.{k}": value for k, value in by_chance.items()}
    metric_labels = {
        "recall_at_10": f"Recall@10 of {n}",
        "recall_at_1pct": f"Recall@1 % (best {retrieval.cutoff(n, 1)})",
        "recall_at_5pct": f"Recall@5 % (best {retrieval.cutoff(n, 5)})",
        "median_rank": "median rank",
    }
    ranks: dict[str, NDArray[np.int64]] = {}
    directions = {"text_to_xray": ("text → X-ray", text, xray), "xray_to_text": ("X-ray → text", xray, text)}
    for key, (direction, queries, targets) in directions.items():
        ranks[direction] = retrieval.ranks(queries, targets)
        values = retrieval.summarise(ranks[direction], seed)
        for name, words in metric_labels.items():
            found.measure(
                f"retrieval.{key}.{name}",
                RETRIEVAL_SECTION,
                MetricRow(
                    what=f"{direction}: {words}",
                    value=values[name],
                    low=values[f"{name}_low"],
                    high=values[f"{name}_high"],
                    baseline=by_chance[name],
                    baseline_name="chance",
                    n=n,
                    unit="rank" if name == "median_rank" else "%",
                    strong=name == "recall_at_10",
                ),
            )
    return ranks


def measure_properties(
    found: EvaluationResults,
    representations: Sequence[Representation],
    labels: Mapping[str, Mapping[str, Any]],
    seed: int,
    properties: Mapping[str, str] = PROPERTY_LABELS,
    strong: str = "aligned",
    forest_columns: Collection[str] = ("rms",),
) -> dict[tuple[str, str], ProbeResult]:
    """R² of properties from each representation: ridge, and for variability a random forest too.

    Parameters
    ----------
    found : EvaluationResults
        Takes metrics and rows.
    representations : sequence of Representation
        What to read the properties off.
    labels : mapping
        Source → column → value.
    seed : int
        Of the forest and the bootstrap.
    properties : mapping
        Labels by column.
    strong : str
        The representation whose rows stand out.
    forest_columns : collection of str
        Columns that are also read off with a random forest.

    Returns
    -------
    dict
        (property, representation's key) → the better probe of its methods.
    """
    best: dict[tuple[str, str], ProbeResult] = {}
    present = {name for values in labels.values() for name in values}
    for column, label in properties.items():
        if column not in present:
            found.left_out.append(f"R² of {label}: the labels have no column '{column}'")
            continue
        for item in representations:
            y = np.array([_number(labels.get(source, {}).get(column)) for source in item.source_ids])
            for method in ("ridge", "forest") if column in forest_columns else ("ridge",):
                result = probe(item.rows, y, item.splits, method, seed)
                if result is None:
                    continue
                found.measure(
                    f"regression.{column}.{item.key}.{method}.r2",
                    PROBES_SECTION,
                    MetricRow(
                        what=f"{label}, from {item.name} ({'random forest' if method == 'forest' else method})",
                        value=result.r2,
                        low=result.low,
                        high=result.high,
                        baseline=0.0,
                        baseline_name="the mean",
                        n=len(result.truth),
                        unit="R²",
                        strong=item.key == strong and method == "ridge",
                    ),
                )
                if (column, item.key) not in best or result.r2 > best[column, item.key].r2:
                    best[column, item.key] = result
    return best


def measure_classes(
    found: EvaluationResults, representations: Sequence[Representation], class_of: Mapping[str, str], seed: int
) -> dict[str, NeighbourResult]:
    """k-nearest-neighbour accuracy by representation, compared with the majority class."""
    results: dict[str, NeighbourResult] = {}
    for item in representations:
        result = classify_by_neighbours(
            item.rows, list(map(class_of.get, item.source_ids)), item.splits, seed, standardise=item.standardise
        )
        if result is None:
            continue
        results[item.key] = result
        key = f"classification.{item.key}"
        found.metrics |= {
            f"{key}.k": result.k,
            "classification.majority": result.majority,
            "classification.n_sources": len(result.truth),
        }
        found.measure(
            f"{key}.accuracy",
            CLASSES_SECTION,
            MetricRow(
                what=f"accuracy from {item.name} (k = {result.k})",
                value=result.accuracy,
                low=result.low,
                high=result.high,
                baseline=result.majority,
                baseline_name="the commonest class",
                n=len(result.truth),
                unit="%",
                strong=item.key == "aligned",
            ),
        )
        found.measure(
            f"{key}.balanced_accuracy",
            CLASSES_SECTION,
            MetricRow(
                what=f"balanced accuracy from {item.name}",
                value=result.balanced_accuracy,
                baseline=1 / len(set(result.truth)),
                baseline_name="chance",
                n=len(result.truth),
                unit="%",
            ),
        )
    return results
