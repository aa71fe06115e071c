"""SIMBAD and ADS on loopback: a TAP service over SQLite that takes uploads, and a search over JSON.

SIMBAD's has the tables, units and comparison of names that its documents tell; ADS's answers as `openapi/services/` of
adsabs-dev-api says, with its token, its limits and its two kinds of search. Both misbehave as told.
"""

import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from io import BytesIO
from typing import Any

import numpy as np
from astropy.coordinates import angular_separation
from astropy.io.votable import parse_single_table

from doubles.archive_server import VOTABLE, error_document, votable
from doubles.loopback import Fault, Handler, QueriedService, form, serve

TOKEN = "s3cr3tTokenOfNobodyAtAll0123456789abcdef"

SCHEMA = """
CREATE TABLE basic (oid INTEGER PRIMARY KEY, main_id TEXT, ra REAL, dec REAL, coo_err_maj REAL, pmra REAL, pmdec REAL,
    pm_err_maj REAL);
CREATE TABLE ident (id TEXT COLLATE SIMBAD, oidref INT);
CREATE TABLE ref (oidbib INTEGER PRIMARY KEY, bibcode TEXT, year INT, title TEXT, abstract TEXT, nbobject INT);
CREATE TABLE has_ref (oidref INT, oidbibref INT, obj_freq INT);
"""


@dataclass
class LiteratureServices(QueriedService):
    """The services' content, their moods, and what they were asked.

    Attributes
    ----------
    limit : int
        Rows that an answer of SIMBAD has at most.
    rows : int
        Papers that an answer of ADS has at most.
    """

    limit: int = 2000
    rows: int = 2000
    docs: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

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


class LiteratureHandler(Handler):
    """Answers one connection."""

    service: LiteratureServices

    def answer(self, body: bytes) -> None:
        """Answer of either service: to a query, a form, a form with files, or a list of bibcodes."""
        path, query = self.address()
        uploads: dict[str, bytes] = {}
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/"):
            parts = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=HTTP)
            for item in parts.iter_parts():
                name = item.get_param("name", header="content-disposition")
                content = item.get_payload(decode=True)
                if item.get_filename():
                    uploads[name] = content
                else:
                    query[name] = content.decode()
        elif kind.startswith("application/x-www-form-urlencoded"):
            query |= form(body.decode())
        sent = {name: content.decode() for name, content in uploads.items()} | (
            {"body": body.decode()} if not uploads else {}
        )
        request = self.received(path, {**query, **sent})
        self.service.remember(request)
        trouble = self.service.next_trouble(request)
        if trouble is not None and self._befall(trouble, path):
            return
        if path == "/simbad/sync":
            assert query.get("UPLOAD", "") == ";".join(f"{name},param:{name}" for name in uploads)
            self.send(200, self.service.select(query["QUERY"], uploads), VOTABLE)
        elif path.startswith("/v1/search/"):
            self._search(path, query, body.decode())
        else:
            self.send(404, b"no such place", "text/plain")

    def _search(self, path: str, query: dict[str, str], body: str) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_json(401, {"error": "Unauthorized"})
            return
        if path.endswith("bigquery"):
            assert self.headers["Content-Type"] == "big-query/csv"
        try:
            answer = self.service.search(query, body)
        except ValueError as error:
            self.send_json(400, {"error": {"msg": str(error)}})
            return
        self.send_json(200, answer, self.service.headers)

    def _befall(self, trouble: Fault, path: str) -> bool:
        """Do what is to be done; whether that was the answer."""
        if trouble.kind == "garbage" and path.startswith("/simbad"):
            self.send(200, votable(["name"], [("NGC",)], cut_off=False)[:-60], VOTABLE)
        elif trouble.kind == "garbage":
            self.send(200, b'{"response": {"numFound": 1, "docs": [{"bib', "application/json")
        elif trouble.kind == "cut":
            self.send(200, b"{" + b" " * 999, "application/json", cut=True)
        else:
            # A server that tells what it was sent: nothing of it may be passed on.
            told = f"<html>not now, {self.headers.get('Authorization', '')}</html>"
            return self.befall(trouble, told.encode(), more=self.service.headers)
        return True


@contextmanager
def literature_server() -> Iterator[LiteratureServices]:
    """SIMBAD at ``/simbad`` and ADS at ``/v1``, serving until the block ends."""
    with serve(LiteratureServices(), LiteratureHandler) as services:
        yield services
