"""The report: one self-contained page with its figures inside, for a person to read."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow.fs
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from lexray.evaluation.report.metrics import EvaluationResults, MetricRow
from lexray.evaluation.report.plots import CLASSES, DARK, LIGHT
from lexray.runtime.config import JobConfig
from lexray.runtime.job import JobContext, JobResult
from lexray.tables.files import filesystem
from lexray.tables.provenance import read_provenance
from lexray.tables.quarantine import Refusal
from lexray.training.splits import SPLITS
from lexray.version import __version__


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure of the page.

    Attributes
    ----------
    name : str
        ``NAME.png`` and ``NAME.dark.png`` lie in the report's folder.
    title, caption, alt : str
        The caption says how to read it; `alt` tells a reader who cannot see the figure what it shows.
    """

    name: str
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class LineageStep:
    """A job that led to the evaluation, read from the provenance of its output."""

    job: str
    version: str
    counts: dict[str, Any]
    seconds: float
    mlflow_run: str


@dataclass(frozen=True)
class RetrievedSource:
    """A source that a query found."""

    source_id: str
    source_class: str
    summary: str
    similarity: float
    own: bool


@dataclass(frozen=True)
class RetrievalExample:
    """A query in words and the sources that it found, best first; `rank` is its own source's."""

    query: str
    source_id: str
    source_class: str
    rank: int
    n: int
    hits: list[RetrievedSource]


@dataclass(frozen=True)
class HeadlineTile:
    """A headline figure: a share of a bar filled, with a tick where the baseline stands."""

    title: str
    value: str
    note: str
    filled: float
    tick: float
    tick_name: str


@dataclass(frozen=True)
class ReportTable:
    """A table with a section of its own; cells are printed as they are, those of `numbers` to the right."""

    title: str
    intro: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class ReportOrigin:
    """What a report is made from.

    Attributes
    ----------
    sources : mapping
        Split → number of sources.
    steps : sequence of LineageStep
        Jobs that led to the evaluation.
    config : mapping
        The evaluation's configuration.
    mlflow_run : str
        Its run.
    """

    sources: Mapping[str, int]
    steps: Sequence[LineageStep]
    config: Mapping[str, Any]
    mlflow_run: str


@dataclass(frozen=True)
class ReportPage:
    """All that the page shows; the figures' files lie in `folder`."""

    folder: Path
    results: EvaluationResults
    origin: ReportOrigin
    figures: Mapping[str, CaptionedFigure]
    light_curves: Sequence[CaptionedFigure]
    examples: Sequence[RetrievalExample]
    caveats: Sequence[str]
    job: str = "evaluate"
    title: str = "Evaluation of the X‑ray and text alignment"
    tables: Sequence[ReportTable] = ()


def lineage(paths: Sequence[str]) -> list[LineageStep]:
    """The jobs behind `paths`, from the first to the last, found by following the inputs that each recorded."""
    steps: dict[str, LineageStep] = {}

    def visit(path: str) -> None:
        provenance = read_provenance(path)
        if provenance is None:  # a file within an output, such as a simulation's labels
            path = path.rpartition("/")[0]
            provenance = read_provenance(path) if path else None
        if path in steps or provenance is None:
            return
        report = provenance["report"]
        for read in report["inputs"]:
            visit(read)
        steps[path] = LineageStep(
            job=report["job"],
            version=report["version"],
            counts={key: value for key, value in report["counts"].items() if isinstance(value, int | float) and value},
            seconds=report["seconds"],
            mlflow_run=report["mlflow_run"] or "",
        )

    for path in paths:
        visit(path)
    return list(steps.values())


def tiles(metrics: Mapping[str, float]) -> list[HeadlineTile]:
    """The headline figures, as far as they were measured, four of them."""
    headline: list[HeadlineTile] = []
    ours, blocks = metrics.get("heldout_gain.autodecoder"), metrics.get("heldout_gain.bayesian_blocks", 0.0)
    share = metrics.get("heldout_gain.autodecoder_share_of_ceiling")
    top = 0.0
    if ours is not None:
        top = ours / share if share and share > 0 else metrics.get("heldout_gain.true_rate") or max(ours, blocks) * 1.2
        note = "bits per held-out photon" + (f", {100 * share:.0f} % of what the true rate gains" if share else "")
        headline.append(
            _tile("Reconstruction", f"{ours:.3f}", note, ours, top, blocks, f"Bayesian Blocks {blocks:.3f}")
        )
    recall = metrics.get("retrieval.text_to_xray.recall_at_10")
    if recall is not None:
        chance = metrics["retrieval.chance.recall_at_10"]
        headline.append(
            _tile(
                "Text-to-X-ray retrieval",
                f"{100 * recall:.0f} %",
                f"of texts find their source among the best 10 of {metrics['retrieval.n_sources']:.0f}",
                recall,
                1.0,
                chance,
                f"chance {100 * chance:.1f} %; this is {recall / chance:.1f} times that",
            )
        )
    accuracy = metrics.get("classification.aligned.accuracy")
    if accuracy is not None:
        majority = metrics["classification.majority"]
        headline.append(
            _tile(
                "Class",
                f"{100 * accuracy:.0f} %",
                "of test sources get their class from their neighbours",
                accuracy,
                1.0,
                majority,
                f"the commonest class {100 * majority:.0f} %",
            )
        )
    hardness = metrics.get("regression.hr_hs.aligned.ridge.r2", metrics.get("regression.hr_ms.aligned.ridge.r2"))
    if hardness is not None:
        headline.append(_r2_tile("Hardness", hardness, "aligned embedding"))
    alone = metrics.get("heldout_gain.total_variation")
    if ours is not None and alone is not None:
        headline.append(
            _tile(
                "Gain over per-source fits",
                f"{metrics['heldout_gain.autodecoder_over_total_variation']:+.3f}".replace("-", "−"),
                "bits per photon more than a penalised fit of each source alone",
                ours,
                top,
                alone,
                f"each source alone {alone:.3f}",
            )
        )
    for column, words in (("hr_hs", "Hardness"), ("rms", "Variability"), ("variability_odds", "Variability odds")):
        both = [f"regression.{column}.latents.{method}.r2" for method in ("ridge", "forest")]
        r2 = max((metrics[name] for name in both if name in metrics), default=None)
        if len(headline) < 4 and r2 is not None:
            headline.append(_r2_tile(words, r2, "representation"))
    return headline


