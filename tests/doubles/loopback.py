"""What the services on loopback share: what they were asked, what is to go wrong, and the server itself."""

import json
import os
import socket
import struct
import threading
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What was asked, and when: `query` is what the address and a form say, `body` an object in JSON."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float
    body: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fault:
    """What to do to a request instead of answering it, or to its answer.

    kind is a status ('503'), 'cut' (the connection ends within the body), 'reset' (it is reset), 'slow' (nothing comes
    for a while), 'page' (an HTML page with status 200), 'garbage' (half of the answer), or a service's own kind.
    """

    kind: str
    retry_after: str = ""
    seconds: float = 0.0
    times: int = 1
    message: str = "not now"
    code: str | None = None
    only: str = ""  # a word that the request's body has to hold


@dataclass
class Service:
    """Where a service is, and what it was asked."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def remember(self, request: Request) -> None:
        """Keep a request."""
        with self.lock:
            self.requests.append(request)


@dataclass
class QueriedService(Service):
    """A service that is asked by path and query.

    Attributes
    ----------
    troubles : dict
        By what a request's path and query contain, what befalls it: each is done once, in order.
    """

    troubles: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))

    def asked(self, *words: str) -> list[Request]:
        """Requests whose path or query contains all of these words."""
        return [r for r in self.requests if all(w in r.path or w in json.dumps(r.query) for w in words)]

    def next_trouble(self, request: Request) -> Fault | None:
        """What is to befall a request, if anything."""
        with self.lock:
            for word, waiting in self.troubles.items():
                if waiting and (word in request.path or word in json.dumps(request.query)):
                    waiting[0].times -= 1
                    return waiting[0] if waiting[0].times else waiting.pop(0)
        return None


AnyService = TypeVar("AnyService", bound=Service)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; a service's own says how in `answer`."""

    protocol_version = "HTTP/1.1"
    #: What the page says that comes instead of an answer.
    page: ClassVar[bytes] = b"<html><body>We are being serviced.</body></html>"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """GET, and any other method."""
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_POST = do_DELETE = do_GET

    @abstractmethod
    def answer(self, body: bytes) -> None:
        """Answer a request."""

    def address(self) -> tuple[str, dict[str, str]]:
        """Path and query of the request."""
        parts = urlsplit(self.path)
        return parts.path, form(parts.query)

    def received(self, path: str, query: dict[str, str], body: dict[str, Any] | None = None) -> Request:
        """The request, to be remembered."""
        return Request(path, query, dict(self.headers.items()), time.monotonic(), body or {})

    def befall(
        self, trouble: Fault, refusal: bytes = b"<html>not now</html>", more: dict[str, str] | None = None
    ) -> bool:
        """Do what any service can; whether that was an answer. A status comes with `refusal` and `more`."""
        if trouble.kind.isdigit():
            more = {"Retry-After": trouble.retry_after} if trouble.retry_after else more
            self.send(int(trouble.kind), refusal, "text/html", more)
        elif trouble.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once, though the handler's files still hold it
            self.close_connection = True
        elif trouble.kind == "slow":
            time.sleep(trouble.seconds)
            return False
        elif trouble.kind == "page":
            self.send(200, self.page, "text/html")
        else:
            return False
        return True

    def send(
        self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None, *, cut: bool = False
    ) -> None:
        """Send an answer, or with `cut` its first half and nothing more."""
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def send_json(self, status: int, answer: Any, more: dict[str, str] | None = None) -> None:
        """Send an object."""
        self.send(status, json.dumps(answer).encode(), "application/json", more)


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


def form(text: str) -> dict[str, str]:
    """Values of a form or of an address' query."""
    return {key: values[0] for key, values in parse_qs(text, keep_blank_values=True).items()}


@contextmanager
def serve(service: AnyService, handler: type[Handler], place: str = "") -> Iterator[AnyService]:
    """A service at ``http://127.0.0.1:PORT`` + `place`, until the block ends; handlers have it as `service`."""
    server = QuietServer(("127.0.0.1", 0), type("BoundHandler", (handler,), {"service": service}))
    service.url = f"http://127.0.0.1:{server.server_port}{place}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
