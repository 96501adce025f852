"""An index of films that answers questions.

A question has an embedding, and so has each clip in each combination of its modalities. A clip is
compared in the largest combination that it has: picture and sound, or one of them where it lacks
the other. Cosines of different combinations have different means, so they are calibrated: of each
combination the mean over all clips that have it is subtracted. (They are not divided by their
standard deviation: a picture tells nearly nothing about a sound that is asked for, so such cosines
hardly vary, and noise would come out on top.) A clip without sound is thus compared by its picture
with the pictures of all clips, and neither favoured nor lost.

Shapes: N clips, R rows of the vector files, E embedding width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.inference.clip_files import full_name, is_pretrained
from fusion.inference.embedder import Embedder
from fusion.inference.loading import load
from fusion.modalities import members, spell
from fusion.search.indexing import check_model, index_films
from fusion.search.storage import DATABASE, SearchError, Storage

BLOCK = 65_536  # rows compared at a time


class Hit(NamedTuple):
    """A clip that answers a question."""

    video: str  # path of the film
    start: float  # seconds
    end: float
    score: float  # cosine of the combination that was compared
    by: Mapping[str, float]  # cosine of each single modality that the clip has, by name
    text: str  # of the clip's captions
    id: int  # of the clip in the index
    calibrated: float  # by this number hits are sorted: cosine above the mean of its combination


class Index:
    """Search films; ``add`` brings the index up to date with a folder.

    Args:
        folder: of the index.
        model: that made it, or that makes it: what :func:`fusion.load` returns, or takes.

    Raises:
        SearchError: the index was made by another model.
    """

    def __init__(self, folder: str | Path, model: Embedder | str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._model_path: str | None = None
        if isinstance(model, str | Path):
            self._model_path = lasting(model)
        self.model: Embedder = load(model) if isinstance(model, str | Path) else model
        if (self.folder / DATABASE).exists():
            with self._read() as storage:
                check_model(storage, self.model)

    def add(self, *places: str | Path, **options: Any) -> Index:
        """Embed new and changed films of files and folders, see :func:`.indexing.index_films`."""
        storage = Storage(self.folder, write=True)
        try:
            index_films(storage, self.model, places, model_path=self._model_path, **options)
        finally:
            storage.close()
        return self

    def search(
        self, question: Any, k: int = 10, within: Sequence[str] = (), film: str | None = None
    ) -> list[Hit]:
        """Find the clips that fit a question best.

        Args:
            question: what :meth:`fusion.Model.encode` takes: words, a film, a sound, a picture, or
                a dict of them.
            k: how many.
            within: combinations to compare, such as ``("v",)``; empty: the largest of each clip.
            film: a part of a film's name, the path below the folder of all films; other films are
                left out.

        Raises:
            ValueError: the question cannot be embedded, or the index has none of ``within``.
        """
        return self.nearest(self.model.encode(question).numpy(), k, within, film)

    def near(
        self, clip: int, k: int = 10, within: Sequence[str] = (), film: str | None = None
    ) -> list[Hit]:
        """Find the clips that are most like a clip of the index, by its number; see search."""
        with self._read() as storage:
            asked = self._asked(storage, within)
            _, found = storage.clip(clip)
            combination = self._largest(found.has, asked or storage.fact("combinations"))
            if not combination:
                what = ", ".join(asked) or "what the index compares"
                raise SearchError(f"clip {clip} has nothing of {what}; it has {found.has!r}")
            query = np.array(storage.vectors(combination)[clip])
            return self._nearest(storage, query, k, asked, film, clip)

    def nearest(
        self,
        query: NDArray[np.float32],
        k: int = 10,
        within: Sequence[str] = (),
        film: str | None = None,
    ) -> list[Hit]:
        """Find the clips nearest to an embedding (E,); see search."""
        with self._read() as storage:
            return self._nearest(storage, query, k, self._asked(storage, within), film)

    def _read(self) -> contextlib.closing[Storage]:
        return contextlib.closing(Storage(self.folder))

    def _asked(self, storage: Storage, within: Sequence[str]) -> list[str]:
        """Spell combinations as the index does; SearchError: it does not have one of them."""
        known = storage.fact("combinations", ())
        asked = [spell(members(c, self.model.modalities)) for c in within]
        if unknown := [c for c in asked if c not in known]:
            raise SearchError(
                f"the index has no combination {unknown[0]!r}; choose from {', '.join(known)}"
            )
        return asked

    def _nearest(
        self,
        storage: Storage,
        query: NDArray[np.float32],
        k: int,
        asked: Sequence[str],
        film: str | None,
        but: int | None = None,
    ) -> list[Hit]:
        """Find the clips nearest to an embedding (E,), except for the clip ``but``."""
        if k < 1:
            raise SearchError(f"k, the number of hits, must be at least 1; got {k}")
        rows, films, has = storage.table()
        asked = asked or _heard_and_seen(storage.fact("combinations", ()))
        chosen = np.array([self._largest(letters, asked) for letters in has])
        calibrated = np.full(len(rows), -np.inf, np.float32)
        cosines = np.zeros(len(rows), np.float32)
        for combination in sorted(set(chosen) - {""}):
            there = np.array([set(combination) <= set(letters) for letters in has])
            values = _dot(storage.vectors(combination), rows[there], query)
            mine = chosen[there] == combination
            places = np.nonzero(there)[0][mine]
            cosines[places] = values[mine]
            calibrated[places] = values[mine] - values.mean()
        if film is not None:
            calibrated[[film not in name for name in films]] = -np.inf
        calibrated[rows == but] = -np.inf
        count = int(min(k, np.isfinite(calibrated).sum()))
        best = np.argsort(-calibrated, kind="stable")[:count]
        return [
            self._hit(storage, query, int(rows[i]), float(cosines[i]), float(calibrated[i]))
            for i in best
        ]

    def _hit(
        self, storage: Storage, query: NDArray[np.float32], row: int, score: float, place: float
    ) -> Hit:
        film, clip = storage.clip(row)
        by = {
            name: float(storage.vectors(name[0])[row] @ query)
            for name in self.model.modalities
            if name[0] in clip.has and name[0] in storage.fact("combinations")
        }
        return Hit(film.path, clip.start, clip.end, score, by, clip.text, row, place)

    def _largest(self, letters: str, combinations: Sequence[str]) -> str:
        """Return the largest of some combinations that a clip has; empty if it has none."""
        fitting = [c for c in combinations if set(c) <= set(letters)]
        return max(fitting, key=len, default="")


def lasting(model: str | Path) -> str:
    """Return where a model is, for programs that run in another folder; a hub's name as it is."""
    if is_pretrained(model):
        return full_name(str(model))
    path = Path(model).expanduser()
    return str(path.absolute() if path.exists() else model)


def _heard_and_seen(known: Sequence[str]) -> list[str]:
    """Leave out combinations with text, unless there are no others: captions are optional."""
    return [c for c in known if "t" not in c] or list(known)


def _dot(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Multiply some rows with a query, block by block: (N,)."""
    parts = [vectors[rows[i : i + BLOCK]] @ query for i in range(0, len(rows), BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
