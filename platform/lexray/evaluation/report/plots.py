"""The report's figures. Each is drawn twice, for light and for dark pages, on a transparent ground.

Colours are those of Okabe & Ito (bands) and of Paul Tol (classes), which colour-blind readers can tell apart; classes
differ in their marker as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lexray.array_types import Float64s
from lexray.evaluation.heldout import PiecewiseRate
from lexray.evaluation.retrieval import cutoff
from lexray.events.eventlist import EventList

#: The order in which classes are drawn; others follow by name.
CLASSES = ("AGN", "YSO", "LM-STAR", "HM-STAR", "NS", "LMXB", "CV", "HMXB")
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Theme:
    """Colours of a light or a dark page; `on_heat` is read on the darkest cells of `heat`, or on the lightest."""

    name: str
    ink: str
    muted: str
    grid: str
    accent: str
    second: str
    heat: str
    on_heat: str
    bands: tuple[str, ...]
    classes: tuple[str, ...]

    def band(self, index: int) -> str:
        """Colour of a band, soft to hard."""
        return self.bands[index % len(self.bands)]


LIGHT = Theme(
    name="light", ink="#1d1b2a", muted="#6c6a7c", grid="#dddbe6", accent="#4b3fbf", second="#c2571a",
    heat="Purples", on_heat="#ffffff", bands=("#d55e00", "#009e73", "#0072b2", "#cc79a7"),
    classes=("#332288", "#cc6677", "#999933", "#44aa99", "#117733", "#88ccee", "#882255", "#ddaa33"),
)  # fmt: skip
DARK = Theme(
    name="dark", ink="#eceaf4", muted="#a5a2b8", grid="#3a3749", accent="#a79bff", second="#ffab70",
    heat="magma", on_heat="#1d1b2a", bands=("#ff9a5c", "#4fd6ac", "#6cb8f0", "#e6a5cb"),
    classes=("#8f86ff", "#ff8f9c", "#c9c95a", "#5fd9c4", "#5fbf77", "#a8e0ff", "#e07ab0", "#f0cf6b"),
)  # fmt: skip
THEMES = (LIGHT, DARK)


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "savefig.dpi": 150,
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
    }


def save_figure(folder: Path, name: str, figure: Callable[[Theme], Figure]) -> str:
    """Write ``NAME.png`` and ``NAME.dark.png`` into `folder`; returns `name`."""
    for theme in THEMES:
        suffix = "" if theme is LIGHT else f".{theme.name}"
        with mpl.rc_context(_style(theme)):
            # No software version in the file: the same figures give the same bytes.
            figure(theme).savefig(folder / f"{name}{suffix}.png", metadata={"Software": None})
    return name


def class_order(classes: Sequence[str | None]) -> list[str]:
    """The classes that occur, in the order of the legend."""
    found = {c for c in classes if c}
    return [c for c in CLASSES if c in found] + sorted(found - set(CLASSES))


def class_colour(theme: Theme, name: str | None, order: Sequence[str]) -> str:
    """Colour of a class; grey where it is unknown."""
    if not name:
        return theme.muted
    index = CLASSES.index(name) if name in CLASSES else list(order).index(name)
    return theme.classes[index % len(theme.classes)]


@dataclass(frozen=True)
class TimeAxis:
    """The time axis of a light curve: elapsed time or, where less than a third of that is good time, good time."""

    events: EventList

    @property
    def cut(self) -> bool:
        """Whether gaps are cut out."""
        return self.events.gti.ontime < self.events.duration / 3

    def ks(self, seconds: Any) -> Float64s:
        """Place of times on the axis."""
        time = np.asarray(seconds, dtype=np.float64)
        return (self.events.gti.good_time_before(time) if self.cut else time) / 1000


@dataclass(frozen=True)
class LightCurveData:
    """What a light curve's picture shows.

    What is None is not drawn.

    Attributes
    ----------
    events : EventList
    rate : PiecewiseRate or None
        The reconstruction.
    truth : PiecewiseRate or None
        What a simulator drew the photons from.
    interval : pair of PiecewiseRate, optional
        Lower and upper bound of the reconstruction.
    """

    events: EventList
    rate: PiecewiseRate | None
    truth: PiecewiseRate | None
    interval: tuple[PiecewiseRate, PiecewiseRate] | None = None


def light_curve(theme: Theme, curve: LightCurveData) -> Figure:
    """Counts by band with the reconstructed rate over them, one row per band.

    Gaps are shaded; where they are cut out of the axis, dotted lines stand in their places.
    """
    events, bands = curve.events, len(curve.events.bands)
    axis = TimeAxis(events)
    span = events.gti.ontime if axis.cut else events.duration
    edges = np.linspace(0, span, int(np.clip(len(events) / (5 * bands), 14, 90)) + 1)
    good = np.diff(edges) if axis.cut else events.gti.exposure(edges)
    seen = good > 0.1 * np.diff(edges)
    good = np.where(seen, good, np.nan)
    good_time = axis.ks(events.time) * 1000

    figure = Figure(figsize=(6.2, 1.1 + 0.95 * bands))
    rows = np.atleast_1d(figure.subplots(bands, 1, sharex=True))
    for b, ax in enumerate(rows):
        colour = theme.band(b)
        counts = np.histogram(good_time[events.band == b], edges)[0]
        level = counts / good
        ax.errorbar(
            (edges[:-1] + edges[1:])[seen] / 2000,
            level[seen],
            yerr=(np.sqrt(counts) / good)[seen],
            fmt="o",
            ms=2.6,
            lw=0.8,
            color=theme.muted,
            alpha=0.75,
            zorder=2,
        )
        if curve.truth is not None and b < len(curve.truth.rate):
            ax.stairs(
                curve.truth.rate[b],
                axis.ks(curve.truth.edges),
                color=theme.ink,
                lw=1.1,
                ls=(0, (4, 2)),
                baseline=None,
                zorder=3,
            )
        if curve.rate is not None and b < len(curve.rate.rate):
            shown = axis.ks(curve.rate.edges)
            ax.stairs(curve.rate.rate[b], shown, color=colour, lw=1.9, baseline=None, zorder=4)
            if curve.interval is None:
                ax.stairs(curve.rate.rate[b], shown, color=colour, alpha=0.13, fill=True, lw=0, zorder=1)
            else:
                low, high = (bound.rate[b] for bound in curve.interval)
                ax.stairs(
                    high,
                    axis.ks(curve.interval[0].edges),
                    baseline=low,
                    color=colour,
                    alpha=0.28,
                    fill=True,
                    lw=0,
                    zorder=1,
                )
        _mark_gaps(theme, ax, axis)
        drawn = [r.rate[b].max() for r in (curve.rate, curve.truth) if r is not None and b < len(r.rate)]
        highest = max(np.max(level[seen], initial=0.0), 0.0 if np.any(counts) else max(drawn, default=0.0))
        ax.set(ylim=(0, 1.15 * highest if highest > 0 else 1), xlim=(0, span / 1000))
        ax.locator_params(axis="y", nbins=3)
        ax.grid(axis="x", visible=False)
        ax.text(0.995, 0.94, events.bands.names()[b], transform=ax.transAxes, ha="right", va="top", color=colour)
    rows[bands // 2].set_ylabel("counts / s")
    rows[-1].set_xlabel("good time (ks); dotted: gaps cut out" if axis.cut else "time (ks)")
    return figure


def _mark_gaps(theme: Theme, ax: Axes, axis: TimeAxis) -> None:
    gti = axis.events.gti
    for stop, start in zip(axis.ks(gti.stop[:-1]), axis.ks(gti.start[1:]), strict=True):
        if axis.cut:
            ax.axvline(stop, color=theme.muted, lw=0.6, ls=":", zorder=0)
        else:
            ax.axvspan(stop, start, color=theme.muted, alpha=0.14, lw=0, zorder=5)


@dataclass(frozen=True)
class GainBar:
    """A bar of the gain's chart: a name, its bits per photon and their 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    kind: str  # 'ours', 'baseline' or 'ceiling'


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel; inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def panel_grid(n: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `n` panels in rows of `columns`, each of this size in inches; the rest of the last row is empty."""
    lines = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * lines))
    panels = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for spare in panels[n:]:
        spare.set_visible(False)
    return figure, panels[:n]


def gain_chart(theme: Theme, bars: Sequence[GainBar]) -> Figure:
    """Held-out gain of each model in bits per photon."""
    figure, ax = one_panel(5.9, 0.75 + 0.5 * len(bars))
    colours = {"ours": theme.accent, "baseline": theme.muted, "ceiling": "none"}
    for y, bar in enumerate(bars):
        ax.barh(
            y,
            bar.value,
            height=0.58,
            color=colours[bar.kind],
            edgecolor=theme.muted if bar.kind == "ceiling" else "none",
            hatch="////" if bar.kind == "ceiling" else None,
        )
        if bar.high > bar.low:
            ax.errorbar(
                bar.value,
                y,
                xerr=[[max(0.0, bar.value - bar.low)], [max(0.0, bar.high - bar.value)]],
                color=theme.ink,
                lw=1.1,
                capsize=3,
            )
        end = max(bar.value, bar.high, 0.0)
        ax.annotate(f"{bar.value:.3f}", (end, y), (6, 0), textcoords="offset points", va="center", weight="bold")
    ax.set_yticks(range(len(bars)), [bar.name for bar in bars], color=theme.ink)
    ax.invert_yaxis()
    ax.axvline(0, color=theme.ink, lw=1)
    ax.margins(x=0.12)
    ax.locator_params(axis="x", nbins=6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("held-out gain over a constant rate (bits per photon)")
    return figure


def gain_by_group(
    theme: Theme, groups: Mapping[str, Mapping[str, float]], highlighted: str, ceiling: str | None = None
) -> Figure:
    """Held-out gain of each model within groups of detections, such as classes.

    Parameters
    ----------
    theme : Theme
        Of the page.
    groups : mapping
        Group → model → bits per photon.
    highlighted : str
        The model drawn in the accent colour.
    ceiling : str, optional
        The true rate's name.
    """
    names = list(groups)
    models = _models_in(groups)
    styles = _model_styles(theme, models, highlighted, ceiling)
    many = len(models) > 4
    figure, ax = one_panel(9.6 if many else 5.9, 0.95 + 0.3 * len(names))
    for y, name in enumerate(names):
        values = list(groups[name].values())
        ax.plot([min(values), max(values)], [y, y], color=theme.grid, lw=3, solid_capstyle="round", zorder=1)
    for model in models:
        marker, colour = styles[model]
        present = [y for y, name in enumerate(names) if model in groups[name]]
        gains = [groups[names[y]][model] for y in present]
        ax.scatter(
            gains, present, marker=marker, s=110 if marker == "|" else 52, color=colour, lw=2, label=model, zorder=2
        )
    ax.axvline(0, color=theme.ink, lw=1)
    ax.set_yticks(range(len(names)), names, color=theme.ink)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("bits per photon")
    figure.legend(loc="outside upper center", ncols=min(len(models), 6 if many else 3), fontsize=9)
    return figure


def gain_by_counts(
    theme: Theme, groups: Mapping[str, Mapping[str, float]], ours: str, ceiling: str | None = None
) -> Figure:
    """Held-out gain of each model in bins of counts, from few photons to many; parameters as in `gain_by_group`."""
    names, models = list(groups), _models_in(groups)
    styles = _model_styles(theme, models, ours, ceiling)
    figure, ax = one_panel(5.9, 3.9)
    for model in models:
        marker, colour = styles[model]
        present = [x for x, name in enumerate(names) if model in groups[name]]
        ax.plot(
            present,
            [groups[names[x]][model] for x in present],
            color=colour,
            marker="o" if marker == "|" else marker,
            ms=4 if marker == "|" else 6,
            lw=2.4 if model == ours else 1.2,
            ls=(0, (4, 2)) if model == ceiling else "-",
            label=model,
            zorder=3 if model == ours else 2,
        )
    ax.axhline(0, color=theme.ink, lw=1)
    ax.set_xticks(range(len(names)), names, color=theme.ink)
    ax.grid(axis="x", visible=False)
    ax.set(xlabel="photons of a detection", ylabel="bits per photon")
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    return figure


def _models_in(groups: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(model for values in groups.values() for model in values))


def _model_styles(theme: Theme, models: Sequence[str], ours: str, ceiling: str | None) -> dict[str, tuple[str, str]]:
    """Marker and colour of each model; the others' repeat where there are many."""
    others = (
        ("s", theme.muted),
        ("x", theme.second),
        ("^", theme.bands[1]),
        ("D", theme.bands[2]),
        ("v", theme.bands[3]),
        ("P", theme.classes[1]),
    )
    rest = [model for model in models if model not in (ours, ceiling)]
    styles = {model: others[i % len(others)] for i, model in enumerate(rest)}
    return styles | {ours: ("o", theme.accent)} | ({ceiling: ("|", theme.ink)} if ceiling is not None else {})


def retrieval_curve(theme: Theme, ranks: Mapping[str, NDArray[np.int64]]) -> Figure:
    """Share of queries whose own partner is among the best k, for every k, with chance."""
    n = len(next(iter(ranks.values())))
    k = np.arange(1, n + 1)
    figure, ax = one_panel(9.6, 3.7)
    for (name, rank), colour, style in zip(ranks.items(), (theme.accent, theme.second), ("-", "--"), strict=False):
        recall = np.searchsorted(np.sort(rank), k, side="right") / n
        ax.step(k, recall, where="post", color=colour, lw=2.2, ls=style, label=name)
    ax.plot(k, k / n, color=theme.muted, lw=1.4, ls=":", label="chance")
    for cut, label in ((cutoff(n, 1), "1 %"), (cutoff(n, 5), "5 %"), (10, "10")):
        if cut <= n:
            ax.axvline(cut, color=theme.grid, lw=1.2, zorder=0)
            ax.annotate(
                f"@{label}", (cut, 1.0), (3, -2), textcoords="offset points", color=theme.muted, fontsize=8, va="top"
            )
    ax.set(
        xscale="log",
        xlim=(1, max(n, 2)),
        ylim=(0, 1.02),
        xlabel=f"rank k among {n} test sources",
        ylabel="found within the best k",
    )
    ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.93))
    return figure


