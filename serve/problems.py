"""Errors as RFC 9457 problem documents: what is wrong with the request, for a person and for a program."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lexray.api import Problem
from lexray.errors import RefusedInput

MEDIA_TYPE = "application/problem+json"

_REASONS = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
_TITLES = {
    "malformed_json": "Malformed JSON",
    "not_fits": "Not a FITS file",
    "no_gti": "No good time",
    "bad_gti": "Bad good times",
}


class RefusedRequest(HTTPException):
    """A request that the service refuses.

    It is Starlette's own exception, so that one raised while FastAPI reads a body arrives as it is.

    Parameters
    ----------
    status : int
        HTTP status.
    detail : str
        What is wrong and what to do, for a person.
    reason : str, optional
        A short code; by default the status's.
    headers : mapping, optional
        Headers of the answer, such as ``Retry-After``.
    errors : list of dict, optional
        One entry a wrong field: `field` and `message`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.reason = reason
        self.errors = errors

    def response(self) -> JSONResponse:
        """The answer: a problem document."""
        code = self.reason or _REASONS.get(self.status_code, "error")
        extra: dict[str, Any] = {} if self.errors is None else {"errors": self.errors}
        body = Problem(
            type=f"urn:lexray:problem:{code}",
            title=_TITLES.get(code, code.replace("_", " ").capitalize()),
            status=self.status_code,
            detail=str(self.detail),
            reason=code,
            **extra,
        )
        return JSONResponse(body.model_dump(mode="json"), self.status_code, self.headers, media_type=MEDIA_TYPE)


def add_exception_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    for kind in (HTTPException, RequestValidationError, RefusedInput):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RefusedRequest):
        return error.response()
    if isinstance(error, RequestValidationError):
        return from_validation_errors(error.errors()).response()
    if isinstance(error, RefusedInput):
        return RefusedRequest(422, error.detail, error.reason).response()
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is nothing at {request.url.path}; /openapi.json lists what there is",
        405: f"{request.url.path} does not take {request.method}",
    }.get(error.status_code, str(error.detail))
    return RefusedRequest(error.status_code, detail, headers=error.headers).response()


def internal_error(error: Exception) -> JSONResponse:
    """The answer to an error of ours: it says nothing of its inside, the log says all."""
    logging.getLogger("ray.serve").error("request failed", exc_info=error)
    return RefusedRequest(500, "the service failed at this request; its log says why").response()


def from_validation_errors(errors: Any) -> RefusedRequest:
    """The problem that pydantic's errors amount to. What was sent is not sent back: it may be large, or a secret."""
    errors_by_field = [
        {
            "field": ".".join(str(part) for part in item["loc"] if part != "body"),
            "message": str(item["msg"]).removeprefix("Value error, "),
        }
        for item in errors
    ]
    if any(item["type"] == "json_invalid" for item in errors):
        return RefusedRequest(400, "the body is not valid JSON", "malformed_json", errors=errors_by_field)
    shown = "; ".join(
        f"{item['field']}: {item['message']}" if item["field"] else item["message"] for item in errors_by_field[:5]
    )
    more = f"; and {len(errors_by_field) - 5} more" if len(errors_by_field) > 5 else ""
    return RefusedRequest(422, shown + more, errors=errors_by_field[:20])
