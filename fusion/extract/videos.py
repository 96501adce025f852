"""Which files are extracted, and their names in the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusion.data.captions.match import ENDINGS


def find_videos(
    places: Sequence[str | Path], root: str | Path | None = None, leave_out: Path | None = None
) -> dict[str, Path]:
    """List media files by name: the path relative to a common folder, with forward slashes.

    Args:
        places: files, and folders that are searched at any depth except for hidden files.
        root: what the names are relative to; None: the deepest folder that holds all places.
        leave_out: a folder that is not searched: that of the store.

    Returns:
        Files by name, sorted.

    Raises:
        ValueError: a place does not exist, holds no media file, or lies outside of ``root``.
    """
    files: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.exists():
            raise ValueError(f"{place}: no such file or folder; check the path")
        found = sorted(_search(place, leave_out)) if place.is_dir() else [place]
        if not found:
            raise ValueError(f"{place}: no media file in this folder; name one by itself to try it")
        files.update(dict.fromkeys(map(_absolute, found)))
    folders = [_absolute(p) if p.is_dir() else _absolute(p).parent for p in map(Path, places)]
    base = _absolute(Path(root)) if root else Path(os.path.commonpath(folders))
    for file in files:
        if not file.is_relative_to(base):
            raise ValueError(f"{file} is not in the folder {base}; give another --root")
    return dict(sorted((file.relative_to(base).as_posix(), file) for file in files))


def _search(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Find media files; links are followed, but no folder is searched twice."""
    visited = {os.path.realpath(leave_out)} if leave_out else set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if (real := os.path.realpath(here)) in visited:
            continue
        visited.add(real)
        for entry in os.scandir(here):
            if entry.name.startswith("."):
                continue  # such as ._film.mp4, which macOS leaves on other disks
            if entry.is_dir():
                waiting.append(here / entry.name)
            elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
                yield here / entry.name


def _absolute(path: Path) -> Path:
    """Make a path absolute and remove ``..``, without following links."""
    return Path(os.path.abspath(path))
