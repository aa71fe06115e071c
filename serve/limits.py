"""Authentication and limits of rate and size: the middleware in front of every handler."""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lexray.serve.problems import RefusedRequest, internal_error

#: Callers whose buckets are remembered; the one that was quiet longest is forgotten first.
_MAX_CALLERS = 10_000
#: A body beyond the limit is read and thrown away up to this many times the limit: a client that is still sending would
#: see its connection reset and never the answer.
_DRAIN_FACTOR = 4
_JSON, _FORM = "application/json", "multipart/form-data"


class TokenBucket:
    """A rate limit by caller: a bucket holds a minute's requests and fills steadily.

    Parameters
    ----------
    per_minute : float
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = per_minute
        self._rate = per_minute / 60.0
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take one token; 0 if there was one, else the seconds until there is."""
        now = self._clock()
        tokens, then = self._buckets.pop(caller, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - then) * self._rate)
        allowed = tokens >= 1.0
        self._buckets[caller] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - tokens) / self._rate


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class AccessMiddleware:
    """Middleware: names the release in every answer, asks for a key, limits rate and size, and never shows a trace.

    Only paths below ``/v1/`` are guarded: the page and the health check hold no secrets.

    Parameters
    ----------
    app : ASGI application
    release : str
        Id for `X-Lexray-Release`.
    keys : tuple of str
        API keys. Empty asks for no key.
    bucket : TokenBucket or None
        None is no limit.
    max_body : int
        Bytes.
    """

    def __init__(
        self, app: ASGIApp, release: str, keys: tuple[str, ...], bucket: TokenBucket | None, max_body: int
    ) -> None:
        self._app = app
        self._release = release
        self._key_digests = [_digest(key) for key in keys]
        self._bucket = bucket
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Lexray-Release"] = self._release
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        body = _LimitedBody(receive, self._max_body)
        try:
            if scope["path"].startswith("/v1/"):
                headers = Headers(scope=scope)
                self._authorise(headers, scope)
                self._check_type(scope, headers)
                await body.check_length(headers)
            await self._app(scope, body.receive, named)
        except RefusedRequest as problem:
            await problem.response()(scope, receive, named)
        except Exception as error:
            if started:
                raise
            await internal_error(error)(scope, receive, named)

    def _authorise(self, headers: Headers, scope: Scope) -> None:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        key = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # All keys are compared, each in constant time: how long it takes says nothing of which fits, or of how nearly.
        known = sum(hmac.compare_digest(_digest(key), digest) for digest in self._key_digests) > 0
        if self._bucket is not None:
            # A caller without a key is known by its address. Behind HAProxy that is HAProxy's: all such share a bucket.
            address = (scope.get("client") or ("unknown", 0))[0]
            if wait := self._bucket.take(f"key {hash(key)}" if known else f"address {address}"):
                seconds = max(1, round(wait + 0.5))
                raise RefusedRequest(
                    429, f"too many requests; try again in {seconds} s", headers={"Retry-After": str(seconds)}
                )
        if self._key_digests and not known:
            detail = "this API key is not known" if key else "an API key is needed: send 'Authorization: Bearer KEY'"
            raise RefusedRequest(401, detail, headers={"WWW-Authenticate": "Bearer"})

    def _check_type(self, scope: Scope, headers: Headers) -> None:
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        accepted = (_JSON, _FORM) if scope["path"] == "/v1/events/embeddings" else (_JSON,)
        if scope["method"] == "POST" and content_type not in accepted:
            raise RefusedRequest(
                415, f"Content-Type is '{content_type or 'missing'}'; {scope['path']} takes {' or '.join(accepted)}"
            )


class _LimitedBody:
    """A request's body, counted while it streams in."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0

    async def check_length(self, headers: Headers) -> None:
        """Refuse a body that says itself that it is too large."""
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            await self._refuse(more=True)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limit:
                await self._refuse(more=bool(message.get("more_body", False)))
        return message

    async def _refuse(self, *, more: bool) -> NoReturn:
        while more and self._seen < _DRAIN_FACTOR * self._limit:
            message = await self._receive()
            self._seen += len(message.get("body", b""))
            more = bool(message.get("more_body", False))
        raise RefusedRequest(413, f"the body is larger than {self._limit / 2**20:g} MiB, the most this service takes")
