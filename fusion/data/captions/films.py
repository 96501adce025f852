"""Where the films of captions are: beside the caption file, or below a root."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fusion.data.captions.match import ENDINGS, Ways, full_names
from fusion.data.captions.table import Caption


class Media(Collection[str]):
    """Names of the media files in a folder and below; the folder is listed only when needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and (self.folder / name).is_file()
        except OSError:  # such as a name that is too long
            return False

    def __iter__(self) -> Iterator[str]:
        for file in sorted(self.folder.rglob("*")):
            if file.suffix.lower() in ENDINGS and file.is_file():
                yield file.relative_to(self.folder).as_posix()

    def __len__(self) -> int:
        return sum(1 for _ in self)


def ways_below(root: str | Path | None, *folders: Path | None) -> Ways:
    """Make the function that says what a name in one of ``folders`` may be called below ``root``.

    So ``films/a.mp4`` in a caption file finds ``a.mp4`` of a store that was made of ``films``.
    """

    def ways(name: str) -> list[str]:
        if root is None:
            return []
        places = [os.path.join(os.path.realpath(f), name) for f in folders if f is not None]
        paths = [os.path.relpath(place, os.path.realpath(root)) for place in places]
        return [Path(path).as_posix() for path in paths if not path.startswith(os.pardir)]

    return ways


def look_below(
    captions: Sequence[Caption], source: Path, folder: Path, root: Path | None
) -> tuple[list[Caption], Path]:
    """Find the films that are not in ``folder``, beside the caption file, below ``root``.

    Returns the captions, and the folder that the names of their videos are relative to: ``root``
    if no film is in the folder. ``source`` is for messages.
    """
    names = dict.fromkeys(caption.video for caption in captions)
    beside = Media(folder)
    lost = [name for name in names if name not in beside]
    if root is None or not lost:
        return list(captions), folder
    below = Media(root)
    found = full_names(lost, below, source)
    found = {name: film for name, film in found.items() if film in below}
    if len(lost) < len(names):
        found = {name: os.path.relpath(root / film, folder) for name, film in found.items()}
    elif found:
        folder = root
    return [dataclasses.replace(c, video=found.get(c.video, c.video)) for c in captions], folder
