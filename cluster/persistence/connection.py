"""Connections to SQLite data bases, and what SQLite says of them as errors of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence.folders import as_store_error
from stormtracks.cluster.persistence.rowstore import damaged_error
from stormtracks.publish import storing

__all__ = ["connect", "set_journal", "store_error", "using"]

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process that holds the data base."""

_REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on that disk and run the same command again; nothing half-written is kept",
    sqlite3.SQLITE_READONLY: "have the disk mounted for writing, or ask the folder's owner for permission",
    sqlite3.SQLITE_CANTOPEN: "ask the folder's owner for permission",
    sqlite3.SQLITE_BUSY: "another program holds the file: let it end, then run the same command again",
    sqlite3.SQLITE_IOERR: "the disk reports a fault: look at the system log, and choose another disk",
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""What is said of a data base that is none, or has lost its tables."""


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in which nothing begins or ends a transaction unasked, and nothing moves the log."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    return db


def set_journal(db: sqlite3.Connection, journal: str) -> None:
    """Choose a journal, and whether to wait for the disk at each commit."""
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute(f"PRAGMA synchronous = {'normal' if journal == 'wal' else 'full'}")


@contextmanager
def using(path: Path, action: str) -> Iterator[None]:
    """Raise what SQLite or the system says of a data base as errors of the store: ``cannot read x: ...``."""
    try:
        with as_store_error(), storing(action, path):
            yield
    except sqlite3.Error as error:
        raise store_error(action, path, error) from error


def store_error(action: str, path: Path, error: sqlite3.Error) -> StoreError:
    """What SQLite says of a data base as an error of the store."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return damaged_error(path, str(error))
    remedy = _REMEDIES.get(code, "see that the disk and the folder are in order, then run the same command again")
    return StoreError(f"cannot {action} the campaign store {path}: {error}", remedy=remedy)
