"""Which films are at some places, and what is to be done with those of an index."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusion.data.captions.match import find_captions
from fusion.data.captions.table import Caption, CaptionError
from fusion.extract.job import find_videos
from fusion.search.storage import Film


def find_films(
    places: Sequence[str | Path], captions: str | Path | None, leave_out: Path
) -> dict[str, Sequence[Caption]]:
    """Find films by absolute path, each with its captions, if it has any."""
    films = find_videos(places, leave_out=leave_out)
    if captions is not None:
        named = find_captions(captions, list(films))
        return {str(path): named.get(name, ()) for name, path in films.items()}
    found: dict[str, Sequence[Caption]] = {str(path): () for path in films.values()}
    absolute = [Path(os.path.abspath(place)) for place in places]
    for folder in dict.fromkeys(p if p.is_dir() else p.parent for p in absolute):
        below = {
            Path(path).relative_to(folder).as_posix(): path
            for path in found
            if Path(path).is_relative_to(folder)
        }
        try:
            beside = find_captions(folder, list(below))
        except CaptionError:  # there are none
            continue
        found |= {below[name]: rows for name, rows in beside.items() if rows}
    return found


class Plan(NamedTuple):
    """What is to be done with the films of an index, by path."""

    new: list[str]
    changed: list[str]
    moved: dict[str, str]  # new paths by old path
    gone: list[str]

    @classmethod
    def of(
        cls, known: Mapping[str, Film], states: Mapping[str, str], places: Sequence[str | Path]
    ) -> Plan:
        """Compare the films of an index with the films of some places.

        A film that is gone has moved if a new one has its file name and its state. Otherwise it
        leaves the index if it was below one of the places: films of other places stay.
        """
        lost = {path: film for path, film in known.items() if not Path(path).exists()}
        old = {(Path(path).name, film.state): path for path, film in lost.items()}
        new, moved = [], {}
        for path in sorted(states.keys() - known.keys()):
            before = old.pop((Path(path).name, states[path]), None)
            if before is None:
                new.append(path)
            else:
                moved[before] = path
        changed = sorted(p for p in states.keys() & known.keys() if known[p].state != states[p])
        folders = [os.path.abspath(place) for place in places]
        gone = [
            path
            for path in known.keys() - states.keys() - moved.keys()
            if any(Path(path).is_relative_to(folder) for folder in folders)
        ]
        return cls(new, changed, moved, gone)
