"""An archive on loopback: a TAP service over SQLite and the catalogue's file service, well-behaved or not as told.

It answers as the TAP standard (REC-TAP-1.0, 1.1) and UWS (REC-UWS-1.0) say, and as the Chandra Source Catalog's file
service does (``browse`` names a product's file as JSON, ``retrieveFile`` gives it, gzipped).
"""

import gzip
import io
import itertools
import json
import os
import re
import socket
import sqlite3
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import numpy as np
from astropy.io import fits

SCHEMA = """
CREATE TABLE csc21.master_source (name TEXT, ra REAL, dec REAL, significance REAL, var_flag INT, likelihood_class TEXT);
CREATE TABLE csc21.master_stack_assoc (name TEXT, detect_stack_id TEXT, region_id INT, match_type TEXT);
CREATE TABLE csc21.stack_source (detect_stack_id TEXT, region_id INT);
CREATE TABLE csc21.stack_observation_assoc (detect_stack_id TEXT, obsid INT, obi INT, region_id INT);
CREATE TABLE csc21.observation_source
    (obsid INT, obi INT, region_id INT, instrument TEXT, theta REAL, livetime REAL);
"""


@dataclass(frozen=True)
class Request:
    """What was asked, and when."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float


@dataclass
class Fault:
    """What to do to a request instead of answering it: each is done once, in order.

    kind is a status ('503'), 'cut' (the connection ends within the body), 'reset' (it is reset), 'slow' (nothing comes
    for a while), 'broken gzip', 'page' (an error page with status 200), or 'garbage' (half a VOTable).
    """

    kind: str
    retry_after: str = ""
    seconds: float = 0.0
    times: int = 1


@dataclass
class Archive:
    """The archive's content, its moods, and what it was asked.

    Attributes
    ----------
    limit : int
        Rows that an answer of the TAP service has at most.
    ranges : bool
        Whether files can be continued.
    phases : list of str
        That a query of the TAP service goes through, one further each time that somebody looks.
    renamed : dict
        What the file service says instead of a file's name.
    troubles : dict
        By what a request's path and query contain, what befalls it.
    """

    limit: int = 1000
    ranges: bool = True
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    troubles: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))
    renamed: dict[str, str] = field(default_factory=dict)
    phases: list[str] = field(default_factory=lambda: ["COMPLETED"])
    jobs: dict[str, dict[str, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("ATTACH ':memory:' AS csc21")
        self.database.executescript(SCHEMA)

    def add_source(
        self,
        name: str,
        ra: float,
        dec: float,
        observations: list[tuple[int, int]],
        instrument: str = "ACIS",
        match_type: str = "u",
        n_rows: int = 2000,
    ) -> None:
        """A source with a detection (obsid, region) in each of some observations, and its files."""
        insert = self.database.execute
        insert("INSERT INTO csc21.master_source VALUES (?, ?, ?, ?, ?, ?)", (name, ra, dec, 7.5, 1, "TRUE"))
        for obsid, region in observations:
            stack = f"acisfJ{obsid}_001"
            insert("INSERT INTO csc21.master_stack_assoc VALUES (?, ?, ?, ?)", (name, stack, region, match_type))
            insert("INSERT INTO csc21.stack_source VALUES (?, ?)", (stack, region))
            insert("INSERT INTO csc21.stack_observation_assoc VALUES (?, ?, 0, ?)", (stack, obsid, region))
            row = (obsid, region, instrument, 3.0, 1e4)
            insert("INSERT INTO csc21.observation_source VALUES (?, 0, ?, ?, ?, ?)", row)
            for product in ("regevt3", "reg3", "arf3"):
                file = f"acisf{obsid:05d}_000N028_r{region:04d}_{product}.fits"
                self.files[file] = gzip.compress(fits_file(obsid * 10_000 + region, n_rows), mtime=0)

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

    def select(self, adql: str, maxrec: int | None) -> bytes:
        """A VOTable with the answer to a query, or with what is wrong with it."""
        words = re.sub(r"\s+", " ", adql.strip())
        top = re.search(r"^SELECT (?:DISTINCT )?TOP (\d+) ", words, re.IGNORECASE)
        if top:
            words = words.replace(f"TOP {top[1]} ", "", 1) + f" LIMIT {top[1]}"
        try:
            with self.lock:
                cursor = self.database.execute(words)
                rows = cursor.fetchall()
        except sqlite3.Error as error:
            return error_document(f"ADQL: {error}\n  in line 1 of the query")
        limit = min(self.limit, maxrec or self.limit)
        return votable([item[0] for item in cursor.description], rows[:limit], len(rows) > limit)


def fits_file(seed: int, n_rows: int) -> bytes:
    """A FITS file with a table of random numbers, which gzip cannot make small."""
    values = np.random.default_rng(seed).uniform(size=n_rows)
    column = fits.Column(name="time", format="D", array=values)
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column], name="EVENTS")]).writeto(buffer)
    return buffer.getvalue()


UNITS = {"ra": "deg", "dec": "deg", "theta": "arcmin", "livetime": "s"}


def votable(names: list[str], rows: list[tuple[Any, ...]], cut_off: bool) -> bytes:
    """A VOTable (1.3) as a TAP service gives it."""
    kinds = []
    for i in range(len(names)):
        values = [row[i] for row in rows if row[i] is not None]
        if any(isinstance(v, str) for v in values):
            kinds.append('datatype="char" arraysize="*"')
        elif values and all(isinstance(v, int) for v in values):
            kinds.append('datatype="long"')
        else:
            kinds.append('datatype="double"')
    fields = "".join(
        f'<FIELD name="{name}" {kind} unit="{UNITS.get(name, "")}"><DESCRIPTION>the {name}</DESCRIPTION></FIELD>'
        for name, kind in zip(names, kinds, strict=True)
    )
    cells = "".join(
        "<TR>" + "".join(f"<TD>{'' if v is None else escape(str(v))}</TD>" for v in row) + "</TR>" for row in rows
    )
    # What was cut off says OVERFLOW behind the table (TAP 1.0, section 2.9), since only then it is known.
    before, behind = ("", _info("OVERFLOW")) if cut_off else (_info("OK"), "")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
        f"{before}<TABLE>{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE>{behind}</RESOURCE></VOTABLE>"
    ).encode()


def _info(status: str) -> str:
    return f'<INFO name="QUERY_STATUS" value="{status}"/>'


def error_document(message: str) -> bytes:
    """What a TAP service says of a query that it cannot run."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
        f'<INFO name="QUERY_STATUS" value="ERROR">{escape(message)}</INFO></RESOURCE></VOTABLE>'
    ).encode()


