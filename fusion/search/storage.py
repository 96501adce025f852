"""What an index of films has on disk: facts in SQLite, vectors in a file for each combination.

index.sqlite       films, their clips, texts and thumbnails
vectors/va.f32     (rows, E) float32 in the order of the clips' row numbers; one file for each
                   combination, all of the same length, zeros where a clip lacks it

Vectors are written and flushed before the transaction that names their rows is committed. So a kill
at any time leaves at most rows that no clip names, and the next writer overwrites them. Rows of
removed clips stay until :meth:`Storage.compact`. A reader sees the index as it was when it opened
it.

Shapes: N clips, E embedding width.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.files import flush_to_disk, lock

DATABASE, VECTORS, LOCK = "index.sqlite", "vectors", ".lock"
FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS films (
    id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, state TEXT NOT NULL, seconds REAL NOT NULL,
    problem TEXT
);
CREATE TABLE IF NOT EXISTS clips (
    row INTEGER PRIMARY KEY, film INTEGER NOT NULL REFERENCES films (id) ON DELETE CASCADE,
    start REAL NOT NULL, end REAL NOT NULL, text TEXT NOT NULL, has TEXT NOT NULL, thumbnail BLOB
);
CREATE INDEX IF NOT EXISTS clips_of_films ON clips (film);
"""


class SearchError(ValueError):
    """An index that cannot be used; one line."""


class Film(NamedTuple):
    """A film of an index."""

    path: str  # absolute; by it a film is known
    state: str  # of the file and its captions: what has changed is embedded again
    seconds: float
    problem: str | None = None  # why it has no clips


class Clip(NamedTuple):
    """A stretch of a film."""

    start: float  # seconds
    end: float
    text: str  # of its captions; may be empty
    has: str  # letters of its modalities
    thumbnail: bytes | None = None  # JPEG


