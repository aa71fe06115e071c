"""The service over HTTP: what it answers, what it refuses and how, its page, and how it ends."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from event_files import write_event_file
from golden_files import check_golden
from lexray.errors import ConfigError, LexrayError
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.release.aligned import load_aligned
from lexray.release.manifest import Release
from lexray.runtime.progress import Progress
from lexray.serve.app import create_app
from lexray.serve.config import Limits, ServeConfig, api_keys
from lexray.serve.engine import ServingEngine, TextVector
from lexray.serve.limits import TokenBucket
from lexray.serve.run import run
from local_cluster import Cluster
from service import ServiceProcess, running_service
from tiny_release import source


@pytest.fixture(scope="module")
def http(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


class Direct:
    """The engine's computations without batches, for the application without Ray Serve."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine

    async def embed_text(self, text: str) -> TextVector:
        return self._engine.embed_texts([text])[0]

    async def encode_events(self, events: EventList) -> Any:
        return self._engine.encode_events([events])[0]


@pytest.fixture(scope="module")
def engine(release: Path) -> ServingEngine:
    return ServingEngine(load_aligned(release))


@pytest.fixture
async def asgi(engine: ServingEngine) -> AsyncIterator[httpx.AsyncClient]:
    """The application in this process, with the limits of `service`."""
    app = create_app(engine, Direct(engine), Limits(max_body_mib=1, max_texts=8))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lexray") as client:
        yield client


def events_json(**changes: Any) -> dict[str, Any]:
    """A good observation, changed."""
    good = {"time": [1.0, 2.0, 3.0], "energy": [1.0, 1.5, 3.0], "gti": [[0.0, 10.0]]}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text
    said = dict(response.json())
    assert said["status"] == status
    assert said["type"].startswith("urn:lexray:problem:")
    assert said["title"]
    return said


def test_every_answer_names_the_release(http: httpx.Client, release: Path) -> None:
    wanted = Release.open(release).id
    answers = [http.get("/healthz"), http.get("/"), http.get("/nowhere"), http.post("/v1/search", json={})]
    assert [answer.headers["X-Lexray-Release"] for answer in answers] == [wanted] * 4
    assert answers[0].json() == {"status": "ok", "release": wanted}
    assert http.get("/v1/release").json()["classes"] == ["AGN", "CV", "NS", "YSO"]


def test_a_fits_upload_is_placed_in_the_space(http: httpx.Client, real_events: Path) -> None:
    path = real_events / "ngc300nicer_bary.evt"
    answer = http.post("/v1/events/embeddings?k=3", files={"file": (path.name, path.read_bytes())}).json()
    assert answer["source_id"] == "NGC_300_ULX1"
    assert answer["mission"] == "nicer"
    assert sum(band["counts"] for band in answer["counts"]) == answer["n_events"] == 2281
    assert answer["n_dropped"] == 127
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1.0, abs=1e-5)
    assert sum(answer["classes"].values()) == pytest.approx(1.0, abs=1e-5)
    assert len(answer["nearest"]) == 3
    curve = answer["light_curve"]
    assert len(curve["t"]) == len(curve["reconstructed"][0]) == len(curve["observed"][2])
    assert None in curve["observed"][0]  # the gaps between its good times


def test_json_and_fits_of_one_observation_meet(http: httpx.Client, tmp_path: Path) -> None:
    path = write_event_file(tmp_path / "a.fits", header={"DTCOR": 1.0})
    sent = {"time": (1000.0 + np.arange(10.0)).tolist(), "energy": [1.4527] * 10, "gti": [[1000.0, 1100.0]]}
    fits = http.post("/v1/events/embeddings", files={"file": path.read_bytes()}).json()
    as_json = http.post("/v1/events/embeddings", json=sent).json()
    np.testing.assert_allclose(fits["embedding"], as_json["embedding"], atol=1e-5)
    packed = http.post("/v1/events/embeddings", files={"file": ("a.fits.gz", gzip.compress(path.read_bytes()))}).json()
    np.testing.assert_allclose(fits["embedding"], packed["embedding"], atol=1e-5)


