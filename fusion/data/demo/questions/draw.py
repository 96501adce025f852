"""Draw the things of a picture on a cluttered, noisy background, as the films do.

Shapes: S side of the square window that holds a thing. Lengths are in pixels.
"""

from __future__ import annotations

import numpy as np

from fusion.data.demo.backgrounds import NOISE, PLACES, draw_clutter, draw_halves, draw_slope
from fusion.data.demo.questions.plan import Picture
from fusion.data.demo.questions.things import REACH, SIZE, Thing
from fusion.data.demo.shapes import SHAPES, draw_colour, draw_object, paint

NUM_DISTRACTORS = (1, 5)  # fewer than in films, whose pictures are larger
BACKGROUNDS = ("", *PLACES)  # a slope from one colour to another, or two halves


def draw_picture(picture: Picture) -> np.ndarray:
    """Draw a picture: (64, 64, 3) uint8 RGB."""
    rng = picture.generator()
    place = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    canvas = draw_halves(SIZE, SIZE, place, rng) if place else draw_slope(SIZE, SIZE, rng)
    draw_clutter(canvas, NUM_DISTRACTORS, rng)
    for thing in picture.things:
        _draw_thing(canvas, thing, rng)
    canvas += rng.standard_normal(canvas.shape, np.float32) * rng.uniform(*NOISE)
    drawn: np.ndarray = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return drawn


def _draw_thing(canvas: np.ndarray, thing: Thing, rng: np.random.Generator) -> None:
    half = int(np.ceil(REACH * thing.radius)) + 1
    corner = int(np.floor(thing.y)) - half, int(np.floor(thing.x)) - half
    window = np.arange(2 * half + 2, dtype=np.float32)  # (S,)
    track = np.array([[thing.x, thing.y, thing.radius, thing.angle, 1]], np.float32)
    cover, light = draw_object(SHAPES[thing.shape], track, np.array([corner]), window)
    paint(canvas, corner, cover[0], light[0], draw_colour(thing.colour, rng))
