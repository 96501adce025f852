"""What the index does not do yet; removed when it does."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from fusion.search.index import Index
from fusion.search.storage import SearchError, Storage


class FilmFacts(NamedTuple):
    id: int
    name: str
    path: str
    seconds: float
    clips: int
    problem: str | None


class ClipFacts(NamedTuple):
    id: int
    film: int
    name: str
    path: str
    start: float
    end: float
    text: str
    has: str
    thumbnail: bytes | None


class HitOfToday(NamedTuple):
    video: str
    start: float
    end: float
    score: float
    by: Any
    text: str
    id: int
    calibrated: float
    film: int
    name: str


class Today(Index):
    """An index with films(), clip(), film_path() and about()."""

    def _query(self, sql: str, *values: Any) -> list[Any]:
        with contextlib.closing(Storage(self.folder)) as storage:
            return storage._db.execute(sql, values).fetchall()

    def films(self) -> list[FilmFacts]:
        rows = self._query(
            "SELECT films.id, path, seconds, count(row), problem FROM films LEFT JOIN clips"
            " ON film = films.id GROUP BY films.id ORDER BY path"
        )
        base = os.path.commonpath([os.path.dirname(row[1]) for row in rows] or [""])
        return [
            FilmFacts(i, Path(p).relative_to(base).as_posix(), p, s, n, problem)
            for i, p, s, n, problem in rows
        ]

    def clip(self, number: int) -> ClipFacts:
        rows = self._query(
            "SELECT row, film, path, start, end, text, has, thumbnail FROM clips JOIN films"
            " ON film = films.id WHERE row = ?",
            number,
        )
        if not rows:
            raise SearchError(f"the index has no clip {number}")
        row = rows[0]
        return ClipFacts(row[0], row[1], self._names()[row[2]], *row[2:])

    def film_path(self, number: int) -> Path:
        rows = self._query("SELECT path FROM films WHERE id = ?", number)
        if not rows:
            raise SearchError(f"the index has no film {number}")
        return Path(rows[0][0])

    def about(self) -> dict[str, Any]:
        films = self.films()
        with contextlib.closing(Storage(self.folder)) as storage:
            combinations = storage.fact("combinations", [])
            version = f"{storage.fact('generation', 0)}.{storage.fact('rows', 0)}.{len(films)}"
        return {
            "films": len(films),
            "clips": sum(film.clips for film in films),
            "combinations": combinations,
            "modalities": list(self.model.modalities),
            "version": version,
            "engine": "exact",
        }

    def _names(self) -> dict[str, str]:
        return {film.path: film.name for film in self.films()}

    def _wish(self, film: Any) -> Any:
        if not isinstance(film, int):
            return film
        for one in self.films():
            if one.id == film:
                return one.name
        raise SearchError(f"the index has no film {film}")

    def _with_film(self, hits: Any) -> list[Any]:
        ids = {film.path: film for film in self.films()}
        return [HitOfToday(*h, ids[h.video].id, ids[h.video].name) for h in hits]

    def near(self, clip, k=10, within=(), film=None):  # type: ignore
        return self._with_film(super().near(clip, k, within, self._wish(film)))

    def nearest(self, query, k=10, within=(), film=None):  # type: ignore
        return self._with_film(super().nearest(query, k, within, self._wish(film)))