class Storage:
    """Read an index, and write it if ``write``; one process writes at a time.

    Args:
        folder: of the index; made if ``write``.
        write: open it for writing.

    Raises:
        SearchError: there is no index, another process writes it, or it is of a newer version.
    """

    def __init__(self, folder: str | Path, write: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        self._lock: IO[str] | None = None
        if write:
            self._begin_writing()
        elif not (self.folder / DATABASE).exists():
            raise SearchError(
                f"there is no index at {self.folder}; make one by: fusion index FILMS --out"
                f" {self.folder}"
            )
        try:
            self._open(write)
            if not write:
                self._begin_reading()
        except sqlite3.DatabaseError as error:
            raise SearchError(f"{self.folder / DATABASE} cannot be opened ({error})") from None

    def _begin_writing(self) -> None:
        try:
            (self.folder / VECTORS).mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / LOCK, "w")  # noqa: SIM115 (held until close)
            lock(self._lock.fileno())
        except BlockingIOError:
            raise SearchError(f"another process is writing {self.folder}; wait for it") from None
        except OSError as error:
            raise SearchError(f"{self.folder} cannot be written ({error.strerror})") from None

    def _open(self, write: bool) -> None:
        self._mapped: dict[str, NDArray[np.float32]] = {}
        address = f"{(self.folder / DATABASE).absolute().as_uri()}?mode={'rwc' if write else 'ro'}"
        self._db = sqlite3.connect(address, uri=True, check_same_thread=False)
        self._db.execute("PRAGMA foreign_keys = ON")
        if write:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SCHEMA)
        if (version := self.fact("format", FORMAT)) > FORMAT:
            raise SearchError(
                f"{self.folder} has format {version}, and this version of fusion reads {FORMAT};"
                " install the version that wrote it"
            )

    def _begin_reading(self) -> None:
        """Begin a transaction that ends with :meth:`close`, and map the vectors that it names.

        A writer may delete these files before they are opened; then the next state is taken.
        """
        while True:
            self._db.execute("BEGIN")
            generation = self.fact("generation", 0)
            try:
                self._mapped = {c: self._map(c) for c in self.fact("combinations", ())}
                return
            except SearchError:
                self._db.rollback()
                if self.fact("generation", 0) == generation:
                    raise

    def close(self) -> None:
        """Close all files."""
        self._db.close()
        if self._lock:
            self._lock.close()

    def fact(self, key: str, otherwise: Any = None) -> Any:
        """Return a fact about the index."""
        found = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return otherwise if found is None else json.loads(found[0])

    def set_facts(self, **facts: Any) -> None:
        """Write facts."""
        with self._transaction():
            self._put(facts)

    def films(self) -> dict[str, Film]:
        """Return all films by name: the path relative to the folder that holds all of them."""
        found = self._db.execute("SELECT path, state, seconds, problem FROM films ORDER BY path")
        films = [Film(*row) for row in found]
        base = os.path.commonpath([os.path.dirname(film.path) for film in films] or [""])
        return {Path(film.path).relative_to(base).as_posix(): film for film in films}

    def replace(
        self, film: Film, clips: Sequence[Clip], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Put a film with its clips in place of an earlier one of its path.

        ``vectors`` are (N, E) by combination; one that a clip lacks is zeros.
        """
        first = self.fact("rows", 0)
        if vectors and self.fact("width") is None:
            self.set_facts(width=next(iter(vectors.values())).shape[1])
        for combination in self.fact("combinations"):
            if len(clips):
                self._write(combination, first, vectors.get(combination), len(clips))
        with self._transaction():
            self._db.execute("DELETE FROM films WHERE path = ?", (film.path,))
            done = self._db.execute(
                "INSERT INTO films (path, state, seconds, problem) VALUES (?, ?, ?, ?)", film
            )
            rows = [(first + i, done.lastrowid, *clip) for i, clip in enumerate(clips)]
            self._db.executemany("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._put({"rows": first + len(clips)})

    def relocate(self, gone: Sequence[str], moved: Mapping[str, str]) -> None:
        """Remove the films of some paths, and give others, by their old path, a new one."""
        with self._transaction():
            self._db.executemany("DELETE FROM films WHERE path = ?", [(path,) for path in gone])
            pairs = [(new, old) for old, new in moved.items()]
            self._db.executemany("UPDATE films SET path = ? WHERE path = ?", pairs)

    def table(self) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Return the row number, the film and the modalities of each clip, in order of the rows."""
        names = {film.path: name for name, film in self.films().items()}
        query = "SELECT row, path, has FROM clips JOIN films ON film = films.id ORDER BY row"
        found = self._db.execute(query).fetchall()
        rows = np.array([row for row, _, _ in found], dtype=np.int64)
        return rows, [names[path] for _, path, _ in found], [has for _, _, has in found]

    def clip(self, row: int) -> tuple[Film, Clip]:
        """Return a clip and its film."""
        found = self._db.execute(
            "SELECT path, state, seconds, problem, start, end, text, has, thumbnail"
            " FROM clips JOIN films ON film = films.id WHERE row = ?",
            (row,),
        ).fetchone()
        if found is None:
            raise SearchError(f"{self.folder} has no clip {row}")
        return Film(*found[:4]), Clip(*found[4:])

    def vectors(self, combination: str) -> NDArray[np.float32]:
        """Map the vectors of a combination into memory: (rows, E)."""
        return self._mapped[combination] if self._mapped else self._map(combination)

    def _map(self, combination: str) -> NDArray[np.float32]:
        count, width = self.fact("rows", 0), self.fact("width", 0)
        file = self._file(combination)
        if not count:
            return np.zeros((0, width), np.float32)
        if not file.exists() or file.stat().st_size < 4 * count * width:
            raise SearchError(f"{file} is damaged; delete {self.folder} and index the films again")
        return np.memmap(file, np.float32, "r", shape=(count, width))

    def compact(self) -> None:
        """Remove the rows of removed clips, if they are more than a half of all."""
        rows, _, _ = self.table()
        if len(rows) * 2 > self.fact("rows", 0):
            return
        folder = self.folder / VECTORS
        generation = self.fact("generation", 0) + 1
        for combination in self.fact("combinations"):
            kept = np.ascontiguousarray(self.vectors(combination)[rows])
            new = folder / f"{combination}.{generation}.f32"
            kept.tofile(new)
            flush_to_disk(new)
        old = [self._file(combination) for combination in self.fact("combinations")]
        with self._transaction():
            pairs = [(new, int(row)) for new, row in enumerate(rows)]  # ascending: never in the way
            self._db.executemany("UPDATE clips SET row = ? WHERE row = ?", pairs)
            self._put({"rows": len(rows), "generation": generation})
        for file in old:
            file.unlink(missing_ok=True)

    def _file(self, combination: str) -> Path:
        return self.folder / VECTORS / f"{combination}.{self.fact('generation', 0)}.f32"

    def _write(
        self, combination: str, first: int, values: NDArray[np.float32] | None, count: int
    ) -> None:
        width = self.fact("width")
        values = np.zeros((count, width), np.float32) if values is None else values
        if values.shape != (count, width):
            raise ValueError(f"vectors of {combination} must be {(count, width)}; {values.shape}")
        file = self._file(combination)
        file.touch()
        with open(file, "r+b") as opened:
            opened.seek(4 * first * width)
            opened.write(np.ascontiguousarray(values, np.float32).tobytes())
            opened.truncate()
            opened.flush()
            os.fsync(opened.fileno())

    def _put(self, facts: Mapping[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in facts.items()]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._db:
                yield
        except sqlite3.Error as error:
            raise SearchError(
                f"{self.folder} cannot be written ({error}); make room there; what it has so far is"
                " complete"
            ) from None