def test_embeddings_take_and_give_what_openai_does(http: httpx.Client, release: Path) -> None:
    texts = ["a young star", "an accreting neutron star"]
    answer = http.post("/v1/embeddings", json={"input": texts, "model": "lexray"}).json()
    assert set(answer) == {"object", "data", "model", "usage"}
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 6
    vectors = np.array([item["embedding"] for item in answer["data"]])
    np.testing.assert_allclose(vectors, load_aligned(release).embed_text(texts), atol=1e-5)

    sent = {"input": texts[0], "model": answer["model"], "encoding_format": "base64", "dimensions": 16, "user": "me"}
    packed = http.post("/v1/embeddings", json=sent).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), vectors[0], atol=1e-5)


def test_openais_own_client_gets_the_same_vectors(service: ServiceProcess, release: Path) -> None:
    openai = pytest.importorskip("openai", reason="OpenAI's client, which vLLM brings along, is not installed")
    texts = ["a young star", "an accreting neutron star"]
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none")
    theirs = client.embeddings.create(input=texts, model="lexray")
    vectors = load_aligned(release).embed_text(texts)
    np.testing.assert_allclose([item.embedding for item in theirs.data], vectors, atol=1e-5)


def test_search_by_text_by_vector_and_by_events(http: httpx.Client) -> None:
    by_text = http.post("/v1/search", json={"text": "an eclipsed white dwarf", "k": 3, "modality": "text"}).json()
    scores = [hit["score"] for hit in by_text["sources"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert {"summary", "class", "bibcodes", "n_events", "labels"} <= set(by_text["sources"][0])
    embedded = http.post("/v1/embeddings", json={"input": "an eclipsed white dwarf", "model": "lexray"}).json()
    vector = embedded["data"][0]["embedding"]
    by_vector = http.post("/v1/search", json={"vector": vector, "k": 3, "modality": "text"}).json()
    assert [h["source_id"] for h in by_vector["sources"]] == [h["source_id"] for h in by_text["sources"]]
    one = source(9)
    sent = {"time": one.time.tolist(), "energy": one.energy.tolist(), "gti": [[0, 5000]], "exposure": one.exposure}
    by_events = http.post("/v1/search", json={"events": sent, "k": 1, "modality": "xray"}).json()
    assert by_events["sources"][0]["source_id"] == "S9"
    assert by_events["sources"][0]["score"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("sent", "reason", "words"),
    [
        (events_json(time=[1.0, float("nan"), 3.0]), "invalid_input", "time.1: Input should be a finite number"),
        (events_json(time=[1.0, 3.0, 2.0]), "invalid_input", "time is not sorted"),
        (events_json(gti=None), "invalid_input", "gti: Field required"),
        (events_json(gti=[]), "invalid_input", "gti"),
        (events_json(gti=[[5.0, 5.0]]), "invalid_input", "stop is after its start"),
        (events_json(energy=[1.0]), "invalid_input", "belong in pairs"),
        (events_json(mission="babasone"), "unknown_mission", "known are chandra, xmm, nustar"),
        (events_json(energy=[90.0] * 3), "no_events", "none of the 3 events lies in the good times and in 0.5–7 keV"),
        (events_json(energy=[1e300] * 3), "no_events", "none of the 3 events"),
        (events_json(gti=[[-1e308, 1e308]]), "bad_gti", "expected 0.001 to 1e+09 s"),
        (events_json(exposure=1e-300), "bad_exposure", "it is a share of them"),
        (events_json(exposure=11.0), "bad_exposure", "exposure is 11 s in good times of 10 s"),
        (events_json(colour="red"), "invalid_input", "colour: Extra inputs are not permitted"),
        ([1, 2], "invalid_input", "object"),
    ],
)
async def test_bad_observations_in_json_are_refused(
    asgi: httpx.AsyncClient, sent: Any, reason: str, words: str
) -> None:
    body = json.dumps(sent)  # httpx's own refuses NaN
    response = await asgi.post("/v1/events/embeddings", content=body, headers={"Content-Type": "application/json"})
    said = problem(response, 422)
    assert said["reason"] == reason
    assert words in said["detail"]


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", "empty", "empty"),
        (b"not a FITS file at all, whatever its name", "not_fits", "SIMPLE"),
        (b"\x1f\x8bnot really gzipped", "bad_gzip", "damaged"),
        (gzip.compress(b"SIMPLE  = " * 400, mtime=0)[:30], "truncated", "ends before its end mark"),
    ],
    ids=["empty", "text", "damaged", "cut"],
)
async def test_uploads_that_are_no_event_files_are_refused(
    asgi: httpx.AsyncClient, content: bytes, reason: str, words: str
) -> None:
    said = problem(await asgi.post("/v1/events/embeddings", files={"file": ("a.fits", content)}), 422)
    assert said["reason"] == reason
    assert words in said["detail"]


