"""ADS over real HTTP: texts for known papers, papers that name a source, and a token that goes nowhere else."""

import json
import logging
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.literature_server import TOKEN, LiteratureServices, literature_server
from doubles.loopback import Fault
from lexray.errors import ConfigError, LexrayError
from lexray.jobs.literature import JOB, LiteratureConfig
from lexray.literature.ads import AdsConfig, AdsConnector, quote_phrase
from lexray.literature.connectors import PaperMatch
from lexray.literature.crossmatch import Match
from lexray.literature.papers import parse_paper
from lexray.literature.plaintext import plain_text
from lexray.literature.sources import TargetSource
from lexray.runtime.config import parse
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.web.cache import Cache

QUICK = {"first_wait": 0.01, "requests_per_second": 1000.0, "timeout": 5.0, "attempts": 3, "patience": 10.0}


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiteratureServices]:
    monkeypatch.setenv("ADS_API_TOKEN", TOKEN)
    monkeypatch.delenv("ADS_DEV_KEY", raising=False)
    with literature_server() as found:
        yield found


Papers = Callable[..., tuple[list[PaperMatch], list[Refusal], AdsConnector]]


@pytest.fixture
def papers(services: LiteratureServices, tmp_path: Path) -> Papers:
    """Asks ADS for sources, by their names; `known` papers and keys of its configuration may be given."""

    def ask(
        *names: str, known: list[PaperMatch] | None = None, **keys: Any
    ) -> tuple[list[PaperMatch], list[Refusal], AdsConnector]:
        http = {**QUICK, **keys.pop("http", {})}
        ads = AdsConnector(
            parse(AdsConfig, {"url": f"{services.url}/v1", "http": http, **keys}), Cache(tmp_path / "cache", 1.0)
        )
        items = list(ads.papers([TargetSource(name) for name in names], known or []))
        found = [item for item in items if isinstance(item, PaperMatch)]
        return found, [item for item in items if isinstance(item, Refusal)], ads

    return ask


def of_simbad(source: str, *bibcodes: str, identifiers: tuple[str, ...] = ()) -> list[PaperMatch]:
    match = Match(source, "position", 0.3, object="X", identifiers=identifiers)
    return [
        PaperMatch(parse_paper({"source_id": source, "bibcode": b, "body": "-"}), match, "simbad") for b in bibcodes
    ]


# What comes -----------------------------------------------------------------------------------------------------------


