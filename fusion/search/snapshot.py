"""What a search holds of an index in memory: which clip is in which row, and what it has.

A snapshot is one state of an index. It stays usable while the index changes, even if its files are
deleted, because it has mapped them. :class:`Live` gives the newest one to any number of threads.

Shapes: N clips, R rows of the vector files, E embedding width.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.modalities import letters_of
from fusion.search.database import DATABASE, SearchError
from fusion.search.records import name_films
from fusion.search.storage import Storage
from fusion.search.vectors import ONE

PATIENCE = 10.0  # an old snapshot is used for so many times the seconds that a new one takes
KEPT = 8  # choices of combinations whose clips are remembered


class Group(NamedTuple):
    """The clips that are compared in one combination."""

    clips: NDArray[np.bool_]  # (N,)
    has: tuple[str, ...]  # their modalities; each clip that has just these is one of them


class Snapshot:
    """One state of an index.

    Args:
        storage: a reader with its vectors.

    Attributes:
        version: of the index.
        ids: numbers of the clips, ascending (N,); their place here is their *place*.
        rows: of the clips in the vector files, ascending too (N,).
        films: number of the film of each clip (N,).
        masks: modalities of each clip (N,): bit i stands for ``letters[i]``.
        combinations: of the index.
        generation: of the vector files.
        engine: the one that finds neighbours, see :mod:`.engines.choice`; None: automatic.
        neighbours: lists by combination, see :mod:`.engines.ivf`.
        names: of the films, by number.
    """

    def __init__(self, storage: Storage) -> None:
        self.version: int = storage.fact("version", 0)
        self.combinations: list[str] = storage.fact("combinations", [])
        self.modalities: list[str] = storage.fact("modalities", [])
        self.width: int = storage.fact("width", 0)
        self.letters = "".join(letters_of(self.modalities)) if self.modalities else ""
        self.generation: int = storage.fact("generation", 0)
        self.engine: dict[str, Any] | None = storage.fact("engine")
        self.neighbours: dict[str, Any] | None = storage.fact("neighbours")
        self._load_clips(storage)
        found = storage.select("SELECT id, path FROM films ORDER BY path").fetchall()
        names = name_films([path for _, path in found])
        self.names = {number: name for (number, _), name in zip(found, names, strict=True)}
        self.vectors = {c: storage.vectors(c) for c in self.combinations}  # (R, E)
        self.sums = {c: storage.sum(c) for c in self.combinations}
        self._means: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}
        self._kinds: dict[str, tuple[str, ...]] = {}
        self._groups: dict[tuple[str, ...], dict[str, Group]] = {}

    def _load_clips(self, storage: Storage) -> None:
        mask = "+".join(f"{1 << i}*(instr(has,'{x}')>0)" for i, x in enumerate(self.letters))
        columns = [("id", "i8"), ("row", "i8"), ("film", "i8"), ("mask", "i4")]
        found = storage.select(f"SELECT id, row, film, {mask or 0} FROM clips ORDER BY row")
        table = np.fromiter(found, np.dtype(columns))
        self.ids, self.rows, self.films, self.masks = (table[x].copy() for x, _ in columns)

    def mask(self, letters: str) -> int:
        """Return some modalities as a number."""
        return sum(1 << i for i, letter in enumerate(self.letters) if letter in letters)

    def having(self, combination: str) -> NDArray[np.bool_]:
        """Return which clips have all modalities of a combination (N,)."""
        return self.masks & self.mask(combination) == self.mask(combination)

    def count(self, combination: str) -> int:
        """Return how many clips have a combination."""
        if combination not in self._counts:
            self._counts[combination] = int(np.count_nonzero(self.having(combination)))
        return self._counts[combination]

    def mean(self, combination: str) -> NDArray[np.float64]:
        """Return the mean vector of the clips that have a combination (E,)."""
        if combination not in self._means:
            count = max(1, self.count(combination))
            self._means[combination] = self.sums[combination][0] / ONE / count
        return self._means[combination]

    def groups(self, asked: Sequence[str]) -> dict[str, Group]:
        """Return the clips that are compared in each of some combinations.

        A clip is compared in the largest that it has; of two of one size, in the first.
        """
        key = tuple(asked)
        if (groups := self._groups.get(key)) is None:
            groups, free = {}, np.ones(len(self.ids), bool)
            for combination in sorted(key, key=len, reverse=True):
                clips = free & self.having(combination)
                groups[combination] = Group(clips, self._kinds_of(clips))
                free &= ~clips
            if len(self._groups) >= KEPT:
                self._groups = {}
            self._groups[key] = groups
        return groups

    def kinds(self, combination: str) -> tuple[str, ...]:
        """Return what clips with a combination have: each set of letters."""
        if combination not in self._kinds:
            self._kinds[combination] = self._kinds_of(self.having(combination))
        return self._kinds[combination]

    def _kinds_of(self, clips: NDArray[np.bool_]) -> tuple[str, ...]:
        masks = np.flatnonzero(np.bincount(self.masks[clips]))
        return tuple(map(self._spell, masks.tolist()))

    def _spell(self, mask: int) -> str:
        return "".join(x for i, x in enumerate(self.letters) if mask >> i & 1)

    def place(self, clip: int) -> int | None:
        """Return where a clip is; None: it is not in the index."""
        place = int(np.searchsorted(self.ids, clip))
        return place if place < len(self.ids) and self.ids[place] == clip else None

    def letters_of(self, place: int) -> str:
        """Return the modalities of a clip."""
        return self._spell(int(self.masks[place]))

    def vector(self, place: int, combination: str) -> NDArray[np.float32]:
        """Return the vector of a clip (E,)."""
        return np.array(self.vectors[combination][self.rows[place]])


class Live:
    """The newest state of an index, for several threads.

    While films are added, every search would have to load a snapshot again. So one that took a
    second to load is used for some seconds more although the index has changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reading, self._loading = threading.RLock(), threading.Lock()
        self._storage: Storage | None = None
        self._held: Snapshot | None = None
        self._file: tuple[int, int] | None = None
        self._until = 0.0

    @contextlib.contextmanager
    def storage(self) -> Iterator[Storage]:
        """Lend a live reader; other threads wait for it, so nothing slow may be done with it."""
        with self._reading:
            if self._file != (file := _identity(self.folder)):
                self.close()  # another index has taken its place
            if not self._storage:
                self._storage, self._file = Storage(self.folder, live=True), file
            try:
                yield self._storage
            except sqlite3.DatabaseError as error:
                self.close()
                raise SearchError(f"{self.folder / DATABASE} cannot be read ({error})") from None
            finally:
                if self._storage and self._storage.frozen:
                    self._storage.close()
                    self._storage = None

    def close(self) -> None:
        """Forget all; the next use opens the files again."""
        with self._reading:
            if self._storage:
                self._storage.close()
            self._storage = self._held = None

    def snapshot(self, fresh: bool = False) -> Snapshot:
        """Return the newest snapshot, or if not ``fresh`` one that was the newest just now."""
        with self.storage() as storage:
            version, held = storage.fact("version", 0), self._held
        if held and (held.version == version or (not fresh and time.monotonic() < self._until)):
            return held
        with self._loading:
            if self._held is not held and self._held and self._held.version >= version:
                return self._held  # another thread was faster
            began = time.monotonic()
            with contextlib.closing(Storage(self.folder)) as reader:
                made = Snapshot(reader)
            ended = time.monotonic()
            self._held, self._until = made, ended + PATIENCE * (ended - began)
            return made


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tell one database file from another; while it is open its number is not given again."""
    try:
        status = os.stat(folder / DATABASE)
    except OSError:
        return None
    return status.st_dev, status.st_ino
