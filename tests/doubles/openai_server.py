"""An API like OpenAI's on loopback: it answers as the API reference says, well-behaved or not as told.

What it says and which vectors it gives are functions that a test hands in; a token is a word.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from doubles.loopback import Fault, Handler, Request, Service, serve
from lexray.sources import stable_hash

DIMENSION = 8


def vector_of(text: str) -> list[float]:
    """Unit vector of a text, the same on every call."""
    values = np.random.default_rng(stable_hash(text)).normal(size=DIMENSION)
    return [float(x) for x in values / np.linalg.norm(values)]


@dataclass(frozen=True)
class ChatReply:
    """A chat's answer that is not just a text."""

    content: str | None
    finish_reason: str = "stop"
    refusal: str | None = None


@dataclass
class OpenAIServer(Service):
    """A server's models, its moods, and what it was asked.

    Attributes
    ----------
    chat : callable
        A chat's answer by the request's body.
    embed : callable
        A text's vector.
    key : str or None
        That requests have to bring.
    context : int
        Longest text, in words.
    base64 : bool
        Whether it knows ``encoding_format``.
    shuffled : bool
        Whether vectors come in another order than their texts; the reference promises none.
    busiest : int
        Most requests that were under way at once.
    """

    chat: Callable[[dict[str, Any]], str | ChatReply] = field(default=lambda _: "{}")
    embed: Callable[[str], Sequence[float | None]] = vector_of
    models: tuple[str, ...] = ("a-model",)
    owned_by: str = "vllm"
    version: str = "0.29.0"
    key: str | None = None
    context: int = 512
    base64: bool = True
    shuffled: bool = True
    delay: float = 0.0
    troubles: list[Fault] = field(default_factory=list)
    under_way: int = 0
    busiest: int = 0

    def asked(self, path: str) -> list[Request]:
        """Requests of a path, such as '/embeddings'."""
        return [request for request in self.requests if request.path.endswith(path)]

    def embedded(self) -> list[str]:
        """Every text that a vector was asked for, in order."""
        return [text for request in self.asked("/embeddings") for text in request.body["input"]]

    def next_trouble(self, request: Request) -> Fault | None:
        """What is to befall a request, if anything."""
        with self.lock:
            for trouble in self.troubles:
                if trouble.only in json.dumps(request.body, ensure_ascii=False):
                    trouble.times -= 1
                    if not trouble.times:
                        self.troubles.remove(trouble)
                    return trouble
        return None

    def answer(self, request: Request, trouble: Fault | None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        place = request.path.removeprefix("/v1")
        if place == "/version":
            return 200, {"version": self.version}
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return 401, error(
                f"Incorrect API key provided: {request.headers.get('Authorization', '')}", "invalid_api_key"
            )
        if place == "/models":
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": self.owned_by} for name in self.models]
            return 200, {"object": "list", "data": [item | {"max_model_len": self.context} for item in listed]}
        if request.body.get("model") not in self.models:
            return 404, error(f"The model `{request.body.get('model')}` does not exist", "model_not_found")
        if place == "/embeddings":
            return self._embeddings(request.body, trouble)
        if place == "/chat/completions":
            return self._completion(request.body)
        return 404, {"detail": "Not Found"}

    def _embeddings(self, body: dict[str, Any], trouble: Fault | None) -> tuple[int, Any]:
        texts = body["input"]
        longest = max(len(text.split()) for text in texts)
        if longest > self.context:
            return 400, too_long(self.context, longest)
        data = []
        for index, text in enumerate(texts):
            found: Any = list(self.embed(text))
            if self.base64 and body.get("encoding_format") == "base64":
                found = base64.b64encode(np.array(found, dtype="<f4").tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": found})
        if self.shuffled:
            data = data[1::2] + data[::2]
        if trouble is not None and trouble.kind == "fewer":
            data.pop()
        if trouble is not None and trouble.kind == "twice":
            data[0] = data[-1]
        n_tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return 200, {"object": "list", "data": data, "model": body["model"], "usage": usage}

    def _completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        n_in = sum(len(message["content"].split()) for message in body["messages"])
        if n_in > self.context:
            return 400, too_long(self.context, n_in)
        said = self.chat(body)
        said = ChatReply(said) if isinstance(said, str) else said
        message = {"role": "assistant", "content": said.content, "refusal": said.refusal}
        n_out = len((said.content or "").split())
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": said.finish_reason, "logprobs": None}],
            "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
        }


def error(message: str, code: str | None = None, error_type: str = "invalid_request_error") -> dict[str, Any]:
    """An error's body."""
    return {"error": {"message": message, "type": error_type, "param": None, "code": code}}


def too_long(context: int, found: int) -> dict[str, Any]:
    """What is said of a prompt with more tokens than the model takes."""
    message = f"This model's maximum context length is {context} tokens. However, you requested {found} tokens."
    return error(message, "context_length_exceeded")


class ModelsHandler(Handler):
    """Answers one connection."""

    service: OpenAIServer
    page = b"<html><body>The server is starting.</body></html>"

    def answer(self, body: bytes) -> None:
        """Answer to a GET, or to a POST of JSON."""
        models = self.service
        request = self.received(self.path, {}, json.loads(body or b"{}"))
        models.remember(request)
        with models.lock:
            models.under_way += 1
            models.busiest = max(models.busiest, models.under_way)
        try:
            time.sleep(models.delay)
            trouble = models.next_trouble(request)
            if trouble is None or not self._befall(trouble):
                status, answer = models.answer(request, trouble)
                whole = json.dumps(answer).encode()
                kind = "" if trouble is None else trouble.kind
                whole = whole[: len(whole) // 2] if kind == "garbage" else whole
                self.send(status, whole, "application/json", cut=kind == "cut")
        finally:
            with models.lock:
                models.under_way -= 1

    def _befall(self, trouble: Fault) -> bool:
        """Do what is to be done; whether that was the answer."""
        if trouble.kind == "strange":
            self.send_json(200, {"object": "list", "data": {"embedding": "none"}, "choices": []})
            return True
        return self.befall(trouble, json.dumps(error(trouble.message, trouble.code)).encode())


@contextmanager
def language_models(**settings: Any) -> Iterator[OpenAIServer]:
    """A server of models, until the block ends."""
    with serve(OpenAIServer(**settings), ModelsHandler, "/v1") as models:
        yield models