async def test_event_files_that_cannot_be_used_are_refused_by_their_reason(
    asgi: httpx.AsyncClient, tmp_path: Path
) -> None:
    good = write_event_file(tmp_path / "good.fits").read_bytes()
    refused = {
        "unknown_mission": write_event_file(tmp_path / "a.fits", header={"TELESCOP": "HUBBLE"}).read_bytes(),
        "no_gti": write_event_file(tmp_path / "b.fits", gti={}).read_bytes(),
        "no_events": write_event_file(tmp_path / "c.fits", gti={"GTI": [(0.0, 1.0)]}).read_bytes(),
        "truncated": good[:-3000],  # within the last extension
    }
    for reason, content in refused.items():
        response = await asgi.post("/v1/events/embeddings", files={"file": ("../../etc/[1:2]passwd.fits", content)})
        assert problem(response, 422)["reason"] == reason


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
async def test_no_upload_makes_the_service_fail(
    asgi: httpx.AsyncClient, tmp_path: Path, at: list[tuple[int, int]]
) -> None:
    content = bytearray(write_event_file(tmp_path / "a.fits").read_bytes())
    for position, byte in at:
        content[position % len(content)] = byte
    response = await asgi.post("/v1/events/embeddings", files={"file": ("a.fits", bytes(content))})
    if response.status_code != 200:
        problem(response, 422)


async def test_a_form_without_a_file_is_refused(asgi: httpx.AsyncClient) -> None:
    response = await asgi.post("/v1/events/embeddings", files={"upload": b"x"})
    assert "in the field 'file'" in problem(response, 422)["detail"]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "words"),
    [
        ("GET", "/v2/nothing", None, {}, 404, "there is nothing at /v2/nothing"),
        ("GET", "/v1/search", None, {}, 405, "/v1/search does not take GET"),
        (
            "POST",
            "/v1/search",
            b"text=star",
            {"Content-Type": "application/x-www-form-urlencoded"},
            415,
            "application/json",
        ),
        ("POST", "/v1/events/embeddings", b"SIMPLE", {}, 415, "missing"),
        ("POST", "/v1/events/embeddings", b"--x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        ("POST", "/v1/events/embeddings?k=0", b"{}", JSON, 422, "k: 0 is out of range; expected 1 to 100"),
        ("POST", "/v1/events/embeddings?k=many", b"{}", JSON, 422, "k"),
        ("POST", "/v1/search", b'{"text": ', JSON, 400, "not valid JSON"),
        ("POST", "/v1/search", b"[" * 100_000, JSON, 400, ""),
        ("POST", "/v1/search", b"\xff\xfe", JSON, 400, ""),
        ("POST", "/v1/search", b'{"k": ' + b"9" * 5000 + b"}", JSON, 400, ""),
        ("POST", "/v1/search", b"{}", JSON, 422, "exactly one of text, events and vector, got none"),
        ("POST", "/v1/search", b'{"text": "  "}', JSON, 422, "text: the text is empty"),
        ("POST", "/v1/search", b'{"text": "a", "vector": [1]}', JSON, 422, "got text and vector"),
        ("POST", "/v1/search", b'{"text": "a", "k": 101}', JSON, 422, "expected 1 to 100"),
        ("POST", "/v1/search", b'{"text": "a", "k": 0}', JSON, 422, "k: Input should be greater than or equal to 1"),
        ("POST", "/v1/search", b'{"text": "a", "modality": "radio"}', JSON, 422, "'xray' or 'text'"),
        ("POST", "/v1/search", b'{"vector": [1, 2]}', JSON, 422, "have 16 numbers, got 2"),
        ("POST", "/v1/search", b'{"vector": [NaN]}', JSON, 422, "finite"),
        ("POST", "/v1/search", b'{"vector": []}', JSON, 422, "got 0"),
        ("POST", "/v1/search", b'{"vector": [1e999]}', JSON, 422, "finite"),
        ("POST", "/v1/search", json.dumps({"vector": [0.0] * 16}).encode(), JSON, 422, "not zero"),
        ("POST", "/v1/search", json.dumps({"vector": [1e300] * 16}).encode(), JSON, 422, "finite"),
        ("POST", "/v1/embeddings", b'{"input": "a", "model": "gpt-4"}', JSON, 404, "model 'gpt-4' is not served here"),
        ("POST", "/v1/embeddings", b'{"input": "", "model": "lexray"}', JSON, 422, "the text is empty"),
        ("POST", "/v1/embeddings", b'{"input": [], "model": "lexray"}', JSON, 422, "0 texts; expected 1 to 8"),
        ("POST", "/v1/embeddings", b'{"input": [1, 2], "model": "lexray"}', JSON, 422, "valid string"),
        ("POST", "/v1/embeddings", b'{"input": "a", "model": "lexray", "dimensions": 3}', JSON, 422, "have 16 numbers"),
        ("POST", "/v1/embeddings", b'{"input": "a"}', JSON, 422, "model: Field required"),
    ],
)
async def test_bad_requests_are_answered_with_what_is_wrong(
    asgi: httpx.AsyncClient,
    method: str,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    status: int,
    words: str,
) -> None:
    said = problem(await asgi.request(method, path, content=content, headers=headers), status)
    assert words in said["detail"]


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "words"),
    [
        ("GET", "/v2/nothing", {}, 404, "there is nothing at /v2/nothing"),
        ("GET", "/v1/search", {}, 405, "/v1/search does not take GET"),
        ("POST", "/v1/search", {"content": b'{"text": ', "headers": JSON}, 400, "not valid JSON"),
        ("POST", "/v1/search", {"data": {"text": "star"}}, 415, "application/json"),
        ("POST", "/v1/events/embeddings", {"files": {"file": b"not a FITS file, but long enough"}}, 422, "SIMPLE"),
        ("POST", "/v1/events/embeddings", {"json": events_json(gti=[[5.0, 5.0]])}, 422, "stop is after its start"),
    ],
)
def test_refusals_pass_through_the_live_service(
    http: httpx.Client, method: str, path: str, sent: dict[str, Any], status: int, words: str
) -> None:
    assert words in problem(http.request(method, path, **sent), status)["detail"]


