"""Models behind an API like OpenAI's, wherever they run: OpenAI's own, vLLM's server, llama.cpp's, and others.

Requests and answers are those of OpenAI's API reference, ``POST /v1/chat/completions``, ``POST /v1/embeddings`` and
``GET /v1/models``. `EndpointClient` says which errors are retried, which refuse one input and which end the job.
"""

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, field_validator

from lexray.errors import LexrayError, RefusedInput, one_line
from lexray.web import retry

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=BaseModel)

#: Requests given up one after the other, none answered between them, after which the engine counts as broken.
_MAX_CONSECUTIVE_FAILURES = 16
#: Seconds in which a connection must be made; the answer itself may take `timeout`.
_CONNECT_S = 10.0
#: Of an endpoint's own words, so much goes into an error.
_MAX_ERROR_CHARACTERS = 300
#: How OpenAI, vLLM, Text Embeddings Inference and llama.cpp say that a text has too many tokens.
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|max(?:imum)? (?:model |input |sequence |context )*length"
    r"|too (?:long|many tokens)|must have less than \d+ tokens|longer than the max",
    re.IGNORECASE,
)


class Endpoint(retry.RetryPolicy):
    """An API like OpenAI's, and how hard it may be asked. The limits hold for each process that asks."""

    url: str = Field(description="address of the API with its version, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="the model's name there")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable that holds the key; where it is not set, no key is sent",
    )
    connections: int = Field(16, ge=1, le=1024, description="requests under way at once")
    requests_per_second: float = Field(50.0, gt=0, description="requests begun a second")
    timeout: float = Field(300.0, gt=0, description="longest wait for an answer, s")
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="keys added to each request's body, such as chat_template_kwargs; null takes one of ours away",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it takes an address that begins with http:// or https://")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("it takes an address without password and query; the key belongs into `api_key_env`")
        return url.rstrip("/")


@dataclass(frozen=True)
class ChatCompletion:
    """A chat's answer.

    Attributes
    ----------
    text : str
    tokens_in, tokens_out : int
        Of the prompt and of the answer; 0 where the endpoint does not say.
    finish_reason : str
        'stop', or 'length' where `max_tokens` cut it off.
    model : str
        What answered, as the endpoint calls it: often more exact than the name that was asked for.
    """

    text: str
    tokens_in: int
    tokens_out: int
    finish_reason: str
    model: str


@dataclass(frozen=True)
class EmbeddedTexts:
    """Vectors of some texts.

    Attributes
    ----------
    vectors : list of f4[T]
        In the order of the texts, as they came: nothing says that they are finite, or of one length.
    tokens : int
        Of all texts; 0 where the endpoint does not say.
    model : str
        As `ChatCompletion.model`.
    """

    vectors: list[NDArray[np.float32]]
    tokens: int
    model: str


class ServedModel(BaseModel):
    """A model that an endpoint offers.

    Attributes
    ----------
    id : str
    owned_by : str
        Who made or who runs it: 'vllm' of vLLM's server.
    """

    id: str
    owned_by: str = ""


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Response(BaseModel):
    model: str = ""
    usage: _Usage | None = None


class _ChatResponse(_Response):
    choices: list[_Choice] = Field(min_length=1)


class _EmbeddingItem(BaseModel):
    index: int
    embedding: str | list[float | None]


class _EmbeddingsResponse(_Response):
    data: list[_EmbeddingItem]


class _ModelsResponse(BaseModel):
    data: list[ServedModel]


