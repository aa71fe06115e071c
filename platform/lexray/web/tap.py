"""Queries to a TAP service, with errors that a person can read.

The Table Access Protocol is IVOA's (Dowler et al. 2010, REC-TAP-1.0; 2019, REC-TAP-1.1). An answer that the service cut
off says so in an INFO element, QUERY_STATUS = OVERFLOW, and looks complete otherwise.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import requests
from astropy.table import Table
from pyvo.dal import DALAccessError, DALFormatError, DALQueryError, DALServiceError, TAPService
from pyvo.dal.exceptions import DALRateLimitError
from urllib3.exceptions import HTTPError

from lexray.errors import LexrayError, one_line
from lexray.web import retry

#: Characters of a service's complaint that are told.
_LINE = 300
#: A connection that broke, before the answer or within it.
_LOST = (HTTPError, requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class QueryRefused(LexrayError):
    """The service says that it cannot run this query; another one it may."""


class NoTable(LexrayError):
    """The service's answer to this query is no VOTable, or half of one."""


@dataclass(frozen=True)
class TapResponse:
    """Rows of a query.

    Attributes
    ----------
    rows : pyarrow.Table
        Null where the service has no value; units and meanings in the fields' metadata.
    cut_off : bool
        Whether the service has more than it gave.
    """

    rows: pa.Table
    cut_off: bool


class _Session(requests.Session):
    """A session that names us, keeps to the rate limit and never waits for ever."""

    def __init__(self, policy: retry.RetryPolicy) -> None:
        super().__init__()
        self.headers["User-Agent"] = retry.USER_AGENT
        self._timeout, self.rate_limiter = policy.timeout, retry.RateLimiter(policy.requests_per_second)
        self.made = 0

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.rate_limiter.acquire_blocking()
        self.made += 1
        kwargs["timeout"] = kwargs.get("timeout") or self._timeout
        return super().request(*args, **kwargs)


class Tap:
    """A TAP service.

    Parameters
    ----------
    url : str
        Base URL, to which ``/sync`` and ``/async`` belong.
    policy : RetryPolicy
    mode : {'sync', 'async'}
        Whether to wait for answers on the line, or to leave the query with the service and look in again.
    maxrec : int, optional
        Rows to ask for; the service's own limit where None.
    warn : callable, optional
        Told about each try that has to be repeated.

    Attributes
    ----------
    session : requests.Session
        Its `made` counts the requests so far, repeated ones included.
    """

    def __init__(
        self,
        url: str,
        policy: retry.RetryPolicy,
        mode: Literal["sync", "async"] = "sync",
        maxrec: int | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.url = url.rstrip("/")
        self._mode, self._maxrec = mode, maxrec
        self.session = _Session(policy)
        self._service = TAPService(self.url, session=self.session)
        self._retrier = retry.Retrier(policy, self.session.rate_limiter, lambda line: warn(f"{self.url}: {line}"))

    def query(self, adql: str, uploads: Mapping[str, Table] | None = None) -> TapResponse:
        """Rows of one query.

        Parameters
        ----------
        adql : str
        uploads : mapping, optional
            Tables to send along; the query calls each ``TAP_UPLOAD.NAME`` (TAP 1.1, section 2.5).

        Raises
        ------
        QueryRefused
            What the service says is wrong with the query, in one line.
        NoTable
            Its answer is no VOTable.
        LexrayError
            It does not answer.
        """
        try:
            return self._retrier.with_retries_blocking(lambda: self._ask(adql, uploads))
        except retry.OutOfRetries as error:
            asked = error.failure.asked
            asked_for = f", and asks to come back in {asked:.0f} s" if asked else ""
            reason = error.failure.detail.removeprefix(f"{self.url}: ")
            raise LexrayError(
                f"{self.url} does not answer (asked {error.attempts} times{asked_for}): {reason}"
            ) from None

    def _ask(self, adql: str, uploads: Mapping[str, Table] | None) -> TapResponse:
        try:
            return self._run(adql, uploads)
        except DALQueryError as error:
            raise QueryRefused(f"{self.url} refuses the query: {_one_line(error)}") from None
        except (DALAccessError, requests.RequestException, HTTPError) as error:
            code, asked = _status(error)
            lost = isinstance(getattr(error, "cause", error), _LOST)
            unanswered = lost or (isinstance(error, DALServiceError) and error.code == 0)
            if not (unanswered if code is None else code in retry.TRANSIENT):
                kind = NoTable if isinstance(error, DALFormatError) else LexrayError
                raise kind(f"{self.url}: {_explained(error)}") from None
            raise retry.Retryable("no_answer", _explained(error), asked) from None

    def _run(self, adql: str, uploads: Mapping[str, Table] | None) -> TapResponse:
        with warnings.catch_warnings():
            # Archives' VOTables are full of small offences against the standard that harm nothing here, and whether an
            # answer was cut off its status says.
            warnings.simplefilter("ignore")
            run = self._service.run_sync if self._mode == "sync" else self._service.run_async
            result = run(adql, maxrec=self._maxrec, uploads=dict(uploads or {}))
            return TapResponse(_arrow(result.to_table()), str(result.query_status).upper() == "OVERFLOW")


def quoted(text: str) -> str:
    """A string literal of ADQL: no text can end it early (ADQL 2.0, section 2.1.1)."""
    return "'" + text.replace("'", "''") + "'"


def _arrow(table: Table) -> pa.Table:
    columns, fields = [], []
    for column in table.itercols():
        if column.ndim != 1:
            continue  # a label is one value a source
        mask = np.asarray(getattr(column, "mask", np.zeros(len(column), dtype=bool)))
        values = np.asarray(column)
        if values.dtype.kind in "biuf":
            mask = mask | (np.isnan(values) if values.dtype.kind == "f" else False)
            array = pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)
        else:
            array = pa.array((None if m else _text(v) for v, m in zip(values, mask, strict=True)), pa.string())
        metadata = {"unit": str(column.unit or ""), "meaning": " ".join(str(column.description or "").split())}
        fields.append(pa.field(column.name, array.type, metadata={k: v for k, v in metadata.items() if v} or None))
        columns.append(array)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _text(value: Any) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()


def _status(error: BaseException) -> tuple[int | None, float | None]:
    """HTTP status behind an error, and the wait that the service asked for."""
    if isinstance(error, DALRateLimitError):
        return 429, error.retry_after_seconds
    response = getattr(getattr(error, "cause", error), "response", None)
    return (None, None) if response is None else (response.status_code, retry.retry_after(response.headers))


def _explained(error: BaseException) -> str:
    return ("the answer is no VOTable: " if isinstance(error, DALFormatError) else "") + _one_line(error)


def _one_line(error: BaseException) -> str:
    line = one_line(error)
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"
