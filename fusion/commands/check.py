"""Check a caption file: every mistake at once, what is guessed, which films are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.films import Media, look_below
from fusion.data.captions.match import read_all
from fusion.data.captions.table import Caption, CaptionError, CaptionParser, NoCaptionsError
from fusion.data.media.decode import MediaError, open_media
from fusion.words import number_of, visible

MOST = 1000  # mistakes that are printed
_LATE = 0.5  # seconds by which the length that a file states may be wrong


class Collector(CaptionParser):
    """Keeps every mistake, and goes on."""

    def __init__(self) -> None:
        super().__init__(max_bad=1.0)

    def note(self, problem: str) -> None:
        """Keep a mistake."""
        self.problems.append(problem)

    def refuse(self, message: str, captions: int = 1) -> None:
        """Keep a mistake of the structure of a file."""
        self.note(message)

    def check(self) -> None:
        """Say nothing: the caller prints all."""


def check_captions(file: str | Path, videos: str | Path | None = None) -> int:
    """Print the mistakes of a caption file or folder, what is guessed, and what there is.

    Args:
        file: see :func:`fusion.data.captions.match.read_all`.
        videos: folder of the films that are not beside the caption file.

    Returns:
        0: the file can be used; 1: it has mistakes.
    """
    place, parser = Path(file).expanduser(), Collector()
    root = Path(videos).expanduser() if videos is not None else None
    captions: list[Caption] = []
    folder = place.parent
    try:
        if root is not None and not root.is_dir():
            parser.note(f"{root}: no such folder; --videos names the folder of the films")
            root = None
        captions, folder = find_films(place, root, parser)
    except CaptionError as error:
        if not (parser.problems and isinstance(error, NoCaptionsError)):  # its mistakes say why
            parser.note(str(error))
    seconds = _check_films(captions, folder, root, parser)
    if guessed := parser.guesses.describe():
        print(f"guessed: {guessed}")
    for problem in parser.problems[:MOST]:
        print(visible(problem))
    if (more := len(parser.problems) - MOST) > 0:
        print(f"… and {number_of(more, 'mistake')} more")
    films = len({caption.video for caption in captions})
    what = f"{number_of(len(captions), 'caption')} of {number_of(films, 'film')}, {seconds:.1f} s"
    print(f"{place}: {what}; {number_of(len(parser.problems), 'mistake')}")
    return int(bool(parser.problems))


def find_films(place: Path, root: Path | None, parser: CaptionParser) -> tuple[list[Caption], Path]:
    """Read captions, and find their films beside them or below ``root``.

    Returns the captions, and the folder that the names of their videos are relative to.
    """
    folder = place if place.is_dir() else place.parent
    return look_below(read_all(place, Media(folder), parser=parser), place, folder, root)


def _check_films(
    captions: Sequence[Caption], folder: Path, root: Path | None, parser: CaptionParser
) -> float:
    """Note films that are missing or unreadable, and captions behind the end of their film.

    Returns the seconds of all captions, as far as they are known.
    """
    of_film: dict[str, list[Caption]] = {}
    for caption in captions:
        of_film.setdefault(caption.video, []).append(caption)
    total = 0.0
    for film, its in of_film.items():
        path, length = folder / film, math.inf
        if film in Media(folder):
            try:
                length = _seconds(path)
            except MediaError as error:
                parser.note(str(error))
        else:
            where = f"{folder} nor {root}" if root not in (None, folder) else str(folder)
            way = "name it relative to the caption file, or give --videos FOLDER"
            parser.note(
                f"{film}: no such film in {where} ({number_of(len(its), 'caption')}); {way}"
            )
        for caption in its:
            if caption.start >= length + _LATE:
                parser.note(
                    f"{caption.name}: begins after the end of its film ({length:.1f} s); correct"
                    " its times"
                )
            end = min(caption.end, length)
            total += max(0.0, end - caption.start) if math.isfinite(end) else 0.0
    return total


def _seconds(path: Path) -> float:
    """Open a film; return its length, infinity if the file does not state it."""
    with open_media(path) as container:
        if not (container.streams.video or container.streams.audio):
            raise MediaError(f"{path}: neither picture nor sound; convert it to mp4")
        return container.duration / 1_000_000 if container.duration else math.inf
