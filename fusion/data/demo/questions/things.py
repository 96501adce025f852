"""Things in a picture, and the nouns that name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusion.data.demo.shapes import HUES, SHAPES

SIZE = 64  # height and width of a picture, in pixels
MIDDLE = SIZE / 2
REACH = 1.32  # radii from the centre of a thing to its farthest point
SHAPE_NAMES, COLOUR_NAMES = tuple(SHAPES), tuple(HUES)


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a picture. Lengths are in pixels; y grows downwards."""

    shape: str
    colour: str
    x: float  # of the centre, from the left edge
    y: float  # from the upper edge
    radius: float
    angle: float  # radians


@dataclasses.dataclass(frozen=True)
class Noun:
    """A noun of a question; an empty ``shape`` or ``colour`` is not said."""

    shape: str = ""
    colour: str = ""

    def fits(self, shape: str, colour: str) -> bool:
        """Say whether a thing of this shape and colour is meant."""
        return self.shape in ("", shape) and self.colour in ("", colour)

    def __str__(self) -> str:
        return f"{self.colour} {self.shape or 'object'}".strip()

    @property
    def plural(self) -> str:
        """The noun for several things."""
        return f"{self}{'es' if self.shape == 'cross' else 's'}"


NOTHING = Noun("-", "-")  # fits no thing


def pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one of some texts."""
    return choices[int(rng.integers(len(choices)))]
