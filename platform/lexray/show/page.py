"""The page of one detection: charts and header facts in one HTML file that needs no network."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from astropy.time import Time
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lexray.evaluation.report.plots import TimeAxis
from lexray.events.eventlist import EventList
from lexray.events.lightcurve import light_curve
from lexray.inference.autodecoder import Autodecoder, Encoded, load_autodecoder
from lexray.show.charts import light_curve_chart, spectrum_chart
from lexray.show.detection import find_detection
from lexray.version import __version__

_UNSAFE = str.maketrans(dict.fromkeys(' /\\:*?"<>|', "_"))


def look(detection: str, events: str | None, autodecoder: str | None, out: str | None) -> Path:
    """Write the page of a detection.

    Parameters
    ----------
    detection, events : str
        As for `lexray.show.detection.find_detection`.
    autodecoder : str, optional
        Folder of a trained autodecoder, whose reconstructed rate is drawn.
    out : str, optional
        The page's file; by default the detection's name with ``.html``, here.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    LexrayError
        If there is no such detection, or the autodecoder is of another number of bands.
    """
    found = find_detection(detection, events)
    model = None if autodecoder is None else load_autodecoder(autodecoder)
    path = Path(out or f"{found.detection_id.translate(_UNSAFE)}.html").expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(found, model), encoding="utf-8")
    return path


def render(events: EventList, autodecoder: Autodecoder | None = None) -> str:
    """HTML of a detection's page."""
    curve = light_curve(events, min_counts=12 * len(events.bands))  # a dozen a bin and band
    rate, unlike = None, []
    if autodecoder is not None:
        encoded, ((edges, values, *_),) = autodecoder.encode_with_rates([events], bins=512)
        rate = (edges[:-1] + edges[1:]) / 2, values
        unlike = [_in_words(flags) + _with_score(encoded) for flags in encoded.flags or [] if flags]
    environment = Environment(
        loader=DictLoader({"page": files("lexray.show").joinpath("page.html").read_text(encoding="utf-8")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page").render(
        events=events,
        facts=[*facts(events), *(("Unlike the training", flags) for flags in unlike)],
        cut=TimeAxis(events).cut,
        n_bins=len(curve),
        model=None if autodecoder is None else autodecoder.name,
        charts={
            "light-curve": json.loads(light_curve_chart(events, curve, rate).to_json()),
            "spectrum": json.loads(spectrum_chart(events).to_json()),
        },
        plotly=Markup(get_plotlyjs()),
        version=__version__,
    )


def facts(events: EventList) -> list[tuple[str, str]]:
    """What the file's header and the reader say of a detection, as a person reads it; what is unknown is left out."""
    counts = np.bincount(events.band[events.band >= 0], minlength=len(events.bands))
    ontime = events.gti.ontime
    rows = [
        ("Mission", " ".join(word for word in (events.mission, events.instrument.upper()) if word)),
        ("Observation", events.obs_id),
        ("Source", events.source_id),
        ("Object", events.object if events.object != events.source_id else ""),
        ("Position", f"{events.ra:.5f}°, {events.dec:+.5f}° (ICRS)" if np.isfinite(events.ra + events.dec) else ""),
        ("Begin", _begin(events)),
        ("Times", " ".join(word for word in (events.timesys, events.timeref) if word)),
        ("Good time", f"{ontime:,.1f} s in {len(events.gti)} interval{'s' * (len(events.gti) != 1)}"),
        ("Span", f"{events.duration:,.1f} s" if len(events.gti) > 1 else ""),
        ("Exposure", f"{events.exposure:,.1f} s ({100 * events.exposure / ontime:.1f} % live)" if ontime > 0 else ""),
        ("Frame time", f"{events.frame_time:.4g} s" if np.isfinite(events.frame_time) else ""),
        ("Events", f"{len(events):,}" + (f", {len(events) / ontime:.4g} /s" if ontime > 0 else "")),
        *((f"  {name}", f"{n:,}") for name, n in zip(events.bands.names(), counts.tolist(), strict=True)),
        ("Effective area", "" if events.area is None else ", ".join(f"{area:.4g}" for area in events.area) + " cm²"),
        ("Background", _background(events)),
        ("Flags", _in_words(events.flags)),
        ("File", Path(events.file).name),
        ("SHA-256", events.sha256[:16]),
    ]
    return [(name, value) for name, value in rows if value]


def _with_score(encoded: Encoded) -> str:
    if encoded.anomaly is None or encoded.p_value is None:
        return ""
    return f" (anomaly {encoded.anomaly[0]:.1f} nat, p-value {encoded.p_value[0]:.2g})"


def _in_words(flags: Sequence[str]) -> str:
    return ", ".join(flag.replace("_", " ") for flag in flags)


def _begin(events: EventList) -> str:
    if not np.isfinite(events.t_ref_mjd):
        return ""
    mjd = f"MJD {events.t_ref_mjd:.6f}"
    if (scale := events.timesys.lower()) not in Time.SCALES:
        return mjd
    date = Time(events.t_ref_mjd, format="mjd", scale=scale).strftime("%Y-%m-%d %H:%M:%S")
    return f"{date} {events.timesys} ({mjd})"


def _background(events: EventList) -> str:
    if (known := events.background) is None:
        return ""
    expected = f", {len(known.time) / known.scale:,.1f} expected in the source’s" if known.scale > 0 else ""
    return f"{len(known.time):,} events in {known.scale:.4g} × the source’s region{expected}"
