"""Frames of the order classes: one object on a cluttered, noisy background.

Shapes: T frames, S side of a frame. Lengths are in pixels; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusion.data.demo.backgrounds import draw_clutter, draw_slope
from fusion.data.demo.orders.plan import NUM_FRAMES, OrderFilm
from fusion.data.demo.shapes import HUES, SHAPES, Array, draw_colour, draw_object, paint

SIDE = 72
NUM_DISTRACTORS = (2, 6)
NOISE = (1.0, 4.0)  # standard deviation, of 255
RADIUS = (8.0, 13.0)
WANDER = 4.0  # pixels that every object moves besides, to any side
LASTS = (0.3, 0.7)  # share of a film that a change takes at least and at most; a slide: all of it

Track = tuple[Array, Array]  # (T, 5) as in shapes.draw_object, and (T, 3) colours


def draw_film(film: OrderFilm) -> Array:
    """Draw a film: (T, S, S, 3) uint8 RGB."""
    frames = draw_forwards(film)
    return frames[::-1] if film.is_reversed else frames


def draw_forwards(film: OrderFilm) -> Array:
    """Draw a film as the first class of its pair."""
    rng = film.generator()
    num_frames = int(rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1))
    still = draw_slope(SIDE, SIDE, rng)
    draw_clutter(still, NUM_DISTRACTORS, rng)
    shape = SHAPES[list(SHAPES)[rng.integers(len(SHAPES))]]
    track, colours = TRACKS[film.pair](num_frames, rng)
    half = int(np.ceil(1.3 * track[:, 2].max())) + 1
    corner = np.floor(track[:, [1, 0]]).astype(int) - half  # row and column of the window, (T, 2)
    window = np.arange(2 * half + 1, dtype=np.float32)
    cover, light = draw_object(shape, track, corner, window)
    grain = rng.standard_normal((SIDE + 16, SIDE + 16, 3), np.float32) * rng.uniform(*NOISE)
    shifts = rng.integers(0, 17, (num_frames, 2))  # of one tile of grain, for speed
    frames = np.empty((num_frames, SIDE, SIDE, 3), np.uint8)
    for i, (row, column) in enumerate(corner.tolist()):
        canvas = still.copy()
        paint(canvas, (row, column), cover[i], light[i], colours[i])
        x, y = shifts[i]
        frames[i] = np.clip(canvas + grain[y : y + SIDE, x : x + SIDE], 0, 255)
    return frames


def _base(num_frames: int, rng: np.random.Generator) -> Track:
    """Wander a little, with a colour of any name: what all classes have in common."""
    along = np.linspace(-0.5, 0.5, num_frames)[:, None]
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    place = rng.uniform(0.35, 0.65, 2) * SIDE + along * direction * rng.uniform(0, WANDER)
    track = np.empty((num_frames, 5), np.float32)
    track[:, :2] = place
    track[:, 2:] = rng.uniform(*RADIUS), rng.uniform(0, 2 * np.pi), 1.0
    colour = draw_colour(list(HUES)[rng.integers(len(HUES))], rng)
    return track, np.repeat(colour[None], num_frames, axis=0)


def _rise(num_frames: int, rng: np.random.Generator) -> Array:
    """Go from 0 to 1 within a part of the film that begins anywhere: (T,)."""
    lasts = rng.uniform(*LASTS)
    begins = rng.uniform(0, 1 - lasts)
    return np.clip((np.linspace(0, 1, num_frames) - begins) / lasts, 0, 1)


def _moves(num_frames: int, rng: np.random.Generator) -> Track:
    track, colours = _base(num_frames, rng)
    track[:, 0] += rng.uniform(20, 40) * np.linspace(-0.5, 0.5, num_frames)
    return track, colours


def _scales(num_frames: int, rng: np.random.Generator) -> Track:
    track, colours = _base(num_frames, rng)
    track[:, 2] *= 0.65 * rng.uniform(1.8, 2.6) ** _rise(num_frames, rng)
    return track, colours


def _fades(num_frames: int, rng: np.random.Generator) -> Track:
    track, colours = _base(num_frames, rng)
    track[:, 4] = _rise(num_frames, rng)
    return track, colours


def _recolours(num_frames: int, rng: np.random.Generator) -> Track:
    track, _ = _base(num_frames, rng)
    first, second = draw_colour("red", rng), draw_colour("blue", rng)
    return track, first + (second - first) * _rise(num_frames, rng)[:, None].astype(np.float32)


TRACKS: dict[str, Callable[[int, np.random.Generator], Track]] = {
    "moves": _moves,
    "scales": _scales,
    "fades": _fades,
    "recolours": _recolours,
}
