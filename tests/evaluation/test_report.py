"""The report: a page that stands alone, is well-formed, and says nothing that a source's text could twist."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lexray.evaluation.heldout import DetectionScore, PiecewiseRate
from lexray.evaluation.inputs import EmbeddingPairs
from lexray.evaluation.report import embedding_map, plots
from lexray.evaluation.report.captions import caveats, example_detections, first_sentence, retrieval_examples
from lexray.evaluation.report.groundedness import ungrounded_summaries_table
from lexray.evaluation.report.metrics import EvaluationResults, measure_gain, measure_retrieval
from lexray.evaluation.report.plots import GainBar, LightCurveData
from lexray.evaluation.report.report import (
    CaptionedFigure,
    LineageStep,
    ReportOrigin,
    ReportPage,
    format_interval,
    format_value,
    lineage,
    render,
)
from lexray.evaluation.report.sections import training_section
from lexray.events.eventlist import Bands, EventList, GoodTimeIntervals
from lexray.runtime import tracking
from lexray.runtime.config import TrackingConfig
from lexray.tables import delta
from lexray.tables.provenance import write_provenance
from lexray.tables.schemas import SUMMARIES

VOID = {"meta", "img", "br", "link", "input", "hr", "source"}
PNG = b"\x89PNG\r\n\x1a\n"


class Checker(HTMLParser):
    """Tags that close in the order in which they opened, and every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.sources += [values[key] or "" for key in ("src", "srcset") if key in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if "href" in values else []
        if tag == "img":
            assert values.get("alt"), "a picture without words"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


HOSTILE = 'Bright <script>alert("x")</script> source & {{ 7 * 7 }}. It flares.'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ReportPage:
    folder = tmp_path_factory.mktemp("page")
    found = EvaluationResults()
    generator = np.random.default_rng(0)
    scores = [
        DetectionScore(
            f"chandra:{i}:acis:s{i}",
            f"s{i}",
            500,
            100,
            {"constant": -10.0, "bayesian_blocks": -9.0, "autodecoder": i - 9.5},
        )
        for i in range(12)
    ]
    measure_gain(found, scores, 0)
    vectors = generator.normal(size=(12, 6)).astype(np.float32)
    pairs = EmbeddingPairs([f"s{i}" for i in range(12)], vectors, vectors + 0.1)
    ranks = measure_retrieval(found, pairs.xray, pairs.text, 0)
    bars = [GainBar("constant", 0, 0, 0, "baseline"), GainBar("autodecoder", 0.2, 0.1, 0.3, "ours")]
    name = plots.save_figure(folder, "gain", lambda theme: plots.gain_chart(theme, bars))
    picture = CaptionedFigure(name, "Gain & more", "How to read it.", 'A chart "with quotes"')
    return ReportPage(
        folder=folder,
        results=found,
        origin=ReportOrigin(
            sources={"train": 30, "val": 8, "test": 12},
            steps=[],
            config={"events": "tables/events"},
            mlflow_run="0123456789abcdef",
        ),
        figures={"gain": picture},
        light_curves=[],
        examples=retrieval_examples(pairs, ranks["text → X-ray"], {"s3": "AGN"}, {f"s{i}": HOSTILE for i in range(12)}),
        caveats=caveats(found, simulated=True),
    )


def test_page_is_well_formed_and_stands_alone(page: ReportPage) -> None:
    checked = check(render(page))
    assert checked.sources
    for source in checked.sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(PNG)
    assert not {"script", "link", "iframe", "object"} & checked.tags
    assert not re.search(r"https?://|url\(|@import", render(page))
    # Links lead within the page, to places that exist.
    assert {link.removeprefix("#") for link in checked.links} <= set(checked.ids)


def test_page_holds_the_light_and_the_dark_picture(page: ReportPage) -> None:
    html = render(page)
    light, dark = (base64.b64encode((page.folder / f"gain{s}.png").read_bytes()).decode() for s in ("", ".dark"))
    assert light != dark
    assert light in html
    assert dark in html


def test_words_of_papers_cannot_become_markup(page: ReportPage) -> None:
    html = render(page)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert ">49<" not in html


def test_page_says_the_figures_beside_their_baselines(page: ReportPage) -> None:
    html = render(page)
    metrics = page.results.metrics
    assert format_value(metrics["heldout_gain.autodecoder"], "bits") in html
    assert format_value(metrics["retrieval.chance.recall_at_10"], "%") in html
    for rows in page.results.sections.values():
        for row in rows:
            assert format_interval(row) in html


def test_examples_run_from_the_best_rank_to_the_worst() -> None:
    vectors = np.eye(6, dtype=np.float32)
    rank = np.array([6, 5, 4, 3, 2, 1])
    found = retrieval_examples(
        EmbeddingPairs(list("abcdef"), vectors, vectors), rank, {}, dict.fromkeys("abcdef", "Words. More."), n=3
    )
    assert [item.rank for item in found] == sorted(item.rank for item in found)
    assert found[0].rank == 1
    assert all(item.hits[0].own for item in found)  # each vector is its own nearest here


def test_shown_detections_are_the_best_the_median_and_the_worst() -> None:
    scores = [DetectionScore(f"d{i}", f"s{i}", 500, 100, {"constant": 0.0, "autodecoder": float(i)}) for i in range(5)]
    faint = DetectionScore("faint", "f", 12, 2, {"constant": 0.0, "autodecoder": 900.0})
    chosen = example_detections([*scores, faint])
    assert {name: score.detection_id for name, (score, _) in chosen.items()} == {
        "best": "d4",
        "median": "d2",
        "worst": "d0",
    }
    assert chosen["best"][1] == pytest.approx(4 / 100 / np.log(2))


def test_first_sentence_ends_where_a_new_one_begins() -> None:
    text = "The luminosity is 2.5e38 erg/s at 3.4 Mpc, cf. the table. It varies."
    assert first_sentence(text) == "The luminosity is 2.5e38 erg/s at 3.4 Mpc, cf. the table."
    assert first_sentence("Short. No.") == "Short. No."


@pytest.mark.parametrize(
    "gti",
    [GoodTimeIntervals(0, 1000), GoodTimeIntervals([0, 700], [400, 1000]), GoodTimeIntervals([0, 9000], [500, 9400])],
    ids=["whole", "gap", "mostly gap"],
)
@pytest.mark.parametrize("n", [0, 200])
def test_light_curves_can_be_drawn_of_any_detection(gti: GoodTimeIntervals, n: int, tmp_path: Path) -> None:
    time = np.sort(np.random.default_rng(0).uniform(0, 400, n))
    energy = np.full(n, 1.0, dtype=np.float32)
    events = EventList("d", "s", time, energy, gti, Bands((0.5, 1.2, 2.0, 7.0)), gti.ontime)
    rate = PiecewiseRate(np.linspace(0, events.duration, 65), np.ones((3, 64)))
    plots.save_figure(tmp_path, "curve", lambda theme: plots.light_curve(theme, LightCurveData(events, rate, rate)))
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)


