"""Recall, chance and average precision, against cases worked by hand and plain twins."""

import itertools
import math

import numpy as np
import pytest

from fusion.evaluation.localisation import (
    assign_best,
    assign_in_order,
    average_precision,
    chance_best,
    chance_in_order,
    mask_of,
    steps_found,
)
from fusion.evaluation.localisation.recall import (
    mean_over_tasks,
    pooled_over_tasks,
    weights_of,
)


def test_an_interval_has_every_second_of_which_it_has_a_part():
    mask = mask_of([(0, 1.2, 3.0), (0, 4.9, 5.1), (1, 0.0, 0.5), (2, 5.5, 99.0)], 6, 4)
    assert np.flatnonzero(mask[:, 0]).tolist() == [1, 2, 4, 5]  # two intervals of one step
    assert np.flatnonzero(mask[:, 1]).tolist() == [0]
    assert np.flatnonzero(mask[:, 2]).tolist() == [5]  # beyond the end of the film
    assert not mask[:, 3].any()
    half = mask_of([(0, 0.6, 1.0)], 6, 1, grid=0.5)
    assert np.flatnonzero(half[:, 0]).tolist() == [1]
    assert not mask_of([(0, 7.0, 9.0)], 6, 1).any()


def test_steps_that_never_occur_do_not_count():
    mask = mask_of([(0, 0, 2), (2, 3, 4)], 5, 3)
    assert steps_found(mask, np.array([1, 4, 3])).tolist() == [True, True]
    assert steps_found(mask, np.array([2, 0, 3])).tolist() == [False, True]
    assert steps_found(mask, np.array([-1, -1, -1])).tolist() == [False, False]
    assert steps_found(np.ones((1, 1), bool), np.array([-1])).tolist() == [False]
    assert steps_found(np.zeros((5, 2), bool), np.array([0, 1])).tolist() == []
    assert steps_found(np.zeros((0, 2), bool), np.array([-1, -1])).tolist() == []


def test_films_count_within_their_task_and_tasks_alike():
    tasks = ["a", "b", "a"]
    assert weights_of(tasks).tolist() == [0.25, 0.5, 0.25]
    assert mean_over_tasks([1.0, 0.5, 0.0], tasks) == 0.5
    found = [np.array([True, True, True]), np.array([True, False]), np.array([False])]
    assert pooled_over_tasks(found, tasks) == (3 / 4 + 1 / 2) / 2


@pytest.mark.parametrize(("seconds", "steps"), [(1, 1), (4, 2), (6, 3), (7, 5), (5, 5)])
def test_chance_in_order_is_that_of_all_orders(seconds, steps):
    rng = np.random.default_rng([seconds, steps])
    for _ in range(5):
        mask = rng.random((seconds, steps)) < 0.4
        orders = list(itertools.combinations(range(seconds), steps))
        found = [steps_found(mask, np.array(order)) for order in orders]
        assert chance_in_order(mask) == pytest.approx(np.mean(found, axis=0), abs=1e-12)
        alone = [
            [mask[second, step] for step in np.flatnonzero(mask.any(axis=0))]
            for second in range(seconds)
        ]
        assert chance_best(mask) == pytest.approx(np.mean(alone, axis=0), abs=1e-12)


def test_chance_of_long_and_of_too_short_films():
    assert chance_in_order(np.ones((2, 3), bool)).tolist() == [0, 0, 0]
    assert chance_in_order(np.zeros((4, 2), bool)).tolist() == []
    assert chance_in_order(np.ones((10_000, 30), bool)) == pytest.approx(np.ones(30), rel=1e-9)


def plain_average_precision(scores, right):
    """Pass thresholds from the highest to the lowest, as in scikit-learn's definition."""
    value, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        value += (right[chosen].sum() / right.sum() - recall) * right[chosen].mean()
        recall = right[chosen].sum() / right.sum()
    return value


def test_average_precision():
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    mask = np.array([[True], [False], [True], [False]])
    assert average_precision(scores, mask) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores * 0, mask) == 0.5  # all tie: the share
    assert average_precision(scores, mask & False) is None
    with_another = np.hstack([mask, mask & False])  # a step that never occurs
    assert average_precision(np.hstack([scores, scores]), with_another) == pytest.approx(5 / 6)
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 6, (20, 2)).astype(float)
        scores[rng.random(20) < 0.1] = -math.inf
        mask = rng.random((20, 2)) < 0.3
        mask[0] = True
        plain = [plain_average_precision(scores[:, k], mask[:, k]) for k in range(2)]
        assert average_precision(scores, mask) == pytest.approx(np.mean(plain), abs=1e-12)


@pytest.mark.parametrize("way", ["argmax", "uniform orders"])
def test_draws_reach_the_chance_that_is_computed(way):
    """Random scores by argmax, and orders drawn evenly: 4,000 draws, within four errors."""
    rng = np.random.default_rng(1)
    mask = mask_of([(0, 1, 4), (1, 6, 7), (1, 9, 12), (3, 11, 15)], 15, 4)
    draws, exact = [], chance_best(mask) if way == "argmax" else chance_in_order(mask)
    for _ in range(4000):
        if way == "argmax":
            found = assign_best(rng.random(mask.shape))
        else:
            found = np.sort(rng.choice(15, 4, replace=False))
        draws.append(steps_found(mask, found))
    error = np.sqrt(exact * (1 - exact) / len(draws))
    assert np.all(abs(np.mean(draws, axis=0) - exact) < 4 * error)


def test_a_perfect_matrix_is_found_whole():
    mask = mask_of([(0, 1, 3), (1, 4, 6), (2, 6, 9)], 10, 3)
    for assign in (assign_best, assign_in_order):
        assert steps_found(mask, assign(mask.astype(float))).all()
