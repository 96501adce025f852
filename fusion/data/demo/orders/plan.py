"""What the films of the order classes show: eight classes in four pairs, balanced in each split.

A film of the second class of a pair is drawn as one of the first and then played backwards. So the
frames of both classes, without their order, have the same distribution: a network that looks at
frames one by one and averages can tell the pair, but not which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fusion.data.demo.plan import SPLITS

VERSION = 1
SEED = 1910_00932
PAIRS: Mapping[str, tuple[str, str]] = {  # name: a class, and the same played backwards
    "moves": ("left to right", "right to left"),
    "scales": ("grows", "shrinks"),
    "fades": ("appears", "vanishes"),
    "recolours": ("red then blue", "blue then red"),
}
CLASSES = tuple(name for pair in PAIRS.values() for name in pair)
SIZES = {"train": 1200, "validation": 160, "test": 400}  # films
NUM_FRAMES = (16, 28)  # the fewest and the most of a film


class OrderFilm(NamedTuple):
    """A film of one class; ``number`` counts in its split."""

    split: str
    number: int
    label: str

    @property
    def path(self) -> str:
        """Name of the file, which does not tell the class."""
        return f"videos/{self.split}_{self.number:05d}.mp4"

    @property
    def pair(self) -> str:
        """The pair that its class is in."""
        return next(name for name, pair in PAIRS.items() if self.label in pair)

    @property
    def is_reversed(self) -> bool:
        """Whether it is played backwards."""
        return self.label == PAIRS[self.pair][1]

    def generator(self) -> np.random.Generator:
        """Return the random numbers of this film."""
        return np.random.default_rng([SEED, VERSION, SPLITS.index(self.split), self.number])


def check_size(films: int | None) -> None:
    """Raise ValueError unless ``films`` can be the number of training films."""
    most, step = SIZES["train"], len(CLASSES)
    if films is not None and (not step <= films <= most or films % step):
        raise ValueError(
            f"data.training_films is {films!r}; it must be a multiple of {step}, from {step} to"
            f" {most}"
        )


def plan_films(films: int | None = None) -> list[OrderFilm]:
    """Name all films; every class has equally many in each split.

    ``films`` is the number of training films; the other splits have as many, at most their usual
    number. Films of a smaller set are the first of the whole set. A ValueError says that the number
    is not possible.
    """
    check_size(films)
    return [
        OrderFilm(split, index, CLASSES[index % len(CLASSES)])
        for split, usual in SIZES.items()
        for index in range(min(usual, films or usual))
    ]
