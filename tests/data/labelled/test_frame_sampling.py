"""Frame numbers against those of the published TSM code, which counts from 1."""

import json

import numpy as np
import pytest

from fusion.data.labelled import frame_sampling as sampling
from tests.golden_cases import GOLDEN

CASES = json.loads((GOLDEN / "tsm.json").read_text())["sampling"]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['num_frames']}-{c['segments']}")


@EACH
def test_numbers_of_the_published_code(case):
    sizes = case["num_frames"], case["segments"]
    rules = {
        "uniform_val": sampling.uniform_validation,
        "uniform_test": sampling.uniform_test,
        "twice_test": sampling.twice_test,
        "dense_test": sampling.dense_test,
    }
    for name, rule in rules.items():
        assert (rule(*sizes) + 1).tolist() == case[name], name


@EACH
def test_drawn_numbers_have_the_published_bounds(case):
    draw = np.random.default_rng(0)
    drawn = [
        sampling.uniform_train(case["num_frames"], case["segments"], draw) + 1 for _ in range(800)
    ]
    assert np.min(drawn, axis=0).tolist() == case["uniform_train_low"]
    assert np.max(drawn, axis=0).tolist() == case["uniform_train_high"]


def test_a_dense_draw_is_a_regular_grid_that_starts_anywhere():
    draw = np.random.default_rng(0)
    drawn = [sampling.dense_train(300, 8, draw) for _ in range(3000)]
    assert {tuple(np.diff(numbers)) for numbers in drawn} == {(8,) * 7}
    starts = {int(numbers[0]) for numbers in drawn}
    assert (min(starts), max(starts)) == (0, 235)  # of 237 starts the last is never drawn
    assert sampling.dense_train(20, 8, draw).tolist() == [0, 8, 16, 4, 12, 0, 8, 16]


@pytest.mark.parametrize("sizes", [(0, 8), (8, 0)])
def test_nothing_to_take_is_an_error(sizes):
    with pytest.raises(ValueError, match=r"frames cannot be taken out of"):
        sampling.uniform_test(*sizes)
