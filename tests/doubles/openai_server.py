"""An API like OpenAI's on loopback: it answers as the API reference says, well-behaved or not as told.

What it says and which vectors it gives are functions that a test hands in; a token is a word.
"""

import base64
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from lexray.sources import stable_hash

DIMENSION = 8


def vector_of(text: str) -> list[float]:
    """Unit vector of a text, the same on every call."""
    values = np.random.default_rng(stable_hash(text)).normal(size=DIMENSION)
    return [float(x) for x in values / np.linalg.norm(values)]


@dataclass(frozen=True)
class Request:
    """What was asked, and when."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass(frozen=True)
class ChatReply:
    """A chat's answer that is not just a text."""

    content: str | None
    finish_reason: str = "stop"
    refusal: str | None = None


@dataclass
class Fault:
    """What to do to a request instead of answering it, or to its answer.

    kind is a status ('503'), 'cut' (the connection ends within the body), 'reset' (it is reset), 'slow' (nothing comes
    for a while), 'garbage' (half of the JSON), 'page' (an HTML page with status 200), 'strange' (JSON of another kind),
    'fewer' (one vector is missing), 'twice' (one index comes twice).
    """

    kind: str
    retry_after: str = ""
    seconds: float = 0.0
    times: int = 1
    message: str = "not now"
    code: str | None = None
    only: str = ""  # a word that the request's body has to hold


@dataclass
class OpenAIServer:
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
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    troubles: list[Fault] = field(default_factory=list)
    under_way: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

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


class QuietServer(ThreadingHTTPServer):
    """Clients that go away, or are thrown out, are part of the plan."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        """Remember the connection, to end it with the server: else its thread would go on answering."""
        connection, address = super().get_request()
        self._open.append(connection)
        return connection, address

    def server_close(self) -> None:
        """End every connection."""
        super().server_close()
        for connection in self._open:
            with suppress(OSError):  # it has ended already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server_side: OpenAIServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """GET."""
        self._answer({})

    def do_POST(self) -> None:
        """POST of JSON."""
        self._answer(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))

    def _answer(self, body: dict[str, Any]) -> None:
        models = self.server_side
        request = Request(self.path, body, dict(self.headers.items()), time.monotonic())
        with models.lock:
            models.requests.append(request)
            models.under_way += 1
            models.busiest = max(models.busiest, models.under_way)
        try:
            time.sleep(models.delay)
            trouble = models.next_trouble(request)
            if trouble is None or not self._befall(trouble):
                status, answer = models.answer(request, trouble)
                whole = json.dumps(answer).encode()
                kind = "" if trouble is None else trouble.kind
                self._send(status, whole[: len(whole) // 2] if kind == "garbage" else whole, cut=kind == "cut")
        finally:
            with models.lock:
                models.under_way -= 1

    def _befall(self, trouble: Fault) -> bool:
        """Do what is to be done; whether that was the answer."""
        if trouble.kind.isdigit():
            more = {"Retry-After": trouble.retry_after} if trouble.retry_after else {}
            self._send(int(trouble.kind), json.dumps(error(trouble.message, trouble.code)).encode(), more)
        elif trouble.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once, though the handler's files still hold it
            self.close_connection = True
        elif trouble.kind == "slow":
            time.sleep(trouble.seconds)
            return False
        elif trouble.kind == "page":
            self._send(200, b"<html><body>The server is starting.</body></html>")
        elif trouble.kind == "strange":
            self._send(200, b'{"object": "list", "data": {"embedding": "none"}, "choices": []}')
        else:
            return False
        return True

    def _send(self, status: int, body: bytes, more: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(more or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


@contextmanager
def language_models(**settings: Any) -> Iterator[OpenAIServer]:
    """A server of models, until the block ends."""
    models = OpenAIServer(**settings)
    handler = type("BoundHandler", (Handler,), {"server_side": models})
    server = QuietServer(("127.0.0.1", 0), handler)
    models.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield models
    finally:
        server.shutdown()
        server.server_close()