def test_map_keeps_neighbours_together() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8) * 5, 20, axis=0)
    x, y = (centres + 0.1 * generator.normal(size=centres.shape) for _ in range(2))
    placed_x, placed_y = embedding_map.map_coordinates(x, y)
    group = np.repeat(np.arange(3), 20)
    both, groups = np.concatenate([placed_x, placed_y]), np.concatenate([group, group])
    distance = np.linalg.norm(both[:, None] - both[None], axis=2) + 1e9 * np.eye(len(both))
    assert np.mean(groups[distance.argmin(axis=1)] == groups) > 0.98


def test_training_curves_leave_out_the_closing_figure_and_what_never_changes(tmp_path: Path) -> None:
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    with tracking.run(config, "train alignment", {}) as run:
        for step in (1, 2, 3):
            run.metrics({"loss": 5.0 - step, "skipped": 0.0}, step)
        run.metrics({"loss": 2.0})
    step = LineageStep("train alignment", "v1", {}, 1.0, run.run_id)
    lost = LineageStep("train autodecoder", "v1", {}, 1.0, "0" * 32)
    made = training_section(tmp_path, [step, lost], run.client)
    assert made["training"].alt == "Line charts of alignment: loss"
    assert training_section(tmp_path, [lost], run.client) == {}


def test_lineage_follows_what_each_output_says_it_read(tmp_path: Path) -> None:
    def say(name: str, inputs: list[str]) -> str:
        out = str(tmp_path / name)
        report = {
            "job": name,
            "inputs": dict.fromkeys(inputs, "v1"),
            "version": "v1",
            "counts": {"rows": 3, "by_reason": {}},
            "seconds": 2.5,
            "mlflow_run": "abc",
        }
        write_provenance(out, {"fingerprint": "f", "lexray": "0", "config": {}, "report": report})
        return out

    events = say("ingest", ["/nowhere/files"])
    latents = say("encode", [events, say("train autodecoder", [events])])
    found = lineage([latents, events])
    assert [step.job for step in found] == ["ingest", "train autodecoder", "encode"]
    assert found[0].counts == {"rows": 3}


def test_the_worst_summaries_are_listed_worst_first_with_what_is_missing(page: ReportPage, tmp_path: Path) -> None:
    said = [("good", 1.0, [], "ok"), ("unchecked", None, [], "ok"), ("so so", 0.9, ["<b>62 days</b>"], "ok")]
    said += [(f"bad {i:02}", i / 100, [f"finding {i}"], "ungrounded") for i in range(30)]
    rows = [
        {"source_id": name, "grounded": share, "findings": findings, "status": status, "n_papers": 2, "engine": "vllm"}
        for name, share, findings, status in said
    ]
    table = str(tmp_path / "summaries")
    delta.write(table, "summaries", SUMMARIES, pa.Table.from_pylist(rows, schema=SUMMARIES))
    listing = ungrounded_summaries_table(table)
    assert listing is not None
    assert [row[0] for row in listing.rows] == [f"bad {i:02}" for i in range(20)]
    assert list(listing.rows[3]) == ["bad 03", "3%", "2", "vllm", "finding 3"]
    assert "Of 32 summaries" in listing.intro
    assert "31 hold some" in listing.intro
    html = render(replace(page, tables=[listing]))
    assert "finding 3" in html
    assert "ungrounded-summaries" in check(html).ids
    delta.write(table, "summaries", SUMMARIES, pa.Table.from_pylist(rows[:2], schema=SUMMARIES))
    assert ungrounded_summaries_table(table) is None
