"""Client of the service, sync and async: `Client("http://127.0.0.1:8000").search("a young star with flares")`."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ValidationError

from lexray.api import EmbeddingsResponse, EventsResponse, Health, Modality, ReleaseResponse, SearchResponse, Source
from lexray.array_types import Float32s
from lexray.errors import LexrayError, one_line
from lexray.events.eventlist import EventList

ResponseT = TypeVar("ResponseT", bound=BaseModel)
#: What can be asked about: words, an observation, an event file, or a vector of the release's space.
Query = str | EventList | Path | ArrayLike
#: Texts of one request; longer lists are sent in several.
_TEXTS_PER_REQUEST = 512


class ServiceError(LexrayError):
    """The service refused a request, failed at it, or could not be reached.

    Attributes
    ----------
    status : int or None
        HTTP status; None where no answer came.
    reason : str
        A short code, such as 'unknown_mission' or 'rate_limited'.
    detail : str
        The problem's text.
    problem : dict
        The whole problem document; empty where the answer was none.
    """

    def __init__(self, status: int | None, reason: str, detail: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail if status is None else f"{detail} ({status} {reason})")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.problem = dict(problem or {})


class Client(contextlib.AbstractContextManager["Client"]):
    """A release's service. Use it in a `with` block, or call `close`.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8000``.
    api_key : str, optional
        Where the service asks for one.
    timeout : float
        Seconds to wait for an answer.

    Raises
    ------
    ServiceError
        By every method, where the service says no or does not answer.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     for source in client.search("a pulsating neutron star", k=3):
    ...         print(source.source_id, source.score)
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 120.0) -> None:
        self._http = httpx.Client(base_url=url, headers=_headers(api_key), timeout=timeout)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """That the service is up, and with which release."""
        return self._call(Health, "GET", "/healthz")

    def release(self) -> ReleaseResponse:
        """The release in service."""
        return self._call(ReleaseResponse, "GET", "/v1/release")

    def embed_text(self, texts: Sequence[str]) -> Float32s:
        """Unit vectors f4[N, E] of N texts in the shared space."""
        return _vectors(
            [self._call(EmbeddingsResponse, "POST", "/v1/embeddings", json=body) for body in _text_bodies(texts)]
        )

    def embed_events(self, events: EventList | str | Path, k: int = 5) -> EventsResponse:
        """Place an observation, given as an event list or as the path of a FITS file, in the shared space.

        Parameters
        ----------
        events : EventList, str or Path
            The observation.
        k : int
            How many nearest sources to name.
        """
        return self._call(EventsResponse, "POST", "/v1/events/embeddings", params={"k": k}, **_events_body(events))

    def search(self, query: Query, k: int = 10, modality: Modality | None = None) -> list[Source]:
        """Sources nearest to a sentence (str), an observation (EventList, or Path of a FITS file) or a vector f4[E].

        Parameters
        ----------
        query : str, EventList, Path or array_like
            What to look for.
        k : int
            How many.
        modality : {'xray', 'text'}, optional
            Compare with vectors of this modality only.
        """
        if isinstance(query, Path):
            query = np.array(self.embed_events(query, k=1).embedding)
        return self._call(SearchResponse, "POST", "/v1/search", json=_search_body(query, k, modality)).sources

    def _call(self, model: type[ResponseT], method: str, path: str, **request: Any) -> ResponseT:
        try:
            return _parse_response(model, self._http.request(method, path, **request))
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error


class AsyncClient(contextlib.AbstractAsyncContextManager["AsyncClient"]):
    """As `Client`, for use with ``async with`` and ``await``."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 120.0) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key), timeout=timeout)

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._call(Health, "GET", "/healthz")

    async def release(self) -> ReleaseResponse:
        """As `Client.release`."""
        return await self._call(ReleaseResponse, "GET", "/v1/release")

    async def embed_text(self, texts: Sequence[str]) -> Float32s:
        """As `Client.embed_text`."""
        return _vectors(
            [await self._call(EmbeddingsResponse, "POST", "/v1/embeddings", json=body) for body in _text_bodies(texts)]
        )

    async def embed_events(self, events: EventList | str | Path, k: int = 5) -> EventsResponse:
        """As `Client.embed_events`."""
        return await self._call(
            EventsResponse, "POST", "/v1/events/embeddings", params={"k": k}, **_events_body(events)
        )

    async def search(self, query: Query, k: int = 10, modality: Modality | None = None) -> list[Source]:
        """As `Client.search`."""
        if isinstance(query, Path):
            query = np.array((await self.embed_events(query, k=1)).embedding)
        return (await self._call(SearchResponse, "POST", "/v1/search", json=_search_body(query, k, modality))).sources

    async def _call(self, model: type[ResponseT], method: str, path: str, **request: Any) -> ResponseT:
        try:
            return _parse_response(model, await self._http.request(method, path, **request))
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _text_bodies(texts: Sequence[str]) -> list[dict[str, Any]]:
    if isinstance(texts, str):
        raise TypeError("texts must be a list of texts, got one str")
    return [
        {
            "input": list(texts[start : start + _TEXTS_PER_REQUEST]),
            "model": "lexray",
            "encoding_format": "base64",
        }
        for start in range(0, len(texts), _TEXTS_PER_REQUEST)
    ]


def _vectors(responses: list[EmbeddingsResponse]) -> Float32s:
    rows = [np.frombuffer(base64.b64decode(str(item.embedding)), "<f4") for answer in responses for item in answer.data]
    return np.array(rows, dtype=np.float32) if rows else np.zeros((0, 0), dtype=np.float32)


def _events_body(events: EventList | str | Path) -> dict[str, Any]:
    if isinstance(events, EventList):
        return {"json": _events_json(events)}
    path = Path(events)
    try:
        return {"files": {"file": (path.name, path.read_bytes(), "application/fits")}}
    except OSError as error:
        raise LexrayError(f"{path}: {error.strerror}") from None


def _events_json(events: EventList) -> dict[str, Any]:
    return {
        "time": events.time.tolist(),
        "energy": events.energy.tolist(),
        "gti": np.stack([events.gti.start, events.gti.stop], axis=1).tolist(),
        "mission": events.mission or "chandra",
        "exposure": events.exposure,
        "source_id": events.source_id,
    }


def _search_body(query: str | EventList | ArrayLike, k: int, modality: Modality | None) -> dict[str, Any]:
    body: dict[str, Any] = {"k": k, "modality": modality}
    if isinstance(query, str):
        return {**body, "text": query}
    if isinstance(query, EventList):
        return {**body, "events": _events_json(query)}
    return {**body, "vector": np.asarray(query, dtype=np.float64).tolist()}


def _parse_response(model: type[ResponseT], response: httpx.Response) -> ResponseT:
    if response.is_success:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            raise ServiceError(
                response.status_code,
                "unexpected_answer",
                f"{response.url} does not answer as Lexray does: {error.title}",
            ) from None
    try:
        problem = dict(response.json())
    except ValueError:
        problem = {}
    detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase or "no explanation")
    raise ServiceError(response.status_code, str(problem.get("reason") or "error"), detail, problem)


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> ServiceError:
    what = "took too long to answer" if isinstance(error, httpx.TimeoutException) else "does not answer"
    return ServiceError(None, "unreachable", f"{url} {what}: {one_line(error)}")