class EndpointClient:
    """Connections to one endpoint, for one event loop; use it in an ``async with`` block.

    Asked again, with growing waits and as ``Retry-After`` says: 408, 425, 429 and all from 500 on, lost connections,
    silence, answers that are not what the API reference says. What fails until `attempts` are used up, or is refused
    for its own sake (other 4xx), is a `RefusedInput`, and the next input is asked for as if nothing had been. What
    would fail for every input is a `LexrayError`: nobody listens there, the key is wrong (401, 403), the quota is used
    up (402, or 429 with 'insufficient_quota'), there is no such model (404), or one request after the other was given
    up and none answered.

    Parameters
    ----------
    endpoint : Endpoint

    Raises
    ------
    LexrayError
        If the key cannot be sent in a header.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._key = os.environ.get(endpoint.api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise LexrayError(f"{self}: the key in {endpoint.api_key_env} holds signs that no key has")
        self._rate_limiter = retry.RateLimiter(endpoint.requests_per_second)
        self._room = asyncio.Semaphore(endpoint.connections)
        self._retrier = retry.Retrier(endpoint, self._rate_limiter)
        self._answered = False
        self._lost = 0
        self._http = httpx.AsyncClient(
            headers={"User-Agent": retry.USER_AGENT} | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=httpx.Timeout(endpoint.timeout, connect=min(_CONNECT_S, endpoint.timeout), pool=None),
            limits=httpx.Limits(max_connections=endpoint.connections, max_keepalive_connections=endpoint.connections),
            follow_redirects=False,  # to wherever it leads, with what the texts say
        )

    def __str__(self) -> str:
        return f"endpoint {self.endpoint.url} with {self.endpoint.model}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        schema: str | None = None,
        temperature: float = 0.0,
        seed: int | None = 0,
    ) -> ChatCompletion:
        """An answer to messages, each with `role` and `content`.

        Parameters
        ----------
        messages : sequence of mapping
        max_tokens : int
            Longest answer.
        schema : str, optional
            JSON schema that the endpoint's decoding is to enforce. Whether it does is for the caller to check.
        temperature : float
        seed : int, optional

        Raises
        ------
        RefusedInput
            'too_long', 'refused_by_engine', 'engine_error' or 'invalid_response'.
        LexrayError
            If no input would get an answer; see `EndpointClient`.
        """
        body: dict[str, Any] = {
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            **({} if seed is None else {"seed": seed}),
        }
        if schema is not None:
            named = {"name": "answer", "schema": json.loads(schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}

        def read(response: httpx.Response) -> ChatCompletion:
            parsed = _parse(_ChatResponse, response)
            message, why = parsed.choices[0].message, parsed.choices[0].finish_reason or ""
            if message.refusal or why == "content_filter":
                raise RefusedInput("refused_by_engine", self._clean(message.refusal or "its content filter refuses"))
            if message.content is None:
                raise retry.Retryable("invalid_response", "the answer has no content")
            usage = parsed.usage or _Usage()
            return ChatCompletion(message.content, usage.prompt_tokens, usage.completion_tokens, why, parsed.model)

        return await self._with_retries("chat/completions", body, read)

    async def embed(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Vectors of texts, in one request.

        Raises
        ------
        RefusedInput
            As `chat`; of several texts, nobody says which it was.
        LexrayError
            As `chat`.
        """

        def read(response: httpx.Response) -> EmbeddedTexts:
            parsed = _parse(_EmbeddingsResponse, response)
            found = {item.index: item.embedding for item in parsed.data}
            if len(parsed.data) != len(texts) or sorted(found) != list(range(len(texts))):
                raise retry.Retryable("invalid_response", f"{len(texts)} vectors were asked for, {len(found)} came")
            vectors = [_decode_vector(found[index]) for index in range(len(texts))]
            return EmbeddedTexts(vectors, (parsed.usage or _Usage()).prompt_tokens, parsed.model)

        return await self._with_retries("embeddings", {"input": list(texts), "encoding_format": "base64"}, read)

    async def models(self) -> list[ServedModel]:
        """Models that the endpoint offers; none where it does not say.

        Raises
        ------
        LexrayError
            If it cannot be reached, or refuses the key.
        """
        try:
            return (await self._with_retries("models", None, lambda response: _parse(_ModelsResponse, response))).data
        except RefusedInput:
            return []

    async def engine(self) -> str:
        """What runs there, as far as it says, such as 'vllm 0.29.0'; '' where it does not.

        Raises
        ------
        LexrayError
            As `models`.
        """
        served = await self.models()
        owner = next((model.owned_by for model in served if model.id == self.endpoint.model), "")
        if owner != "vllm":
            return owner
        try:  # not part of the API, vLLM's own
            answer = await self._http.get(f"{self.endpoint.url.removesuffix('/v1')}/version")
            return f"{owner} {answer.json()['version']}"
        except (httpx.RequestError, ValueError, KeyError, TypeError):
            return owner

    async def _with_retries(self, path: str, body: dict[str, Any] | None, read: Callable[[httpx.Response], T]) -> T:
        """Ask until there is an answer that can be read, or no hope of one."""
        try:
            answer = await self._retrier.with_retries(lambda: self._ask(path, body, read))
        except retry.OutOfRetries as error:
            self._give_up(error.failure, error.attempts)
        self._lost = 0
        return answer

    async def _ask(self, path: str, body: dict[str, Any] | None, read: Callable[[httpx.Response], T]) -> T:
        """What one request's answer holds, if its status is one of success."""
        url = f"{self.endpoint.url}/{path}"
        async with self._room:
            await self._rate_limiter.acquire()
            try:
                if body is None:
                    response = await self._http.get(url)
                else:
                    whole = {"model": self.endpoint.model} | body | self.endpoint.extra_body
                    response = await self._http.post(url, json={k: v for k, v in whole.items() if v is not None})
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if not self._answered:  # a wrong address should not take a minute to say
                    raise LexrayError(f"{self}: it cannot be reached: {one_line(error)}") from None
                raise retry.Retryable("connection", one_line(error)) from None
            except httpx.TimeoutException:
                raise retry.Retryable("timeout", f"no answer within {self.endpoint.timeout:g} s") from None
            except httpx.RequestError as error:
                raise retry.Retryable("cut", f"the answer broke off: {one_line(error)}") from None
        self._answered = True
        if not response.is_success:
            self._refuse(response, path)
        return read(response)

    def _refuse(self, response: httpx.Response, path: str) -> NoReturn:
        status, message = response.status_code, self._clean(_error_message(response))
        key = f"the key in {self.endpoint.api_key_env}" if self._key else "a request without a key"
        if response.is_redirect:
            where = self._clean(response.headers.get("Location", ""))
            raise LexrayError(f"{self}: it sends us on to {where}; give the address it means as `url`")
        if status == 401:  # OpenAI's own words would quote half the key
            wanted = "" if self._key else f"; set {self.endpoint.api_key_env}, or name another with `api_key_env`"
            raise LexrayError(f"{self}: it refuses {key} (401){wanted}")
        if status == 403:
            raise LexrayError(f"{self}: it refuses {key} (403): {message}")
        if status == 402 or (status == 429 and "insufficient_quota" in response.text):
            raise LexrayError(f"{self}: what was paid for is used up ({status}): {message}")
        if status == 404 and path != "models":
            raise LexrayError(f"{self}: there is no such model, or no /{path} (404): {message}")
        if status in retry.TRANSIENT or status >= 500:
            raise retry.Retryable(f"http_{status}", f"{status} {message}".strip(), retry.retry_after(response.headers))
        if status == 413 or (status in (400, 422) and _TOO_LONG.search(response.text)):
            raise RefusedInput("too_long", message)
        raise RefusedInput("refused_by_engine", f"{status} {message}".strip())

    def _give_up(self, failure: retry.Retryable, attempts: int) -> NoReturn:
        self._lost += 1
        message = f"{failure.detail} (asked {attempts} times)"
        if failure.asked is not None and failure.asked > self.endpoint.patience:
            message = f"{failure.detail}: it asks to come back in {failure.asked:.0f} s, longer than `patience`"
        if failure.reason == "connection":
            raise LexrayError(f"{self}: it can no longer be reached: {message}; what is finished is kept, run again")
        if self._lost >= _MAX_CONSECUTIVE_FAILURES:
            raise LexrayError(
                f"{self}: {self._lost} requests failed in a row, the last: {message}; what is finished is kept"
            )
        raise RefusedInput("invalid_response" if failure.reason == "invalid_response" else "engine_error", message)

    def _clean(self, words: str) -> str:
        """An endpoint's own words on one line, without our key should it repeat it."""
        line = " ".join(words.split())
        return (line.replace(self._key, "…") if self._key else line)[:_MAX_ERROR_CHARACTERS]


def _parse(model: type[ResponseT], response: httpx.Response) -> ResponseT:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"not the answer that was asked for: {'.'.join(map(str, first['loc']))} {first['msg']}"[:300]
        raise retry.Retryable("invalid_response", detail) from None


def _decode_vector(said: str | list[float | None]) -> NDArray[np.float32]:
    """Base64 of little-endian float32, or plain numbers from a server that does not know base64."""
    if isinstance(said, list):
        return np.array(said, dtype=np.float32)  # null becomes NaN
    try:
        return np.frombuffer(base64.b64decode(said, validate=True), dtype="<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise retry.Retryable("invalid_response", "a vector that is not base64 of numbers") from None


def _error_message(response: httpx.Response) -> str:
    """What an error's body says: OpenAI's ``error.message``, others' ``message`` or ``detail``, else its text."""
    try:
        body = response.json()
    except ValueError:
        return response.text
    error = body.get("error", body) if isinstance(body, dict) else body
    words = error if isinstance(error, dict) else {}
    return str(words.get("message") or words.get("detail") or error)