def _r2_tile(title: str, r2: float, read_off: str) -> HeadlineTile:
    return _tile(title, f"{r2:.2f}", f"R² from the {read_off}", r2, 1.0, 0.0, "the mean 0")


def _tile(title: str, value: str, note: str, filled: float, top: float, tick: float, tick_name: str) -> HeadlineTile:
    def share(x: float) -> float:
        return min(1.0, max(0.0, x / top)) if top > 0 else 0.0

    return HeadlineTile(title, value, note, share(filled), share(tick), tick_name)


def format_value(value: float | None, unit: str) -> str:
    """A figure as the table prints it, with a true minus sign."""
    if value is None:
        return ""
    if unit == "%":
        text = f"{100 * value:.1f} %"
    elif unit == "rank":
        text = f"{value:.0f}" if value == round(value) else f"{value:.1f}"
    else:
        text = f"{value:.3f}" if unit == "bits" else f"{value:.2f}"
    return text.replace("-", "−")


def format_interval(row: MetricRow) -> str:
    """The 95 % interval of a row, or nothing."""
    if row.low is None or row.high is None:
        return ""
    return f"{format_value(row.low, row.unit).removesuffix(' %')} – {format_value(row.high, row.unit)}"


def render(page: ReportPage) -> str:
    """The page's HTML; nothing in it is fetched from anywhere."""
    environment = Environment(
        loader=DictLoader({"report.html": files("lexray.evaluation.report").joinpath("report.html").read_text()}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def picture(item: CaptionedFigure) -> Markup:
        light, dark = (_data_uri(page.folder / f"{item.name}{suffix}.png") for suffix in ("", ".dark"))
        # Text is escaped by hand here and nowhere else: a picture's sources are megabytes of base64.
        return Markup(
            f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
            f'<img src="{light}" alt="{html.escape(item.alt, quote=True)}" loading="lazy"></picture>'
        )

    environment.filters |= {
        "shown": format_value,
        "interval": format_interval,
        "picture": picture,
        "seconds": _format_seconds,
    }
    return environment.get_template("report.html").render(
        page=page,
        metrics=page.results.metrics,
        tiles=tiles(page.results.metrics),
        total_seconds=sum(step.seconds for step in page.origin.steps),
        version=__version__,
        made=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        class_colours={name: (LIGHT.classes[i], DARK.classes[i]) for i, name in enumerate(CLASSES)},
        config_json=json.dumps(page.origin.config, indent=1, ensure_ascii=False),
    )


def report_origin(
    splits: Mapping[str, str], steps: Sequence[LineageStep], config: JobConfig, mlflow_run: str
) -> ReportOrigin:
    """What a report is made from; settings that change no figure are left out of its configuration."""
    return ReportOrigin(
        sources={name: list(splits.values()).count(name) for name in SPLITS},
        steps=steps,
        config=config.model_dump(mode="json", exclude={"tracking", "ray", "force"}),
        mlflow_run=mlflow_run,
    )


def publish(
    page: ReportPage,
    out: str,
    context: JobContext,
    n_detections: int,
    headline: Sequence[str],
    refusals: list[Refusal],
    accepted: int,
) -> JobResult:
    """Write `report.html`, `metrics.json` and the figures to `out` and to MLflow, and say what was left out.

    Parameters
    ----------
    page : ReportPage
    out : str
    context : JobContext
    n_detections : int
        Test detections that were scored.
    headline : sequence of str
        Metrics that the job's result holds, as far as they were measured.
    refusals : list of Refusal
        Detections that were left out.
    accepted : int
        Detections that were not.
    """
    metrics = page.results.metrics
    (page.folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
    (page.folder / "report.html").write_text(render(page), encoding="utf-8")
    context.run.metrics(metrics)
    context.run.artifact(page.folder)
    system, root = filesystem(out)
    system.create_dir(root, recursive=True)
    pyarrow.fs.copy_files(str(page.folder), root, pyarrow.fs.LocalFileSystem(), system)
    for line in page.results.left_out:
        context.progress.info(f"    left out: {line}")
    return JobResult(
        counts={
            **{f"{name}_sources": n for name, n in page.origin.sources.items()},
            "test_detections": n_detections,
            "figures": len(page.figures) + len(page.light_curves),
        },
        metrics={name: metrics[name] for name in headline if name in metrics},
        refusals=refusals,
        accepted=accepted,
    )


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _format_seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"
