"""A film, or a part of one, that shows a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fusion.data.labelled.frame_sampling import DENSE_SPAN
from fusion.data.media.shown import Size

LARGEST = 2048  # pixels of a side of a frame


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


def is_number(text: str) -> bool:
    """Return whether a text is a whole number; ``int`` does not read all digits of Unicode."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def check_frames(frames: object) -> int:
    """Return the number of frames of a clip that a config gives; LabelError: it is none."""
    if type(frames) is not int or not 1 <= frames <= DENSE_SPAN:
        raise LabelError(f"data.frames must be from 1 to {DENSE_SPAN} of a clip; got {frames!r}")
    return frames


def frame_size(key: str, size: int | Sequence[int]) -> Size:
    """Return the size of frames that a config gives: of a square, or ``[height, width]``.

    LabelError: it is none; ``key`` is named.
    """
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(type(n) is int and 1 <= n <= LARGEST for n in sides):
        raise LabelError(
            f"{key} is {size}; it must be pixels from 1 to {LARGEST}, or [height, width]"
        )
    height, width = sides
    return Size(height, width, stretch=not isinstance(size, int))
