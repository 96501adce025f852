"""Descriptors of appearance and motion: what changes them, and what does not."""

import numpy as np
import pytest

from fusion.data.demo.pictures import render_pictures
from fusion.data.demo.plan import combination
from fusion.data.media.descriptors import (
    APPEARANCE_DIM,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    HUES,
    MOTION_DIM,
    appearance,
    motion,
)

SALIENT = 3 * 9 + 8  # first column of `motion` about the salient: speeds to right, left, down, up
SIMILARITY = SALIENT + 9  # flow rightwards, downwards, expansion, turn, ...


def scene(
    colour="red", shape="square", size=8.0, steps=12, right=0.0, down=0.0, turn=0.0, grow=0.0
):
    """Draw a two-toned square that moves by so many pixels, radians, parts per frame."""
    y, x = np.mgrid[0:FRAME_HEIGHT, 0:FRAME_WIDTH].astype(float)
    frames = np.full((steps, FRAME_HEIGHT, FRAME_WIDTH, 3), 90, np.uint8)
    paint = {"red": (220, 30, 30), "blue": (30, 40, 220)}[colour]
    for i, frame in enumerate(frames):
        dx = x - FRAME_WIDTH / 2 - right * (i - steps / 2)
        dy = y - FRAME_HEIGHT / 2 - down * (i - steps / 2)
        cos, sin = np.cos(turn * i), np.sin(turn * i)
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        inside = np.clip(size * (1 + grow * i) - np.maximum(abs(dx), abs(dy)), 0, 1)[..., None]
        light = np.where(dx > 0, 1.0, 0.6)[..., None]
        frame[:] = (1 - inside) * frame + inside * light * paint
    return frames


def test_sizes_are_as_documented():
    for count, rows in [(0, 0), (1, 1), (5, 1), (6, 2), (30, 6)]:
        assert appearance(scene(steps=count)).shape == (rows, APPEARANCE_DIM)
    for count, rows in [(0, 0), (1, 1), (3, 1), (4, 1), (5, 2), (30, 10)]:
        assert motion(scene(steps=count)).shape == (rows, MOTION_DIM)
    assert appearance(scene()).dtype == motion(scene()).dtype == np.float32


def test_rows_do_not_depend_on_how_long_the_film_is():
    frames = np.random.default_rng(0).integers(0, 255, (160, 36, 48, 3), np.uint8)
    np.testing.assert_allclose(appearance(frames)[10:13], appearance(frames[50:65]), atol=1e-6)
    np.testing.assert_allclose(motion(frames)[15:25], motion(frames[45:76]), atol=1e-5)


@pytest.mark.parametrize("fill", [0, 128, 255])
def test_empty_pictures_give_finite_numbers_and_no_motion(fill):
    frames = np.full((9, FRAME_HEIGHT, FRAME_WIDTH, 3), fill, np.uint8)
    assert np.isfinite(appearance(frames)).all()
    np.testing.assert_allclose(motion(frames), 0, atol=1e-6)


def test_numbers_are_of_the_order_of_one():
    values = [combination(n) for n in range(0, 17_000, 1700)]
    frames = [render_pictures(v, 25, np.random.default_rng(0)) for v in values]
    for describe in (appearance, motion):
        rows = np.concatenate([describe(f) for f in frames])
        assert np.isfinite(rows).all()
        assert np.abs(rows).max() < 6


def test_hue_is_that_of_the_object():
    hues = {c: appearance(scene(c))[0, :HUES] for c in ("red", "blue")}
    assert hues["red"].argmax() == 0
    assert hues["blue"].argmax() == 8
    np.testing.assert_allclose([h.sum() for h in hues.values()], 1, atol=1e-3)


def test_a_little_noise_and_light_hardly_change_the_appearance():
    frames = scene()
    noise = np.random.default_rng(0).normal(8, 4, frames.shape)
    other = np.clip(frames + noise, 0, 255).astype(np.uint8)
    plain, noisy = appearance(frames), appearance(other)
    changed = np.linalg.norm(noisy - plain, axis=1)
    different = np.linalg.norm(appearance(scene("blue")) - plain, axis=1)
    assert (changed < different / 3).all()


@pytest.mark.parametrize(
    "movement, column",
    [({"right": 1.0}, 0), ({"down": 1.0}, 1), ({"grow": 0.04}, 2), ({"turn": 0.12}, 3)],
    ids=["right", "down", "expansion", "turn"],
)
def test_motion_back_has_the_opposite_sign(movement, column):
    forth = motion(scene(**movement))[:, SIMILARITY : SIMILARITY + 4]
    back = motion(scene(**movement)[::-1])[:, SIMILARITY : SIMILARITY + 4]
    assert (forth[:, column] > 0.05).all()
    np.testing.assert_allclose(back.mean(axis=0), -forth.mean(axis=0), atol=0.05)
    assert np.abs(forth[:, column]).mean() == np.abs(forth).mean(axis=0).max()


def test_speeds_are_in_half_heights_per_second():
    pixels_per_frame = 1.0
    expected = pixels_per_frame * 10 / (FRAME_HEIGHT / 2)
    rows = motion(scene(right=pixels_per_frame))
    np.testing.assert_allclose(rows[:, SIMILARITY], expected, rtol=0.4)  # hard edges
    np.testing.assert_allclose(2 * rows[:, SALIENT], expected, rtol=0.1)


def test_a_turned_object_has_the_same_outline():
    columns = slice(APPEARANCE_DIM - 18, APPEARANCE_DIM)
    upright, turned = appearance(scene())[0], appearance(scene(turn=0.4, steps=3))[0]
    np.testing.assert_allclose(turned[columns], upright[columns], atol=0.12)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((3, 36, 48), np.uint8),
        np.zeros((3, 36, 48, 4), np.uint8),
        np.zeros((3, 36, 48, 3)),
        np.zeros((3, 4, 48, 3), np.uint8),
    ],
)
@pytest.mark.parametrize("describe", [appearance, motion])
def test_other_arrays_are_refused_with_their_shape(describe, frames):
    with pytest.raises(ValueError, match=r"frames must be .* got "):
        describe(frames)
