"""Frames of a scene: an object that moves on a cluttered, noisy background.

Shapes: T frames, H height, W width. Lengths are in pixels; y grows downwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from fusion.data.demo.backgrounds import (
    NOISE,
    NUM_DISTRACTORS,
    NUM_DISTRACTORS_OF_PLACES,
    draw_clutter,
    draw_halves,
    draw_slope,
)
from fusion.data.demo.plan import FRAMES_PER_SECOND
from fusion.data.demo.shapes import SHAPES, Array, draw_colour, draw_object, paint

HEIGHT, WIDTH = 72, 96
RADIUS = (10.0, 17.0)

DRIFT = 12  # twice the pixels by which the camera moves at most in a scene, along each axis


def render_pictures(
    values: Mapping[str, str], num_frames: int, rng: np.random.Generator, place: str = ""
) -> np.ndarray:
    """Draw a shot: (T, H, W, 3) uint8 RGB. ``rng`` draws all that is neither attribute nor place.

    Outdoors there is a light sky above dark ground, indoors a dark wall above a light floor.
    """
    size = HEIGHT + DRIFT, WIDTH + DRIFT
    picture = draw_halves(*size, place, rng) if place else draw_slope(*size, rng)
    draw_clutter(picture, NUM_DISTRACTORS_OF_PLACES if place else NUM_DISTRACTORS, rng)
    still = picture.astype(np.int16)
    track = TRACKS[values["motion"]](num_frames, rng)
    # The camera's path: (T, 2), x and y of the upper left corner, 0 to ``DRIFT``
    way = np.linspace(-0.5, 0.5, num_frames)[:, None] * rng.uniform(-0.5, 0.5, 2)
    camera = np.rint(DRIFT * (0.5 + way)).astype(int)
    track[:, :2] -= camera - DRIFT // 2
    colour = draw_colour(values["colour"], rng)

    half = int(np.ceil(1.3 * track[:, 2].max())) + 1
    corner = np.floor(track[:, [1, 0]]).astype(int) - half  # row and column of the window, (T, 2)
    window = np.arange(2 * half + 1, dtype=np.float32)
    cover, light = draw_object(SHAPES[values["shape"]], track, corner, window)
    grain = rng.standard_normal((HEIGHT + 32, WIDTH + 32, 3), np.float32) * rng.uniform(*NOISE)
    grain = np.rint(grain).astype(np.int16)
    shifts = rng.integers(0, 33, (len(track), 2))  # of one tile of grain, for speed

    frames = np.empty((len(track), HEIGHT, WIDTH, 3), np.uint8)
    for i, (row, column) in enumerate(corner.tolist()):
        x, y = camera[i]
        canvas = still[y : y + HEIGHT, x : x + WIDTH].copy()
        paint(canvas, (row, column), cover[i], light[i], colour)
        x, y = shifts[i]
        canvas += grain[y : y + HEIGHT, x : x + WIDTH]
        frames[i] = np.clip(canvas, 0, 255, out=canvas)
    return frames


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