def confusion_matrix(theme: Theme, truth: Sequence[str], predicted: Sequence[str]) -> Figure:
    """Rows are true classes; a cell's shade is its share of the row, its number the sources."""
    order = class_order([*truth, *predicted])
    counts = np.zeros((len(order), len(order)), dtype=int)
    for t, p in zip(truth, predicted, strict=True):
        counts[order.index(t), order.index(p)] += 1
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, ax = one_panel(5.6, 4.9)
    ax.imshow(share, cmap=theme.heat, vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = theme.on_heat if share[row, column] > 0.55 else theme.ink
        ax.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    ax.set_xticks(range(len(order)), order, rotation=40, ha="right")
    ax.set_yticks(range(len(order)), order)
    ax.set(xlabel="named by its neighbours", ylabel="true class")
    ax.grid(visible=False)
    return figure


@dataclass(frozen=True)
class ScatterPanel:
    """A panel of truth against prediction."""

    title: str
    truth: Float64s
    predicted: Float64s
    r2: float


def property_scatter(theme: Theme, panels: Sequence[ScatterPanel]) -> Figure:
    """Predicted against true properties of the test sources; on the diagonal they agree."""
    figure, grid = panel_grid(len(panels), 4 if len(panels) == 4 else min(len(panels), 3), 3.3, 3.3)
    for ax, panel in zip(grid, panels, strict=True):
        low = float(min(panel.truth.min(), panel.predicted.min()))
        high = float(max(panel.truth.max(), panel.predicted.max()))
        ax.plot([low, high], [low, high], color=theme.muted, lw=1, ls="--")
        ax.scatter(panel.truth, panel.predicted, s=14, color=theme.accent, alpha=0.6, lw=0)
        ax.set(title=panel.title, xlabel="true", ylabel="predicted")
        ax.text(0.04, 0.95, f"R² = {panel.r2:.2f}", transform=ax.transAxes, va="top", color=theme.ink)
    return figure
