"""SIMBAD and ADS on loopback: a TAP service over SQLite that takes uploads, and a search over JSON.

SIMBAD's has the tables, units and comparison of names that its documents tell; ADS's answers as `openapi/services/` of
adsabs-dev-api says, with its token, its limits and its two kinds of search. Both misbehave as told.
"""

import json
import re
import socketserver
import sqlite3
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.coordinates import angular_separation
from astropy.io.votable import parse_single_table

from doubles.archive_server import Fault, QuietServer, Request, error_document, votable

TOKEN = "s3cr3tTokenOfNobodyAtAll0123456789abcdef"

SCHEMA = """
CREATE TABLE basic (oid INTEGER PRIMARY KEY, main_id TEXT, ra REAL, dec REAL, coo_err_maj REAL, pmra REAL, pmdec REAL,
    pm_err_maj REAL);
CREATE TABLE ident (id TEXT COLLATE SIMBAD, oidref INT);
CREATE TABLE ref (oidbib INTEGER PRIMARY KEY, bibcode TEXT, year INT, title TEXT, abstract TEXT, nbobject INT);
CREATE TABLE has_ref (oidref INT, oidbibref INT, obj_freq INT);
"""


@dataclass
class LiteratureServices:
    """The services' content, their moods, and what they were asked.

    Attributes
    ----------
    limit : int
        Rows that an answer of SIMBAD has at most.
    rows : int
        Papers that an answer of ADS has at most.
    troubles : dict
        By what a request's path and query contain, what befalls it.
    """

    limit: int = 2000
    rows: int = 2000
    url: str = ""
    docs: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    troubles: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    headers: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        database = sqlite3.connect(":memory:", check_same_thread=False)
        database.create_collation(
            "SIMBAD", lambda a, b: (_as_simbad(a) > _as_simbad(b)) - (_as_simbad(a) < _as_simbad(b))
        )
        database.create_function("POINT", 3, lambda _, ra, dec: f"{ra!r} {dec!r}")
        database.create_function("CIRCLE", 4, lambda _, ra, dec, radius: f"{ra!r} {dec!r} {radius!r}")
        database.create_function("CONTAINS", 2, _contains)
        database.execute("PRAGMA automatic_index = OFF")
        database.execute("ATTACH ':memory:' AS TAP_UPLOAD")
        database.executescript(SCHEMA)
        self.database = database

    def add_object(
        self,
        names: list[str],
        ra: float | None,
        dec: float | None,
        *,
        error: float | None = 100.0,
        pm: Any = (None, None),
    ) -> int:
        """An object with its names, position (deg), error (mas) and proper motion (mas/yr)."""
        values = (names[0], ra, dec, error, *pm, None)
        row = self.database.execute(
            "INSERT INTO basic (main_id, ra, dec, coo_err_maj, pmra, pmdec, pm_err_maj) VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        for name in names:
            self.database.execute("INSERT INTO ident VALUES (?, ?)", (name, row.lastrowid))
        assert row.lastrowid is not None
        return row.lastrowid

    def add_paper(
        self,
        bibcode: str,
        title: str | None,
        mentions: dict[int, int],
        *,
        year: int = 2010,
        n_objects: int | None = 3,
        abstract: str | None = None,
    ) -> None:
        """A paper of SIMBAD, and how often it has which object."""
        row = self.database.execute(
            "INSERT INTO ref (bibcode, year, title, abstract, nbobject) VALUES (?, ?, ?, ?, ?)",
            (bibcode, year, title, abstract, n_objects),
        )
        for oid, n in mentions.items():
            self.database.execute("INSERT INTO has_ref VALUES (?, ?, ?)", (oid, row.lastrowid, n))

    def add_doc(self, bibcode: str, title: str, abstract: str | None = None, **more: Any) -> None:
        """A record of ADS."""
        doc = {"bibcode": bibcode, "title": [title], "year": bibcode[:4], "doctype": "article", "citation_count": 0}
        self.docs.append(doc | {"identifier": [bibcode]} | ({"abstract": abstract} if abstract else {}) | more)

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

    def select(self, adql: str, uploads: dict[str, bytes]) -> bytes:
        """A VOTable with the answer to a query, or with what is wrong with it."""
        top = re.match(r"SELECT TOP (\d+) ", adql)
        if top:
            adql = adql.replace(f"TOP {top[1]} ", "", 1) + f" LIMIT {top[1]}"
        with self.lock:
            try:
                for name, content in uploads.items():
                    self._upload(name, content)
                cursor = self.database.execute(adql)
                rows = cursor.fetchall()
            except sqlite3.Error as error:
                return error_document(f"ADQL: {error}\n  in line 1 of the query")
        return votable([item[0] for item in cursor.description], rows[: self.limit], len(rows) > self.limit)

    def _upload(self, name: str, content: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = parse_single_table(BytesIO(content)).to_table()
        self.database.execute(f"DROP TABLE IF EXISTS TAP_UPLOAD.{name}")
        self.database.execute(
            f"CREATE TABLE TAP_UPLOAD.{name} ({', '.join(f'{c} COLLATE SIMBAD' for c in table.colnames)})"
        )
        rows = [[v.item() if isinstance(v, np.generic) else v for v in row] for row in table.iterrows()]
        self.database.executemany(
            f"INSERT INTO TAP_UPLOAD.{name} VALUES ({', '.join('?' * len(table.colnames))})", rows
        )

    def search(self, query: dict[str, str], body: str) -> dict[str, Any]:
        """ADS's answer; raises ValueError where the query is malformed."""
        if query["q"] == "*:*":
            field_name, *wanted = body.split("\n")
            assert field_name == "bibcode"
            found = [doc for doc in self.docs if {doc["bibcode"], *doc["identifier"]} & set(wanted)]
        else:
            if len(query["q"]) > 1000:
                raise ValueError("query too long")
            phrases = _phrases(query["q"])
            found = [doc for doc in self.docs if any(_says(doc, words) for words in phrases)]
        start, rows = int(query["start"]), min(int(query["rows"]), self.rows)
        wanted_fields = query["fl"].split(",")
        page = [{key: doc[key] for key in wanted_fields if key in doc} for doc in found[start : start + rows]]
        header = {"status": 0, "params": {"q": query["q"]}}
        return {"responseHeader": header, "response": {"numFound": len(found), "start": start, "docs": page}}


def _as_simbad(name: str) -> str:
    """SIMBAD compares names without case and blanks, and knows 'NAME ' before a proper one."""
    return re.sub(r"\s+", "", name).casefold().removeprefix("name")


def _contains(point: str, circle: str) -> int:
    if "None" in point:
        return 0
    ra, dec = map(float, point.split())
    ra0, dec0, radius = map(float, circle.split())
    return int(angular_separation(*np.radians([ra, dec, ra0, dec0])) <= np.radians(radius))


def _phrases(query: str) -> list[list[str]]:
    """Words of each phrase of ``abs:"…" OR abs:"…"``."""
    found = re.fullmatch(r'abs:"((?:[^"\\]|\\.)*)"(?: OR abs:"(?:[^"\\]|\\.)*")*', query, re.DOTALL)
    if found is None:
        raise ValueError(f"org.apache.solr.search.SyntaxError: cannot parse {query!r}")
    return [_words(re.sub(r"\\(.)", r"\1", text)) for text in re.findall(r'abs:"((?:[^"\\]|\\.)*)"', query)]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+", text.casefold())


def _says(doc: dict[str, Any], words: list[str]) -> bool:
    """Whether a record has a phrase: words in a row, as an index without punctuation and synonyms finds them."""
    has = _words(" ".join([*doc["title"], doc.get("abstract", ""), *doc.get("keyword", [])]))
    return any(has[i : i + len(words)] == words for i in range(len(has)))


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    services: LiteratureServices

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """GET."""
        self._answer(b"")

    def do_POST(self) -> None:
        """POST of a form, with files, or of a list of bibcodes."""
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        uploads: dict[str, bytes] = {}
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/"):
            form = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=HTTP)
            for item in form.iter_parts():
                name = item.get_param("name", header="content-disposition")
                content = item.get_payload(decode=True)
                if item.get_filename():
                    uploads[name] = content
                else:
                    query[name] = content.decode()
        elif kind.startswith("application/x-www-form-urlencoded"):
            query |= {key: values[0] for key, values in parse_qs(body.decode()).items()}
        sent = {name: content.decode() for name, content in uploads.items()} | (
            {"body": body.decode()} if not uploads else {}
        )
        request = Request(parts.path, {**query, **sent}, dict(self.headers.items()), time.monotonic())
        services = self.services
        with services.lock:
            services.requests.append(request)
        trouble = services.next_trouble(request)
        if trouble is not None and self._befall(trouble, parts.path):
            return
        if parts.path == "/simbad/sync":
            assert query.get("UPLOAD", "") == ";".join(f"{name},param:{name}" for name in uploads)
            self._send(200, services.select(query["QUERY"], uploads), "application/x-votable+xml")
        elif parts.path.startswith("/v1/search/"):
            self._search(parts.path, query, body.decode())
        else:
            self._send(404, b"no such place", "text/plain")

    def _search(self, path: str, query: dict[str, str], body: str) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, json.dumps({"error": "Unauthorized"}).encode(), "application/json")
            return
        if path.endswith("bigquery"):
            assert self.headers["Content-Type"] == "big-query/csv"
        try:
            answer = self.services.search(query, body)
        except ValueError as error:
            self._send(400, json.dumps({"error": {"msg": str(error)}}).encode(), "application/json")
            return
        self._send(200, json.dumps(answer).encode(), "application/json", self.services.headers)

    def _befall(self, trouble: Fault, path: str) -> bool:
        """Do what is to be done; whether that was the answer."""
        if trouble.kind.isdigit():
            more = {"Retry-After": trouble.retry_after} if trouble.retry_after else dict(self.services.headers)
            # A server that tells what it was sent: nothing of it may be passed on.
            said = f"<html>not now, {self.headers.get('Authorization', '')}</html>"
            self._send(int(trouble.kind), said.encode(), "text/html", more)
        elif trouble.kind == "slow":
            time.sleep(trouble.seconds)
            return False
        elif trouble.kind == "page":
            self._send(200, b"<html><body>We are being serviced.</body></html>", "text/html")
        elif trouble.kind == "garbage" and path.startswith("/simbad"):
            self._send(200, votable(["name"], [("NGC",)], cut_off=False)[:-60], "application/x-votable+xml")
        elif trouble.kind == "garbage":
            self._send(200, b'{"response": {"numFound": 1, "docs": [{"bib', "application/json")
        elif trouble.kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        else:
            return False
        return True

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def literature_server() -> Iterator[LiteratureServices]:
    """SIMBAD at ``/simbad`` and ADS at ``/v1``, serving until the block ends."""
    services = LiteratureServices()
    handler = type("BoundHandler", (Handler,), {"services": services})
    server: socketserver.BaseServer = QuietServer(("127.0.0.1", 0), handler)
    services.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
