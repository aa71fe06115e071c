"""Models behind an API like OpenAI's, over real HTTP: what is sent, what is believed, what happens when it fails."""

import asyncio
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.loopback import Fault
from doubles.openai_server import DIMENSION, ChatReply, OpenAIServer, language_models, vector_of
from lexray.errors import ConfigError, LexrayError, RefusedInput
from lexray.llm.openai import ChatCompletion, EmbeddedTexts, Endpoint, EndpointClient
from lexray.runtime.config import parse

#: Waits short enough for a test.
QUICK = {"first_wait": 0.01, "requests_per_second": 2000.0, "timeout": 5.0, "attempts": 3}
KEY = "sk-not-a-real-key-0123456789"
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
MESSAGES = [{"role": "system", "content": "You read papers."}, {"role": "user", "content": "What is it?"}]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with language_models() as found:
        yield found


def endpoint(models: OpenAIServer, **keys: Any) -> Endpoint:
    return parse(Endpoint, {"url": models.url, "model": "a-model", **QUICK, **keys})


async def embed(models: OpenAIServer, texts: list[str], **keys: Any) -> EmbeddedTexts:
    async with EndpointClient(endpoint(models, **keys)) as client:
        return await client.embed(texts)


async def chat(models: OpenAIServer, **keys: Any) -> ChatCompletion:
    async with EndpointClient(endpoint(models, **keys)) as client:
        return await client.chat(MESSAGES, schema=SCHEMA, max_tokens=40, temperature=0.2, seed=7)


async def test_a_chat_is_asked_for_as_the_reference_says(models: OpenAIServer) -> None:
    models.chat = lambda _: '{"a": "an X-ray binary"}'
    found = await chat(models)
    assert found == ChatCompletion('{"a": "an X-ray binary"}', 6, 4, "stop", "a-model")
    (request,) = models.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "a-model",
        "messages": MESSAGES,
        "max_tokens": 40,
        "temperature": 0.2,
        "seed": 7,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": json.loads(SCHEMA), "strict": True},
        },
    }
    assert "Authorization" not in request.headers, "no key, no header"


async def test_keys_of_a_body_are_added_and_taken_away(models: OpenAIServer) -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 40, "chat_template_kwargs": {"enable_thinking": False}}
    await chat(models, extra_body=extra)
    body = models.requests[0].body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 40
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


async def test_an_answer_that_was_cut_off_says_so(models: OpenAIServer) -> None:
    models.chat = lambda _: ChatReply('{"a": "an', "length")
    assert (await chat(models)).finish_reason == "length"


@pytest.mark.parametrize(
    "said", [ChatReply(None, refusal="I cannot help with that."), ChatReply("", finish_reason="content_filter")]
)
async def test_a_model_that_refuses_is_asked_once(models: OpenAIServer, said: ChatReply) -> None:
    models.chat = lambda _: said
    with pytest.raises(RefusedInput) as caught:
        await chat(models)
    assert caught.value.reason == "refused_by_engine"
    assert len(models.requests) == 1


@pytest.mark.parametrize("base64", [True, False])
async def test_vectors_come_in_the_order_of_their_texts(models: OpenAIServer, base64: bool) -> None:
    models.base64 = base64
    texts = [f"text number {i}" for i in range(7)]
    found = await embed(models, texts)
    np.testing.assert_allclose(found.vectors, [vector_of(text) for text in texts], atol=1e-7)
    assert found.vectors[0].dtype == np.float32
    assert (found.tokens, found.model) == (21, "a-model")
    assert models.requests[0].body == {"model": "a-model", "input": texts, "encoding_format": "base64"}


def test_any_texts_come_back_in_their_order(models: OpenAIServer) -> None:
    @settings(max_examples=30, deadline=None)
    @given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=9), base64=st.booleans())
    def check(texts: list[str], base64: bool) -> None:
        models.base64 = base64
        found = asyncio.run(embed(models, texts))
        np.testing.assert_allclose(found.vectors, [vector_of(text) for text in texts], atol=1e-7)

    check()


@pytest.mark.parametrize("kind", ["429", "500", "503", "reset", "cut", "garbage", "page", "strange", "fewer", "twice"])
async def test_what_may_pass_is_asked_again(models: OpenAIServer, kind: str) -> None:
    models.troubles = [Fault(kind, times=2)]
    texts = ["one", "two", "three"]
    async with EndpointClient(endpoint(models)) as client:
        found = await client.embed(texts)
        assert len(models.requests) == 3
    np.testing.assert_allclose(found.vectors, [vector_of(text) for text in texts], atol=1e-7)


