"""Frames of a scene: an object that moves on a cluttered, noisy background.

Shapes: T frames, H height, W width, S side of the square window that holds the object.
Lengths are in pixels; y grows downwards.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Mapping

import numpy as np

from fusion.data.demo.plan import FRAMES_PER_SECOND

Array = np.ndarray
Shape = Callable[[Array, Array, Array], Array]

HEIGHT, WIDTH = 72, 96
RADIUS = (10.0, 17.0)

HUES = {"red": 0.0, "yellow": 0.145, "green": 0.33, "cyan": 0.49, "blue": 0.635, "pink": 0.87}
HUE_JITTER = 0.035
OBJECT_SATURATION = (0.5, 0.95)
OBJECT_VALUE = (0.6, 1.0)

NUM_DISTRACTORS = (6, 12)
NUM_DISTRACTORS_OF_PLACES = (4, 9)
DISTRACTOR_SATURATION = (0.05, 0.4)
DISTRACTOR_VALUE = (0.2, 0.8)
NOISE = (2.0, 7.0)  # standard deviation, of 255

HORIZON = (0.45, 0.65)  # of the height, from above
PLACE_SATURATION = (0.05, 0.3)
LIGHT, DARK = (0.68, 0.85), (0.2, 0.35)
PLACES = {"outdoors": (LIGHT, DARK), "indoors": (DARK, LIGHT)}  # above and below the horizon

DRIFT = 12  # twice the pixels by which the camera moves at most in a scene, along each axis


def render_pictures(
    values: Mapping[str, str], num_frames: int, rng: np.random.Generator, place: str = ""
) -> np.ndarray:
    """Draw a shot: (T, H, W, 3) uint8 RGB. ``rng`` draws all that is neither attribute nor place.

    Outdoors there is a light sky above dark ground, indoors a dark wall above a light floor.
    """
    size = HEIGHT + DRIFT, WIDTH + DRIFT
    picture = _draw_halves(*size, place, rng) if place else _draw_slope(*size, rng)
    fewest, most = NUM_DISTRACTORS_OF_PLACES if place else NUM_DISTRACTORS
    for _ in range(rng.integers(fewest, most + 1)):
        _draw_distractor(picture, rng)
    still = picture.astype(np.int16)
    track = TRACKS[values["motion"]](num_frames, rng)
    # The camera's path: (T, 2), x and y of the upper left corner, 0 to ``DRIFT``
    way = np.linspace(-0.5, 0.5, num_frames)[:, None] * rng.uniform(-0.5, 0.5, 2)
    camera = np.rint(DRIFT * (0.5 + way)).astype(int)
    track[:, :2] -= camera - DRIFT // 2
    hue = HUES[values["colour"]] + rng.uniform(-HUE_JITTER, HUE_JITTER)
    colour = _rgb(hue, rng.uniform(*OBJECT_SATURATION), rng.uniform(*OBJECT_VALUE))

    half = int(np.ceil(1.3 * track[:, 2].max())) + 1
    corner = np.floor(track[:, [1, 0]]).astype(int) - half  # row and column of the window, (T, 2)
    window = np.arange(2 * half + 1, dtype=np.float32)
    cover, light = _draw_object(SHAPES[values["shape"]], track, corner, window)
    grain = rng.standard_normal((HEIGHT + 32, WIDTH + 32, 3), np.float32) * rng.uniform(*NOISE)
    grain = np.rint(grain).astype(np.int16)
    shifts = rng.integers(0, 33, (len(track), 2))  # of one tile of grain, for speed

    frames = np.empty((len(track), HEIGHT, WIDTH, 3), np.uint8)
    for i, (row, column) in enumerate(corner.tolist()):
        x, y = camera[i]
        canvas = still[y : y + HEIGHT, x : x + WIDTH].copy()
        rows, columns = slice(max(-row, 0), HEIGHT - row), slice(max(-column, 0), WIDTH - column)
        alpha = cover[i, rows, columns, None]
        part = canvas[max(row, 0) :, max(column, 0) :][: alpha.shape[0], : alpha.shape[1]]
        part[:] = part + alpha * (light[i, rows, columns, None] * colour - part)
        x, y = shifts[i]
        canvas += grain[y : y + HEIGHT, x : x + WIDTH]
        frames[i] = np.clip(canvas, 0, 255, out=canvas)
    return frames


def _draw_slope(height: int, width: int, rng: np.random.Generator) -> Array:
    """Draw a slope from one muted colour to another: (H, W, 3) float32."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cos, sin = _direction(rng)
    slope = 0.5 + 0.5 * (cos * (2 * x / width - 1) + sin * (2 * y / height - 1))
    first, second = _muted(rng), _muted(rng)
    return first + (second - first) * np.clip(slope, 0, 1)[..., None]


