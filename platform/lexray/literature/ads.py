"""Papers from the Astrophysics Data System of NASA: texts of known papers, and papers that name a source.

Its search interface (https://github.com/adsabs/adsabs-dev-api, `openapi/services/solr.yaml`): ``/search/query`` takes a
query and gives its papers page by page; ``/search/bigquery`` takes any number of bibcodes, a hundred times a day.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import httpx
from pydantic import Field

from lexray.errors import ConfigError, LexrayError, one_line
from lexray.literature.connectors import FoundPapers, PaperMatch
from lexray.literature.crossmatch import Match
from lexray.literature.names import name_pattern, searchable_names
from lexray.literature.papers import Paper
from lexray.literature.plaintext import plain_text
from lexray.literature.sources import TargetSource
from lexray.runtime.config import BaseConfig
from lexray.tables.quarantine import Refusal
from lexray.web import retry
from lexray.web.cache import Cache

_FIELDS = "bibcode,title,abstract,year,citation_count,identifier,keyword,doctype"
#: Record types of ADS that are no papers.
_NON_PAPER_TYPES = frozenset(
    {
        "catalog",
        "dataset",
        "editorial",
        "erratum",
        "instrument",
        "newsletter",
        "obituary",
        "pressrelease",
        "proposal",
        "service",
        "software",
    }
)
#: Characters that a query may have (adsabs-dev-api, `search.md`).
_MAX_QUERY_CHARACTERS = 1000
_BIGQUERY_PARAMETERS = {"q": "*:*", "fq": "{!bitset}", "sort": "bibcode asc"}
#: ADS's own "server too busy", besides HTTP's transient errors.
_RETRYABLE_STATUS = retry.TRANSIENT | {499}

Doc = dict[str, Any]


class AdsConfig(BaseConfig):
    """How ADS is asked."""

    url: str = Field("https://api.adsabs.harvard.edu/v1", description="its API")
    token_env: list[str] = Field(
        ["ADS_API_TOKEN", "ADS_DEV_KEY"],
        min_length=1,
        description="environment variables that may hold the token of your account; the first that is set counts",
    )
    by_name: bool = Field(True, description="look for papers that name a source; else only complete those of SIMBAD")
    names: int = Field(3, ge=1, le=20, description="names of a source that are looked for")
    most: int = Field(500, ge=1, description="papers that one name brings at most, the best fitting first")
    rows: int = Field(2000, ge=1, le=2000, description="papers in one answer")
    http: retry.RetryPolicy = retry.RetryPolicy(requests_per_second=2.0)


class _BadQuery(Exception):
    """The service understands the request and refuses it."""


class AdsConnector:
    """Papers of ADS.

    Parameters
    ----------
    config : AdsConfig
    cache : Cache
    warn : callable, optional
        Called with a line for each request that is repeated.

    Raises
    ------
    ConfigError
        If no token is set.
    """

    def __init__(self, config: AdsConfig, cache: Cache, warn: Callable[[str], None] = lambda line: None) -> None:
        self._config, self._cache = config, cache
        self._url = config.url.rstrip("/")
        self._counts: Counter[str] = Counter()
        self._rate_limiter = retry.RateLimiter(config.http.requests_per_second)
        self._retrier = retry.Retrier(config.http, self._rate_limiter, lambda line: warn(f"{self._url}: {line}"))
        self._token_name, self._token = _token(config.token_env)
        self._http = httpx.Client(
            # No redirects: the token is for this server alone.
            headers={"User-Agent": retry.USER_AGENT, "Authorization": f"Bearer {self._token}"},
            timeout=config.http.timeout,
        )

    def counts(self) -> dict[str, int]:
        """What was done so far."""
        names = ("completed", "unknown_bibcodes", "names", "papers", "not_naming", "requests")
        return {name: self._counts[name] for name in names} | {"retries": self._retrier.retries}

    def papers(self, sources: Sequence[TargetSource], known: Sequence[PaperMatch] = ()) -> FoundPapers:
        """The papers of `known` with their texts, and papers that name the sources; see `connectors.Connector`.

        Raises
        ------
        LexrayError
            If the service does not answer, or does not know the token.
        """
        yield from self._completed(known)
        if self._config.by_name:
            yield from self._naming(sources, known)

    # Papers that are known ------------------------------------------------------------------------------------------

    def _completed(self, known: Sequence[PaperMatch]) -> Iterator[PaperMatch]:
        docs = self._docs(dict.fromkeys(found.paper.bibcode for found in known if found.paper.bibcode))
        for found in known:
            if doc := docs.get(found.paper.bibcode or ""):
                self._counts["completed"] += 1
                yield PaperMatch(_paper(doc, found.match, found.paper.bibcode), found.match, "ads")

    def _docs(self, bibcodes: Collection[str]) -> dict[str, Doc]:
        """Records by the bibcode that was asked for; it may be an older one of the paper's."""
        kept = {
            b: json.loads(body) for b in bibcodes if (body := self._cache.get(*self._key("bibcode", b))) is not None
        }
        docs: dict[str, Doc] = {bibcode: doc for bibcode, doc in kept.items() if doc is not None}
        missing = [bibcode for bibcode in bibcodes if bibcode not in kept]
        for first in range(0, len(missing), self._config.rows):
            some = missing[first : first + self._config.rows]
            came = self._by_bibcode(some)
            # That it has no such paper is an answer, too.
            self._cache.put_all((json.dumps(came.get(b)).encode(), self._key("bibcode", b)) for b in some)
            self._counts["unknown_bibcodes"] += len(some) - len(came)
            docs |= came
        return docs

    def _key(self, *asked: Any) -> tuple[Any, ...]:
        return ("ads", self._url, _FIELDS, *asked)

    def _by_bibcode(self, bibcodes: Sequence[str]) -> dict[str, Doc]:
        asked = set(bibcodes)
        try:
            found, _ = self._search(
                "bigquery", _BIGQUERY_PARAMETERS, "\n".join(["bibcode", *bibcodes]), 2 * len(bibcodes)
            )
        except _BadQuery as error:
            raise LexrayError(f"{self._url}/search/bigquery refuses a list of bibcodes: {error}") from None
        return {name: doc for doc in found for name in {doc["bibcode"], *doc["identifier"]} & asked}

    # Papers that name a source --------------------------------------------------------------------------------------

    def _naming(self, sources: Sequence[TargetSource], known: Sequence[PaperMatch]) -> FoundPapers:
        matches = {found.match.source_id: found.match for found in known if found.match.matched_by}
        names: dict[str, list[Match]] = {}
        for source in sources:
            match = matches.get(source.source_id) or Match(
                source.source_id, "name", None, error_source=source.error, identifiers=(source.source_id,)
            )
            for name in searchable_names([source.source_id, *match.identifiers], self._config.names):
                names.setdefault(name, []).append(match)
        self._counts["names"] += len(names)
        unasked = []
        for name in names:
            kept = self._cache.get(*self._key("abs", name, self._config.most))
            if kept is None:
                unasked.append(name)
            else:
                yield from self._matches(json.loads(kept), names[name])
        for some in _group_names(unasked):
            for name, docs in self._by_name(some):
                if isinstance(docs, Refusal):
                    yield from (Refusal(match.source_id, docs.reason, docs.detail) for match in names[name])
                else:
                    self._cache.put(json.dumps(docs).encode(), *self._key("abs", name, self._config.most))
                    yield from self._matches(docs, names[name])

    def _matches(self, docs: Sequence[Doc], matches: Sequence[Match]) -> Iterator[PaperMatch]:
        self._counts["papers"] += len(matches) * len(docs)
        return (PaperMatch(_paper(doc, match, doc["bibcode"]), match, "ads") for match in matches for doc in docs)

    def _by_name(self, names: Sequence[str]) -> Iterator[tuple[str, list[Doc] | Refusal]]:
        """Papers that have each of some names in title, abstract or keywords; too many names are halved.

        The service searches by words and their synonyms, so whether a paper really has the name is checked here.
        """
        query = " OR ".join(f"abs:{quote_phrase(name)}" for name in names)
        most = self._config.most if len(names) == 1 else self._config.rows
        parameters = {"q": query, "fq": "database:astronomy", "sort": "score desc, bibcode desc"}
        try:
            docs, n_found = self._search("query", parameters, None, most)
        except _BadQuery as error:
            if len(names) == 1:
                yield names[0], Refusal(names[0], "ads_query_refused", f"the search for {names[0]!r}: {error}")
                return
            docs, n_found = [], most + 1
        if n_found > most and len(names) > 1:
            middle = len(names) // 2
            yield from self._by_name(names[:middle])
            yield from self._by_name(names[middle:])
            return
        texts = [" \n ".join([d["title"] or "", d["abstract"] or "", *d["keyword"]]) for d in docs]
        naming = set()
        for name in names:
            expression = name_pattern([name])
            has = [i for i, text in enumerate(texts) if expression is not None and expression.search(text)]
            naming |= set(has)
            yield name, [docs[i] for i in has if docs[i]["doctype"] not in _NON_PAPER_TYPES][: self._config.most]
        self._counts["not_naming"] += len(docs) - len(naming)

    # Asking ---------------------------------------------------------------------------------------------------------

    def _search(self, place: str, parameters: dict[str, str], body: str | None, most: int) -> tuple[list[Doc], int]:
        """Records of a search, up to `most`, and how many there are."""
        docs: list[Doc] = []
        while True:
            page = {**parameters, "fl": _FIELDS, "start": str(len(docs)), "rows": str(self._config.rows)}
            response = self._request(place, page, body)
            docs += [_record(doc) for doc in response["docs"]]
            n_found = int(response["numFound"])
            if len(docs) >= min(n_found, most) or not response["docs"]:
                return docs[:most], n_found

    def _request(self, place: str, parameters: dict[str, str], body: str | None) -> Doc:
        """The `response` of an answer, after as many retries as it needs."""
        url = f"{self._url}/search/{place}"
        try:
            return self._retrier.with_retries_blocking(lambda: self._ask(url, parameters, body))
        except retry.OutOfRetries as error:
            asked = error.failure.asked
            later = f"; it asks to come back in {asked:.0f} s" if asked else ""
            raise LexrayError(
                f"{url} does not answer (asked {error.attempts} times): {error.failure.detail}{later}; "
                "run again later, what has come is kept"
            ) from None

    def _ask(self, url: str, parameters: dict[str, str], body: str | None) -> Doc:
        self._rate_limiter.acquire_blocking()
        self._counts["requests"] += 1
        asked = None
        try:
            if body is None:
                answer = self._http.get(url, params=parameters)
            else:
                answer = self._http.post(
                    url, params=parameters, content=body.encode(), headers={"Content-Type": "big-query/csv"}
                )
            if answer.is_success:
                return _check_response(answer)
            asked = _retry_after(answer)
            self._raise_if_unavailable(answer)
            failure = f"{answer.status_code} {answer.reason_phrase}".strip()
        except httpx.TimeoutException:
            failure = f"no answer within {self._config.http.timeout:g} s"
        except httpx.TransportError as error:
            failure = self._clean(one_line(error))
        except ValueError as error:
            failure = f"the answer is none of a search: {self._clean(str(error))}"
        raise retry.Retryable("no_answer", failure, asked)

    def _raise_if_unavailable(self, answer: httpx.Response) -> None:
        if answer.status_code in (401, 403):
            raise LexrayError(
                f"{self._url} does not accept the token ({answer.status_code}): set {self._token_name} to the API "
                "token of your ADS account's settings"
            )
        if answer.status_code not in _RETRYABLE_STATUS:
            words = self._clean(" ".join(answer.text.split()))[:160]
            if answer.status_code == 400:
                raise _BadQuery(words)
            raise LexrayError(f"{answer.url.copy_with(query=None)}: {answer.status_code}: {words}")

    def _clean(self, text: str) -> str:
        """A text that came from a server, without the token."""
        return " ".join(text.split()).replace(self._token, "…")


