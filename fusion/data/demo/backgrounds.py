"""Backgrounds of the built-in corpus: muted colours, cluttered with blobs, boxes and lines.

Shapes: H height, W width. Lengths are in pixels; y grows downwards.
"""

from __future__ import annotations

import numpy as np

from fusion.data.demo.shapes import Array, rgb

NUM_DISTRACTORS = (6, 12)
NUM_DISTRACTORS_OF_PLACES = (4, 9)
DISTRACTOR_SATURATION = (0.05, 0.4)
DISTRACTOR_VALUE = (0.2, 0.8)
NOISE = (2.0, 7.0)  # standard deviation, of 255

HORIZON = (0.45, 0.65)  # of the height, from above
PLACE_SATURATION = (0.05, 0.3)
LIGHT, DARK = (0.68, 0.85), (0.2, 0.35)
PLACES = {"outdoors": (LIGHT, DARK), "indoors": (DARK, LIGHT)}  # above and below the horizon


def draw_clutter(picture: Array, number: tuple[int, int], rng: np.random.Generator) -> None:
    """Draw distractors onto an (H, W, 3) float32 picture; ``number``: the fewest and the most."""
    fewest, most = number
    for _ in range(rng.integers(fewest, most + 1)):
        _draw_distractor(picture, rng)


def draw_slope(height: int, width: int, rng: np.random.Generator) -> Array:
    """Draw a slope from one muted colour to another: (H, W, 3) float32."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cos, sin = _direction(rng)
    slope = 0.5 + 0.5 * (cos * (2 * x / width - 1) + sin * (2 * y / height - 1))
    first, second = _muted(rng), _muted(rng)
    return first + (second - first) * np.clip(slope, 0, 1)[..., None]


def draw_halves(height: int, width: int, place: str, rng: np.random.Generator) -> Array:
    """Draw two muted colours, one above the other, as in ``PLACES``: (H, W, 3) float32."""
    horizon = int(height * rng.uniform(*HORIZON))
    picture = np.empty((height, width, 3), np.float32)
    for rows, values in zip((slice(horizon), slice(horizon, None)), PLACES[place], strict=True):
        picture[rows] = rgb(rng.random(), rng.uniform(*PLACE_SATURATION), rng.uniform(*values))
    return picture


def _draw_distractor(picture: Array, rng: np.random.Generator) -> None:
    """Draw a stretched blob, a box or a line, of a muted colour, at a random place."""
    kind = rng.integers(3)
    long = rng.uniform(25, 60) if kind == 0 else rng.uniform(8, 26)
    short = rng.uniform(0.7, 2.0) if kind == 0 else rng.uniform(5, 14)
    x, y = rng.uniform(0, picture.shape[1]), rng.uniform(0, picture.shape[0])
    reach = long + short + 1
    top, left = int(max(y - reach, 0)), int(max(x - reach, 0))
    part = picture[top : int(y + reach), left : int(x + reach)]
    dx = np.arange(left, left + part.shape[1], dtype=np.float32) - x
    dy = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - y
    cos, sin = _direction(rng)
    along, across = np.abs(cos * dx + sin * dy), np.abs(cos * dy - sin * dx)
    if kind == 1:
        cover = np.clip(6 - 6 * (along / long) ** 2 - 6 * (across / short) ** 2, 0, 1)
    else:
        cover = np.clip(np.minimum(long - along, short - across), 0, 1)
    cover *= rng.uniform(0.4, 0.9)
    part += cover[..., None] * (_muted(rng) - part)


def _muted(rng: np.random.Generator) -> Array:
    return rgb(rng.random(), rng.uniform(*DISTRACTOR_SATURATION), rng.uniform(*DISTRACTOR_VALUE))


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return float(np.cos(angle)), float(np.sin(angle))
