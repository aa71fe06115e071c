"""Answers of web services, kept on disk: what was asked once is not asked again.

One SQLite file: any number of processes may use it at once, an entry is in it whole or not at all, and hundreds of
thousands of small answers are one file. HTTP's own rules of caching (RFC 9111) do not help here: the services send
POST requests' answers without any word on how long they hold.
"""

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lexray.errors import ConfigError, LexrayError

#: Seconds to wait for another process that writes.
_PATIENCE = 60.0
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, at REAL, checksum BLOB, body BLOB) WITHOUT ROWID"


class Cache:
    """Bodies of answers by what was asked.

    Parameters
    ----------
    folder : str or Path
        A local folder; the file is ``answers.sqlite`` in it.
    days : float
        Age up to which an answer counts.

    Attributes
    ----------
    hits : int
        Answers given so far.

    Raises
    ------
    ConfigError
        If the folder cannot be written to.
    """

    def __init__(self, folder: str | Path, days: float) -> None:
        self._path, self._seconds = Path(folder).expanduser() / "answers.sqlite", days * 86_400
        self.hits = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except sqlite3.OperationalError as error:
            raise ConfigError(f"cache: {self._path}: {error}; name another folder") from None
        except OSError as error:
            raise ConfigError(f"cache: {self._path.parent}: {error.strerror}; name another folder") from None

    def get(self, *asked: Any) -> bytes | None:
        """The answer to a request, or None where there is none, it is too old, or it is damaged.

        Parameters
        ----------
        *asked
            All that makes the request what it is, as JSON can say it. Secrets are no part of it.
        """
        found = self._run("SELECT at, checksum, body FROM answers WHERE key = ?", _key(asked)).fetchone()
        if found is None or not 0 <= time.time() - found[0] <= self._seconds:
            return None
        if hashlib.sha256(found[2]).digest() != found[1]:
            return None
        self.hits += 1
        return zlib.decompress(found[2])

    def put(self, body: bytes, *asked: Any) -> None:
        """Keep the answer to a request, on disk before this returns."""
        self.put_all([(body, asked)])

    def put_all(self, answers: Iterable[tuple[bytes, tuple[Any, ...]]]) -> None:
        """As `put`, of many answers at once: all of them or none."""
        now, rows = time.time(), []
        for body, asked in answers:
            packed = zlib.compress(body)
            rows.append((_key(asked), now, hashlib.sha256(packed).digest(), packed))
        self._run("BEGIN IMMEDIATE")
        self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)
        self._run("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._database.execute(sql, values)
        except sqlite3.OperationalError as error:
            raise LexrayError(f"cache: {self._path}: {error}") from None  # locked, or no room: not damaged
        except sqlite3.DatabaseError:
            self._database.close()
            self._path.unlink(missing_ok=True)  # it holds nothing that cannot be asked for again
            self._database = self._connect()
            return self._database.execute(sql, values)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise  # no folder, no right to write, no room: not the file's fault
        except sqlite3.DatabaseError:
            self._path.unlink()
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
        try:
            database.execute(_TABLE)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database


def _key(asked: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
