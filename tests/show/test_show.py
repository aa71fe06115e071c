"""Looking at a detection: what is counted, what is drawn, and what the page says."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from builders import BANDS, event_list
from event_files import write_event_file
from lexray.errors import ConfigError, RefusedInput
from lexray.events.adaptive_bins import adaptive_bins
from lexray.events.arrow import to_table
from lexray.events.count_spectrum import count_spectrum, counted
from lexray.events.eventlist import Background, Bands, EventList, GoodTimeIntervals
from lexray.events.lightcurve import background_rate, light_curve, poisson_interval
from lexray.inference.autodecoder import Autodecoder
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.show.charts import light_curve_chart, spectrum_chart
from lexray.show.detection import find_detection
from lexray.show.page import facts, look, render
from lexray.tables import delta
from lexray.tables.schemas import EVENTS


def detection(
    gti: GoodTimeIntervals,
    rate: float = 0.05,
    seed: int = 0,
    background: float | None = None,
    bands: Bands = BANDS,
    **keys: object,
) -> EventList:
    """A constant source, and a background ten times as large as its region."""
    generator = np.random.default_rng(seed)

    def draw(mean: float) -> tuple[np.ndarray, np.ndarray]:
        time = np.sort(generator.uniform(0, gti.stop[-1], generator.poisson(mean * gti.stop[-1])))
        time = time[gti.contains(time)]
        low, high = bands.edges[0], bands.edges[-1]
        return time, (low * (high / low) ** generator.uniform(0, 1, len(time))).astype(np.float32)

    known = None if background is None else Background(*draw(10 * background), scale=10.0)
    defaults = {"mission": "chandra", "instrument": "acis", "t_ref_mjd": 54000.0, "timesys": "TT", "timeref": "local"}
    names = {"detection_id": "chandra:1:acis:S", "source_id": "S"}
    events = event_list(*draw(rate), gti, bands=bands, exposure=0.9 * gti.ontime, **names, **defaults)
    return replace(events, background=known, **keys)  # type: ignore[arg-type]


GAPPY = GoodTimeIntervals([0, 3000, 7000], [2000, 6000, 12000])
MOSTLY_GAP = GoodTimeIntervals([0, 9000], [500, 9400])
intervals = st.lists(st.tuples(st.floats(0, 1e4), st.floats(1, 3e3)), min_size=1, max_size=12)


# Counting ------------------------------------------------------------------------------------------------------------


def test_counts_of_given_edges_are_counted_one_by_one() -> None:
    events = detection(GAPPY)
    edges = np.array([0, 1000, 2500, 2800, 6500, 12000.0])
    curve = light_curve(events, edges)
    # The third bin lies in a gap and is left out.
    assert list(zip(curve.start, curve.stop, strict=True)) == [(0, 1000), (1000, 2500), (2800, 6500), (6500, 12000)]
    np.testing.assert_allclose(curve.exposure, [1000, 1000, 3000, 5000])
    for i, (low, high) in enumerate(zip(curve.start, curve.stop, strict=True)):
        for b in range(3):
            e_low, e_high = BANDS.edges[b], BANDS.edges[b + 1]
            here = [
                t for t, e in zip(events.time, events.energy, strict=True) if low <= t < high and e_low <= e < e_high
            ]
            assert curve.counts[b, i] == len(here)
    np.testing.assert_allclose(curve.rate * curve.exposure, curve.counts)


@given(intervals, st.integers(0, 400), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=150)
def test_no_event_and_no_second_is_lost_or_counted_twice(
    pairs: list[tuple[float, float]], n: int, min_counts: int, seed: int
) -> None:
    start, length = np.array(pairs).T
    gti = GoodTimeIntervals(start, start + length)
    gti = gti.shift(-gti.start[0])
    generator = np.random.default_rng(seed)
    time = generator.uniform(0, gti.stop[-1], 4 * n)
    ends = np.concatenate([gti.start, gti.stop])  # where off-by-one errors live
    time = np.sort(np.concatenate([time[gti.contains(time)][:n], ends]))
    events = event_list(time, generator.uniform(0.5, 7, len(time)), gti)
    curve = light_curve(events, min_counts=min_counts)
    assert curve.counts.sum() == len(events)
    assert curve.exposure.sum() == pytest.approx(gti.ontime, rel=1e-9)
    assert np.all(curve.stop > curve.start)
    assert np.all(curve.start[1:] >= curve.stop[:-1])
    np.testing.assert_allclose((curve.rate * curve.exposure).sum(axis=1), np.bincount(events.band, minlength=3))


def test_bins_never_reach_across_a_gap_and_end_where_it_begins() -> None:
    curve = light_curve(detection(GAPPY), min_counts=5)
    for start, stop in zip(GAPPY.stop[:-1], GAPPY.start[1:], strict=True):
        assert not np.any((curve.start < stop) & (curve.stop > start))
        assert start in curve.stop
        assert stop in curve.start


def test_bins_are_narrow_where_it_is_bright() -> None:
    events = detection(GoodTimeIntervals(0, 16384), rate=0.02)
    flare = np.random.default_rng(1).uniform(4096, 4352, 500)
    time = np.sort(np.concatenate([events.time, flare]))
    curve = light_curve(replace(events, time=time, energy=np.full(len(time), 1.0, "f4")), min_counts=20)
    within = (curve.start >= 4096) & (curve.stop <= 4352)
    assert np.median((curve.stop - curve.start)[within]) <= 16
    assert np.min((curve.stop - curve.start)[~within]) >= 256
    assert np.all(curve.counts.sum(axis=0) < 40)


def test_bins_are_no_narrower_than_two_frames() -> None:
    events = detection(GoodTimeIntervals(0, 1000), rate=50.0, frame_time=3.2)
    curve = light_curve(events, min_counts=1)
    assert np.min(curve.stop - curve.start) >= 6.4
    assert len(curve) == 128


def test_many_events_at_one_instant_end_somewhere() -> None:
    assert len(adaptive_bins(np.full(10_000, 0.3), 0.0, 1.0, 5)) == 18


@pytest.mark.parametrize("edges", [[0.0], [0.0, 0.0], [1.0, 0.5], [[0.0, 1.0]]])
def test_edges_that_do_not_increase_are_refused(edges: list[float]) -> None:
    with pytest.raises(ValueError, match="edges must increase"):
        light_curve(detection(GAPPY), edges)


def test_a_detection_without_events_has_a_light_curve() -> None:
    empty = detection(GAPPY, rate=0.0)
    curve = light_curve(empty)
    assert len(curve) == 3
    assert not curve.counts.any()
    np.testing.assert_allclose(curve.upper * curve.exposure, 1.841, atol=1e-3)


@pytest.mark.parametrize("n", [0, 1, 3, 20])
def test_intervals_are_where_the_counts_would_be_a_surprise(n: int) -> None:
    lower, upper = poisson_interval(n)
    tail = (1 - 0.682689492137086) / 2
    assert poisson.cdf(n, upper) == pytest.approx(tail)
    assert lower == 0 if n == 0 else poisson.sf(n - 1, lower) == pytest.approx(tail)


def test_the_background_is_scaled_to_the_sources_region() -> None:
    events = detection(GoodTimeIntervals(0, 50_000), background=0.02)
    level = background_rate(events, light_curve(events, np.linspace(0, 50_000, 6)))
    assert level is not None
    np.testing.assert_allclose(level, 0.02, rtol=0.15)  # 2,000 events a bin: 2 %
    assert level @ np.full(5, 10_000.0) * 10 == pytest.approx(len(events.background.time))  # type: ignore[union-attr]
    assert background_rate(replace(events, background=None), light_curve(events)) is None


def test_a_spectrum_counts_every_event_once() -> None:
    events = detection(GAPPY, rate=0.1)
    energy = np.concatenate([events.energy, np.array(BANDS.edges, dtype="f4")])
    spectrum = count_spectrum(energy, 0.5, 7.0, min_counts=30)
    assert spectrum.counts.sum() == len(energy)
    np.testing.assert_allclose(spectrum.density * np.diff(spectrum.edges), spectrum.counts)
    assert np.all(spectrum.counts < 60)
    # The energies were drawn evenly in their logarithm: as many in each equal ratio.
    even = counted(events.energy, np.geomspace(0.5, 7.0, 6)).counts
    assert np.ptp(even) < 5 * np.sqrt(even.mean())


# Drawing -------------------------------------------------------------------------------------------------------------


def test_gaps_are_drawn_where_the_good_times_have_them() -> None:
    events = detection(GAPPY)
    shapes = light_curve_chart(events, light_curve(events)).layout.shapes
    assert [(1000 * s.x0, 1000 * s.x1) for s in shapes] == [(2000, 3000), (6000, 7000)]
    assert {s.type for s in shapes} == {"rect"}
    whole = detection(GoodTimeIntervals(0, 100))
    assert not light_curve_chart(whole, light_curve(whole)).layout.shapes


def test_where_most_is_gap_the_gaps_are_cut_out() -> None:
    events = detection(MOSTLY_GAP, rate=0.2)
    figure = light_curve_chart(events, light_curve(events), (np.arange(0, 9400, 10.0), np.ones((3, 940))))
    assert [(s.type, s.x0, s.x1) for s in figure.layout.shapes] == [("line", 0.5, 0.5)]
    assert all(max(trace.x) <= 0.9 for trace in figure.data)
    assert "good time" in figure.layout.xaxis4.title.text


def test_points_times_good_time_are_the_counts() -> None:
    events = detection(GAPPY, rate=0.2, background=0.05)
    curve = light_curve(events, min_counts=36)
    by_name = {trace.name: trace for trace in light_curve_chart(events, curve).data}
    expected = {"all bands": len(events), **dict(zip(BANDS.names(), np.bincount(events.band).tolist(), strict=True))}
    for name, total in expected.items():
        assert np.asarray(by_name[name].y) @ curve.exposure == pytest.approx(total)
    background = by_name["background, scaled to the source’s region"]
    level = np.asarray(background.y).reshape(-1, 3)[:, 0]
    assert level @ curve.exposure * 10 == pytest.approx(len(events.background.time))  # type: ignore[union-attr]


def test_the_models_rate_is_drawn_as_it_is() -> None:
    events = detection(GAPPY)
    time, by_band = rate = (np.linspace(10, 11_990, 50), np.arange(150.0).reshape(3, 50))
    lines = [t for t in light_curve_chart(events, light_curve(events), rate).data if t.mode == "lines"]
    np.testing.assert_allclose([line.y for line in lines], [by_band.sum(axis=0), *by_band])
    np.testing.assert_allclose(lines[0].x, time / 1000)


def test_a_spectrum_has_its_bands_and_their_edges() -> None:
    events = detection(GAPPY, rate=0.2, background=0.05)
    figure = spectrum_chart(events)
    assert [trace.name for trace in figure.data[1:]] == BANDS.names()
    assert [shape.x0 for shape in figure.layout.shapes] == [1.2, 2.0]
    assert sum(int(point[0]) for trace in figure.data[1:] for point in trace.customdata) == len(events)


@pytest.mark.parametrize("gti", [GAPPY, MOSTLY_GAP, GoodTimeIntervals(0, 1000)], ids=["gaps", "mostly gap", "whole"])
@pytest.mark.parametrize("bands", [BANDS, Bands((0.3, 10.0))], ids=["three", "one"])
@pytest.mark.parametrize("rate", [0.0, 0.002, 0.5])
def test_any_detection_has_a_page(gti: GoodTimeIntervals, bands: Bands, rate: float) -> None:
    page = render(detection(gti, rate=rate, bands=bands, background=0.001))
    assert page.count("<script>") == page.count("</script>") == 2


# The page ------------------------------------------------------------------------------------------------------------


def test_facts_are_the_event_lists() -> None:
    events = detection(GAPPY, background=0.02, area=(100.0, 200.0, 150.0), flags=("pile_up",), frame_time=3.2)
    said = dict(facts(events))
    counts = np.bincount(events.band, minlength=3)
    assert [said[f"  {name}"] for name in BANDS.names()] == [f"{n:,}" for n in counts]
    assert said["Good time"] == "10,000.0 s in 3 intervals"
    assert said["Exposure"] == "9,000.0 s (90.0 % live)"
    assert said["Begin"] == "2006-09-22 00:00:00 TT (MJD 54000.000000)"
    assert (said["Flags"], said["Effective area"]) == ("pile up", "100, 200, 150 cm²")
    assert "Position" not in said  # unknown


def test_names_cannot_become_markup() -> None:
    hostile = '</script><img src=x onerror="alert(1)">'
    page = render(detection(GAPPY, source_id=hostile, object=hostile + "!", file=f"/a/{hostile.replace('/', '')}"))
    assert "<img" not in page.replace(page[page.index("<script>") :], "")
    assert page.count("</script>") == 2
    assert hostile in unescape(page)


def untrained() -> Autodecoder:
    """An autodecoder as it is before its training; what it says is no matter here."""
    settings = GridSettings()
    torch.manual_seed(0)
    decoder = settings.decoder()
    return Autodecoder(settings, decoder.state_dict(), torch.zeros(settings.latent_dim))


def test_a_page_with_a_model_names_it_and_draws_its_rate(tmp_path: Path) -> None:
    model = untrained()
    model.save(tmp_path / "model")
    events = detection(GAPPY, rate=0.1)
    delta.write(str(tmp_path / "events"), "events", EVENTS, to_table([events]))
    page = look("chandra:1", str(tmp_path / "events"), str(tmp_path / "model"), str(tmp_path / "page.html")).read_text()
    assert model.name in page
    chart = json.loads(re.findall(r'^  "light-curve": (.*),$', page, flags=re.MULTILINE)[0])
    assert sum(trace["name"].startswith("rate reconstructed") for trace in chart["data"]) == 4


def test_a_page_is_named_after_its_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_event_file(tmp_path / "a.fits")
    assert look("a.fits", None, None, None) == Path("chandra_10027_acis_M82.html")


def test_a_detection_is_found_by_its_beginning_or_its_file(tmp_path: Path) -> None:
    table = str(tmp_path / "events")
    made = [replace(detection(GAPPY), detection_id=name) for name in ("chandra:1:acis:A", "chandra:10:acis:A", "xmm:2")]
    delta.write(table, "events", EVENTS, to_table(made))
    assert find_detection("xmm", table).detection_id == "xmm:2"
    assert find_detection("chandra:1:", table).detection_id == "chandra:1:acis:A"
    np.testing.assert_array_equal(find_detection("xmm:2", table).time, made[2].time)
    with pytest.raises(ConfigError, match="chandra:1: 2 detections begin so: chandra:10:acis:A, chandra:1:acis:A"):
        find_detection("chandra:1", table)
    with pytest.raises(ConfigError, match=r"xnn:2: neither a file nor a detection of .*; nearest are xmm:2, "):
        find_detection("xnn:2", table)
    with pytest.raises(ConfigError, match=r"xmm:2: no such file; .* give --events TABLE"):
        find_detection("xmm:2")
    assert find_detection(str(write_event_file(tmp_path / "a.fits"))).detection_id == "chandra:10027:acis:M82"
    (tmp_path / "b.fits").write_bytes(b"")
    with pytest.raises(RefusedInput, match="empty_file"):
        find_detection(str(tmp_path / "b.fits"))


@pytest.mark.cluster
def test_a_browser_draws_the_page_without_complaint(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a Chromium to look at the page with")
    events = detection(GAPPY, rate=0.2, background=0.05)
    (tmp_path / "page.html").write_text(render(events))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = f"--disable-component-update --disable-sync --user-data-dir={tmp_path / 'chromium'} --enable-logging=stderr"
    command = [browser, *flags.split(), *more.split(), "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    drawn = len(re.findall(r'class="point[ "]', done.stdout))
    n_bins = len(light_curve(events, min_counts=36))
    assert drawn == 4 * n_bins + sum(len(trace.x) for trace in spectrum_chart(events).data[1:])
