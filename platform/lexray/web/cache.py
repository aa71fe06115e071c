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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from lexray.errors import ConfigError, LexrayError

T = TypeVar("T")
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
            self._database = self._connect()
        except sqlite3.Error as error:
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
        sql, key = "SELECT at, checksum, body FROM answers WHERE key = ?", _key(asked)
        found = self._run(lambda database: database.execute(sql, [key]).fetchone())
        if found is None:
            return None
        at, checksum, packed = found
        if not 0 <= time.time() - at <= self._seconds or hashlib.sha256(packed).digest() != checksum:
            return None
        self.hits += 1
        return zlib.decompress(packed)

    def put(self, body: bytes, *asked: Any) -> None:
        """Keep the answer to a request, on disk before this returns."""
        self.put_all([(body, asked)])

    def put_all(self, answers: Iterable[tuple[bytes, tuple[Any, ...]]]) -> None:
        """As `put`, of many answers at once: all of them or none."""
        now = time.time()
        packed = [(_key(asked), zlib.compress(body)) for body, asked in answers]
        rows = [(key, now, hashlib.sha256(body).digest(), body) for key, body in packed]

        def insert(database: sqlite3.Connection) -> None:
            with database:  # commits, or rolls back
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

        self._run(insert)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the database, on a new file where this one is damaged."""
        try:
            try:
                return work(self._database)
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise
                self._database.close()
                self._database = self._connect(is_damaged=True)
                return work(self._database)
        except sqlite3.Error as error:
            raise LexrayError(f"cache: {self._path}: {error}") from None  # locked, no room, closed

    def _connect(self, is_damaged: bool = False) -> sqlite3.Connection:
        """The database, a new one where its file is damaged: it holds nothing that cannot be asked for again."""
        if is_damaged:
            self._path.unlink(missing_ok=True)
        # It waits a minute for another process that writes.
        database = sqlite3.connect(self._path, timeout=60.0, isolation_level=None)
        try:
            database.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            database.close()
            if is_damaged or not _is_damaged(error):
                raise  # no folder, no right to write, no room: not the file's fault
            return self._connect(is_damaged=True)
        return database


def _is_damaged(error: sqlite3.Error) -> bool:
    # A file that is none of SQLite's own, or is no more (https://sqlite.org/rescode.html). The lowest byte is the
    # result code, the others say more; errors of Python's module, such as "closed", have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _key(asked: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
