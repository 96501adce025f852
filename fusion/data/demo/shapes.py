"""Shapes and colours of the built-in corpus' objects, drawn with antialiased edges.

Shapes: T pictures of one object, S side of the square window that holds it.
Lengths are in pixels; y grows downwards.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Shape = Callable[[Array, Array, Array], Array]

HUES = {"red": 0.0, "yellow": 0.145, "green": 0.33, "cyan": 0.49, "blue": 0.635, "pink": 0.87}
HUE_JITTER = 0.035
OBJECT_SATURATION = (0.5, 0.95)
OBJECT_VALUE = (0.6, 1.0)


def rgb(hue: float, saturation: float, value: float) -> Array:
    """Return a colour: (3,) float32, 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def draw_colour(colour: str, rng: np.random.Generator) -> Array:
    """Draw a colour that has this name, more or less bright: (3,) float32, 0 to 255."""
    hue = HUES[colour] + rng.uniform(-HUE_JITTER, HUE_JITTER)
    return rgb(hue, rng.uniform(*OBJECT_SATURATION), rng.uniform(*OBJECT_VALUE))


def draw_object(shape: Shape, track: Array, corner: Array, window: Array) -> tuple[Array, Array]:
    """Compute coverage (0 to 1) and brightness of the object in its window: (T, S, S) each."""
    x, y, radius, angle, visibility = track.T[:, :, None, None]  # each (T, 1, 1)
    top, left = corner.T.astype(np.float32)[:, :, None, None]
    dx, dy = window + (left - x), window[:, None] + (top - y)  # (T, 1, S), (T, S, 1)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx  # coordinates that turn with the object
    distance = shape(x, y, radius)
    cover = np.clip(0.5 - distance, 0, 1) * visibility
    light = 1.08 - 0.38 * np.clip(0.5 + x / 3, 0, 1)  # two tones show the turning
    light *= 1 - 0.35 * np.clip(distance + 2, 0, 1)  # a darker rim
    return cover, light


def paint(
    canvas: Array, corner: tuple[int, int], cover: Array, light: Array, colour: Array
) -> None:
    """Paint an object of a (3,) ``colour`` onto an (H, W, 3) canvas of any type.

    ``cover`` and ``light``, (S, S) each, are its window, which may stick out of the canvas;
    ``corner``: row and column of the window.
    """
    (height, width), (row, column) = canvas.shape[:2], corner
    rows, columns = slice(max(-row, 0), height - row), slice(max(-column, 0), width - column)
    alpha = cover[rows, columns, None]
    part = canvas[max(row, 0) :, max(column, 0) :][: alpha.shape[0], : alpha.shape[1]]
    part[:] = part + alpha * (light[rows, columns, None] * colour - part)


# Shapes: signed distance from the outline, negative inside, for an object of radius about r.


def _circle(x: Array, y: Array, r: Array) -> Array:
    return np.sqrt(x * x + y * y) - r


def _square(x: Array, y: Array, r: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.85 * r


def _triangle(x: Array, y: Array, r: Array) -> Array:
    return np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.66 * r


def _star(x: Array, y: Array, r: Array) -> Array:
    """Five points: fold the plane into one tenth, where the outline is one straight line."""
    tenth = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + tenth, 2 * tenth) - tenth)
    distance = np.sqrt(x * x + y * y)
    outer, inner = 1.25, 0.52  # radii of the points and of the notches
    normal = np.array([inner * np.sin(tenth), outer - inner * np.cos(tenth)])
    normal = (normal / np.hypot(*normal)).astype(np.float32)
    return (distance * np.cos(angle) - outer * r) * normal[0] + distance * np.sin(angle) * normal[1]


def _ring(x: Array, y: Array, r: Array) -> Array:
    return np.abs(np.sqrt(x * x + y * y) - 0.8 * r) - 0.27 * r


def _cross(x: Array, y: Array, r: Array) -> Array:
    x, y = np.abs(x), np.abs(y)
    arm, half = 1.05 * r, 0.33 * r
    return np.minimum(np.maximum(x - arm, y - half), np.maximum(x - half, y - arm))


SHAPES: dict[str, Shape] = dict(
    circle=_circle, square=_square, triangle=_triangle, star=_star, ring=_ring, cross=_cross
)
