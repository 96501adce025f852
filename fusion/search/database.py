"""The database of an index: its tables, and how it is opened for writing and for reading.

SQLite keeps what is being written in a second file (write-ahead log), so readers never wait for the
writer. To read such a database, SQLite needs this file and a third one with locks. It would delete
both when the last writer closes, and whoever may not write in the folder could not open the
database. So the writer leaves them. A copy without them, in a folder that cannot be written, is
opened as immutable while a lock keeps writers away.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import IO

from fusion.files import lock, open_lock

DATABASE, LOCK = "index.sqlite", ".lock"
FORMAT = 2
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT OR IGNORE INTO facts VALUES ('format', '{FORMAT}');
CREATE TABLE IF NOT EXISTS films (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT UNIQUE NOT NULL, state TEXT NOT NULL,
    seconds REAL NOT NULL, problem TEXT
);
CREATE TABLE IF NOT EXISTS clips (
    id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER UNIQUE NOT NULL,
    film INTEGER NOT NULL REFERENCES films (id) ON DELETE CASCADE,
    start REAL NOT NULL, end REAL NOT NULL, text TEXT NOT NULL, has TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS clips_of_films ON clips (film);
CREATE TABLE IF NOT EXISTS thumbnails (
    clip INTEGER PRIMARY KEY REFERENCES clips (id) ON DELETE CASCADE, jpeg BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sums (
    combination TEXT PRIMARY KEY, total BLOB NOT NULL, longest REAL NOT NULL
);
"""


class SearchError(ValueError):
    """An index that cannot be used; one line."""


def lock_for_writing(folder: Path) -> IO[bytes]:
    """Make the folder of an index and lock it, until the returned file is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = open_lock(folder / LOCK)  # held until close
    except OSError as error:
        raise SearchError(f"{folder} cannot be written ({error.strerror})") from None
    for wait in (0.1, 0.3, 0.6, None):  # a reader may keep writers away for a moment
        with contextlib.suppress(BlockingIOError):
            lock(opened.fileno())
            return opened
        if wait:
            time.sleep(wait)
    opened.close()
    raise SearchError(f"another process is writing {folder}; wait for it")


def open_for_writing(folder: Path) -> sqlite3.Connection:
    """Open the database of an index that is locked; make it if there is none."""
    db = _connect(folder, "mode=rwc")
    db.execute("PRAGMA foreign_keys = ON")
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
        _check_format(db, folder)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA)
    return db


def close_writing(db: sqlite3.Connection, folder: Path) -> None:
    """Close a database, and leave the files that readers without write access need."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(folder)) as keeper:
        db.execute("PRAGMA busy_timeout = 0")  # wait for no reader; the next writer does it
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all is in the database again
        _check_format(keeper, folder)  # from here on it has these files open
        db.close()  # not the last, so they stay; the last cannot delete them: it only reads
    db.close()


def open_for_reading(folder: Path) -> tuple[sqlite3.Connection, IO[bytes] | None]:
    """Open the database of an index.

    Returns:
        The connection and, where SQLite must believe that nothing can change, an open file that
        keeps writers away until it is closed. Close both soon in this case.

    Raises:
        SearchError: there is no index, or it is of another version of fusion.
        sqlite3.DatabaseError: it cannot be opened.
    """
    if not (folder / DATABASE).exists():
        raise SearchError(
            f"there is no index at {folder}; make one by: fusion index FILMS --out {folder}"
        )
    guard = None
    db = _read_only(folder)
    try:
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if os.access(folder, os.W_OK):
            raise
        guard = _keep_writers_away(folder)
        db = _read_only(folder, "&immutable=1")
    try:
        _check_format(db, folder)
    except BaseException:
        db.close()
        if guard:
            guard.close()
        raise
    return db, guard


def _keep_writers_away(folder: Path) -> IO[bytes]:
    """Lock an index that this process cannot write, so that no other one writes it either."""
    log = folder / f"{DATABASE}-wal"
    if log.exists() and log.stat().st_size:
        raise SearchError(
            f"{log} holds changes that cannot be read without write access to {folder}; open the"
            " index once where it can be written, such as by: fusion index"
        )
    try:
        guard = open(folder / LOCK, "rb")  # noqa: SIM115 (held by the caller)
    except OSError:
        raise SearchError(
            f"{folder} cannot be locked, so it may change while it is read; make it writable, or"
            f" copy the whole index with its file {LOCK}"
        ) from None
    try:
        if lock(guard.fileno(), shared=True):
            return guard
    except BlockingIOError:
        guard.close()
        raise SearchError(f"another process is writing {folder}; wait for it") from None
    guard.close()
    raise SearchError(f"{folder} is on a file system without locks; make it writable")


def _read_only(folder: Path, more: str = "") -> sqlite3.Connection:
    return _connect(folder, f"mode=ro{more}")


def _connect(folder: Path, options: str) -> sqlite3.Connection:
    address = f"{(folder / DATABASE).absolute().as_uri()}?{options}"
    db = sqlite3.connect(address, uri=True, check_same_thread=False)
    db.text_factory = lambda found: found.decode("utf-8", "surrogateescape")  # names of files
    return db


def _check_format(db: sqlite3.Connection, folder: Path) -> None:
    found = db.execute("SELECT value FROM facts WHERE key = 'format'").fetchone()
    version = json.loads(found[0]) if found else 1
    if version != FORMAT:
        way = "delete it and index the films again"
        if version > FORMAT:
            way = "install the version that wrote it"
        raise SearchError(
            f"{folder} has format {version}, and this version of fusion reads {FORMAT}; {way}"
        )
