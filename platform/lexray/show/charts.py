"""Charts of one event list that a browser can zoom: its light curve and its spectrum.

Colours are the report's, those of Okabe & Ito, which colour-blind readers can tell apart.
"""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lexray.array_types import Float64s
from lexray.evaluation.report.plots import LIGHT, TimeAxis
from lexray.events.count_spectrum import CountSpectrum, count_spectrum, counted
from lexray.events.eventlist import EventList
from lexray.events.lightcurve import LightCurve, background_rate, poisson_interval

Rate = tuple[Float64s, Float64s]
_LAYOUT: dict[str, Any] = {
    "font": {
        "family": 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif',
        "size": 12.5,
        "color": LIGHT.ink,
    },
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 72, "r": 18, "t": 44, "b": 52},
    "legend": {"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"},
    "hovermode": "closest",
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": LIGHT.grid, "activecolor": LIGHT.accent},
}
_AXIS: dict[str, Any] = {
    "gridcolor": LIGHT.grid,
    "linecolor": LIGHT.grid,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": LIGHT.grid,
    "tickfont": {"color": LIGHT.muted},
    "title_font": {"color": LIGHT.muted},
}


def light_curve_chart(events: EventList, curve: LightCurve, rate: Rate | None = None) -> go.Figure:
    """Count rate in bins, all bands and each band below one another, with gaps marked and what else is known.

    Parameters
    ----------
    events : EventList
        Of B bands.
    curve : LightCurve
        Of the same.
    rate : (f8[K], f8[B, K]), optional
        A model's, drawn over the points: seconds since `t_ref`, and ct/s of good time there.
    """
    names, axis = events.bands.names(), TimeAxis(events)
    rows = [*range(len(names))] if len(names) == 1 else [None, *range(len(names))]
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.16 / len(rows))
    for row, band in enumerate(rows, start=1):
        colour, name = (LIGHT.ink, "all bands") if band is None else (LIGHT.band(band), names[band])
        if band is None or len(rows) == 1:
            _add_background(figure, row, events, curve, axis)
        figure.add_trace(_points(curve, band, axis, name, colour), row=row, col=1)
        if rate is not None:
            figure.add_trace(_line(rate, band, axis, events, row == 1), row=row, col=1)
        figure.add_annotation(
            text=f"<b>{name}</b>", xref="x domain" if row == 1 else f"x{row} domain", x=1, xanchor="right",
            yref="y domain" if row == 1 else f"y{row} domain", y=1.02, yanchor="bottom", showarrow=False,
            font={"color": colour, "size": 12},
        )  # fmt: skip
    figure.update_layout(shapes=_gaps(events, axis), height=90 + 150 * len(rows), **_LAYOUT)  # pixels
    figure.update_yaxes(rangemode="tozero", nticks=5, **_AXIS)
    figure.update_xaxes(range=[0, float(axis.ks(events.duration))], **{**_AXIS, "showgrid": False})
    title = "good time (ks); dotted: gaps cut out" if axis.cut else "time since the first good time (ks)"
    figure.update_xaxes(title_text=title, row=len(rows), col=1)
    figure.update_yaxes(title_text="counts / s", row=(len(rows) + 1) // 2, col=1)
    return figure


def _points(curve: LightCurve, band: int | None, axis: TimeAxis, name: str, colour: str) -> go.Scatter:
    counts = curve.counts.sum(axis=0) if band is None else curve.counts[band]
    lower, upper = (bound / curve.exposure for bound in poisson_interval(counts))
    rate = counts / curve.exposure
    start, stop = axis.ks(curve.start), axis.ks(curve.stop)
    return go.Scatter(
        x=(start + stop) / 2,
        y=rate,
        error_x={"type": "data", "array": (stop - start) / 2, "width": 0, "thickness": 1},
        error_y={"type": "data", "array": upper - rate, "arrayminus": rate - lower, "width": 0, "thickness": 1},
        mode="markers",
        marker={"color": colour, "size": 5},
        name=name,
        showlegend=False,
        customdata=np.stack([counts, curve.exposure], axis=1),
        hovertemplate="%{y:.4g} ct/s<br>%{customdata[0]} counts in %{customdata[1]:.1f} s<extra>" + name + "</extra>",
    )


def _line(rate: Rate, band: int | None, axis: TimeAxis, events: EventList, in_legend: bool) -> go.Scatter:
    time, by_band = rate
    values = by_band.sum(axis=0) if band is None else by_band[band]
    shown = events.gti.contains(time) if axis.cut else np.ones(len(time), dtype=bool)
    return go.Scatter(
        x=axis.ks(time[shown]),
        y=values[shown],
        mode="lines",
        line={"color": LIGHT.accent, "width": 2.2},
        name="rate reconstructed by the autodecoder",
        showlegend=in_legend,
        hovertemplate="%{y:.4g} ct/s<extra>reconstructed</extra>",
    )


def _add_background(figure: go.Figure, row: int, events: EventList, curve: LightCurve, axis: TimeAxis) -> None:
    """What the background adds, as steps that break at gaps."""
    if (level := background_rate(events, curve)) is None:
        return
    start, stop = axis.ks(curve.start), axis.ks(curve.stop)
    x = np.stack([start, stop, np.full(len(curve), np.nan)], axis=1).ravel()
    y = np.stack([level, level, np.full(len(curve), np.nan)], axis=1).ravel()
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": LIGHT.muted, "width": 1.6},
            name="background, scaled to the source’s region",
            hovertemplate="%{y:.4g} ct/s<extra>background</extra>",
        ),
        row=row,
        col=1,
    )