def test_a_body_over_the_limit_is_refused_however_it_is_sent(http: httpx.Client) -> None:
    body = b'{"text": "' + b"a" * (2 * 2**20) + b'"}'
    said = problem(http.post("/v1/search", content=body, headers=JSON), 413)
    assert said["detail"] == "the body is larger than 1 MiB, the most this service takes"
    pieces = (body[i : i + 65536] for i in range(0, len(body), 65536))  # chunked: it does not say how long it is
    problem(http.post("/v1/search", content=pieces, headers=JSON), 413)
    problem(http.post("/v1/events/embeddings", files={"file": b"SIMPLE  =" + bytes(2 * 2**20)}), 413)


async def test_a_small_file_that_unpacks_to_much_is_refused(asgi: httpx.AsyncClient) -> None:
    bomb = gzip.compress(b"SIMPLE  =" + bytes(32 * 2**20))
    assert len(bomb) < 2**20
    said = problem(await asgi.post("/v1/events/embeddings", files={"file": ("a.fits.gz", bomb)}), 413)
    assert "holds more than 4 MiB" in said["detail"]


def test_the_api_describes_itself(http: httpx.Client) -> None:
    said = http.get("/openapi.json").json()
    assert {"/v1/events/embeddings", "/v1/embeddings", "/v1/search", "/v1/release", "/healthz"} <= set(said["paths"])
    body = said["paths"]["/v1/events/embeddings"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    schema = body["application/json"]["schema"]
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(events_json())


def test_the_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    response = http.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r'(?:src|url\(|@import|<link[^>]*href=")\s*=?\s*["\']?https?://', response.text)


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs a Chromium to look at the page with")
    return found


