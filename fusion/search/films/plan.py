"""Which films are at some places, and what is to be done with those of an index."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusion.data.captions.beside import captions_beside
from fusion.data.captions.match import find_captions
from fusion.data.captions.table import Caption
from fusion.extract.job import find_videos
from fusion.search.films.embedding import AGAIN
from fusion.search.records import Film
from fusion.words import number_of


class Found(NamedTuple):
    """The films at some places."""

    films: Mapping[str, Sequence[Caption]]  # by absolute path; no captions if it has none
    problems: list[str]  # of caption files that are not used; a line for each
    links: int  # paths that lead to a film that has another one here


def find_films(places: Sequence[str | Path], captions: str | Path | None, leave_out: Path) -> Found:
    """Find films with their captions; one to which several links lead counts once.

    Args:
        places: files and folders.
        captions: a caption file, or a folder of them; None: those beside the films.
        leave_out: a folder.

    Raises:
        ValueError: a place is not there or has no films, or ``captions`` cannot be read.
    """
    named = find_videos(places, leave_out=leave_out)
    kept = _without_links([str(path) for path in named.values()])
    links = len(named) - len(kept)
    if captions is not None:
        films = {name: path for name, path in named.items() if str(path) in kept}
        spoken = find_captions(captions, list(films))
        found = {str(path): spoken.get(name, ()) for name, path in films.items()}
        return Found(found, [], links)
    found, problems = dict.fromkeys(kept, ()), []
    absolute = [Path(os.path.abspath(place)) for place in places]
    for folder in dict.fromkeys(p if p.is_dir() else p.parent for p in absolute):
        below = {
            Path(path).relative_to(folder).as_posix(): path
            for path in found
            if Path(path).is_relative_to(folder)
        }
        beside = captions_beside(folder, list(below))
        found |= {below[name]: rows for name, rows in beside.captions.items()}
        problems += beside.problems
    return Found(found, list(dict.fromkeys(problems)), links)


def _without_links(paths: Sequence[str]) -> list[str]:
    """Keep one path of each file: its own, or else the first."""
    chosen: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        if path == real or real not in chosen:
            chosen[real] = path
    kept = set(chosen.values())
    return [path for path in paths if path in kept]


class Plan(NamedTuple):
    """What is to be done with the films of an index, by path."""

    new: list[str]
    changed: list[str]
    moved: dict[str, str]  # new paths by old path
    gone: list[str]
    missing: list[str]  # not there, but they may come back

    @classmethod
    def of(
        cls,
        known: Mapping[str, Film],
        states: Mapping[str, str],
        places: Sequence[str | Path],
        prune: bool = False,
    ) -> Plan:
        """Compare the films of an index with the films of some places.

        A film that is not there has moved if a new one has its file name and its state. Otherwise
        it is gone if it was below one of the places (films of other places stay), and its own
        folder is there and has something in it. If not, it is missing: its disk may be unplugged.
        With ``prune`` it is gone all the same.
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
        both = sorted(states.keys() & known.keys())
        changed = [p for p in both if states[p] == AGAIN or known[p].state != states[p]]
        ours = [p for p in below(known, places) if p not in states and p not in moved]
        has_files = functools.cache(_has_files)
        gone = [
            path for path in ours if prune or path not in lost or has_files(os.path.dirname(path))
        ]
        return cls(new, changed, moved, gone, [path for path in ours if path not in set(gone)])


def below(paths: Mapping[str, Film], places: Sequence[str | Path]) -> list[str]:
    """Return the paths that are below some places, sorted."""
    folders = [os.path.abspath(place) for place in places]
    return sorted(
        path for path in paths if any(Path(path).is_relative_to(folder) for folder in folders)
    )


def say_missing(paths: Sequence[str]) -> list[str]:
    """Say in a line for each folder which films are missing, and what to do."""
    folders: dict[str, int] = {}
    for path in paths:
        folders[os.path.dirname(path)] = folders.get(os.path.dirname(path), 0) + 1
    return [
        f"{number_of(count, 'film')} of {folder} cannot be found, and the folder is"
        f" {'empty' if os.path.isdir(folder) else 'not there'}: they stay in the index, as their"
        " disk may be unplugged; if they are deleted, remove them by: --prune"
        for folder, count in folders.items()
    ]


def _has_files(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
