"""Which figures the report has, what their captions say, and which examples stand in it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lexray.evaluation import count_bins, inputs, regression
from lexray.evaluation.heldout import DetectionScore, gain
from lexray.evaluation.report import embedding_map, plots
from lexray.evaluation.report.metrics import MODEL_LABELS, PROPERTY_LABELS, EvaluationResults, gains_by_group
from lexray.evaluation.report.report import CaptionedFigure, RetrievalExample, RetrievedSource

#: Photons that a detection needs to be shown as an example.
_MIN_EXAMPLE_COUNTS = 100
#: Classes with fewer detections than this have no line of their own in the gain's chart.
_MIN_GROUP_SIZE = 3


def gain_figures(
    folder: Path,
    found: EvaluationResults,
    scores: Sequence[DetectionScore],
    class_of: Mapping[str, str],
    models: Mapping[str, str] = MODEL_LABELS,
    grouped_by: str = "class",
) -> dict[str, CaptionedFigure]:
    """The gain of every model, and by class where classes are known.

    Parameters
    ----------
    folder : Path
        Folder of the figures.
    found : EvaluationResults
        What `metrics.measure_gain` measured.
    scores : sequence of DetectionScore
    class_of : mapping
        Source → class, or another word for what is known of it.
    models : mapping
        As for `metrics.measure_gain`.
    grouped_by : str
        What `class_of` says.
    """
    roles = {"autodecoder": "ours", "true_rate": "ceiling"}
    m = found.metrics
    bars = [plots.GainBar(MODEL_LABELS["constant"], 0.0, 0.0, 0.0, "baseline")] + [
        plots.GainBar(
            label,
            m[f"heldout_gain.{k}"],
            m[f"heldout_gain.{k}_low"],
            m[f"heldout_gain.{k}_high"],
            roles.get(k, "baseline"),
        )
        for k, label in models.items()
        if k not in ("constant", "true_rate_with_level") and f"heldout_gain.{k}" in m
    ]
    if len(bars) == 1:
        return {}
    figures = {
        "gain": CaptionedFigure(
            plots.save_figure(folder, "heldout_gain", partial(plots.gain_chart, bars=bars)),
            "Held-out gain by model",
            "Longer is better; whiskers hold 95 % of bootstrap draws over the sources. The hatched bar is what the "
            "true rate itself gains: no method does better than that but by luck."
            if any(bar.kind == "ceiling" for bar in bars)
            else "Longer is better; whiskers hold 95 % of bootstrap draws over the sources.",
            "Bar chart of held-out gain: " + ", ".join(f"{bar.name} {bar.value:.3f}" for bar in bars),
        )
    }
    sizes = {
        name: sum(class_of.get(s.source_id) == name for s in scores) for name in plots.class_order([*class_of.values()])
    }
    group_of = {
        s.detection_id: name for s in scores if sizes.get(name := class_of.get(s.source_id, ""), 0) >= _MIN_GROUP_SIZE
    }
    groups = gains_by_group(scores, group_of, models)
    shown = {f"{name} ({sizes[name]})": _label_models(groups[name], models) for name in sizes if groups.get(name)}
    if len(shown) > 1:
        figures["gain_by_class"] = CaptionedFigure(
            plots.save_figure(
                folder,
                "heldout_gain_by_class",
                partial(
                    plots.gain_by_group,
                    groups=shown,
                    highlighted=models["autodecoder"],
                    ceiling=models.get("true_rate"),
                ),
            ),
            f"The same, by {grouped_by}",
            f"One line a {grouped_by}, with its number of test detections. Where all marks crowd at zero there is no "
            "variability to be found; left of zero a method sees structure in noise.",
            f"Dot plot of held-out gain by {grouped_by}",
        )
    return figures


def _label_models(gains: Mapping[str, float], models: Mapping[str, str]) -> dict[str, float]:
    """Gains by the models' names for a person, of all but the one that knows more than a shape."""
    return {models[k]: v for k, v in gains.items() if k != "true_rate_with_level"}


def count_bin_figure(
    folder: Path, scores: Sequence[DetectionScore], models: Mapping[str, str] = MODEL_LABELS
) -> tuple[dict[str, CaptionedFigure], dict[str, dict[str, float]]]:
    """The gain of every model against a detection's number of photons, and the figures: bin → model → gain."""
    names = list(count_bins.COUNT_BINS)
    bins = {
        s.detection_id: names[b]
        for s, b in zip(scores, count_bins.count_bin_of([s.n_events for s in scores]), strict=True)
    }
    found = gains_by_group(scores, bins, models)
    groups = {name: found[name] for name in names if name in found}
    if len(groups) < 2:
        return {}, groups
    shown = {
        f"{_count_bin_label(name)}\n({sum(b == name for b in bins.values())})": _label_models(gains, models)
        for name, gains in groups.items()
    }
    draw = partial(plots.gain_by_counts, groups=shown, ours=models["autodecoder"], ceiling=models.get("true_rate"))
    picture = CaptionedFigure(
        plots.save_figure(folder, "heldout_gain_by_counts", draw),
        "The same, by counts",
        "Detections with few photons to the left, in brackets how many of the test have so many. A method that has "
        "learned what sources do gains where a detection alone says little.",
        "Line chart of held-out gain against the number of photons",
    )
    return {"gain_by_counts": picture}, groups