def quote_phrase(text: str) -> str:
    """A phrase of the query language: no text can end it early.

    Inside quotes Solr's parser knows the backslash and the quote only; control characters are no part of a name.
    """
    visible = "".join(c if c.isprintable() else " " for c in text)
    return '"' + visible.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _token(names: Sequence[str]) -> tuple[str, str]:
    """The first variable that is set, and its token."""
    for name in names:
        token = os.environ.get(name, "").strip()
        if token:
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigError(f"ads: {name} holds no token: it has blanks or characters that are not ASCII")
            return name, token
    raise ConfigError(
        f"ads: no token: set {' or '.join(names)} to the API token of your ADS account's settings, "
        "or leave 'ads' out of connectors"
    )


def _group_names(names: Sequence[str]) -> Iterator[list[str]]:
    """Names in groups that one query can hold."""
    group: list[str] = []
    length = 0
    for name in names:
        more = len(f"abs:{quote_phrase(name)} OR ")
        if group and length + more > _MAX_QUERY_CHARACTERS:
            yield group
            group, length = [], 0
        group.append(name)
        length += more
    if group:
        yield group


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds that the service asks to wait: by ``Retry-After``, or until its count of the day begins anew."""
    asked = retry.retry_after(answer.headers)
    if asked is None and answer.status_code == 429 and answer.headers.get("X-RateLimit-Reset", "").isdigit():
        asked = max(0.0, float(answer.headers["X-RateLimit-Reset"]) - time.time())
    return asked


def _check_response(answer: httpx.Response) -> Doc:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        words = " ".join(answer.text.split())[:80]
        raise ValueError(f"not JSON but {words!r}") from None
    response = found.get("response") if isinstance(found, dict) else None
    if not isinstance(response, dict) or not isinstance(response.get("numFound"), int):
        raise ValueError("it has no 'response' with a 'numFound'")
    docs = response.get("docs")
    if not isinstance(docs, list) or not all(isinstance(d, dict) and isinstance(d.get("bibcode"), str) for d in docs):
        raise ValueError("its 'docs' are no papers with bibcodes")
    return response


def _record(doc: Doc) -> Doc:
    """The fields of a paper that are kept, with certain types."""
    year = str(doc.get("year") or "")
    citations = doc.get("citation_count")
    return {
        "bibcode": doc["bibcode"].strip(),
        "title": plain_text(" ".join(_texts(doc.get("title")))),
        "abstract": plain_text(" ".join(_texts(doc.get("abstract")))),
        "year": int(year) if year.isdecimal() and len(year) == 4 else None,
        "citation_count": citations if isinstance(citations, int) and 0 <= citations < 2**31 else None,
        "identifier": _texts(doc.get("identifier")),
        "keyword": _texts(doc.get("keyword")),
        "doctype": str(doc.get("doctype") or ""),
    }


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text.encode("utf-8", "replace").decode() for text in values if isinstance(text, str)]


def _paper(doc: Doc, match: Match, bibcode: str | None) -> Paper:
    numbers = (text.partition(":")[2] for text in doc["identifier"] if text.lower().startswith("arxiv:"))
    return Paper(
        source_id=match.source_id,
        bibcode=bibcode,
        arxiv=next(numbers, None),
        year=doc["year"],
        title=doc["title"],
        abstract=doc["abstract"],
        n_citations=doc["citation_count"],
    )