def _gaps(events: EventList, axis: TimeAxis) -> list[dict[str, Any]]:
    """A shade over each gap, or a dotted line where it was cut out, across all rows."""
    stops, starts = events.gti.stop[:-1], events.gti.start[1:]
    place = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    if axis.cut:
        return [
            {"type": "line", "x0": x, "x1": x, "line": {"color": LIGHT.muted, "width": 1, "dash": "dot"}, **place}
            for x in axis.ks(stops).tolist()
        ]
    return [
        {
            "type": "rect",
            "x0": stop,
            "x1": start,
            "fillcolor": "rgba(108, 106, 124, 0.16)",
            "line": {"width": 0},
            **place,
        }
        for stop, start in zip(axis.ks(stops).tolist(), axis.ks(starts).tolist(), strict=True)
    ]


def spectrum_chart(events: EventList) -> go.Figure:
    """Counts per keV on logarithmic axes, with the background's where there is one and lines where bands meet."""
    low, high = events.bands.edges[0], events.bands.edges[-1]
    spectrum = count_spectrum(events.energy, low, high)
    figure = go.Figure()
    known = events.background
    if known is not None and known.scale > 0:
        background = counted(known.energy, spectrum.edges)
        level = _positive(background.density / known.scale)
        figure.add_trace(
            go.Scatter(
                x=spectrum.edges,
                y=np.append(level, level[-1:]),
                mode="lines",
                line={"color": LIGHT.muted, "width": 1.6, "shape": "hv"},
                name="background, scaled to the source’s region",
                hovertemplate="%{y:.4g} /keV<extra>background</extra>",
            )
        )
    middle = np.sqrt(spectrum.edges[:-1] * spectrum.edges[1:])
    for band, name in enumerate(events.bands.names()):
        figure.add_trace(_spectrum_points(spectrum, middle, events.bands.index(middle) == band, name, LIGHT.band(band)))
    for edge in events.bands.edges[1:-1]:
        figure.add_vline(x=edge, line={"color": LIGHT.muted, "width": 1, "dash": "dot"}, layer="below")
    figure.update_layout(height=420, **_LAYOUT)
    ticks = [t for t in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70) if low <= t <= high]
    figure.update_xaxes(
        type="log", title_text="energy (keV)", tickvals=ticks, ticktext=[f"{t:g}" for t in ticks],
        range=[float(np.log10(low)) - 0.01, float(np.log10(high)) + 0.01], **{**_AXIS, "showgrid": False},
    )  # fmt: skip
    figure.update_yaxes(type="log", title_text="counts / keV", exponentformat="power", dtick=1, **_AXIS)
    return figure


def _spectrum_points(spectrum: CountSpectrum, x: Float64s, here: Any, name: str, colour: str) -> go.Scatter:
    y, lower, upper = (_positive(values[here]) for values in (spectrum.density, spectrum.lower, spectrum.upper))
    left, right = spectrum.edges[:-1][here], spectrum.edges[1:][here]
    return go.Scatter(
        x=x[here],
        y=y,
        error_x={
            "type": "data", "symmetric": False, "array": right - x[here], "arrayminus": x[here] - left,
            "width": 0, "thickness": 1,
        },
        error_y={
            "type": "data", "symmetric": False, "array": upper - y, "arrayminus": y - np.nan_to_num(lower, nan=0),
            "width": 0, "thickness": 1,
        },
        mode="markers",
        marker={"color": colour, "size": 6},
        name=name,
        customdata=np.stack([spectrum.counts[here], left, right], axis=1),
        hovertemplate=(
            "%{customdata[0]} counts, %{customdata[1]:.2f}–%{customdata[2]:.2f} keV<br>%{y:.4g} /keV<extra></extra>"
        ),
    )  # fmt: skip


def _positive(values: Float64s) -> Float64s:
    """Values with NaN where there is none above 0: a logarithmic axis has no place for it."""
    return np.where(values > 0, values, np.nan)
