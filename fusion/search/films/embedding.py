"""What an index keeps of a film: its clips, their vectors and thumbnails."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusion.data.captions.table import Caption
from fusion.data.media.decode import MediaError
from fusion.inference.embedder import Embedder
from fusion.search.films.cutting import Cut, Times, cut_film
from fusion.search.films.thumbnails import make_thumbnails
from fusion.search.records import Clip, Film
from fusion.search.vectors import LARGEST

LATE = "late"  # a note on captions, beside those of :mod:`fusion.inference.embedder`
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
AGAIN = ""  # the state of a film that is tried again: no film has it


class FilmToEmbed(NamedTuple):
    """A film that is new or has changed."""

    path: str
    state: str  # see :class:`.Film`
    captions: Sequence[Caption]
    cut: Cut


class FilmEmbedded(NamedTuple):
    """What the index keeps of a film."""

    film: Film
    clips: list[Clip]
    vectors: Mapping[str, np.ndarray]  # (N, E) by combination
    notes: Counter[str]  # what is wrong with its captions
    steady: bool = True  # it did not change while it was read


EmbedFilms = Callable[[Sequence[FilmToEmbed]], Generator[FilmEmbedded, None, None]]


def state_of(path: str, captions: Sequence[Caption], cut: Cut) -> str:
    """Describe all that the clips of a film follow from; AGAIN: the file cannot be opened."""
    try:
        status = os.stat(path)
    except OSError:
        return AGAIN
    if not os.access(path, os.R_OK):
        return AGAIN
    return json.dumps([status.st_size, status.st_mtime_ns, *cut.describe(captions)])


def embed_films(
    model: Embedder, films: Sequence[FilmToEmbed]
) -> Generator[FilmEmbedded, None, None]:
    """Embed films, in their order."""
    for film in films:
        yield embed_film(model, film)


def embed_film(model: Embedder, film: FilmToEmbed) -> FilmEmbedded:
    """Embed the clips of a film; the result depends on nothing else."""
    path, _, captions, cut = film
    state = state_of(path, captions, cut)  # it may have changed since it was found
    made = _embed(model, film._replace(state=state))
    return made._replace(steady=state == state_of(path, captions, cut))


def _embed(model: Embedder, film: FilmToEmbed) -> FilmEmbedded:
    path, state, captions, cut = film
    try:
        seconds = model.seconds(Path(path))
        times = cut_film(Path(path), captions, seconds, cut)
        made = model.embed_film(Path(path), times) if times else None
    except MediaError as error:
        return _without_clips(film, 0.0, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        if error.errno in NO_ROOM:  # for features that are kept; this is not the film's fault
            raise
        return _without_clips(film, 0.0, f"cannot be read ({error.strerror or error})")
    if made and not all(np.all(np.abs(v) <= LARGEST) for v in made.vectors.values()):
        return _without_clips(film, seconds, "its embeddings are not finite, or too large")
    kept = [i for i, has in enumerate(made.has) if has] if made else []
    if made is None or not kept:
        what = "shorter than a clip can be" if seconds > 0 else "neither picture nor sound"
        return _without_clips(film, seconds, what)
    notes = made.notes + Counter({LATE: sum(caption.start >= seconds for caption in captions)})
    clips = _clips(Path(path), [times[i] for i in kept], [made.has[i] for i in kept])
    vectors = {combination: values[kept] for combination, values in made.vectors.items()}
    return FilmEmbedded(Film(path, state, seconds), clips, vectors, notes)


def _without_clips(film: FilmToEmbed, seconds: float, problem: str) -> FilmEmbedded:
    named = Film(film.path, film.state, seconds, _clean(problem))
    return FilmEmbedded(named, [], {}, Counter())


def _clips(path: Path, times: Times, has: Sequence[str]) -> list[Clip]:
    pictures = make_thumbnails(path, [(start + end) / 2 for start, end, _ in times])
    return [
        Clip(start, end, _clean(text), letters, picture)
        for (start, end, text), letters, picture in zip(times, has, pictures, strict=True)
    ]


def _clean(text: str) -> str:
    """Replace what cannot be stored as UTF-8, such as half a letter."""
    return text.encode("utf-8", "replace").decode()
