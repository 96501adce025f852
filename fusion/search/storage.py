"""What an index of films has on disk: facts in SQLite, vectors in a file for each combination.

index.sqlite       films, their clips, texts and thumbnails
vectors/           see :mod:`.vectors`; the rows of all files belong to the same clips, zeros where
                   a clip lacks the combination

A film and a clip have numbers that stay and are never given to another one. A clip's row in the
vector files is something else: it changes when files are compacted.

Vectors are written and flushed before the transaction that names their rows is committed. So a kill
at any time leaves at most rows that no clip names, and the next writer overwrites them. Rows of
removed clips stay until :meth:`Storage.compact`. Every transaction that changes something raises
the fact ``version``.

Shapes: N clips, E embedding width.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.search import database
from fusion.search.database import DATABASE, FORMAT, SearchError
from fusion.search.records import Clip, Film, Table, name_films
from fusion.search.vectors import VECTORS, VectorFiles, blocks, whole_sum

__all__ = ["DATABASE", "FORMAT", "Clip", "Film", "SearchError", "Storage", "Table"]
_ROWS = "SELECT row FROM clips"


class Storage:
    """Read an index, and write it if ``write``; one process writes at a time.

    A reader sees the index as it was when it was opened, also its vectors.

    Args:
        folder: of the index; made if ``write``.
        write: open it for writing.
        live: see what others write meanwhile; such a reader has no vectors.

    Raises:
        SearchError: there is no index, another process writes it, or it is of another version.
    """

    def __init__(self, folder: str | Path, write: bool = False, live: bool = False) -> None:
        self.folder, self._writing = Path(folder).expanduser(), write
        self._mapped: dict[str, NDArray[np.float32]] = {}
        self._lock = database.lock_for_writing(self.folder) if write else None
        try:
            if write:
                (self.folder / VECTORS).mkdir(exist_ok=True)
                self._db = database.open_for_writing(self.folder)
            else:
                self._db, self._lock = database.open_for_reading(self.folder)
                if not live:
                    self._begin_reading()
        except (sqlite3.DatabaseError, OSError) as error:
            self._unlock()
            raise SearchError(f"{self.folder / DATABASE} cannot be opened ({error})") from None
        except BaseException:
            self._unlock()
            raise

    @property
    def frozen(self) -> bool:
        """Whether this reader keeps writers away, so that it must be closed soon."""
        return self._lock is not None and not self._writing

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
        if self._writing:
            database.close_writing(self._db, self.folder)
        else:
            self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock:
            self._lock.close()

    def fact(self, key: str, otherwise: Any = None) -> Any:
        """Return a fact about the index."""
        found = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return otherwise if found is None else json.loads(found[0])

    def set_facts(self, **facts: Any) -> None:
        """Write facts; a fact that is None is removed."""
        changed = {key: value for key, value in facts.items() if self.fact(key) != value}
        if changed:
            with self._transaction():
                self._put(changed)

    def select(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Read tables of the database, see :mod:`.database`."""
        return self._db.execute(query, values)

    def films(self) -> dict[str, Film]:
        """Return all films by name: the path relative to the folder that holds all of them."""
        found = self._db.execute("SELECT path, state, seconds, problem FROM films ORDER BY path")
        films = [Film(*row) for row in found]
        return dict(zip(name_films([film.path for film in films]), films, strict=True))

    def replace(
        self, film: Film, clips: Sequence[Clip], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Put a film with its clips in place of an earlier one of its path, which has its number.

        ``vectors`` are (N, E) by combination; one that a clip lacks is zeros.
        """
        if vectors and self.fact("width") is None:
            self.set_facts(width=next(iter(vectors.values())).shape[1])
        files = self._files()
        values = {
            c: vectors.get(c, np.zeros((len(clips), files.width), np.float32))
            for c in (self.fact("combinations") if clips else ())
        }
        for combination, rows in values.items():
            self._write(files, combination, rows, len(clips))
        with self._transaction():
            self._forget([film.path])
            number = self._name(film)
            for place, clip in enumerate(clips):
                self._insert(files.rows + place, number, clip)
            self._sum(values, 1)
            self._put({"rows": files.rows + len(clips)})

    def _name(self, film: Film) -> int:
        """Write what is known of a film, and return its number."""
        query = "UPDATE films SET path = ?, state = ?, seconds = ?, problem = ? WHERE path = ?"
        if not self._db.execute(query, (*film, film.path)).rowcount:
            query = "INSERT INTO films (path, state, seconds, problem) VALUES (?, ?, ?, ?)"
            self._db.execute(query, film)
        query = "SELECT id FROM films WHERE path = ?"
        number: int = self._db.execute(query, (film.path,)).fetchone()[0]
        return number

    def _insert(self, row: int, film: int, clip: Clip) -> None:
        done = self._db.execute(
            "INSERT INTO clips (row, film, start, end, text, has) VALUES (?, ?, ?, ?, ?, ?)",
            (row, film, *clip[:4]),
        )
        if clip.thumbnail is not None:
            found = (done.lastrowid, clip.thumbnail)
            self._db.execute("INSERT INTO thumbnails VALUES (?, ?)", found)

    def relocate(self, gone: Sequence[str], moved: Mapping[str, str]) -> None:
        """Remove the films of some paths, and give others, by their old path, a new one."""
        if not gone and not moved:
            return
        with self._transaction():
            self._forget(gone)
            self._db.executemany("DELETE FROM films WHERE path = ?", [(path,) for path in gone])
            pairs = [(new, old) for old, new in moved.items()]
            self._db.executemany("UPDATE films SET path = ? WHERE path = ?", pairs)
            self._put({})

    def _forget(self, paths: Iterable[str]) -> None:
        """Remove the clips of some films."""
        films = [
            number
            for path in paths
            for number in self._db.execute("SELECT id FROM films WHERE path = ?", (path,))
        ]
        found = [row for film in films for row in self._db.execute(f"{_ROWS} WHERE film = ?", film)]
        rows = np.sort(np.array(found, np.int64).reshape(-1))
        for block in blocks(rows):
            self._sum({c: self._map(c)[block] for c in self.fact("combinations")}, -1)
        self._db.executemany("DELETE FROM clips WHERE film = ?", films)

    def _sum(self, vectors: Mapping[str, NDArray[np.float32]], sign: int) -> None:
        """Add rows to the sums of their combinations, or take them away."""
        for combination, values in vectors.items():
            total, longest = self.sum(combination)
            total = total + sign * whole_sum(values)
            lengths = np.linalg.norm(values.astype(np.float64), axis=1)
            row = (combination, total.tobytes(), max(longest, lengths.max(initial=0.0)))
            self._db.execute("INSERT OR REPLACE INTO sums VALUES (?, ?, ?)", row)

    def sum(self, combination: str) -> tuple[NDArray[np.int64], float]:
        """Return the sum of a combination's vectors in units of 2**-32, (E,), and a bound.

        The bound is the length of the longest vector that it ever had.
        """
        query = "SELECT total, longest FROM sums WHERE combination = ?"
        found = self._db.execute(query, (combination,)).fetchone()
        if found is None:
            return np.zeros(self.fact("width", 0), np.int64), 0.0
        return np.frombuffer(found[0], np.int64), found[1]

    def table(self) -> Table:
        """Return the number, the row, the film and the modalities of each clip."""
        names = {film.path: name for name, film in self.films().items()}
        query = "SELECT clips.id, row, path, has FROM clips JOIN films ON film = films.id"
        found = self._db.execute(f"{query} ORDER BY row").fetchall()
        numbers = np.array([one[:2] for one in found], np.int64).reshape(-1, 2)
        films = [names[path] for _, _, path, _ in found]
        return Table(numbers[:, 0], numbers[:, 1], films, [has for *_, has in found])

    def clip(self, number: int) -> tuple[Film, Clip]:
        """Return a clip and its film."""
        found = self._db.execute(
            "SELECT path, state, seconds, problem, start, end, text, has, jpeg FROM clips"
            " JOIN films ON film = films.id LEFT JOIN thumbnails ON clip = clips.id"
            " WHERE clips.id = ?",
            (number,),
        ).fetchone()
        if found is None:
            raise SearchError(f"{self.folder} has no clip {number}")
        return Film(*found[:4]), Clip(*found[4:])

    def vectors(self, combination: str) -> NDArray[np.float32]:
        """Map the vectors of a combination into memory: (rows, E)."""
        return self._mapped[combination] if self._mapped else self._map(combination)

    def _files(self) -> VectorFiles:
        numbers = (self.fact(key, 0) for key in ("generation", "rows", "width"))
        return VectorFiles(self.folder, *numbers)

    def _map(self, combination: str) -> NDArray[np.float32]:
        return self._files().map(combination)

    def compact(self) -> None:
        """Remove the rows of removed clips, if they are more than a half of all."""
        old = self._files()
        if self._db.execute("SELECT COUNT(*) FROM clips").fetchone()[0] * 2 > old.rows:
            return
        found = self._db.execute(f"{_ROWS} ORDER BY row").fetchall()
        rows = np.array(found, np.int64).reshape(-1)
        new = VectorFiles(self.folder, old.generation + 1, len(rows), old.width)
        for combination in self.fact("combinations"):
            old.copy_to(new, combination, rows)
        with self._transaction():
            pairs = [(place, int(row)) for place, row in enumerate(rows)]  # ascending: no clash
            self._db.executemany("UPDATE clips SET row = ? WHERE row = ?", pairs)
            self._put({"rows": len(rows), "generation": new.generation})
        new.remove_others()

    def _write(
        self, files: VectorFiles, combination: str, values: NDArray[np.float32], count: int
    ) -> None:
        if len(values) != count:
            raise ValueError(f"{combination} must have {count} vectors; got {len(values)}")
        files.append(combination, values)

    def _put(self, facts: Mapping[str, Any]) -> None:
        facts = {"version": self.fact("version", 0) + 1, **facts}
        rows = [(key, json.dumps(value)) for key, value in facts.items() if value is not None]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)
        gone = [(key,) for key, value in facts.items() if value is None]
        self._db.executemany("DELETE FROM facts WHERE key = ?", gone)

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
