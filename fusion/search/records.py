"""What an index knows of its films and clips.

Shapes: N clips.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Film(NamedTuple):
    """A film of an index."""

    path: str  # absolute; by it a film is known
    state: str  # of the file and its captions: what has changed is embedded again
    seconds: float
    problem: str | None = None  # why it has no clips


class Clip(NamedTuple):
    """A stretch of a film."""

    start: float  # seconds
    end: float
    text: str  # of its captions; may be empty
    has: str  # letters of its modalities
    thumbnail: bytes | None = None  # JPEG


class FilmFacts(NamedTuple):
    """A film of an index, for those who search."""

    id: int  # its number
    name: str  # path below the folder that holds all films
    path: str
    seconds: float
    clips: int  # how many
    problem: str | None  # why it has none


class Hit(NamedTuple):
    """A clip that answers a question."""

    video: str  # path of the film
    start: float  # seconds
    end: float
    score: float  # cosine of the combination that was compared
    by: Mapping[str, float]  # cosine of each single modality that the clip has, by name
    text: str  # of the clip's captions
    id: int  # of the clip; it stays, and is never given to another one
    calibrated: float  # by this number hits are sorted: cosine above the mean of its combination
    film: int  # number of the film; it stays when the film is changed or moved
    name: str  # of the film: its path below the folder that holds all films


class ClipFacts(NamedTuple):
    """A clip of an index."""

    id: int
    film: int
    name: str
    video: str
    start: float
    end: float
    text: str
    has: str  # letters of its modalities
    thumbnail: bytes | None  # JPEG


class Table(NamedTuple):
    """All clips, by number."""

    ids: NDArray[np.int64]  # (N,) numbers, ascending
    rows: NDArray[np.int64]  # (N,) in the vector files, ascending too
    names: list[str]  # of their films
    has: list[str]  # letters of their modalities


def name_films(paths: Sequence[str]) -> list[str]:
    """Return the paths of films relative to the folder that holds all of them."""
    base = os.path.commonpath([os.path.dirname(path) for path in paths] or [""])
    return [Path(path).relative_to(base).as_posix() for path in paths]
