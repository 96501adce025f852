"""A film, or a part of one, that shows a class."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class LabelError(ValueError):
    """A data set of films with classes cannot be read; one line with the place and the way out."""


class LabelledFilm(NamedTuple):
    """A film and its class.

    ``video`` is relative to the folder of its data set; ``start`` and ``end`` are seconds, ``end``
    None: to the end of the file.
    """

    id: str
    video: str
    label: str
    start: float = 0.0
    end: float | None = None


class Found(NamedTuple):
    """What a table or a folder names; ``splits`` has for each film its split, "" if not given."""

    films: list[LabelledFilm]
    folder: Path
    splits: list[str]