UWS = 'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'


class QuietServer(ThreadingHTTPServer):
    """Clients that go away, or are thrown out, are part of the plan."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    archive: Archive

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """GET."""
        self._answer({})

    def do_DELETE(self) -> None:
        """DELETE of a UWS job."""
        self._answer({})

    def do_POST(self) -> None:
        """POST of a form."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self._answer({key: values[0] for key, values in parse_qs(body).items()})

    def _answer(self, form: dict[str, str]) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()} | form
        request = Request(parts.path, query, dict(self.headers.items()), time.monotonic())
        with self.archive.lock:
            self.archive.requests.append(request)
        trouble = self.archive.next_trouble(request)
        if trouble is not None and self._befall(trouble):
            return
        if parts.path.startswith("/tap/"):
            self._tap(parts.path.removeprefix("/tap/"), query, trouble)
        elif parts.path == "/files/browse":
            self._browse(query)
        elif parts.path == "/files/retrieveFile":
            self._file(query, trouble)
        else:
            self._send(404, b"no such place", "text/plain")

    def _befall(self, trouble: Fault) -> bool:
        """Do what is to be done; whether that was the answer."""
        if trouble.kind.isdigit():
            more = {"Retry-After": trouble.retry_after} if trouble.retry_after else {}
            self._send(int(trouble.kind), b"<html>not now</html>", "text/html", more)
        elif trouble.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once, though the handler's files still hold it
            self.close_connection = True
        elif trouble.kind == "slow":
            time.sleep(trouble.seconds)
            return False
        elif trouble.kind == "page":
            self._send(200, b"<html><body>The archive is being serviced.</body></html>", "text/html")
        elif trouble.kind == "garbage":
            self._send(200, votable(["name"], [("2CXO",)], cut_off=False)[:-60], "application/x-votable+xml")
        else:
            return False
        return True

    def _send(self, status: int, body: bytes, content_type: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _tap(self, path: str, query: dict[str, str], trouble: Fault | None) -> None:
        archive, kind = self.archive, "application/x-votable+xml"
        if path == "sync":
            maxrec = int(query["MAXREC"]) if "MAXREC" in query else None
            self._send(200, archive.select(query["QUERY"], maxrec), kind)
            return
        if path == "async":
            job_id = str(len(archive.jobs) + 1)
            archive.jobs[job_id] = {**query, "phase": "PENDING"}
            self._send(303, b"", "text/plain", {"Location": f"{archive.url}/tap/async/{job_id}"})
            return
        job_id, _, rest = path.removeprefix("async/").partition("/")
        job = archive.jobs[job_id]
        if self.command == "DELETE":
            del archive.jobs[job_id]
            self._send(200, b"", "text/plain")
        elif rest == "phase" and query.get("PHASE") == "RUN":
            job["phase"] = archive.phases[0]
            self._send(200, b"", "text/plain")
        elif rest == "results/result":
            self._send(200, archive.select(job["QUERY"], int(job.get("MAXREC", 10**9))), kind)
        else:
            following = dict(itertools.pairwise(archive.phases))
            job["phase"] = following.get(job["phase"], job["phase"])
            error = archive.select(job["QUERY"], None) if job["phase"] == "COMPLETED" else b""
            summary = ""
            if b'value="ERROR"' in error:
                job["phase"] = "ERROR"
                message = re.search(rb'value="ERROR">(.*?)</INFO>', error, re.DOTALL)
                assert message
                summary = (
                    '<uws:errorSummary type="fatal" hasDetail="false"><uws:message>'
                    f"{message[1].decode()}</uws:message></uws:errorSummary>"
                )
            href = f"{archive.url}/tap/async/{job_id}/results/result"
            body = (
                f'<?xml version="1.0" encoding="UTF-8"?><uws:job {UWS}><uws:jobId>{job_id}</uws:jobId>'
                f"<uws:phase>{job['phase']}</uws:phase><uws:executionDuration>600</uws:executionDuration>"
                f'<uws:parameters/><uws:results><uws:result id="result" xlink:href="{href}"/></uws:results>{summary}'
                "</uws:job>"
            )
            self._send(200, body.encode(), "text/xml")

    def _browse(self, query: dict[str, str]) -> None:
        place, filetype, _ = query["packageset"].split("/")
        obsid, _, region = (int(number) for number in place.split("."))
        ending = {"regevt3": "regevt3", "srcreg": "reg3", "arf": "arf3"}[filetype]
        name = f"acisf{obsid:05d}_000N028_r{region:04d}_{ending}.fits"
        name = self.archive.renamed.get(name, name)
        found = [{"filename": name, "filetype": filetype}] if name in self.archive.files else []
        self._send(200, json.dumps(found).encode(), "application/json")

    def _file(self, query: dict[str, str], trouble: Fault | None) -> None:
        name = query["filename"]
        if name not in self.archive.files:
            self._send(404, b"no such file", "text/plain")
            return
        content = self.archive.files[name]
        etag = f'"{name}-{self.archive.versions[name]}"'
        if trouble is not None and trouble.kind == "broken gzip":
            content = content[: len(content) // 2] + b"\xff" * (len(content) - len(content) // 2)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start, status, more = 0, 200, {"ETag": etag, "Last-Modified": formatdate(0, usegmt=True)}
        if asked and self.archive.ranges and self.headers.get("If-Range", etag) == etag:
            start, status = int(asked[1]), 206
            more["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if start >= len(content):
                self._send(416, b"", "text/plain", {"Content-Range": f"bytes */{len(content)}"})
                return
        if trouble is not None and trouble.kind == "cut":
            self.send_response(status)
            for key, value in {**more, "Content-Length": str(len(content) - start)}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
            return
        self._send(status, content[start:], "application/octet-stream", more)


@contextmanager
def archive_server() -> Iterator[Archive]:
    """An archive, serving until the block ends."""
    archive = Archive()
    handler = type("BoundHandler", (Handler,), {"archive": archive})
    server = QuietServer(("127.0.0.1", 0), handler)
    archive.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()


def downloaded(folder: Path) -> dict[str, bytes]:
    """Files below a folder by name, without the ``.gz`` behind it."""
    return {path.name.removesuffix(".gz"): path.read_bytes() for path in folder.rglob("*.fits*")}