def seen(browser: str, url: str, folder: Path) -> str:
    """The page as it stands once its scripts have run."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = f"--disable-component-update --disable-sync --user-data-dir={folder} --virtual-time-budget=20000 --dump-dom"
    done = subprocess.run([browser, *flags.split(), *more.split(), url], capture_output=True, text=True, timeout=120)
    return done.stdout


def test_a_sentence_in_the_page_finds_sources(
    browser: str, service: ServiceProcess, http: httpx.Client, tmp_path: Path
) -> None:
    expected = http.post("/v1/search", json={"text": "an eclipsed white dwarf", "k": 5}).json()["sources"]
    page = seen(browser, f"{service.url}/?q=an+eclipsed+white+dwarf&k=5", tmp_path)
    assert re.findall(r"<h3>(\w+)</h3>", page) == [hit["source_id"] for hit in expected]
    summaries = [hit["summary"] for hit in expected if hit["summary"]]
    assert summaries
    assert all(summary in page for summary in summaries)
    assert re.search(r'<div id="problem"[^>]*hidden', page)


@pytest.fixture
async def locked(engine: ServingEngine) -> AsyncIterator[httpx.AsyncClient]:
    """The application with two keys and 5 requests a minute."""
    app = create_app(engine, Direct(engine), Limits(), ("sesame", "open"), requests_per_minute=5)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lexray") as client:
        yield client


async def test_the_interface_is_that_of_the_golden_file(locked: httpx.AsyncClient) -> None:
    document = (await locked.get("/openapi.json")).json()
    document["info"].pop("version", None)
    check_golden("openapi.json", json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


async def test_an_upload_unlike_the_training_is_flagged_by_name(
    asgi: httpx.AsyncClient, engine: ServingEngine, caplog: pytest.LogCaptureFixture
) -> None:
    usual = source(3)
    sent = {"time": usual.time.tolist(), "energy": usual.energy.tolist(), "gti": [[0.0, 5000.0]], "mission": "chandra"}
    answers = [
        (await asgi.post("/v1/events/embeddings", json=sent | {"gti": [[0.0, length]]})).json()
        for length in (5000.0, 5e7)
    ]
    for answer in answers:
        assert 0 < answer["p_value"] <= 1
        assert np.isfinite(answer["anomaly"])
    assert [("times_unseen" in answer["flags"]) for answer in answers] == [False, True]
    engine.aligned.search(usual, 1)
    assert not caplog.records
    odd = replace(usual, gti=GoodTimeIntervals([0.0], [5e7]))
    engine.aligned.search(odd, 1)
    (record,) = caplog.records
    assert "unlike what the autodecoder saw: times_unseen" in record.message


async def test_an_upload_is_encoded_once(
    locked: httpx.AsyncClient, engine: ServingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vector and its light curve come from one fit: the decoder runs no more often than for the vector alone."""
    calls: list[int] = []
    decoder = type(engine.aligned.autodecoder.network)
    forward = decoder.forward

    def counted(self: torch.nn.Module, *inputs: Any) -> Any:
        calls.append(1)
        return forward(self, *inputs)

    monkeypatch.setattr(decoder, "forward", counted)
    engine.aligned.embed_events([source(3)])
    alone = len(calls)
    calls.clear()
    key = {"Authorization": "Bearer sesame"}
    sent = {"time": source(3).time.tolist(), "energy": source(3).energy.tolist(), "gti": [[0.0, 5000.0]]}
    answer = await locked.post("/v1/events/embeddings", json=sent | {"mission": "chandra"}, headers=key)
    assert len(answer.json()["light_curve"]["reconstructed"]) == 3
    assert len(calls) == alone > 0


async def test_a_locked_service_asks_for_a_key(locked: httpx.AsyncClient) -> None:
    refused = await locked.get("/v1/release")
    assert "Authorization: Bearer KEY" in problem(refused, 401)["detail"]
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    wrong = await locked.get("/v1/release", headers={"Authorization": "Bearer sesam"})
    assert problem(wrong, 401)["detail"] == "this API key is not known"
    for shown in ({"Authorization": "Bearer sesame"}, {"X-API-Key": "open"}):
        assert (await locked.get("/v1/release", headers=shown)).status_code == 200
    assert (await locked.get("/healthz")).status_code == 200
    assert (await locked.get("/")).status_code == 200


