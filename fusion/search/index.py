"""An index of films that answers questions.

A question has an embedding, and so has each clip in each combination of its modalities. A clip is
compared in the largest combination that it has: picture and sound, or one of them where it lacks
the other. Cosines of different combinations have different means, so they are calibrated: of each
combination the mean over all clips that have it is subtracted. (They are not divided by their
standard deviation: a picture tells nearly nothing about a sound that is asked for, so such cosines
hardly vary, and noise would come out on top.) A clip without sound is thus compared by its picture
with the pictures of all clips.

Shapes: E embedding width.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.inference.clip_files import full_name, is_pretrained
from fusion.inference.embedder import Embedder
from fusion.inference.loading import load
from fusion.search.engines.choice import Engines
from fusion.search.engines.rank import Found, rank, why
from fusion.search.indexing import check_model, index_films
from fusion.search.narrowing import films_named, heard_and_seen, spell_as
from fusion.search.records import ClipFacts, FilmFacts, Hit, name_films
from fusion.search.snapshot import Live, Snapshot
from fusion.search.storage import DATABASE, SearchError, Storage


class Index:
    """Search films; ``add`` brings the index up to date with a folder.

    Several threads may use one object. It sees what other processes add.

    Args:
        folder: of the index.
        model: that made it, or that makes it: what :func:`fusion.load` returns, or
            takes; None: that which the index names, loaded when it is needed.
        engine: that finds the neighbours: ``exact``, ``faiss`` or ``qdrant``; None: the one that
            the index was made for, or what fits its size. See :mod:`.engines`.
        url: of the Qdrant server, if it is another one than when the index was made.

    Raises:
        SearchError: the index was made by another model, or there is none and no model is given.
    """

    def __init__(
        self,
        folder: str | Path,
        model: Embedder | str | Path | None = None,
        engine: str | None = None,
        url: str | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._live, self._loading = Live(self.folder), threading.Lock()
        self._engines = Engines(self.folder, engine, url)
        self._model: Embedder | None = None
        self._model_path: str | None = None
        if model is None:
            self._live.snapshot()  # a wrong path is found here
        else:
            self._take(model)

    def _take(self, model: Embedder | str | Path) -> Embedder:
        if isinstance(model, str | Path):
            self._model_path = lasting(model)
        made: Embedder = load(model) if isinstance(model, str | Path) else model
        if (self.folder / DATABASE).exists():
            with self._live.storage() as storage:
                check_model(storage, made)
        self._model = made
        return made

    @property
    def model(self) -> Embedder:
        """The model that embeds questions and films."""
        with self._loading:
            if self._model is not None:
                return self._model
            with self._live.storage() as storage:
                place = storage.fact("model_path")
            if place is None:
                raise SearchError(
                    f"{self.folder} does not say where its model is; name it: --model RUN"
                )
            return self._take(place)

    def add(self, *places: str | Path, **options: Any) -> Index:
        """Embed new and changed films of files and folders, see :func:`.indexing.index_films`."""
        model = self.model
        with contextlib.closing(Storage(self.folder, write=True)) as storage:
            index_films(storage, model, places, model_path=self._model_path, **options)
            self._engines.prepare(storage, quiet=options.get("quiet", False))
        return self

    def close(self) -> None:
        """Close all files; the next use opens them again."""
        self._live.close()
        self._engines.close()

    def search(
        self,
        question: Any,
        k: int = 10,
        within: Sequence[str] = (),
        film: str | int | None = None,
    ) -> list[Hit]:
        """Find the clips that fit a question best.

        Args:
            question: what :meth:`fusion.Model.encode` takes: words, a film, a sound, a picture, or
                a dict of them.
            k: how many.
            within: combinations to compare, such as ``("v",)``; empty: the largest of each clip.
            film: the number of a film, or a part of the names of films (:attr:`Hit.name`); other
                films are left out.

        Raises:
            ValueError: the question cannot be embedded, or the index has none of ``within``, or no
                film of this number.
        """
        return self.nearest(self.model.encode(question).numpy(), k, within, film)

    def near(
        self,
        clip: int,
        k: int = 10,
        within: Sequence[str] = (),
        film: str | int | None = None,
    ) -> list[Hit]:
        """Find the clips that are most like a clip of the index, by its number; see search."""
        return self._nearest(clip, k, within, film)

    def nearest(
        self,
        query: NDArray[np.float32],
        k: int = 10,
        within: Sequence[str] = (),
        film: str | int | None = None,
    ) -> list[Hit]:
        """Find the clips nearest to an embedding (E,); see search."""
        return self._nearest(np.asarray(query, np.float32), k, within, film)

    def films(self) -> list[FilmFacts]:
        """Return all films, by name."""
        with self._live.storage() as storage:
            found = storage.select(
                "SELECT films.id, path, seconds, COUNT(clips.id), problem FROM films"
                " LEFT JOIN clips ON film = films.id GROUP BY films.id ORDER BY path"
            ).fetchall()
        names = name_films([row[1] for row in found])
        return [FilmFacts(row[0], name, *row[1:]) for row, name in zip(found, names, strict=True)]

    def film_path(self, film: int) -> Path:
        """Return the path of a film, by its number; SearchError: the index does not have it.

        A file that could not be read as a film is none.
        """
        with self._live.storage() as storage:
            query = "SELECT path FROM films WHERE id = ? AND problem IS NULL"
            found = storage.select(query, (film,)).fetchone()
        if found is None:
            raise SearchError(f"{self.folder} has no film {film}")
        return Path(found[0])

    def clip(self, clip: int) -> ClipFacts:
        """Return a clip by its number; SearchError: the index does not have it."""
        snapshot = self._live.snapshot()
        with self._live.storage() as storage:
            film, found = storage.clip(clip)
            row = storage.select("SELECT film FROM clips WHERE id = ?", (clip,)).fetchone()
        if row is None:  # it has gone meanwhile
            raise SearchError(f"{self.folder} has no clip {clip}")
        number = row[0]
        name = snapshot.names.get(number, Path(film.path).name)
        return ClipFacts(clip, number, name, film.path, *found)

    def about(self) -> dict[str, Any]:
        """Count films and clips; say what clips have, the version, the engine, and the model."""
        with self._live.storage() as storage:
            counts = {
                key: storage.select(f"SELECT COUNT(*) FROM {key}").fetchone()[0]
                for key in ("films", "clips")
            }
            facts = {key: storage.fact(key, ()) for key in ("combinations", "modalities", "model")}
            version = storage.fact("version", 0)
        engine = self._engines.of(self._live.snapshot()).name
        return counts | facts | {"version": version, "engine": engine}

    def _nearest(
        self,
        asked: int | NDArray[np.float32],
        k: int,
        within: Sequence[str],
        film: str | int | None,
    ) -> list[Hit]:
        """Find what is near a clip, or an embedding (E,).

        Clips may have gone since the snapshot was made; then a new one is taken.
        """
        if k < 1:
            raise SearchError(f"k, the number of hits, must be at least 1; got {k}")
        for fresh in (False, True, True, True):
            snapshot = self._live.snapshot(fresh)
            try:
                query, found = self._rank(snapshot, asked, k, within, film)
            except SearchError:  # it may be of what is new
                if fresh:
                    raise
                continue
            hits = self._hits(snapshot, query, found)
            if len(hits) == len(found):
                break
        return hits

    def _rank(
        self,
        snapshot: Snapshot,
        asked: int | NDArray[np.float32],
        k: int,
        within: Sequence[str],
        film: str | int | None,
    ) -> tuple[NDArray[np.float32], list[Found]]:
        """Return the embedding that was searched for (E,), and what was found."""
        combinations = spell_as(snapshot, within)
        all_of_them = combinations or heard_and_seen(snapshot.combinations)
        films = None if film is None else films_named(snapshot, film)
        engine = self._engines.of(snapshot)
        if not isinstance(asked, int):
            if snapshot.width not in (0, *asked.shape):
                raise SearchError(
                    f"a question must be a vector of {snapshot.width} numbers; got {asked.shape}"
                )
            return asked, rank(snapshot, engine, asked, k, all_of_them, films)
        place = snapshot.place(asked)
        if place is None:
            raise SearchError(f"{self.folder} has no clip {asked}")
        has = snapshot.letters_of(place)
        fitting = [c for c in combinations or snapshot.combinations if set(c) <= set(has)]
        if not fitting:
            what = ", ".join(combinations) or "what the index compares"
            raise SearchError(f"clip {asked} has nothing of {what}; it has {has!r}")
        query = snapshot.vector(place, max(fitting, key=len))
        return query, rank(snapshot, engine, query, k, all_of_them, films, place)

    def _hits(
        self, snapshot: Snapshot, query: NDArray[np.float32], found: Sequence[Found]
    ) -> list[Hit]:
        """Look up what was found; clips that have gone meanwhile are left out."""
        numbers = json.dumps([int(snapshot.ids[one.place]) for one in found])
        with self._live.storage() as storage:
            rows = storage.select(
                "SELECT clips.id, path, start, end, text, film FROM clips JOIN films"
                " ON film = films.id WHERE clips.id IN (SELECT value FROM json_each(?))",
                (numbers,),
            )
            known = {number: rest for number, *rest in rows}
        hits = []
        for place, cosine, calibrated in found:
            number = int(snapshot.ids[place])
            if number in known:
                path, start, end, text, film = known[number]
                by = why(snapshot, place, query)
                name = snapshot.names.get(film, Path(path).name)
                facts = (cosine, by, text, number, calibrated, film, name)
                hits.append(Hit(path, start, end, *facts))
        return hits


def lasting(model: str | Path) -> str:
    """Return where a model is, for programs that run in another folder; a hub's name as it is."""
    if is_pretrained(model):
        return full_name(str(model))
    path = Path(model).expanduser()
    return str(path.absolute() if path.exists() else model)
