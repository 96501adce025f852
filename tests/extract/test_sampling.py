from fractions import Fraction

import pytest

from fusion.extract.sampling import Sampling, seen_size


@pytest.mark.parametrize(
    ("size", "expected"),  # width, height
    [
        ((640, 360), (398, 224)),
        ((360, 640), (224, 398)),
        ((300, 300), (224, 224)),
        ((638, 358), (399, 224)),
        ((1, 1), (224, 224)),
        ((10_000, 10), (8 * 224, 224)),  # and not 224,000 pixels wide
    ],
)
def test_the_shorter_side_is_fixed_and_the_longer_one_rounded_down(size, expected):
    assert Sampling(1, 224).scaled_size(*size) == expected
    assert Sampling(1, 224).picture_size(*size) == expected[::-1]


def test_a_crop_is_what_a_backbone_gets():
    assert Sampling(24, 112, crop=112).picture_size(640, 360) == (112, 112)
    assert Sampling(15, (128, 171), crop=112).scaled_size(640, 360) == (171, 128)


def test_rows_per_second_follow_from_rate_and_stride():
    assert Sampling(24, 112, frames=16, stride=16).per_second == 1.5
    assert Sampling(10, 224, frames=32, stride=10).per_second == 1.0


def test_pixels_that_are_not_square_are_stretched_and_nearly_square_ones_are_not():
    assert seen_size(720, 576, Fraction(16, 11), 0) == (pytest.approx(1047.27, abs=0.01), 576)
    assert seen_size(720, 576, Fraction(2560, 2559), 0) == (720, 576)
    assert seen_size(720, 576, None, 0) == seen_size(720, 576, Fraction(0), 0) == (720, 576)


def test_a_quarter_turn_swaps_width_and_height():
    assert seen_size(640, 360, None, 1) == seen_size(640, 360, None, 3) == (360, 640)
    assert seen_size(640, 360, None, 2) == (640, 360)
    assert seen_size(640, 360, Fraction(2), 1) == (360, 1280)


@pytest.mark.parametrize(
    "arguments", [(0, 224), (1, 0), (1, 224, 225), (1, 224, None, 0), (1, 9, 9, 1, 0), (1, (0, 9))]
)
def test_impossible_numbers_are_refused(arguments):
    with pytest.raises(ValueError, match="all numbers must be > 0 and crop at most resize"):
        Sampling(*arguments)
