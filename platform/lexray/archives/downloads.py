"""Files over HTTP: resumed where they were cut off, checked, and asked for again with patience."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from lexray.archives.manifest import DownloadManifest
from lexray.archives.verify_fits import check_whole
from lexray.errors import RefusedInput, one_line
from lexray.web import retry

T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)")


class Downloads:
    """Connections to one archive; use it in an ``async with contextlib.aclosing(…)`` block.

    Parameters
    ----------
    folder : Path
        Where files go, with the manifest.
    policy : RetryPolicy

    Attributes
    ----------
    requests, bytes : int
        Requests made, and bytes received.
    retrier : Retrier
        It counts the requests among them that repeat a failed one.
    """

    def __init__(self, folder: Path, policy: retry.RetryPolicy) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.manifest = folder, DownloadManifest(folder)
        self.requests = self.bytes = 0
        self._policy = policy
        self._rate_limiter = retry.RateLimiter(policy.requests_per_second)
        self.retrier = retry.Retrier(policy, self._rate_limiter)
        self._http = httpx.AsyncClient(
            # Files are stored as they are: a transfer encoding on top of them would make ranges and lengths ambiguous.
            headers={"User-Agent": retry.USER_AGENT, "Accept-Encoding": "identity"},
            timeout=policy.timeout,
            limits=httpx.Limits(max_connections=policy.connections),
            follow_redirects=True,
        )

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def json(self, url: str, params: dict[str, str]) -> Any:
        """A small JSON document.

        Raises
        ------
        RefusedInput
            As `fetch`; 'bad_answer' where it is not JSON.
        """

        async def once() -> Any:
            response = await self._http.get(url, params=params)
            _raise_for_status(response)
            try:
                return response.json()
            except ValueError:
                words = " ".join(response.text.split())[:80]
                raise retry.Retryable("bad_answer", f"{url} answers with no JSON but {words!r}") from None

        return await self._with_retries(once)

    async def fetch(self, key: str, url: str, params: dict[str, str], path: str) -> None:
        """A FITS file, to `path` below the folder, with ``.gz`` behind it where it comes gzipped.

        It grows as ``PATH.part`` and gets its name once it is whole. What an earlier attempt or run left of it is
        continued where the server has ranges and still has the same version.

        Raises
        ------
        RefusedInput
            'http_404' and the like, 'timeout', 'connection', 'truncated', 'bad_gzip' or 'not_fits', where it did not
            come however often it was asked for; 'wait_too_long' where the server wants us much later.
        """
        target = self.folder / path
        part = target.with_name(target.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)

        async def once() -> bool:
            await self._transfer(key, url, params, part)
            try:
                return await asyncio.to_thread(check_whole, part)
            except RefusedInput as error:
                part.unlink()  # what is damaged must not be continued
                raise retry.Retryable(error.reason, error.detail) from None

        packed = await self._with_retries(once)
        if packed and not target.name.endswith(".gz"):
            target = target.with_name(target.name + ".gz")
        part.replace(target)
        entry = self.manifest[key]
        self.manifest.add(replace(entry, path=str(target.relative_to(self.folder)), size=target.stat().st_size))

    async def _with_retries(self, once: Callable[[], Awaitable[T]]) -> T:
        async def request() -> T:
            await self._rate_limiter.acquire()
            self.requests += 1
            try:
                return await once()
            except httpx.TimeoutException:
                raise retry.Retryable("timeout", f"no answer within {self._policy.timeout:g} s") from None
            except httpx.TransportError as error:
                raise retry.Retryable("connection", one_line(error)) from None

        try:
            return await self.retrier.with_retries(request)
        except retry.OutOfRetries as error:
            detail, asked = error.failure.detail, error.failure.asked
            if asked is not None and asked > self._policy.patience:
                raise RefusedInput(
                    "wait_too_long",
                    f"{detail}: the server asks to come back in {asked:.0f} s, longer than http.patience",
                ) from None
            raise RefusedInput(error.failure.reason, f"{detail} (asked {error.attempts} times)") from None

    async def _transfer(self, key: str, url: str, params: dict[str, str], part: Path) -> None:
        """Bring `part` to its full length."""
        have = part.stat().st_size if part.exists() else 0
        known = self.manifest[key]
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and known.validator and not known.validator.startswith("W/"):
            # The rest of another version would not fit to what we have (RFC 9110, section 13.1.5).
            headers["If-Range"] = known.validator
        async with self._http.stream("GET", url, params=params, headers=headers) as response:
            start, total = _range(response)
            if response.status_code == 416 and total == have:
                return  # it was whole already
            if response.status_code == 416 or (response.status_code == 206 and start != have):
                part.unlink(missing_ok=True)
                raise retry.Retryable("bad_range", f"the server cannot continue after {have} bytes; starting again")
            _raise_for_status(response)
            continued = response.status_code == 206
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
            self.manifest.add(replace(known, path="", size=0, validator=validator))
            with part.open("ab" if continued else "wb") as file:
                async for chunk in response.aiter_raw():
                    self.bytes += file.write(chunk)
            length = response.headers.get("Content-Length")
            expected = None if length is None else int(length) + (have if continued else 0)
        if expected is not None and part.stat().st_size != expected:
            raise retry.Retryable("truncated", f"{part.stat().st_size} of {expected} bytes came")


def _raise_for_status(response: httpx.Response) -> None:
    if response.is_success:
        return
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code in retry.TRANSIENT:
        raise retry.Retryable(f"http_{response.status_code}", status, retry.retry_after(response.headers))
    raise RefusedInput(f"http_{response.status_code}", f"{response.url}: {status}")


def _range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and full length that ``Content-Range`` names."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    start, total = found.groups() if found else (None, None)
    return None if start is None else int(start), None if total is None else int(total)