def _draw_halves(height: int, width: int, place: str, rng: np.random.Generator) -> Array:
    """Draw two muted colours, one above the other, as in ``PLACES``: (H, W, 3) float32."""
    horizon = int(height * rng.uniform(*HORIZON))
    picture = np.empty((height, width, 3), np.float32)
    for rows, values in zip((slice(horizon), slice(horizon, None)), PLACES[place], strict=True):
        picture[rows] = _rgb(rng.random(), rng.uniform(*PLACE_SATURATION), rng.uniform(*values))
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
    return _rgb(rng.random(), rng.uniform(*DISTRACTOR_SATURATION), rng.uniform(*DISTRACTOR_VALUE))


def _rgb(hue: float, saturation: float, value: float) -> Array:
    """Return a colour: (3,) float32, 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return float(np.cos(angle)), float(np.sin(angle))


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


# Motions: rows of (x, y, radius, angle, visibility), one per frame: (T, 5).


def _track(num_frames: int, rng: np.random.Generator, **moving: Array) -> Array:
    """Stand still near the middle, except for the columns given as ``moving``."""
    place = {
        "x": rng.uniform(0.3, 0.7) * WIDTH,
        "y": rng.uniform(0.35, 0.65) * HEIGHT,
        "radius": rng.uniform(*RADIUS),
        "angle": rng.uniform(-0.25, 0.25),
        "visibility": 1.0,
    }
    still = [np.full(num_frames, value) for value in place.values()]
    for name, values in moving.items():
        column = list(place).index(name)
        still[column] = values * place["radius"] if name == "radius" else values + still[column]
    still[4] = moving.get("visibility", still[4])
    return np.stack(still, axis=1).astype(np.float32)


def _slides(num_frames: int, rng: np.random.Generator, sign: int) -> Array:
    way = rng.uniform(28, 60)
    return _track(num_frames, rng, x=sign * way * np.linspace(-0.5, 0.5, num_frames))


def _bounces(num_frames: int, rng: np.random.Generator) -> Array:
    phase = np.pi * (rng.uniform(0.9, 1.4) * _seconds(num_frames) + rng.random())
    return _track(num_frames, rng, y=rng.uniform(13, 28) * (0.5 - np.abs(np.sin(phase))))


def _spins(num_frames: int, rng: np.random.Generator) -> Array:
    turns_per_second = rng.uniform(0.3, 0.55) * (1 if rng.random() < 0.5 else -1)
    return _track(num_frames, rng, angle=2 * np.pi * turns_per_second * _seconds(num_frames))


def _grows(num_frames: int, rng: np.random.Generator) -> Array:
    factor = rng.uniform(1.8, 2.8)
    return _track(num_frames, rng, radius=0.55 * factor ** np.linspace(0, 1, num_frames))


def _blinks(num_frames: int, rng: np.random.Generator) -> Array:
    phase = 2 * np.pi * (rng.uniform(1.0, 1.8) * _seconds(num_frames) + rng.random())
    return _track(num_frames, rng, visibility=np.clip(0.6 + 1.2 * np.sin(phase), 0, 1))


def _seconds(num_frames: int) -> Array:
    return np.arange(num_frames) / FRAMES_PER_SECOND


TRACKS: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "left": functools.partial(_slides, sign=-1),
    "right": functools.partial(_slides, sign=1),
    "bounces": _bounces,
    "spins": _spins,
    "grows": _grows,
    "blinks": _blinks,
}


def _draw_object(shape: Shape, track: Array, corner: Array, window: Array) -> tuple[Array, Array]:
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