@pytest.mark.parametrize("kind", ["garbage", "page", "strange", "500"])
async def test_a_chat_is_asked_again_too(models: OpenAIServer, kind: str) -> None:
    models.troubles = [Fault(kind)]
    models.chat = lambda _: "yes"
    assert (await chat(models)).text == "yes"
    assert len(models.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        (Fault("503", times=9), "engine_error", r"503 not now \(asked 3 times\)"),
        (Fault("429", times=9), "engine_error", "429 not now"),
        (Fault("reset", times=9), "engine_error", "the answer broke off"),
        (Fault("garbage", times=9), "invalid_response", "not the answer that was asked for"),
        (Fault("fewer", times=9), "invalid_response", "2 vectors were asked for, 1 came"),
        (Fault("twice", times=9), "invalid_response", "2 vectors were asked for"),
        (Fault("400", message="input must not be empty"), "refused_by_engine", "400 input must not be empty"),
        (Fault("422", message="Input validation error: `inputs` must have less than 512 tokens"), "too_long", "512"),
        (Fault("413", message="Payload Too Large"), "too_long", "Payload"),
        (Fault("429", retry_after="4000"), "engine_error", "it asks to come back in 4000 s"),
    ],
)
async def test_what_does_not_pass_is_one_refused_input(
    models: OpenAIServer, trouble: Fault, reason: str, words: str
) -> None:
    models.troubles = [trouble]
    async with EndpointClient(endpoint(models)) as client:
        with pytest.raises(RefusedInput, match=words) as caught:
            await client.embed(["one", "two"])
        assert caught.value.reason == reason
        models.troubles = []
        assert len((await client.embed(["three"])).vectors) == 1, "and the next input is asked for"


async def test_a_text_of_too_many_tokens_is_refused_once(models: OpenAIServer) -> None:
    models.context = 10
    with pytest.raises(RefusedInput, match="maximum context length is 10 tokens") as caught:
        await embed(models, ["word " * 11])
    assert caught.value.reason == "too_long"
    assert len(models.requests) == 1


async def test_silence_is_a_failure(models: OpenAIServer) -> None:
    models.troubles = [Fault("slow", seconds=2.0, times=2)]
    with pytest.raises(RefusedInput, match=r"no answer within 0\.2 s") as caught:
        await embed(models, ["one"], timeout=0.2, attempts=2)
    assert caught.value.reason == "engine_error"


async def test_when_to_come_back_is_honoured_by_all_connections(models: OpenAIServer) -> None:
    models.troubles = [Fault("429", retry_after="1")]
    async with EndpointClient(endpoint(models)) as client:
        await client.embed(["first"])  # refused, and told to come back
        assert models.requests[1].at - models.requests[0].at >= 0.99
        models.troubles = [Fault("429", retry_after="1", only="second")]

        async def later() -> None:
            while client._retrier.retries < 2:  # until the second, too, has been told to come back
                await asyncio.sleep(0.001)
            await client.embed(["third"])

        start = time.monotonic()
        await asyncio.gather(client.embed(["second"]), later())
    third = next(request for request in models.requests if request.body["input"] == ["third"])
    assert third.at - start >= 0.95, "another request waits, too"


async def test_no_more_requests_are_under_way_than_allowed(models: OpenAIServer) -> None:
    def once_three_are_under_way(text: str) -> list[float]:
        until = time.monotonic() + 20
        while models.busiest < 3 and time.monotonic() < until:
            time.sleep(0.001)
        return vector_of(text)

    models.embed = once_three_are_under_way
    async with EndpointClient(endpoint(models, connections=3)) as client:
        await asyncio.gather(*(client.embed([str(i)]) for i in range(12)))
    assert models.busiest == 3


async def test_requests_begin_no_faster_than_allowed(models: OpenAIServer) -> None:
    async with EndpointClient(endpoint(models, requests_per_second=50.0)) as client:
        await asyncio.gather(*(client.embed([str(i)]) for i in range(11)))
    begun = sorted(request.at for request in models.requests)
    assert begun[-1] - begun[0] >= 0.18, "ten intervals of 20 ms"


