"""The drawn pictures: what is planned is seen."""

import colorsys

import numpy as np
import pytest

from fusion.data.demo.questions.draw import draw_picture
from fusion.data.demo.questions.plan import Picture, plan_split
from fusion.data.demo.questions.things import COLOUR_NAMES, SHAPE_NAMES, SIZE, Thing
from fusion.data.demo.shapes import HUES, SHAPES

PICTURES = plan_split("test", 60)


def inside(thing, shape=None, shrink=1.0):
    """Which pixels a thing covers, of this shape: (64, 64)."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    dx, dy = x - thing.x, y - thing.y
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    distance = SHAPES[shape or thing.shape](cos * dx + sin * dy, cos * dy - sin * dx, thing.radius)
    return distance < -shrink


def hue_distance(colour, name):
    hue = colorsys.rgb_to_hsv(*(colour / 255))[0]
    return abs((hue - HUES[name] + 0.5) % 1 - 0.5)


def test_each_thing_is_seen_in_its_colour():
    """The mean colour of its pixels is nearest to that name."""
    for picture in PICTURES:
        drawn = draw_picture(picture).astype(float)
        for thing in picture.things:
            pixels = drawn[inside(thing)]
            assert len(pixels) > 25
            nearest = min(COLOUR_NAMES, key=lambda name: hue_distance(pixels.mean(axis=0), name))
            assert nearest == thing.colour


def test_each_thing_is_seen_in_its_shape():
    """Of all shapes at its place, its own tells pixels of its colour best from the others."""
    for picture in PICTURES:
        drawn = draw_picture(picture).astype(float)
        for thing in picture.things:
            near = np.zeros((SIZE, SIZE), bool)
            x, y, reach = round(thing.x), round(thing.y), round(1.3 * thing.radius)
            near[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
            vivid = (drawn.max(axis=2) - drawn.min(axis=2)) / (drawn.max(axis=2) + 1) > 0.45
            found = {s: (inside(thing, s, 0) == vivid)[near].mean() for s in SHAPE_NAMES}
            assert max(found, key=found.get) == thing.shape, (picture.path, found)


def test_a_picture_is_64_by_64_and_always_the_same():
    first, again, other = map(draw_picture, (PICTURES[0], PICTURES[0], PICTURES[1]))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pictures_look_as_when_they_were_made():
    """Means, as renderings of other processors differ by rounding."""
    means = [draw_picture(picture).mean() for picture in PICTURES[:4]]
    assert means == pytest.approx([105.452, 117.209, 116.534, 128.632], abs=0.02)


def test_questions_change_nothing_of_the_picture():
    picture = PICTURES[0]
    unasked = Picture(picture.split, picture.index, picture.things, ())
    np.testing.assert_array_equal(draw_picture(unasked), draw_picture(picture))


@pytest.mark.parametrize("shape", SHAPE_NAMES)
def test_a_thing_may_stand_at_the_edge(shape):
    thing = Thing(shape, "red", 3.0, 62.0, 8.0, 0.1)
    empty, drawn = (draw_picture(Picture("test", 0, some, ())) for some in ((), (thing,)))
    assert not np.array_equal(empty[50:, :16], drawn[50:, :16])
