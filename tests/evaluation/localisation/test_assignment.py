"""Steps are assigned to seconds as brute force over all orders does, bit for bit."""

import itertools
import math

import numpy as np
import pytest

from fusion.evaluation.localisation import assign_best, assign_in_order, label_seconds
from fusion.evaluation.localisation.assignment import log_softmax

SIZES = [(1, 1), (3, 1), (3, 3), (5, 2), (6, 4), (8, 3), (9, 5), (11, 4)]


def total(scores, chosen):
    """The sum from the first step to the last, in Python's float64."""
    value = 0.0
    for step, second in enumerate(chosen):
        value = value + float(scores[second, step]) if step else float(scores[second, 0])
    return value


def all_orders(scores):
    """Every ordered choice of different seconds with its sum."""
    seconds, steps = scores.shape
    return [(total(scores, c), c) for c in itertools.combinations(range(seconds), steps)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_200_random_matrices(size, kind):
    for seed in range(200 // len(SIZES)):
        scores = np.random.default_rng([seed, *size]).normal(size=size).astype(kind)
        found = assign_in_order(scores)
        best = max(value for value, _ in all_orders(scores))
        assert total(scores, found) == best  # bit for bit
        assert np.all(np.diff(found) > 0)
        winners = [chosen for value, chosen in all_orders(scores) if value == best]
        assert len(winners) > 1 or tuple(found) == winners[0]


@pytest.mark.parametrize("size", SIZES)
def test_ties_take_the_earliest_second_of_the_last_step_then_of_the_one_before(size):
    for seed in range(30):
        scores = np.random.default_rng([seed, *size]).integers(0, 3, size).astype(float)
        best = max(value for value, _ in all_orders(scores))
        winners = [chosen for value, chosen in all_orders(scores) if value == best]
        assert tuple(assign_in_order(scores)) == min(winners, key=lambda c: c[::-1])


def test_order_can_cost_a_step_its_best_second():
    scores = np.array([[0.0, 0.9], [0.2, 0.1], [0.8, 0.0], [0.0, 0.3]])
    assert assign_best(scores).tolist() == [2, 0]  # the second step before the first
    assert assign_in_order(scores).tolist() == [2, 3]
    assert label_seconds(scores).astype(int).tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]


def test_more_steps_than_seconds_and_empty_films():
    for seconds in (0, 2):
        assert assign_in_order(np.zeros((seconds, 3))).tolist() == [-1, -1, -1]
    assert assign_best(np.zeros((0, 2))).tolist() == [-1, -1]
    assert label_seconds(np.zeros((0, 2))).shape == (0, 2)
    assert assign_in_order(np.zeros((4, 0))).tolist() == []
    assert assign_best(np.zeros((4, 0))).tolist() == []


def test_seconds_of_which_nothing_is_known_get_no_step():
    scores = np.array([[1.0, 0.0], [math.inf, 0.0], [-math.inf] * 2, [0.0, 0.5], [0.0, 0.4]])
    assert assign_in_order(scores).tolist() == [0, 3]
    scores[3:] = math.nan
    assert assign_in_order(scores).tolist() == [-1, -1]
    assert assign_best(scores).tolist() == [0, 0]
    assert not label_seconds(scores)[1:].any()


def test_log_softmax_compares_the_steps_of_a_second():
    scores = np.array([[0.0, math.log(3)], [5.0, 5.0], [-math.inf, -math.inf]])
    expected = [[0.25, 0.75], [0.5, 0.5], [0, 0]]
    assert np.exp(log_softmax(scores, 1.0)) == pytest.approx(np.array(expected), abs=1e-15)
    assert np.exp(log_softmax(scores, 2.0))[0] == pytest.approx([0.1, 0.9], abs=1e-15)
    large = log_softmax(np.array([[1000.0, 0.0]]), 1.0)
    assert large.tolist() == [[0.0, -1000.0]]
