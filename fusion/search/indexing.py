"""Cut films into clips, embed each clip in every combination.

Only new and changed films are embedded; films that are gone leave the index. A film is known by its
absolute path. Each film is one
transaction, so a kill costs the film that is being embedded.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fusion.data.captions.table import Caption
from fusion.data.media.decode import MediaError
from fusion.data.media.encode import encode_jpeg
from fusion.data.media.window import read_frames
from fusion.inference.embedder import CUT, UNKNOWN, Embedder
from fusion.inference.rows import windows_of
from fusion.search.plan import Plan, find_films
from fusion.search.storage import FORMAT, Clip, Film, SearchError, Storage
from fusion.words import number_of

logger = logging.getLogger(__name__)

THUMBNAIL = (90, 160)  # height and width in pixels
CAPTIONS = {  # what may be wrong with the captions of clips
    CUT: "longer than the model takes",
    UNKNOWN: "without a known word",
}


class Cut(NamedTuple):
    """How films are cut where they have no captions."""

    seconds: float  # of a window
    step: float  # seconds from the start of a window to that of the next

    @classmethod
    def of(cls, model: Embedder, seconds: float | None, step: float | None) -> Cut:
        """Take the longest windows that the model embeds, at most 10 s, unless told otherwise."""
        longest = model.longest
        seconds = min(10.0, longest) if seconds is None else seconds
        if not 0 < seconds <= longest:
            raise ValueError(
                f"windows must be above 0 and at most {longest:.1f} s, which is the longest"
                f" clip that the model takes; got {seconds:g}"
            )
        step = seconds / 2 if step is None else step
        if not 0 < step <= seconds:
            raise ValueError(f"step must be above 0 and at most {seconds:g} s; got {step:g}")
        return cls(seconds, step)


def index_films(
    storage: Storage,
    model: Embedder,
    places: Sequence[str | Path],
    *,
    captions: str | Path | None = None,
    windows: float | None = None,
    step: float | None = None,
    quiet: bool = False,
    model_path: str | None = None,
) -> dict[str, int]:
    """Bring an index up to date with folders of films; films of other folders stay in it.

    Args:
        storage: open for writing.
        model: embeds the clips; that which made the index, if it has clips already.
        places: files and folders.
        captions: a caption file or a folder of caption files; None: those beside the films.
        windows: seconds of a clip where a film has no captions; None: 10, or as long as the model
            takes.
        step: seconds from clip to clip; None: half of ``windows``.
        quiet: show no progress.
        model_path: what :func:`fusion.load` takes for this model; kept for ``fusion search``.

    Returns:
        Numbers of films: ``new``, ``changed``, ``same``, ``removed``, ``unreadable``; and, of
        captions, those of :data:`CAPTIONS` that are not 0.

    Raises:
        ValueError: there are no films, or the index was made by another model.
    """
    cut = Cut.of(model, windows, step)
    found = find_films(places, captions, storage.folder)
    _claim(storage, model, model_path)
    states = {path: _state(Path(path), rows, cut) for path, rows in found.items()}
    plan = Plan.of({film.path: film for film in storage.films().values()}, states, places)
    storage.relocate(plan.gone, plan.moved)
    unreadable, notes = 0, Counter[str]()
    bar = tqdm(plan.new + plan.changed, unit="film", desc="indexing", disable=quiet)
    for path in bar:
        film, clips, vectors = _embed(model, path, states[path], found[path], cut, notes)
        if film.problem:
            unreadable += 1
            bar.write(f"{path}: {film.problem}", file=sys.stderr)
        storage.replace(film, clips, vectors)
    storage.compact()
    same = len(found) - len(plan.new) - len(plan.changed)
    counts = {"new": len(plan.new), "changed": len(plan.changed), "same": same}
    return counts | {"removed": len(plan.gone), "unreadable": unreadable} | dict(notes)


def _claim(storage: Storage, model: Embedder, model_path: str | None) -> None:
    """Write which model an index is of, or check it."""
    check_model(storage, model)
    if storage.fact("model") is None:
        combinations = sorted(model.combinations, key=lambda c: (len(c), c))
        storage.set_facts(
            format=FORMAT,
            model=model.digest,
            combinations=combinations,
            rows=0,
        )
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


def _state(path: Path, captions: Sequence[Caption], cut: Cut) -> str:
    """Describe all that the clips of a film follow from."""
    status = path.stat()
    times = [(c.start, c.end, c.text) for c in captions]
    return json.dumps([status.st_size, status.st_mtime_ns, times or cut])


def _embed(
    model: Embedder,
    path: str,
    state: str,
    captions: Sequence[Caption],
    cut: Cut,
    notes: Counter[str],
) -> tuple[Film, list[Clip], dict[str, np.ndarray]]:
    """Embed the clips of a film, and count in ``notes`` what is wrong with their captions."""
    try:
        seconds = model.seconds(Path(path))
        times = _times(captions, seconds, cut)
        if not times:
            return Film(path, state, seconds, "neither picture nor sound"), [], {}
        made = model.embed_film(Path(path), times)
    except (MediaError, OSError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        return Film(path, state, 0.0, reason), [], {}
    clips = [
        Clip(start, end, text, letters, _thumbnail(Path(path), (start + end) / 2))
        for (start, end, text), letters in zip(times, made.has, strict=True)
    ]
    notes.update(made.notes)
    return Film(path, state, seconds), clips, made.vectors


def _times(captions: Sequence[Caption], seconds: float, cut: Cut) -> list[tuple[float, float, str]]:
    """Return the start, the end and the text of each clip."""
    if captions:
        ends = [(c.start, min(c.end, seconds), c.text) for c in captions]
        return [clip for clip in ends if clip[0] < clip[1]]
    if seconds <= 0:
        return []
    return [(*window, "") for window in windows_of(0.0, seconds, *cut)]


def _thumbnail(path: Path, second: float) -> bytes | None:
    """Return a small JPEG of a film; None if there is no picture."""
    try:
        frames = read_frames(path, 10, *THUMBNAIL, max(0.0, second), second + 0.1)
    except (MediaError, ValueError):
        return None
    return encode_jpeg(frames[0]) if len(frames) else None


def summarise(counts: Mapping[str, int], storage: Storage) -> str:
    """Say in one line what was done, and what the index holds."""
    rows, _, _ = storage.table()
    parts = [
        f"{number_of(n, 'caption')} {CAPTIONS[what]}" if what in CAPTIONS else f"{n} {what}"
        for what, n in counts.items()
        if n
    ]
    films = number_of(len(storage.films()), "film")
    return f"{storage.folder}: {films}, {number_of(len(rows), 'clip')} ({', '.join(parts) or '-'})"
