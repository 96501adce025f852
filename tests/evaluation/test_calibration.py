"""Curves and weights of scores, against counts by hand and naive loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from fusion.evaluation.calibration import (
    RIDGE,
    Curve,
    cross_entropy,
    fit_weights,
    isotonic_curve,
    linear_curve,
)


def at(curve, *scores):
    return curve(torch.tensor(scores, dtype=torch.float64))[0].tolist()


def test_an_isotonic_curve_is_that_counted_by_hand():
    """Points 0 to 5 with one pair of each kind added at both ends: (matching, others).

    (1, 2), (0, 1), none, (1, 0), (0, 1), (2, 1); pooled: (1, 3), (1, 1), (2, 1).
    """
    curve = isotonic_curve(np.array([3.0, 5.0]), np.array([0.0, 1.0, 4.0]), cells=5)
    prior = math.log(4 / 5)
    np.testing.assert_allclose(curve.x, [0.5, 3.5, 5.0])
    llrs = [math.log(1 / 3) - prior, math.log(1) - prior, math.log(2) - prior]
    np.testing.assert_allclose(curve.y, llrs)
    slope = (llrs[2] - llrs[0]) / 4.5
    assert at(curve, 2.0, 3.5, 6.0, -0.5) == pytest.approx(
        [(llrs[0] + llrs[1]) / 2, llrs[1], llrs[2] + slope, llrs[0] - slope]
    )
    assert curve(torch.tensor([2.0, 9.0]).double())[1].tolist() == pytest.approx(
        [(llrs[1] - llrs[0]) / 3, slope]
    )


def test_an_isotonic_curve_rises_and_finds_the_ratio_of_two_bell_curves():
    draw = np.random.default_rng(0)
    matching, others = draw.normal(2, 1, 2000), draw.normal(0, 1, 200_000)
    curve = isotonic_curve(matching, others)
    scores = np.linspace(-6, 8, 500)
    values = at(curve, *scores)
    assert (np.diff(values) > 0).all()
    middle = [x for x in scores if -1 < x < 3.5]
    assert at(curve, *middle) == pytest.approx([2 * x - 2 for x in middle], abs=0.6)


def test_rounding_does_not_move_an_isotonic_curve():
    """Embeddings differ in their last bit between numbers of threads."""
    draw = np.random.default_rng(1)
    matching, others = draw.normal(0.5, 0.2, 60), draw.normal(0, 0.2, 3540)
    noise = [1e-8 * draw.normal(size=len(x)) for x in (matching, others)]
    moved = isotonic_curve(matching + noise[0], others + noise[1])
    scores = np.linspace(-1, 1.5, 200)
    assert at(moved, *scores) == pytest.approx(at(isotonic_curve(matching, others), *scores), 1e-4)


def test_scores_that_are_all_alike_say_nothing():
    curve = isotonic_curve(np.ones(3), np.ones(6))
    assert at(curve, 0.0, 1.0, 2.0) == [0, 0, 0]
    assert fit_weights([np.ones((3, 3))], np.eye(3, dtype=bool))[0] == [0.0]


def test_the_likelihood_ratio_of_a_line_has_the_mean_one_over_other_pairs():
    others = np.random.default_rng(0).normal(0.1, 0.3, 500)
    ratios = np.exp(at(linear_curve(7.5, others), *others))
    assert ratios.mean() == pytest.approx(1, rel=1e-5)


def problem(shows=range(12), seed=0):
    """Two scores of queries with clips; the second is worse."""
    draw, clips = np.random.default_rng(seed), np.array(shows)
    own = clips[:, None] == np.unique(clips)
    return [own + draw.normal(0, s, own.shape) for s in (0.6, 1.2)], own


def naive_loss(weights, parts, own):
    """The definition, one matching pair at a time."""
    total = sum(w * part for w, part in zip(weights, parts, strict=True))
    losses = []
    for i, j in zip(*np.nonzero(own), strict=True):
        here = math.exp(total[i, j])
        row = sum(math.exp(total[i, k]) for k in range(own.shape[1]) if not own[i, k])
        column = sum(math.exp(total[k, j]) for k in range(own.shape[0]) if not own[k, j])
        losses.append(math.log(1 + row / here) + math.log(1 + column / here))
    return np.mean(losses) + RIDGE / 2 * sum(w**2 for w in weights)


@pytest.mark.parametrize("shows", [range(12), [0, 0, 0, 1, 2, 2, 3, 4, 5, 5]])
def test_the_loss_is_its_definition_and_the_gradient_its_slope(shows):
    parts, own = problem(shows)
    weights = np.array([2.0, 0.7])
    loss, gradient = cross_entropy(weights, parts, own)
    assert loss == pytest.approx(naive_loss(weights, parts, own), rel=1e-12)
    for i, step in enumerate(1e-5 * np.eye(2)):
        slope = (
            naive_loss(weights + step, parts, own) - naive_loss(weights - step, parts, own)
        ) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-6)


def test_weights_are_the_best_of_a_grid():
    parts, own = problem()
    deviations = [part[~own].std() for part in parts]
    scaled = [part / d for part, d in zip(parts, deviations, strict=True)]
    grid = [0.1 * i for i in range(40)]
    losses = {
        pair: cross_entropy(np.array(pair), scaled, own)[0]
        for pair in itertools.product(grid, grid)
    }
    best = min(losses, key=losses.get)
    assert 0 < best[1] < best[0] < grid[-1]
    weights, loss = fit_weights(parts, own)
    assert [w * d for w, d in zip(weights, deviations, strict=True)] == pytest.approx(
        best, abs=0.051
    )
    assert loss <= losses[best]


def test_no_weight_is_negative():
    parts, own = problem()
    weights, _ = fit_weights([parts[0], -parts[1]], own)
    assert weights[0] > 0 and weights[1] == 0


def test_weights_are_finite_where_every_pair_is_found():
    own = np.eye(6, dtype=bool)
    weights, _ = fit_weights([own + 0.01 * np.arange(36).reshape(6, 6)], own)
    assert 0 < weights[0] < 1000


def test_a_curve_of_one_knot_is_a_line():
    assert at(Curve(np.zeros(1), np.array([-2.0]), 3.0), -1.0, 0.0, 2.0) == [-5, -2, 4]