def test_known_papers_get_their_texts(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc(
        "2018MNRAS.476L..45C",
        "Discovery of pulsations in NGC&nbsp;300 ULX1",
        "L<SUB>X</SUB> = 4.7 × 10<SUP>39</SUP> erg s<SUP>-1</SUP>; P &lt; 32 s.<P />Second paragraph.",
        citation_count=81,
        identifier=["2018arXiv180304424C", "10.1093/mnrasl/sly030", "arXiv:1803.04424"],
    )
    services.add_doc("2019ApJ...1", "Renamed", "Its old bibcode is 2018arXiv1.", identifier=["2018arXiv1"])
    services.add_doc("2011MNRAS...9", "No abstract", "Not Available <P />")
    known = of_simbad("s", "2018MNRAS.476L..45C", "2018arXiv1", "2011MNRAS...9", "1900Nobody...1")
    found, _, ads = papers("s", known=known)
    rows = {f.paper.bibcode: f.row() for f in found}
    row = rows["2018MNRAS.476L..45C"]
    assert row["title"] == "Discovery of pulsations in NGC 300 ULX1"
    assert row["abstract"] == "L_X = 4.7 × 10^39 erg s^-1; P < 32 s. Second paragraph."
    assert (row["arxiv"], row["year"], row["n_citations"]) == ("1803.04424", 2018, 81)
    assert (row["source_id"], row["matched_by"], row["separation"], row["found_by"]) == ("s", "position", 0.3, "ads")
    assert rows["2018arXiv1"]["title"] == "Renamed"
    assert rows["2011MNRAS...9"]["abstract"] is None
    assert len(services.asked("bigquery")) == 1, "all of them in one request"
    counts = ads.counts()
    assert (counts["completed"], counts["unknown_bibcodes"]) == (3, 1)


def test_papers_that_name_a_source_are_found(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc("2012ApJ...1", "Pulsations of NGC300 ULX-1", "Text.")
    services.add_doc("2012ApJ...2", "Two sources", "They are SN 2010da and another.")
    services.add_doc("2012ApJ...3", "By keyword", "Text.", keyword=["X-rays: individual (NGC 300 ULX1)"])
    services.add_doc("2012ApJ...4", "NGC 300 ULX10 and others", "Text.")
    services.add_doc("2012sptz.prop", "Observing NGC 300 ULX1", "Please.", doctype="proposal")
    # The index finds words and knows no signs.
    services.add_doc("2012ApJ...5", "On MAXI J1820-070", "Text.")
    known = of_simbad("NGC_300_ULX1", "2000ApJ...9", identifiers=("NGC 300 ULX1", "SN 2010da", "Gaia DR3 123456789"))
    found, _, ads = papers("NGC_300_ULX1", "MAXI J1820+070", known=known)
    assert sorted((f.match.source_id, f.paper.bibcode) for f in found) == [
        ("NGC_300_ULX1", "2012ApJ...1"),
        ("NGC_300_ULX1", "2012ApJ...2"),
        ("NGC_300_ULX1", "2012ApJ...3"),
    ]
    assert {f.match.object for f in found} == {"X"}, "what SIMBAD says of the source"
    assert (ads.counts()["names"], ads.counts()["not_naming"]) == (3, 1)
    assert not any("Gaia" in json.dumps(r.query) for r in services.requests)


def test_a_source_that_nobody_else_knows_has_its_own_name(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc("2012ApJ...1", "The curious case of V404 Cyg", "Text.")
    (found,), _, _ = papers("V404_Cyg", "2CXO J095550.1+694046")
    row = found.row()
    assert (row["source_id"], row["matched_by"], row["identifiers"]) == ("V404_Cyg", "name", ["V404_Cyg"])
    assert len(services.requests) == 1, "no abstract has a position to the arcsecond"


def test_without_by_name_papers_are_only_completed(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc("2012ApJ...1", "The curious case of V404 Cyg", "Text.")
    found, _, _ = papers("V404 Cyg", known=of_simbad("V404 Cyg", "2012ApJ...1"), by_name=False)
    assert ([f.paper.abstract for f in found], services.asked("search/query")) == (["Text."], [])


def test_many_names_share_a_query_and_pages_are_turned(services: LiteratureServices, papers: Papers) -> None:
    names = [f"Source {i:02d}-X" for i in range(60)]
    for i, name in enumerate(names):
        services.add_doc(f"2012ApJ...{i}", f"On {name}", "Text.")
    found, _, ads = papers(*names)
    assert {f.match.source_id for f in found} == set(names)
    assert ads.counts()["requests"] <= 3
    assert all(len(r.query["q"]) <= 1000 for r in services.requests)

    services.docs = [{**services.docs[0], "bibcode": f"2013ApJ...{i:02d}"} for i in range(25)]
    services.rows = 10  # whatever is asked for
    assert len(papers("Source 00-X")[0]) == 1, "kept from before"
    services.docs = [{**doc, "title": ["On Source 70-X"]} for doc in services.docs]
    found, _, _ = papers("Source 70-X", "Source 71-X", rows=12, most=20)
    assert len({f.paper.bibcode for f in found}) == 20, "no more than `most`, on as many pages as it takes"


def test_a_second_time_nothing_is_asked(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc("2012ApJ...1", "The curious case of V404 Cyg", "Text.")
    known = of_simbad("V404 Cyg", "2012ApJ...1", "1900Nobody...1")
    first, _, _ = papers("V404 Cyg", "nobody 1", known=known)
    services.requests.clear()
    again, _, ads = papers("V404 Cyg", "nobody 1", known=known)
    assert ([f.row() for f in again], services.requests, ads.counts()["requests"]) == ([f.row() for f in first], [], 0)


@given(st.text(max_size=60))
def test_a_phrase_cannot_be_ended_early(text: str) -> None:
    literal = quote_phrase(text)
    inside = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', literal)
    assert inside is not None
    assert re.sub(r"\\(.)", r"\1", inside[1]) == "".join(c if c.isprintable() else " " for c in text)


def test_hostile_names_are_names(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc("2012ApJ...1", "Secret", "Everything.")
    found, refused, _ = papers('x" OR title:"Secret', "y\\", "z) OR (q", "*:*", 'a\\" OR bibcode:*')
    assert (found, refused) == ([], [])


def test_plain_text_keeps_what_is_no_tag() -> None:
    assert (
        plain_text("for z<6 and p < 0.05, T<SUB>e</SUB>&gt;10<SUP>6.<b>5</b></SUP> K")
        == "for z<6 and p < 0.05, T_e>10^6.5 K"
    )
    assert plain_text("  ") is plain_text(None) is plain_text("No abstract available.") is None


# Going wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "503", "429", "499", "garbage", "page", "cut"])
def test_what_passes_is_asked_for_again(services: LiteratureServices, papers: Papers, kind: str) -> None:
    services.add_doc("2012ApJ...1", "The curious case of V404 Cyg", "Text.")
    services.troubles["search"] += [Fault(kind, times=2)]
    found, _, ads = papers("V404 Cyg")
    assert (len(found), ads.counts()["requests"], ads.counts()["retries"]) == (1, 3, 2)


def test_a_slow_answer_is_a_lost_one(services: LiteratureServices, papers: Papers) -> None:
    services.troubles["search"] += [Fault("slow", seconds=1.0)]
    assert papers("V404 Cyg", http={"timeout": 0.3})[2].counts()["retries"] == 1


def test_nobody_asks_before_the_service_said(services: LiteratureServices, papers: Papers) -> None:
    services.troubles["search"] += [Fault("429", retry_after="1")]
    papers("V404 Cyg")
    assert services.requests[1].at - services.requests[0].at >= 0.99


def test_the_days_count_is_waited_for_or_given_up(services: LiteratureServices, papers: Papers) -> None:
    services.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 2)}
    services.troubles["search"] += [Fault("429")]
    papers("V404 Cyg")
    assert services.requests[1].at - services.requests[0].at >= 0.9
    services.headers["X-RateLimit-Reset"] = str(int(time.time()) + 40_000)
    services.troubles["search"] += [Fault("429")]
    with pytest.raises(LexrayError, match=r"asks to come back in \d{5} s; run again later, what has come is kept"):
        papers("V405 Cyg")
    assert len(services.requests) == 3


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("503", r"does not answer \(asked 3 times\): 503"),
        ("garbage", "the answer is none of a search: not JSON"),
        ("404", "404: <html>not now"),
    ],
)
def test_a_service_that_is_broken_ends_it_in_one_line(
    services: LiteratureServices, papers: Papers, kind: str, said: str
) -> None:
    services.troubles["search"] += [Fault(kind, times=100)]
    with pytest.raises(LexrayError, match=said) as caught:
        papers("V404 Cyg")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [[], {"response": None}, {"response": {"numFound": "1", "docs": []}}, {"response": {"numFound": 1, "docs": [{}]}}],
)
def test_json_of_another_shape_is_no_answer(services: LiteratureServices, papers: Papers, body: Any) -> None:
    services.search = lambda *_: body  # type: ignore[method-assign]
    with pytest.raises(LexrayError, match="the answer is none of a search"):
        papers("V404 Cyg", http={"attempts": 1})


def test_a_name_that_is_refused_stops_no_other(services: LiteratureServices, papers: Papers) -> None:
    services.add_doc("2012ApJ...1", "The curious case of V404 Cyg", "Text.")
    services.troubles["Bad 7"] += [Fault("400", times=100)]
    found, refused, _ = papers("Bad 6", "Bad 7", "V404 Cyg")
    assert [f.match.source_id for f in found] == ["V404 Cyg"]
    assert [(r.file, r.reason) for r in refused] == [("Bad 7", "ads_query_refused")]
    assert TOKEN not in refused[0].detail


# The token ------------------------------------------------------------------------------------------------------------


def test_without_a_token_it_says_what_to_set(
    services: LiteratureServices, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADS_API_TOKEN", "a wrong\ttoken")
    with pytest.raises(ConfigError, match="ADS_API_TOKEN holds no token") as caught:
        papers("x")
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("ADS_API_TOKEN", "wrong")
    with pytest.raises(LexrayError, match=r"does not accept the token \(401\): set ADS_API_TOKEN"):
        papers("V404 Cyg")
    monkeypatch.delenv("ADS_API_TOKEN")
    with pytest.raises(ConfigError, match="ads: no token: set ADS_API_TOKEN or ADS_DEV_KEY"):
        papers("x")
    monkeypatch.setenv("ADS_DEV_KEY", "wrong")
    with pytest.raises(LexrayError, match=r"does not accept the token \(401\): set ADS_DEV_KEY to"):
        papers("V404 Cyg")
    monkeypatch.setenv("ADS_DEV_KEY", TOKEN)
    assert papers("V404 Cyg")[1] == []


def test_the_job_joins_all_and_the_token_is_nowhere(
    services: LiteratureServices,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    oid = services.add_object(["NAME NGC 300 ULX1", "SN 2010da"], 13.770208, -37.695417)
    bibcode = "2018MNRAS.476L..45C"
    services.add_paper(bibcode, "Discovery of pulsations in NGC 300 ULX1", {oid: 41}, year=2018, n_objects=2)
    services.add_doc(
        bibcode, "Discovery of pulsations in NGC 300 ULX1", "ADS's words.", identifier=["arXiv:1803.04424"]
    )
    services.add_doc("2020ApJ...2", "SN 2010da is an impostor", "Text.", citation_count=3)
    files = tmp_path / "papers.jsonl"
    of_the_file = {
        "source_id": "NGC300 ULX1",
        "title": "discovery of pulsations in NGC 300 ULX-1",
        "abstract": "My words.",
    }
    other = {"source_id": "NGC 300 ULX1", "arxiv": "1803.04424v2", "body": "All of it."}
    files.write_text(json.dumps(of_the_file) + "\n" + json.dumps(other) + "\n")
    (tmp_path / "sources.csv").write_text("source_id,ra,dec\nNGC_300_ULX1,13.7702,-37.6954\nBad 7,1,1\n")
    services.troubles["Bad 7"] += [Fault("slow"), Fault("503"), Fault("400", times=100)]
    services.troubles["has_ref"] += [Fault("503")]
    values = {
        "inputs": [str(files)],
        "connectors": ["ads", "simbad"],
        "sources": str(tmp_path / "sources.csv"),
        "simbad": {"url": f"{services.url}/simbad", "http": QUICK},
        "ads": {"url": f"{services.url}/v1", "http": QUICK},
        "out": str(tmp_path / "literature"),
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    }
    report = execute(JOB, parse(LiteratureConfig, values), Progress())

    rows = {row["bibcode"]: row for row in delta.read(report.out).to_pylist()}
    assert set(rows) == {bibcode, "2020ApJ...2"}
    row = rows[bibcode]
    assert (row["abstract"], row["body"], row["arxiv"]) == ("My words.", "All of it.", "1803.04424v2")
    assert (row["object"], row["n_mentions"], row["n_objects"], row["found_by"]) == (
        "NAME NGC 300 ULX1",
        41,
        2,
        "simbad",
    )
    assert {"NGC_300_ULX1", "NGC300 ULX1", "SN 2010da"} <= set(row["identifiers"])
    assert (report.counts["from_simbad"], report.counts["from_ads"], report.counts["from_file"]) == (1, 1, 0)
    assert report.counts["refused_by_reason"] == {"ads_query_refused": 1}
    assert not report.complete

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in written)
    assert any(path.name == "answers.sqlite" for path in written)
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    bodies = sqlite3.connect(tmp_path / "literature.cache" / "answers.sqlite").execute("SELECT body FROM answers")
    texts = [zlib.decompress(body) for (body,) in bodies]
    assert texts
    assert not [text for text in texts if TOKEN.encode() in text]
    captured = capfd.readouterr()
    said = [json.dumps(asdict(report)), captured.out, captured.err, caplog.text]
    assert "asking again" in captured.err
    assert not any(TOKEN in text for text in said)
    assert any(r.headers.get("Authorization") == f"Bearer {os.environ['ADS_API_TOKEN']}" for r in services.requests)
    assert not any("Authorization" in r.headers for r in services.asked("/simbad"))