async def test_the_key_is_sent_and_found_in_nothing_that_is_said(
    models: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    models.key = KEY
    keyed = endpoint(models, api_key_env="MY_KEY", attempts=1)
    async with EndpointClient(keyed) as client:
        await client.embed(["one"])
        assert KEY not in str(client)
        models.troubles = [Fault(status, message=f"you said {KEY}") for status in ("400", "403", "500", "404")]
        for _ in range(4):
            with pytest.raises(LexrayError) as caught:
                await client.embed(["one"])
            assert KEY not in str(caught.value)
    assert KEY not in keyed.model_dump_json()
    assert KEY.encode() not in pickle.dumps(keyed)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", r"a request without a key \(401\); set OPENAI_API_KEY, or name another with `api_key_env`"),
        ("sk-another", r"it refuses the key in OPENAI_API_KEY \(401\)$"),
    ],
)
async def test_a_wrong_key_ends_the_job(
    models: OpenAIServer, monkeypatch: pytest.MonkeyPatch, key: str, words: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    models.key = KEY
    with pytest.raises(LexrayError, match=words) as caught:
        await embed(models, ["one"])
    assert not isinstance(caught.value, RefusedInput)
    assert "sk-" not in str(caught.value)
    assert len(models.requests) == 1


def test_a_key_that_no_header_holds_is_refused(models: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\u200bkey")
    with pytest.raises(LexrayError, match="the key in OPENAI_API_KEY holds signs that no key has"):
        EndpointClient(endpoint(models))


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Fault("429", message="You exceeded your current quota", code="insufficient_quota"), "is used up"),
        (Fault("402", message="Insufficient credits"), "is used up"),
        (Fault("403", message="Country not supported"), "refuses a request without a key .* Country not supported"),
    ],
)
async def test_what_would_fail_for_every_input_ends_the_job(models: OpenAIServer, trouble: Fault, words: str) -> None:
    models.troubles = [trouble]
    with pytest.raises(LexrayError, match=words) as caught:
        await embed(models, ["one"])
    assert not isinstance(caught.value, RefusedInput)
    assert len(models.requests) == 1


async def test_a_model_that_is_not_there_is_named(models: OpenAIServer) -> None:
    with pytest.raises(LexrayError, match=r"with nobody/nothing: there is no such model, or no /embeddings"):
        await embed(models, ["one"], model="nobody/nothing")


async def test_an_endpoint_that_nobody_listens_at_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        pytest.fail(f"it waits {seconds} s")

    with language_models() as models:
        pass
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(LexrayError, match=r"endpoint http://127\.0\.0\.1:\d+/v1 with a-model: it cannot be reached"):
        await embed(models, ["one"])


async def test_an_endpoint_that_goes_away_ends_the_job_after_some_attempts() -> None:
    with language_models() as models:
        client = EndpointClient(endpoint(models))
        await client.embed(["one"])
    with pytest.raises(LexrayError, match=r"it can no longer be reached: .* \(asked 3 times\); what is finished is"):
        await client.embed(["two"])


async def test_an_engine_that_answers_nothing_any_more_ends_the_job(models: OpenAIServer) -> None:
    models.troubles = [Fault("500", times=10**6)]
    async with EndpointClient(endpoint(models, attempts=1)) as client:
        for _ in range(15):
            with pytest.raises(RefusedInput):
                await client.embed(["one"])
        with pytest.raises(LexrayError, match="16 requests failed in a row, the last: 500") as caught:
            await client.embed(["one"])
    assert not isinstance(caught.value, RefusedInput)


async def test_what_runs_there_is_asked_for(models: OpenAIServer) -> None:
    async with EndpointClient(endpoint(models)) as client:
        (served,) = await client.models()
        assert (served.id, served.owned_by) == ("a-model", "vllm")
        assert await client.engine() == "vllm 0.29.0"
        models.owned_by = "openai"
        assert await client.engine() == "openai"
        models.troubles = [Fault("404")]
        assert await client.engine() == "", "a server that lists no models"


async def test_vectors_are_handed_over_as_they_are(models: OpenAIServer) -> None:
    models.base64 = False
    models.embed = lambda text: [1.0, None] if text == "null" else [1.0] * len(text)
    found = await embed(models, ["null", "aaa"])
    assert np.isnan(found.vectors[0][1])
    assert found.vectors[1].shape == (3,)
    assert DIMENSION != 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "localhost:8000/v1"}, "'url': Value error, it takes an address that begins with http"),
        ({"url": "http://me:secret@host/v1"}, "without password and query"),
        ({"url": "http://host/v1?key=1"}, "without password and query"),
        ({"api_key_env": "not a name"}, "'api_key_env'"),
        ({"model": ""}, "'model'"),
    ],
)
def test_a_wrong_endpoint_is_a_wrong_configuration(values: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(Endpoint, {"url": "http://host/v1", "model": "m", **values})
