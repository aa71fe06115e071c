"""`lexray literature`: papers from files, matched to the events table's sources."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import literature_table
from lexray.errors import ConfigError, RefusedInput
from lexray.jobs.literature import JOB, LiteratureConfig
from lexray.literature.crossmatch import Match, SourceCatalogue
from lexray.literature.deduplicate import deduplicate
from lexray.literature.names import best_known_first, name_pattern, plain_name, searchable_names
from lexray.literature.papers import FORMATS, Paper, parse_paper, read_papers
from lexray.literature.ranking import rank_papers
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.tables.schemas import EVENTS, LITERATURE

ARCSEC = 1 / 3600
TEXT = "Pulsations at 31.6 s were found."


def events_table(path: Path, *sources: tuple[str, float | None, float | None]) -> str:
    rows = [
        {"detection_id": f"{source}:{i}", "source_id": source, "ra": ra, "dec": dec}
        for i, (source, ra, dec) in enumerate(sources)
    ]
    delta.write(str(path), "events", EVENTS, pa.Table.from_pylist(rows, schema=EVENTS), n_parts=4)
    return str(path)


def jsonl(path: Path, *rows: dict[str, Any] | str) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def literature(tmp_path: Path, *inputs: str, **keys: Any) -> tuple[JobReport, list[dict[str, Any]]]:
    report = execute(JOB, LiteratureConfig(inputs=list(inputs), out=str(tmp_path / "literature"), **keys), Progress())
    return report, delta.read(report.out).to_pylist()


def test_real_papers_meet_the_sources_that_were_observed(tmp_path: Path, real_literature: Path, cli: Any) -> None:
    events = events_table(tmp_path / "events", ("NGC_300_ULX1", 13.770208, -37.695417), ("M82", None, None))
    report = cli.json("literature", real_literature, "--set", f"events={events}", "--out", tmp_path / "literature")
    rows = delta.read(report["out"]).to_pylist()
    assert report["counts"]["matched_by_name"] == len(rows) == 4
    ulx = [row for row in rows if row["source_id"] == "NGC_300_ULX1"]
    assert {row["title"] for row in ulx} == {
        "NGC 300 ULX1: spin evolution, super-Eddington accretion and outflows",
        "NGC 300 ULX1: A new ULX pulsar in NGC 300",
    }
    assert all(row["matched_by"] == "name" and row["separation"] < 0.01 for row in ulx)
    m82 = [row for row in rows if row["source_id"] == "M82"]
    assert len(m82) == 2
    assert all(row["separation"] is None for row in m82), "the events table has no position for M82"


def test_a_paper_matches_by_position_where_its_name_is_unknown(tmp_path: Path) -> None:
    events = events_table(tmp_path / "events", ("near", 10.0, 20.0), ("nearer", 10.0, 20.0 + 0.5 * ARCSEC))
    papers = jsonl(
        tmp_path / "p.jsonl",
        {"source_id": "2CXO A", "ra": 10.0, "dec": 20.0 + 0.8 * ARCSEC, "abstract": TEXT, "bibcode": "a"},
        {"source_id": "2CXO B", "ra": 10.0, "dec": 20.0 + 2.0 * ARCSEC, "abstract": TEXT, "bibcode": "b"},
        {"source_id": "2CXO C", "abstract": TEXT, "bibcode": "c"},
    )
    report, rows = literature(tmp_path, papers, events=events)
    found = {row["bibcode"]: row for row in rows}
    assert found["a"]["source_id"] == "nearer"
    assert found["a"]["matched_by"] == "position"
    assert found["a"]["separation"] == pytest.approx(0.3, abs=1e-3)
    assert [found[key]["source_id"] for key in "bc"] == ["2CXO B", "2CXO C"], "unmatched papers keep their own names"
    assert found["b"]["matched_by"] is None
    assert report.counts["unmatched"] == 2
    _, wider = literature(tmp_path, papers, events=events, radius=1.6)
    assert {row["bibcode"]: row["source_id"] for row in wider}["b"] == "nearer"


def test_a_name_counts_before_a_position(tmp_path: Path) -> None:
    events = events_table(tmp_path / "events", ("M82", 148.0, 69.0), ("M82", 148.0, 69.1), ("other", 10.0, 20.0))
    papers = jsonl(tmp_path / "p.jsonl", {"source_id": "m 82", "ra": 10.0, "dec": 20.0, "abstract": TEXT})
    _, (row,) = literature(tmp_path, papers, events=events)
    assert (row["source_id"], row["matched_by"]) == ("M82", "name")
    assert row["separation"] > 3600


def test_ids_of_one_source_merge_and_a_paper_counts_once(tmp_path: Path) -> None:
    events = events_table(tmp_path / "events", ("M_82", 148.0, 69.0))
    papers = jsonl(
        tmp_path / "p.jsonl",
        {"source_id": "M82", "abstract": TEXT, "bibcode": "one"},
        {"source_id": "CXO J095150.7", "ra": 148.0, "dec": 69.0, "abstract": "Other words.", "bibcode": "one"},
        {"source_id": "m82", "abstract": TEXT, "arxiv": "0706.0901"},
        {"source_id": "m82", "abstract": TEXT},
        {"source_id": "m82", "abstract": TEXT},
    )
    report, rows = literature(tmp_path, papers, events=events)
    assert {row["source_id"] for row in rows} == {"M_82"}
    assert (len(rows), report.counts["duplicates"]) == (3, 2)
    assert len({row["part"] for row in rows}) == 1


def test_without_an_events_table_papers_keep_their_names(tmp_path: Path) -> None:
    report, rows = literature(tmp_path, jsonl(tmp_path / "p.jsonl", {"source_id": "M 82", "abstract": TEXT}))
    assert [(row["source_id"], row["matched_by"]) for row in rows] == [("M 82", None)]
    assert report.counts["unmatched"] == 1


def test_what_is_malformed_goes_to_quarantine_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = {"source_id": "M82", "abstract": TEXT}
    path = tmp_path / "papers.jsonl"
    bad = {
        "bad_json": b"{truncated",
        "bad_encoding": b'{"source_id": "M82", "abstract": "\xff"}',
        "no_source_id": json.dumps(good | {"source_id": " _ "}).encode(),
        "no_text": json.dumps({"source_id": "M82", "title": "A title is not enough", "abstract": "  "}).encode(),
        "bad_value": json.dumps(good | {"year": "last year"}).encode(),
    }
    extra = [b"[1, 2]", json.dumps(good | {"ra": 1.0}).encode(), json.dumps(good | {"ra": 400, "dec": 0}).encode()]
    path.write_bytes(b"\n".join([*bad.values(), *extra, b"", json.dumps(good).encode()]))
    nonsense = tmp_path / "papers.parquet"
    nonsense.write_bytes(b"PAR1 this is none")
    report, rows = literature(
        tmp_path, str(path), str(nonsense), jsonl(tmp_path / "notes.txt", good), max_bad_fraction=1
    )
    assert len(rows) == 1
    (quarantine,) = report.outputs
    refused = delta.read(quarantine).to_pylist()
    lines = [row for row in refused if row["file"] == str(path)]
    assert [row["reason"] for row in lines] == [*bad, "bad_json", "bad_value", "bad_value"]
    assert lines[0]["detail"].startswith("line 1: ")
    others = {Path(row["file"]).name: row["reason"] for row in refused if row["file"] != str(path)}
    assert others == {"papers.parquet": "unreadable_file", "notes.txt": "unknown_format"}
    assert {row["stage"] for row in refused} == {"literature"}
    assert report.counts["refused"] == len(refused)

    path.write_text(json.dumps(good))
    literature(tmp_path, str(path))
    assert delta.read(quarantine).num_rows == 0, "an earlier run's refusals do not outlive it"


def test_too_many_refusals_end_with_exit_code_3(tmp_path: Path) -> None:
    report, _ = literature(tmp_path, jsonl(tmp_path / "p.jsonl", "{", "{", json.dumps({"source_id": "a", "body": "b"})))
    assert report.exit_code == 3


def test_a_path_where_nothing_lies_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.jsonl: no such file"):
        literature(tmp_path, str(tmp_path / "absent.jsonl"))


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    rows = [
        {
            "Source_ID": "M82",
            "RA": "148.9",
            "Dec": "69.6",
            "Year": "2007",
            "Abstract": 'Two\nlines, "quoted".',
            "x": "?",
        },
        {"Source_ID": "47 Tuc X9", "RA": "", "Dec": "", "Year": "", "Abstract": "Orbital period of 28.2 min.", "x": ""},
    ]
    folder = tmp_path / "papers"
    folder.mkdir()
    jsonl(folder / "papers.jsonl", *rows)
    with (folder / "papers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    typed = [row | {"RA": float(row["RA"] or "nan"), "Dec": float(row["Dec"] or "nan")} for row in rows]
    pq.write_table(pa.Table.from_pylist(typed), folder / "papers.parquet")
    read = [list(read_papers(str(folder / f"papers.{ending}"))) for ending in ("jsonl", "csv", "parquet")]
    assert read[0] == read[1] == read[2]
    assert isinstance(read[0][0], Paper)
    assert (read[0][0].ra, read[0][0].year, read[0][0].abstract) == (148.9, 2007, 'Two\nlines, "quoted".')
    report, table = literature(tmp_path, str(folder))
    assert (report.counts["files"], report.counts["duplicates"], len(table)) == (3, 4, 2)


def test_a_csv_row_of_another_width_is_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "papers.csv"
    path.write_bytes(b"source_id,abstract\nM82,first\nM82\nM82,a,b\nM82,\xff\nM82,last\n")
    items = list(read_papers(str(path)))
    assert [item.reason if isinstance(item, Refusal) else item.abstract for item in items] == [
        "first", "bad_row", "bad_row", "bad_encoding", "last",
    ]  # fmt: skip


def test_a_paper_with_a_position_alone_is_named_after_it() -> None:
    assert parse_paper({"ra": 188.7361, "dec": -1.3958, "body": TEXT}).source_id == "J123456.6-012344"


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
_values |= st.sampled_from(["M82", "1", "-1.5", "nan", "1e400"]) | st.lists(st.integers(), max_size=2)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*Paper.__dataclass_fields__, "other"]), _values))
def test_any_row_is_a_paper_or_a_refusal(row: dict[str, Any]) -> None:
    try:
        paper = parse_paper(row)
    except RefusedInput as refused:
        reason = refused.reason
    else:
        reason = None
        assert paper.source_id.strip()
        assert paper.abstract or paper.body
        assert (paper.ra is None) == (paper.dec is None)
        assert paper.ra is None or math.isfinite(paper.ra)
        literature_table([paper], [Match(paper.source_id, None, None)])
    assert reason in {None, "no_source_id", "no_text", "bad_value", "bad_encoding"}


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(FORMATS))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    path.write_bytes(content)
    assert all(isinstance(item, Paper | Refusal) for item in read_papers(str(path)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 359.99), st.floats(-89, 89)), min_size=1, max_size=20),
    st.floats(0, 5),
    st.floats(0, 2 * math.pi),
)
def test_a_match_by_position_is_the_nearest_within_the_radius(
    positions: list[tuple[float, float]], offset: float, angle: float
) -> None:
    ra, dec = np.array(positions).T
    names = np.array([f"s{i:02d}" for i in range(len(ra))], dtype=object)
    catalogue = SourceCatalogue({str(name): str(name) for name in names}, names, ra, dec, np.full(len(ra), np.nan))
    moved = dec[0] + offset * math.sin(angle) * ARCSEC
    sideways = (ra[0] + offset * math.cos(angle) * ARCSEC / math.cos(math.radians(dec[0]))) % 360
    paper = parse_paper({"source_id": "unknown", "ra": sideways, "dec": moved, "body": TEXT})
    (match,) = catalogue.match([paper], radius=3.0)
    if match.separation is not None:
        assert match.separation <= min(3.0, offset + 1e-3)
    else:
        assert offset > 3.0 - 1e-3
    (by_name,) = catalogue.match([parse_paper({"source_id": "S00", "ra": sideways, "dec": moved, "body": TEXT})], 0.0)
    assert by_name.source_id == "s00"
    assert by_name.separation == pytest.approx(offset, abs=2e-3)


def test_a_position_says_how_likely_chance_is(tmp_path: Path) -> None:
    crowd = [(f"x{i}", 10.0 + (10 + i) * ARCSEC, 20.0) for i in range(9)]
    events = events_table(tmp_path / "events", ("one", 10.0, 20.0), ("one", 10.0, 20.0), *crowd)
    papers = jsonl(tmp_path / "p.jsonl", {"source_id": "2CXO A", "ra": 10.0, "dec": 20.0 + 0.8 * ARCSEC, "body": TEXT})
    _, (row,) = literature(tmp_path, papers, events=events, position_error=1.5)
    assert (row["matched_by"], row["error_source"], row["error_object"]) == ("position", 1.5, None)
    assert row["p_chance"] == pytest.approx(1 - math.exp(-10 * (0.8 / 120) ** 2), rel=1e-3)
    assert (row["found_by"], row["identifiers"], row["object"]) == ("file", ["one", "2CXO A"], None)


def test_a_source_table_names_sources_too(tmp_path: Path) -> None:
    events = events_table(tmp_path / "events", ("one", 10.0, 20.0))
    (tmp_path / "s.csv").write_text(f"source_id,ra,dec,position_error\nONE,10,20,0.5\ntwo,11,{20 + ARCSEC},0.7\n")
    papers = jsonl(
        tmp_path / "p.jsonl",
        {"source_id": "a", "ra": 11.0, "dec": 20.0 + 1.5 * ARCSEC, "body": TEXT, "bibcode": "a"},
        {"source_id": "b", "ra": 10.0, "dec": 20.0, "body": TEXT, "bibcode": "b"},
    )
    _, rows = literature(tmp_path, papers, events=events, sources=str(tmp_path / "s.csv"))
    found = {row["bibcode"]: (row["source_id"], row["error_source"]) for row in rows}
    assert found == {"a": ("two", 0.7), "b": ("one", None)}


# Ranking and merging --------------------------------------------------------------------------------------------------


def paper(**values: Any) -> dict[str, Any]:
    return dict.fromkeys(LITERATURE.names) | {"source_id": "M82 X-1", "found_by": "file", "identifiers": []} | values


def order_of(*papers: dict[str, Any]) -> list[str]:
    return [str(row["bibcode"]) for row in rank_papers(papers[::-1], ["M82 X-1", "NAME X41.4+60"])]


def test_papers_on_the_source_come_first_and_catalogues_last() -> None:
    order = order_of(
        paper(bibcode="title", title="On M 82 X-1", abstract=TEXT),
        paper(bibcode="only", n_objects=1, n_mentions=0, abstract=TEXT),
        paper(bibcode="abstract", abstract="We look at X41.4+60."),
        paper(bibcode="few", n_objects=7, title="M82 X-10"),
        paper(bibcode="other", n_mentions=90, abstract="M82 X-10."),
        paper(bibcode="catalogue", title="M82 X-1 and others", n_objects=101, n_mentions=90, abstract=TEXT),
    )
    assert order == ["only", "title", "abstract", "few", "other", "catalogue"]


def test_among_equals_texts_mentions_citations_and_years_count() -> None:
    equals = {"n_objects": 2, "abstract": TEXT, "n_mentions": 4, "n_citations": 100, "year": 2000}
    assert order_of(
        paper(bibcode="more mentions", **{**equals, "n_mentions": 30, "n_citations": 0}),
        paper(bibcode="30 years later", **{**equals, "n_citations": 10, "year": 2030}),
        paper(bibcode="as it is", **equals),
        paper(bibcode="10 years later", **{**equals, "n_citations": 10, "year": 2010}),
        paper(bibcode="no text", **{**equals, "abstract": None, "n_mentions": 99}),
    ) == ["more mentions", "30 years later", "as it is", "10 years later", "no text"]


_words = st.sampled_from([None, "", "M82 X-1", "A field", "Zwei Quellen"])
_papers = st.fixed_dictionaries(
    {
        "bibcode": st.sampled_from([None, "2001ApJ...1", "2002ApJ...2", "2003ApJ...3"]),
        "arxiv": st.sampled_from([None, "1803.04424", "arXiv:1803.04424v2", "0706.0901"]),
        "title": _words,
        "abstract": _words,
        "year": st.none() | st.integers(1990, 2026),
        "n_objects": st.none() | st.integers(1, 1000),
        "n_mentions": st.none() | st.integers(0, 50),
        "n_citations": st.none() | st.integers(0, 500),
        "found_by": st.sampled_from(["file", "simbad", "ads"]),
    }
)


@settings(deadline=None)
@given(st.lists(_papers, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_papers_does_not_depend_on_how_they_came(papers: list[dict[str, Any]], chance: Any) -> None:
    rows = [paper(**values) for values in papers]
    first = rank_papers(rows, ["M82 X-1"])
    chance.shuffle(rows)
    again = rank_papers(rows, ["M82 X-1"])
    keys = ("bibcode", "arxiv", "title", "abstract")
    assert [[row[key] or "" for key in keys] for row in again] == [[row[key] or "" for key in keys] for row in first]


@settings(deadline=None)
@given(st.lists(_papers, max_size=8))
def test_merging_loses_nothing_and_leaves_each_paper_once(papers: list[dict[str, Any]]) -> None:
    rows = [paper(**values) for values in papers]
    merged = deduplicate(rows)
    assert deduplicate(merged) == merged
    for key in ("bibcode", "arxiv"):
        told = [row[key].removeprefix("arXiv:").removesuffix("v2") for row in merged if row[key]]
        assert len(told) == len(set(told)), key
    assert {row["title"] for row in merged if row["title"]} <= {row["title"] for row in rows}


def test_a_paper_of_several_places_is_one_row_with_the_best_of_each() -> None:
    bibcode, title = "2018MNRAS.476L..45C", "Discovery of pulsations in NGC 300 ULX1"
    simbad = {
        "bibcode": bibcode,
        "title": title.upper(),
        "n_objects": 2,
        "n_mentions": 41,
        "p_chance": 1e-6,
        "year": 2018,
    }
    (row,) = deduplicate(
        [
            paper(source_id="NGC300", title="Discovery of pulsations: in NGC 300 ULX1", body="All.", n_citations=70),
            paper(found_by="simbad", matched_by="position", object="SN 2010da", identifiers=["SN 2010da"], **simbad),
            paper(found_by="ads", bibcode=bibcode, arxiv="1803.04424", title=title, abstract=TEXT, n_citations=81),
        ]
    )
    assert (row["found_by"], row["matched_by"], row["object"], row["p_chance"]) == (
        "simbad",
        "position",
        "SN 2010da",
        1e-6,
    )
    assert (row["title"], row["abstract"], row["body"]) == ("Discovery of pulsations: in NGC 300 ULX1", TEXT, "All.")
    assert (row["arxiv"], row["n_citations"], row["n_mentions"], row["year"]) == ("1803.04424", 81, 41, 2018)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["M82 X-1", "m 82 x1", "M~82 X--1", r"M\,82 X$-$1", "(M82 X–1)", "M82_X-1's"])
def test_a_name_is_found_in_texts_however_it_is_written(text: str) -> None:
    expression = name_pattern(["M82 X-1"])
    assert expression is not None
    assert expression.search(f"We observed {text}.")


@pytest.mark.parametrize("text", ["M82 X-10", "M 821", "M82 X-2", "GM82 X-1", "M82 X-1.5", "X-1 in M81"])
def test_other_names_are_other_names(text: str) -> None:
    expression = name_pattern(["M82 X-1"])
    assert expression is not None
    assert not expression.search(f"We observed {text}.")


@given(st.text("aB1 -_.+*[]()", max_size=20))
def test_a_name_finds_itself(name: str) -> None:
    expression = name_pattern([name])
    if sum(map(str.isalnum, plain_name(name))) >= 3:
        assert expression is not None
        assert expression.search(name)


def test_names_that_papers_do_not_speak_are_left_out() -> None:
    catalogues = ["2CXO J095550.1+694046", "[MHK2003] 23", "Gaia DR3 123456789", "X"]
    known = best_known_first(["CXOM82   41", *catalogues, "M 82 X-1", "NAME X41.4+60", "V* XY Ari"])
    assert known == ["X41.4+60", "X", "XY Ari", "M 82 X-1", "CXOM82 41", *catalogues[1:3], catalogues[0]]
    assert searchable_names(known, 9) == ["X41.4+60", "XY Ari", "M 82 X-1", "CXOM82 41"]
    assert searchable_names(["cxo_m82 41", *known], 2) == ["cxo m82 41", "X41.4+60"]