def _count_bin_label(name: str) -> str:
    low, high = count_bins.COUNT_BINS[name]
    return f"< {high:,}" if not low else f"≥ {low:,}" if high is None else f"{low:,}–{high:,}"


def example_detections(scores: Sequence[DetectionScore]) -> dict[str, tuple[DetectionScore, float]]:
    """Best, median and worst test detection with their gains in bits per photon, the autodecoder's if there is one."""
    model = "autodecoder" if any("autodecoder" in s.log_likelihood for s in scores) else "bayesian_blocks"
    scored = [s for s in scores if model in s.log_likelihood and s.n_held]
    bright = [s for s in scored if s.n_events >= _MIN_EXAMPLE_COUNTS] or scored
    ranked = sorted(
        ((s, gain(s.log_likelihood[model], s.log_likelihood["constant"], s.n_held)) for s in bright),
        key=lambda pair: (-pair[1], pair[0].detection_id),
    )
    places = {"best": 0, "median": len(ranked) // 2, "worst": -1}
    return {name: ranked[i] for name, i in places.items()} if ranked else {}


def light_curve_figure(
    folder: Path, name: str, curve: plots.LightCurveData, role: str, source_class: str, gain: float | None
) -> CaptionedFigure:
    """A light curve with a caption that says what it is and how to read it."""
    e = curve.events
    parts = [f"{len(e):,} photons in {e.gti.ontime / 1000:.1f} ks of good time"]
    if len(e.gti) > 1:
        parts.append(f"{len(e.gti)} good-time intervals")
    if gain is not None:
        parts.append(f"gain {gain:+.3f} bits per photon".replace("-", "−"))
    lines = "Points: counts in bins, with √n bars."
    if curve.rate is not None:
        tinted = "" if curve.interval is None else "; tinted: where it lies with a probability of 68 %"
        lines += f" Line: the reconstructed rate, fitted to all photons{tinted}."
    if curve.truth is not None:
        lines += " Dashed: the true rate."
    if len(e.gti) > 1 and e.gti.ontime >= e.duration / 3:
        lines += " Shaded: gaps, where nothing was observed."
    return CaptionedFigure(
        plots.save_figure(folder, name, partial(plots.light_curve, curve=curve)),
        f"{role}: {source_class + ' ' if source_class else ''}{e.object or e.source_id}",
        f"{e.detection_id} · {', '.join(parts)}. {lines}" + (f" File: {Path(e.file).name}." if e.file else ""),
        f"Light curve of {e.detection_id} in {len(e.bands)} energy bands",
    )


def embedding_map_figures(
    folder: Path,
    pairs: inputs.EmbeddingPairs,
    ranks: Mapping[str, NDArray[np.int64]],
    class_of: Mapping[str, str],
    seed: int,
) -> dict[str, CaptionedFigure]:
    """The map of the shared space and the retrieval curve."""
    xray, text = embedding_map.map_coordinates(pairs.xray, pairs.text, seed)
    classes = [class_of.get(source) for source in pairs.source_ids]
    return {
        "map": CaptionedFigure(
            plots.save_figure(
                folder, "shared_space", partial(embedding_map.embedding_map, xray=xray, text=text, classes=classes)
            ),
            "A map of the shared space",
            "Test sources only, both embeddings of each, joined by a line: short lines mean that X-rays and words "
            "agree. The constant offset between the two is taken off. Laid out by t-SNE: who is whose neighbour can be "
            "trusted, distances between far groups cannot.",
            f"Scatter plot of {len(classes)} test sources' X-ray and text embeddings, coloured by class",
        ),
        "retrieval": CaptionedFigure(
            plots.save_figure(folder, "retrieval", partial(plots.retrieval_curve, ranks=ranks)),
            "How soon the partner is found",
            "For each number of answers k, the share of questions whose own partner is among the best k. The dotted "
            "curve is chance; the further above it, the better.",
            "Recall against rank in both directions, with chance",
        ),
    }


def probe_figures(
    folder: Path,
    probes: Mapping[tuple[str, str], regression.ProbeResult],
    neighbours: Mapping[str, regression.NeighbourResult],
) -> dict[str, CaptionedFigure]:
    """Confusion of classes, and properties predicted against true, from the aligned embeddings where there are any."""
    made: dict[str, CaptionedFigure] = {}
    key = next((k for k in ("aligned", "latents", "text") if k in neighbours), None)
    if key is not None:
        result = neighbours[key]
        made["confusion"] = CaptionedFigure(
            plots.save_figure(
                folder, "confusion", partial(plots.confusion_matrix, truth=result.truth, predicted=result.predicted)
            ),
            "Classes named by the neighbours",
            f"Rows are true classes, columns what the {result.k} nearest training sources vote for, numbers are test "
            "sources. The darker the diagonal, the better."
            if key == "aligned"
            else f"Rows are true classes, columns the vote of the {result.k} nearest training sources in the {key}.",
            f"Confusion matrix, accuracy {result.accuracy:.2f}",
        )
    return made | property_figure(
        folder,
        probes,
        ("aligned", "latents"),
        PROPERTY_LABELS,
        "Each point is a test source; on the dashed line the prediction is right. Predicted from the aligned X-ray "
        "embeddings by the better of the table's methods.",
    )


def property_figure(
    folder: Path,
    probes: Mapping[tuple[str, str], regression.ProbeResult],
    representations: Sequence[str],
    properties: Mapping[str, str],
    caption: str,
) -> dict[str, CaptionedFigure]:
    """Predicted against true properties, each from the first of `representations` that it was read off."""
    panels = [
        plots.ScatterPanel(label, probes[column, key].truth, probes[column, key].predicted, probes[column, key].r2)
        for column, label in properties.items()
        for key in [next((k for k in representations if (column, k) in probes), "")]
        if key
    ]
    if not panels:
        return {}
    return {
        "properties": CaptionedFigure(
            plots.save_figure(folder, "properties", partial(plots.property_scatter, panels=panels)),
            "Properties predicted from the representations",
            caption,
            "Scatter plots of predicted against true " + ", ".join(panel.title for panel in panels),
        )
    }


def retrieval_examples(
    pairs: inputs.EmbeddingPairs,
    rank: NDArray[np.int64],
    class_of: Mapping[str, str],
    summaries: Mapping[str, str],
    n: int = 4,
    n_hits: int = 5,
) -> list[RetrievalExample]:
    """Questions in words at even steps from the best rank to the worst, and the X-rays that they found."""
    queries = [i for i in np.argsort(rank, kind="stable") if pairs.source_ids[i] in summaries]
    if not queries:
        return []
    places = np.unique(np.linspace(0, 0.9 * (len(queries) - 1), min(n, len(queries))).round().astype(int))
    examples = []
    for i in (queries[place] for place in places):
        similarity = pairs.xray @ pairs.text[i]
        hits = [
            RetrievedSource(
                source_id=(name := pairs.source_ids[j]),
                source_class=class_of.get(name, ""),
                summary=summaries.get(name, ""),
                similarity=float(similarity[j]),
                own=bool(j == i),
            )
            for j in np.argsort(-similarity, kind="stable")[:n_hits]
        ]
        name = pairs.source_ids[i]
        query = first_sentence(summaries[name])
        examples.append(RetrievalExample(query, name, class_of.get(name, ""), int(rank[i]), len(rank), hits))
    return examples


def first_sentence(text: str) -> str:
    """Text up to its first full stop that ends a sentence: one followed by a blank and a capital."""
    for i in range(40, len(text) - 2):
        if text[i] in ".!?" and text[i + 1] == " " and text[i + 2].isupper():
            return text[: i + 1]
    return text


def caveats(found: EvaluationResults, simulated: bool) -> list[str]:
    """What a reader should hold against the figures."""
    n_detections = found.metrics.get("heldout_gain.n_detections", 1000)
    conditional = (
        (
            simulated,
            "The true rates are a simulation's, kept in cells of finite width: the ceiling misses what varies within a "
            "cell, such as fast pulsations. Simulated papers are written from the drawn parameters; real ones are less "
            "orderly, so retrieval on real papers will be harder.",
        ),
        (
            n_detections < 1000,
            f"The gain rests on {n_detections:.0f} detections. Between draws of a few "
            "hundred sources the ceiling itself moves by a fifth: compare shares of it, not bits across data sets.",
        ),
        (
            found.metrics.get("retrieval.n_sources", 1000) < 1000,
            "Retrieval grows harder with the number of candidates. Recall@1 % and @5 % compare across sizes; Recall@10 "
            "does not.",
        ),
        (
            any(key.startswith("classification") for key in found.metrics),
            "Classes are unevenly common: read the balanced accuracy too.",
        ),
    )
    return [
        "Sources within 1″ of one another, and all detections of a source, fall into the same split. Trainings saw the "
        "training sources alone, and the number of neighbours was chosen on the validation sources.",
        "Every model's level in a band is its fitted counts plus one half, so the held-out gain compares shapes. The "
        "same photons are hidden from all models; which ones depends on the seed and the detection's name alone.",
        "Intervals come from resampling the test sources, those of real files from resampling blocks of their good "
        "time. They do not hold what another training, another split or "
        "another simulation would change.",
        *(line for holds, line in conditional if holds),
    ]
