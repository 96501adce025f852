"""Bring an index up to date with folders of films.

Only new and changed films are embedded; films that are gone leave the index. A film is known by its
absolute path. Each film is one transaction, so a kill costs the film that is being embedded.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusion.inference.embedder import CUT, UNKNOWN, Embedder
from fusion.search.films.cutting import Cut
from fusion.search.films.embedding import (
    AGAIN,
    LATE,
    EmbedFilms,
    FilmEmbedded,
    FilmToEmbed,
    embed_films,
    state_of,
)
from fusion.search.films.plan import Found, Plan, below, find_films, say_missing
from fusion.search.films.progress import Progress
from fusion.search.storage import FORMAT, SearchError, Storage
from fusion.words import number_of

CAPTIONS = {  # what may be wrong with the captions of clips
    CUT: "longer than the model takes",
    UNKNOWN: "without a known word",
    LATE: "after the end of the film",
}
FILMS = {  # what may be said of films, beside what was done
    "changing": "still written",
    "missing": "missing",
    "links": "linked twice",
}


def index_films(
    storage: Storage,
    model: Embedder,
    places: Sequence[str | Path],
    *,
    captions: str | Path | None = None,
    cut: str | None = None,
    windows: float | None = None,
    step: float | None = None,
    prune: bool = False,
    quiet: bool = False,
    model_path: str | None = None,
    embed: EmbedFilms | None = None,
) -> dict[str, int]:
    """Bring an index up to date with folders of films; films of other folders stay in it.

    ``cut``, ``windows`` and ``step`` that are None are those of the last time.

    Args:
        storage: open for writing.
        model: embeds the clips; that which made the index, if it has clips already.
        places: files and folders.
        captions: a caption file or a folder of caption files; None: those beside the films.
        cut: where films are cut, see :data:`.cutting.CUTS`; None at first: at captions where there
            are any, else into windows.
        windows: seconds of a clip where a film is not cut at captions; None at first: 10, or as
            long as the model takes.
        step: seconds from clip to clip; None at first: half of ``windows``.
        prune: also remove films that are not there although their folder is not, or is empty.
        quiet: show no progress.
        model_path: what :func:`fusion.load` takes for this model; kept for ``fusion search``.
        embed: embeds films with this model elsewhere, such as :meth:`.RayEmbedder.embed`; None:
            in this process.

    Returns:
        Numbers of films: ``new``, ``changed``, ``same``, ``removed``, ``unreadable``; and those of
        :data:`FILMS` and, of captions, of :data:`CAPTIONS` that are not 0.

    Raises:
        ValueError: there are no films, or the index was made by another model.
        KeyboardInterrupt: the user stopped it; it says what is kept.
    """
    last = storage.fact("cut") if storage.fact("model") else None
    chosen = Cut.of(model, cut, windows, step, last)
    found = find_films(places, captions, storage.folder)
    _claim(storage, model, model_path, chosen)
    states = {path: state_of(path, rows, chosen) for path, rows in found.films.items()}
    plan = Plan.of({film.path: film for film in storage.films().values()}, states, places, prune)
    storage.relocate(plan.gone, plan.moved)
    todo = [FilmToEmbed(p, states[p], found.films[p], chosen) for p in plan.new + plan.changed]
    run = _Run(storage, todo, quiet)
    for line in _about(found, plan):
        run.progress.say(line)
    run.embed(embed or (lambda films: embed_films(model, films)))
    storage.compact()
    same = len(states) - len(todo)
    counts = {"new": len(plan.new), "changed": len(plan.changed), "same": same}
    counts |= {"removed": len(plan.gone), "unreadable": run.unreadable}
    more = run.notes + Counter(missing=len(plan.missing), links=found.links)
    return counts | dict(more)


def prune_films(storage: Storage, places: Sequence[str | Path]) -> int:
    """Remove the films that are not there, below some places or, without any, of the whole index.

    Returns how many were removed.
    """
    known = {film.path: film for film in storage.films().values()}
    ours = below(known, places) if places else list(known)
    gone = [path for path in ours if not os.path.exists(path)]
    storage.relocate(gone, {})
    storage.compact()
    return len(gone)


class _Run:
    """Embeds films and writes them; counts what happens.

    A film that changes while it is read is read again at the end. If it still changes, the index
    keeps what it had of it, and the next run tries again.
    """

    def __init__(self, storage: Storage, todo: Sequence[FilmToEmbed], quiet: bool) -> None:
        self._storage, self._todo = storage, todo
        self._sizes = {film.path: _size(film.path) for film in todo}
        self.progress = Progress(len(todo), sum(self._sizes.values()), quiet)
        self._readable = {film.path for film in storage.films().values() if not film.problem}
        self.unreadable, self.notes = 0, Counter[str]()

    def embed(self, embed: EmbedFilms) -> None:
        """Embed the films.

        Raises:
            KeyboardInterrupt: the user stopped it; it says what is kept.
            SearchError: something cannot be written.
        """
        try:
            unsteady = self._write(embed, self._todo)
            for film in self._write(embed, unsteady):
                self.notes["changing"] += 1
                self.progress.say(
                    f"{film.path}: it changes while it is read, so another program may be writing"
                    " it; index it again later"
                )
        except KeyboardInterrupt:
            done, count = self.progress.done, len(self._todo)
            raise KeyboardInterrupt(
                f"interrupted: {done} of {number_of(count, 'film')} are in the index; the same"
                " command goes on with the others"
            ) from None
        except OSError as error:
            reason, place = error.strerror or error, error.filename or self._storage.folder
            raise SearchError(
                f"{place} cannot be written ({reason}); make room there; what"
                f" {self._storage.folder} has so far is complete"
            ) from None
        finally:
            self.progress.close()

    def _write(self, embed: EmbedFilms, films: Sequence[FilmToEmbed]) -> list[FilmToEmbed]:
        """Embed and write some films; return those that changed while they were read."""
        unsteady = []
        with contextlib.closing(embed(films)) as done:
            for asked, made in zip(films, done, strict=True):
                if made.steady:
                    self._replace(made)
                    self.progress.film(self._sizes[asked.path])
                else:
                    unsteady.append(asked)
        return unsteady

    def _replace(self, made: FilmEmbedded) -> None:
        film, clips, vectors, notes, _ = made
        if film.problem:
            self.unreadable += 1
            self.progress.say(f"{film.path}: {film.problem}")
            if film.state == AGAIN and film.path in self._readable:
                return  # it could be read before, and will be tried again
        self._storage.replace(film, clips, vectors)
        self.notes.update(notes)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _about(found: Found, plan: Plan) -> list[str]:
    """Say what is not as a user expects: broken caption files and missing films."""
    lines = [f"{problem}; the film is cut as one without captions" for problem in found.problems]
    return lines + say_missing(plan.missing)


def _claim(storage: Storage, model: Embedder, model_path: str | None, cut: Cut) -> None:
    """Write which model an index is of, or check it."""
    check_model(storage, model)
    if storage.fact("model") is None:
        combinations = sorted(model.combinations, key=lambda c: (len(c), c))
        storage.set_facts(
            format=FORMAT,
            model=model.digest,
            combinations=combinations,
            modalities=list(model.modalities),
            rows=0,
        )
    storage.set_facts(cut=list(cut))
    if model_path is not None:
        storage.set_facts(model_path=model_path)


def check_model(storage: Storage, model: Embedder) -> None:
    """Raise a SearchError if an index was made with another model."""
    made, given = storage.fact("model"), model.digest
    if made not in (None, given):
        raise SearchError(
            f"{storage.folder} was made with another model (digest {made}, this one {given});"
            " name that model, or make a new index"
        )


def summarise(counts: Mapping[str, int], storage: Storage) -> str:
    """Say in one line what was done, and what the index holds."""
    numbers = {key: storage.select(f"SELECT COUNT(*) FROM {key}s") for key in ("film", "clip")}
    films, clips = (number_of(n.fetchone()[0], key) for key, n in numbers.items())
    query = "SELECT COUNT(*) FROM films WHERE problem IS NOT NULL"
    if without := storage.select(query).fetchone()[0]:
        counts = {**counts, "unreadable": without}  # also those of earlier runs
    parts = [
        f"{number_of(n, 'caption')} {CAPTIONS[what]}"
        if what in CAPTIONS
        else f"{n} {FILMS.get(what, what)}"
        for what, n in counts.items()
        if n
    ]
    return f"{storage.folder}: {films}, {clips} ({', '.join(parts) or '-'})"
