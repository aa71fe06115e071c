"""The routes of the service."""

import asyncio
import base64
import html
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Annotated, Protocol

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from lexray.api import (
    Embedding,
    EmbeddingsResponse,
    EventsResponse,
    Health,
    Problem,
    ReleaseResponse,
    SearchResponse,
    Usage,
)
from lexray.array_types import Float32s
from lexray.errors import RefusedInput
from lexray.events.eventlist import EventList
from lexray.serve import observations, problems
from lexray.serve.config import Limits
from lexray.serve.engine import EncodedEvents, ServingEngine, TextVector
from lexray.serve.limits import AccessMiddleware, TokenBucket
from lexray.serve.observations import UploadedObservation
from lexray.serve.problems import RefusedRequest
from lexray.serve.schemas import EmbeddingsRequest, EventsRequest, SearchRequest
from lexray.version import __version__

_MODEL_ALIAS = "lexray"
#: The page holds its own style and script and loads nothing from anywhere.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class BatchedEmbedder(Protocol):
    """The two computations that are batched over callers."""

    @property
    def embed_text(self) -> Callable[[str], Awaitable[TextVector]]:
        """Vector of a text."""

    @property
    def encode_events(self) -> Callable[[EventList], Awaitable[EncodedEvents]]:
        """Vector and reconstructed rate of an event list."""


def create_app(
    engine: ServingEngine,
    embedder: BatchedEmbedder,
    limits: Limits,
    keys: tuple[str, ...] = (),
    requests_per_minute: float = 0,
) -> FastAPI:
    """The service's application.

    Parameters
    ----------
    engine : ServingEngine
        The release.
    embedder : BatchedEmbedder
        Called once a text and once an event list; they gather what comes at the same time.
    limits : Limits
        What a request may ask for.
    keys : tuple of str
        API keys; none asks for no key.
    requests_per_minute : float
        Of one caller in this process; 0 is no limit.
    """
    app = FastAPI(
        title="Lexray",
        version=__version__,
        description=_DESCRIPTION,
        responses={
            "4XX": {
                "description": "What is wrong with the request",
                "model": Problem,
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
        },
        separate_input_output_schemas=False,
        docs_url=None,  # those pages load their scripts from elsewhere
        redoc_url=None,
    )
    problems.add_exception_handlers(app)
    max_body = int(limits.max_body_mib * 2**20)
    app.add_middleware(
        AccessMiddleware,
        release=engine.release,
        keys=keys,
        bucket=TokenBucket(requests_per_minute) if requests_per_minute else None,
        max_body=max_body,
    )
    page = (
        resources.files("lexray.serve")
        .joinpath("page.html")
        .read_text(encoding="utf-8")
        .replace("{{release}}", html.escape(engine.release))
    )

    def check_k(k: int) -> None:
        if not 1 <= k <= limits.max_k:
            raise RefusedRequest(422, f"k: {k} is out of range; expected 1 to {limits.max_k}")

    def check_text(text: str, field: str) -> str:
        if not text.strip():
            raise RefusedRequest(422, f"{field}: the text is empty")
        if len(text) > limits.max_text_length:
            raise RefusedRequest(
                422, f"{field}: {len(text)} characters; this service takes up to {limits.max_text_length}"
            )
        return text

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"})

    @app.get("/healthz", summary="Whether the service is up")
    async def healthz() -> Health:
        return Health(release=engine.release)

    @app.get("/v1/release", summary="The release in service")
    async def release() -> ReleaseResponse:
        return engine.describe()

    @app.post("/v1/embeddings", summary="Vectors of texts: OpenAI's request and response")
    async def embeddings(sent: EmbeddingsRequest) -> EmbeddingsResponse:
        if sent.model not in (_MODEL_ALIAS, engine.model):
            raise RefusedRequest(
                404,
                f"model {sent.model!r} is not served here; expected '{_MODEL_ALIAS}' or '{engine.model}'",
                "unknown_model",
            )
        if sent.dimensions not in (None, engine.aligned.dimension):
            raise RefusedRequest(
                422, f"dimensions: {sent.dimensions} is not available; vectors have {engine.aligned.dimension} numbers"
            )
        texts = [sent.input] if isinstance(sent.input, str) else sent.input
        if not 1 <= len(texts) <= limits.max_texts:
            raise RefusedRequest(422, f"input: {len(texts)} texts; expected 1 to {limits.max_texts}")
        checked = [check_text(text, "input") for text in texts]
        found = await asyncio.gather(*(embedder.embed_text(text) for text in checked))
        tokens = sum(item.tokens for item in found)
        data = [
            Embedding(index=i, embedding=_vector_field(item.vector, sent.encoding_format == "base64"))
            for i, item in enumerate(found)
        ]
        return EmbeddingsResponse(data=data, model=engine.model, usage=Usage(prompt_tokens=tokens, total_tokens=tokens))

    @app.post("/v1/events/embeddings", summary="Place an observation in the space", openapi_extra=_EVENTS_BODY)
    async def events_embeddings(
        request: Request, k: Annotated[int, Query(description="how many nearest sources")] = 5
    ) -> EventsResponse:
        check_k(k)
        if request.headers["content-type"].lower().startswith("multipart/"):
            observation = await _read_upload(request, max_body, limits.max_events)
        else:
            try:
                sent = EventsRequest.model_validate_json(await request.body())
            except ValidationError as error:
                raise problems.from_validation_errors(
                    error.errors(include_url=False, include_input=False, include_context=False)
                ) from None
            observation = await asyncio.to_thread(observations.from_json, sent, limits.max_events)
        encoded = await embedder.encode_events(observation.events)
        return await asyncio.to_thread(engine.observation, observation, encoded, k)

    @app.post("/v1/search", summary="Sources near a sentence, an observation or a vector")
    async def search(sent: SearchRequest) -> SearchResponse:
        check_k(sent.k)
        if sent.text is not None:
            vector = (await embedder.embed_text(check_text(sent.text, "text"))).vector
        elif sent.events is not None:
            observation = await asyncio.to_thread(observations.from_json, sent.events, limits.max_events)
            vector = (await embedder.encode_events(observation.events)).vector
        else:
            vector = np.array(sent.vector, dtype=np.float32)
        try:
            found = await asyncio.to_thread(engine.search, vector, sent.k, sent.modality)
        except ValueError as error:
            raise RefusedRequest(422, f"vector: {error}") from None
        return SearchResponse(release=engine.release, sources=found)

    return app


async def _read_upload(request: Request, max_body: int, max_events: int) -> UploadedObservation:
    async with request.form(max_files=1, max_fields=8) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RefusedInput("no_file", "the form has no file; send the event file in the field 'file'")
        return await asyncio.to_thread(observations.from_fits, file.file, file.filename or "", max_body, max_events)


def _vector_field(vector: Float32s, in_base64: bool) -> list[float] | str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if in_base64 else [float(x) for x in vector]


_DESCRIPTION = """X-ray event lists and sentences in one space.

Every answer names the release that made it in `X-Lexray-Release`; vectors of two releases never meet.
Errors are problem documents (RFC 9457)."""
_EVENTS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary", "description": "a FITS event file"}},
                }
            },
            "application/json": {"schema": EventsRequest.model_json_schema()},
        },
    }
}
