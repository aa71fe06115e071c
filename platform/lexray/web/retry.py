"""Requests to public servers: how many at once, how fast, and when a failed one is repeated."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import numpy as np
from pydantic import Field

from lexray.runtime.config import BaseConfig
from lexray.version import __version__

T = TypeVar("T")
#: How we introduce ourselves, so that an archive can see who asks and tell us when it is too much.
USER_AGENT = f"lexray/{__version__}"
#: Answers after which it is worth asking again (RFC 9110, section 15): the server's troubles, and "not so fast".
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class RetryPolicy(BaseConfig):
    """Limits on requests to one archive."""

    connections: int = Field(4, ge=1, le=32, description="files fetched at once")
    requests_per_second: float = Field(5.0, gt=0, description="requests begun a second, all connections together")
    attempts: int = Field(6, ge=1, description="times a request is made before it is given up")
    first_wait: float = Field(1.0, ge=0, description="longest wait before the second attempt, s; doubled each time")
    longest_wait: float = Field(60.0, ge=0, description="no wait of our own choosing is longer, s")
    patience: float = Field(900.0, ge=0, description="give up where Retry-After asks for a longer wait, s")
    timeout: float = Field(60.0, gt=0, description="silence after which a connection counts as lost, s")

    def wait(self, attempt: int, asked: float | None, generator: np.random.Generator) -> float | None:
        """Seconds to wait after failed attempt number `attempt`, counted from 0; None where there is to be no other.

        Exponential backoff with jitter: uniform between half the step and the whole, so that clients who were cut off
        together do not come back together, and never less than the server asked for.
        """
        if attempt + 1 >= self.attempts or (asked is not None and asked > self.patience):
            return None
        step = min(self.first_wait * 2.0**attempt, self.longest_wait)
        return max(float(generator.uniform(0.5, 1.0)) * step, asked or 0.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer's ``Retry-After`` asks for, given as seconds or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


class RateLimiter:
    """Lets one request begin every 1/`per_second` seconds, of any number of tasks."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._free = 0.0
        self._queue = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait until a request may begin."""
        async with self._queue:
            while (seconds := self._left()) > 0:  # more than once where `pause` is called meanwhile
                await asyncio.sleep(seconds)
            self._take()

    def acquire_blocking(self) -> None:
        """As `acquire`, for code that is not asynchronous."""
        time.sleep(self._left())
        self._take()

    def pause(self, seconds: float) -> None:
        """Let nobody begin for this long: a server that says when to come back means all of our connections."""
        self._free = max(self._free, time.monotonic() + seconds)

    def _left(self) -> float:
        return max(0.0, self._free - time.monotonic())

    def _take(self) -> None:
        self._free = max(self._free, time.monotonic()) + self._interval


class Retryable(Exception):
    """A request failed and may pass the next time.

    Parameters
    ----------
    reason : str
        A short code.
    detail : str
        What happened, for a person.
    asked : float, optional
        Seconds that the server asks to wait, see `retry_after`.
    """

    def __init__(self, reason: str, detail: str, asked: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.asked = reason, detail, asked


class OutOfRetries(Exception):
    """A request failed as often as the policy allows, or the server asks for a longer wait than it allows."""

    def __init__(self, failure: Retryable, attempts: int) -> None:
        super().__init__(failure.detail)
        self.failure, self.attempts = failure, attempts


class Retrier:
    """Repeats requests to one server.

    Parameters
    ----------
    policy : RetryPolicy
    limiter : RateLimiter
        It lets nobody begin while the server asks to wait.
    warn : callable, optional
        Called with a line for each failure that is followed by another attempt.

    Attributes
    ----------
    retries : int
        Repetitions so far.
    """

    def __init__(
        self, policy: RetryPolicy, limiter: RateLimiter, warn: Callable[[str], None] = lambda line: None
    ) -> None:
        self.retries = 0
        self._policy, self._limiter, self._warn = policy, limiter, warn
        self._generator = np.random.default_rng()  # jitter must differ between clients

    async def with_retries(self, request: Callable[[], Awaitable[T]]) -> T:
        """Call `request` until it raises no `Retryable`.

        Raises
        ------
        OutOfRetries
            If there is no other attempt.
        """
        attempt = 0
        while True:
            try:
                return await request()
            except Retryable as error:
                seconds = self._wait(attempt, error)
            await asyncio.sleep(seconds)
            attempt += 1

    def with_retries_blocking(self, request: Callable[[], T]) -> T:
        """As `with_retries`, for code that is not asynchronous."""
        attempt = 0
        while True:
            try:
                return request()
            except Retryable as error:
                seconds = self._wait(attempt, error)
            time.sleep(seconds)
            attempt += 1

    def _wait(self, attempt: int, failure: Retryable) -> float:
        """Seconds until the next attempt."""
        seconds = self._policy.wait(attempt, failure.asked, self._generator)
        if seconds is None:
            raise OutOfRetries(failure, attempt + 1) from failure
        self.retries += 1
        if failure.asked is not None:
            self._limiter.pause(failure.asked)
        self._warn(f"{failure.detail}; asking again in {seconds:.1f} s")
        return seconds
