"""An archive on loopback: a TAP service over SQLite and the catalogue's file service, well-behaved or not as told.

It answers as the TAP standard (REC-TAP-1.0, 1.1) and UWS (REC-UWS-1.0) say, and as the Chandra Source Catalog's file
service does (``browse`` names a product's file as JSON, ``retrieveFile`` gives it, gzipped).
"""

import gzip
import io
import itertools
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from astropy.io import fits

from doubles.loopback import Fault, Handler, QueriedService, form, serve

SCHEMA = """
CREATE TABLE csc21.master_source (name TEXT, ra REAL, dec REAL, significance REAL, var_flag INT, likelihood_class TEXT);
CREATE TABLE csc21.master_stack_assoc (name TEXT, detect_stack_id TEXT, region_id INT, match_type TEXT);
CREATE TABLE csc21.stack_source (detect_stack_id TEXT, region_id INT);
CREATE TABLE csc21.stack_observation_assoc (detect_stack_id TEXT, obsid INT, obi INT, region_id INT);
CREATE TABLE csc21.observation_source
    (obsid INT, obi INT, region_id INT, instrument TEXT, theta REAL, livetime REAL);
"""


@dataclass
class Archive(QueriedService):
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
    """

    limit: int = 1000
    ranges: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))
    renamed: dict[str, str] = field(default_factory=dict)
    phases: list[str] = field(default_factory=lambda: ["COMPLETED"])
    jobs: dict[str, dict[str, str]] = field(default_factory=dict)

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


VOTABLE = "application/x-votable+xml"
UWS = 'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'


class ArchiveHandler(Handler):
    """Answers one connection."""

    service: Archive
    page = b"<html><body>The archive is being serviced.</body></html>"

    def answer(self, body: bytes) -> None:
        """Answer of either service."""
        path, query = self.address()
        query |= form(body.decode())
        request = self.received(path, query)
        self.service.remember(request)
        trouble = self.service.next_trouble(request)
        if trouble is not None and self.befall(trouble):
            return
        if trouble is not None and trouble.kind == "garbage":
            self.send(200, votable(["name"], [("2CXO",)], cut_off=False)[:-60], VOTABLE)
        elif path.startswith("/tap/"):
            self._tap(path.removeprefix("/tap/"), query)
        elif path == "/files/browse":
            self._browse(query)
        elif path == "/files/retrieveFile":
            self._file(query, trouble)
        else:
            self.send(404, b"no such place", "text/plain")

    def _tap(self, path: str, query: dict[str, str]) -> None:
        archive = self.service
        if path == "sync":
            maxrec = int(query["MAXREC"]) if "MAXREC" in query else None
            self.send(200, archive.select(query["QUERY"], maxrec), VOTABLE)
            return
        if path == "async":
            job_id = str(len(archive.jobs) + 1)
            archive.jobs[job_id] = {**query, "phase": "PENDING"}
            self.send(303, b"", "text/plain", {"Location": f"{archive.url}/tap/async/{job_id}"})
            return
        job_id, _, rest = path.removeprefix("async/").partition("/")
        job = archive.jobs[job_id]
        if self.command == "DELETE":
            del archive.jobs[job_id]
            self.send(200, b"", "text/plain")
        elif rest == "phase" and query.get("PHASE") == "RUN":
            job["phase"] = archive.phases[0]
            self.send(200, b"", "text/plain")
        elif rest == "results/result":
            self.send(200, archive.select(job["QUERY"], int(job.get("MAXREC", 10**9))), VOTABLE)
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
            self.send(200, body.encode(), "text/xml")

    def _browse(self, query: dict[str, str]) -> None:
        place, filetype, _ = query["packageset"].split("/")
        obsid, _, region = (int(number) for number in place.split("."))
        ending = {"regevt3": "regevt3", "srcreg": "reg3", "arf": "arf3"}[filetype]
        name = f"acisf{obsid:05d}_000N028_r{region:04d}_{ending}.fits"
        name = self.service.renamed.get(name, name)
        found = [{"filename": name, "filetype": filetype}] if name in self.service.files else []
        self.send_json(200, found)

    def _file(self, query: dict[str, str], trouble: Fault | None) -> None:
        name = query["filename"]
        if name not in self.service.files:
            self.send(404, b"no such file", "text/plain")
            return
        content = self.service.files[name]
        etag = f'"{name}-{self.service.versions[name]}"'
        if trouble is not None and trouble.kind == "broken gzip":
            content = content[: len(content) // 2] + b"\xff" * (len(content) - len(content) // 2)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start, status, more = 0, 200, {"ETag": etag, "Last-Modified": formatdate(0, usegmt=True)}
        if asked and self.service.ranges and self.headers.get("If-Range", etag) == etag:
            start, status = int(asked[1]), 206
            more["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if start >= len(content):
                self.send(416, b"", "text/plain", {"Content-Range": f"bytes */{len(content)}"})
                return
        cut = trouble is not None and trouble.kind == "cut"
        self.send(status, content[start:], "application/octet-stream", more, cut=cut)


@contextmanager
def archive_server() -> Iterator[Archive]:
    """An archive, serving until the block ends."""
    with serve(Archive(), ArchiveHandler) as archive:
        yield archive


def downloaded(folder: Path) -> dict[str, bytes]:
    """Files below a folder by name, without the ``.gz`` behind it."""
    return {path.name.removesuffix(".gz"): path.read_bytes() for path in folder.rglob("*.fits*")}
