"""The attributes of a scene: three visible and three audible ones."""

from __future__ import annotations

import math

VISIBLE: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "star", "ring", "cross"),
    "colour": ("red", "yellow", "green", "cyan", "blue", "pink"),
    "motion": ("left", "right", "bounces", "spins", "grows", "blinks"),
}
AUDIBLE: dict[str, tuple[str, ...]] = {
    "timbre": ("flute", "trumpet", "bell", "guitar"),
    "rhythm": ("even", "swinging", "held"),
    "contour": ("rising", "falling", "zigzag"),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = VISIBLE | AUDIBLE
NUM_COMBINATIONS = math.prod(len(values) for values in ATTRIBUTES.values())


def combination(number: int) -> dict[str, str]:
    """Return the values of combination ``number``, which is in [0, ``NUM_COMBINATIONS``)."""
    chosen = {}
    for attribute, values in ATTRIBUTES.items():
        number, index = divmod(number, len(values))
        chosen[attribute] = values[index]
    return chosen