async def test_a_caller_who_asks_too_often_is_told_when_to_come_back(locked: httpx.AsyncClient) -> None:
    key = {"Authorization": "Bearer sesame"}
    statuses = [(await locked.get("/v1/release", headers=key)).status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]
    refused = await locked.get("/v1/release", headers=key)
    assert 1 <= int(refused.headers["Retry-After"]) <= 13
    assert "too many requests" in problem(refused, 429)["detail"]
    # Another caller is not held up by the first.
    assert (await locked.get("/v1/release", headers={"Authorization": "Bearer open"})).status_code == 200


@given(waits=st.lists(st.floats(0, 100), max_size=60), per_minute=st.integers(1, 50))
def test_a_bucket_never_gives_more_than_its_rate(waits: list[float], per_minute: int) -> None:
    now = 0.0
    bucket = TokenBucket(per_minute, clock=lambda: now)
    given_out = 0
    for wait in waits:
        now += wait
        left = bucket.take("me")
        given_out += left == 0
        assert left <= 60 / per_minute + 1e-6
    assert given_out <= per_minute + per_minute * now / 60 + 1e-6


async def test_a_failure_of_ours_shows_nothing_of_its_inside(engine: ServingEngine) -> None:
    class Broken(Direct):
        async def embed_text(self, text: str) -> TextVector:
            raise RuntimeError("password=hunter2")

    app = create_app(engine, Broken(engine), Limits())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lexray") as client:
        response = await client.post("/v1/search", json={"text": "a"})
    assert "hunter2" not in json.dumps(problem(response, 500))
    assert response.headers["X-Lexray-Release"] == engine.release


def test_keys_come_from_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nabc\n\n  def  \n")
    monkeypatch.setenv("LEXRAY_API_KEYS", "ghi, jkl")
    config = ServeConfig(release="r", api_key_file=str(path))
    assert set(api_keys(config)) == {"abc", "def", "ghi", "jkl"}
    path.write_text("# none\n")
    with pytest.raises(ConfigError, match="holds no key"):
        api_keys(config)
    with pytest.raises(ConfigError, match=r"api_key_file: .*nothing: No such file"):
        api_keys(config.model_copy(update={"api_key_file": str(tmp_path / "nothing")}))


def test_rates_are_limited_where_strangers_can_reach_the_service() -> None:
    assert ServeConfig(release="r").requests_per_minute == 0
    assert ServeConfig(release="r", host="0.0.0.0").requests_per_minute == 600
    assert ServeConfig(release="r", host="0.0.0.0", limits={"requests_per_minute": 0}).requests_per_minute == 0


def test_a_taken_port_is_said_before_anything_starts(service: ServiceProcess, release: Path) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    with pytest.raises(LexrayError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        run(ServeConfig(release=str(release), port=port), Progress())


@pytest.fixture(scope="module")
def locked_service(
    service: ServiceProcess, release: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A second service on this machine, which asks for the key 'sesame'."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("sesame\n")
    with running_service(release, "--api-key-file", str(keys)) as running:
        yield running


def test_the_page_shows_a_problems_text(browser: str, locked_service: ServiceProcess, tmp_path: Path) -> None:
    page = seen(browser, f"{locked_service.url}/?q=star", tmp_path)
    assert re.search(r'<div id="problem"[^>]*><b>Unauthorized</b>an API key is needed', page)
    assert "<h3>" not in page


def test_a_service_beside_another_keeps_its_key_and_ends_without_a_trace(
    service: ServiceProcess, locked_service: ServiceProcess
) -> None:
    assert httpx.get(f"{locked_service.url}/v1/release").status_code == 401
    assert httpx.get(f"{locked_service.url}/v1/release", headers={"X-API-Key": "sesame"}).status_code == 200
    assert any("haproxy" in " ".join(process.cmdline()) for process in locked_service.members())
    said = locked_service.stop()
    assert locked_service.process.returncode == 0
    assert "serve: stopped" in said
    assert locked_service.members() == []
    assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_on_a_cluster_without_haproxys_flags_it_says_so_and_leaves_the_cluster_running(
    release: Path, cluster: Cluster
) -> None:
    with httpx.Client(base_url=cluster.job_server) as head:
        with running_service(release, "--set", f"ray.address={cluster.address}") as joined:
            assert httpx.get(f"{joined.url}/healthz", timeout=60).status_code == 200
        said = " ".join(joined.said.split())
        assert "was started without RAY_SERVE_ENABLE_HA_PROXY=1" in said
        assert joined.process.returncode == 0
        assert head.get("/api/version").status_code == 200
