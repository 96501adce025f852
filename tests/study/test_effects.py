"""Effects against hand-worked tables and a plain twin."""

import itertools

import numpy as np
import pytest

from fusion.study.effects import agreement, contrasts, draw_means, effects_of, pareto
from fusion.study.plan import subsets

TERMS = ("t|v", "t|a", "v|a")


def present_of(terms=TERMS):
    return np.array([[bool(w) for w in s.weights] for s in subsets(terms)])


def found_of(scores, clips=1000, seeds=2):
    """Hits whose share is the score of each setting, the same for each seed."""
    hits = np.zeros((len(scores), seeds, clips), bool)
    for place, score in enumerate(scores):
        hits[place, :, : round(score * clips)] = True
    return hits


def naive_effect(present, valid, scores, columns):
    """Go through all settings; take the sums by hand."""
    rows = {tuple(r): s for r, s, v in zip(present.tolist(), scores, valid, strict=True) if v}
    values = []
    for row in rows:
        if any(row[c] for c in columns):
            continue

        def at(*on, row=row):
            return rows.get(tuple(x or c in on for c, x in enumerate(row)))

        corners = [
            at(*on) for n in range(len(columns) + 1) for on in itertools.combinations(columns, n)
        ]
        if None in corners:
            continue
        values.append(
            corners[1] - corners[0]
            if len(columns) == 1
            else corners[3] - corners[1] - corners[2] + corners[0]
        )
    return (np.mean(values) if values else None), len(values)


@pytest.mark.parametrize("columns", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("part", [False, True])
def test_contrasts_are_those_of_a_naive_count(columns, part):
    present = present_of()
    scores = np.random.default_rng(0).random(len(present))
    valid = ~part | present[:, 0]
    weights, count = contrasts(present, valid, columns)
    expected, pairs = naive_effect(present, valid, scores, columns)
    assert count == pairs
    if pairs:
        assert weights @ scores == pytest.approx(expected)
    else:
        assert not weights.any()


def test_effects_of_an_additive_table_are_its_summands():
    present = present_of()
    scores = 0.2 + present @ np.array([0.3, 0.1, -0.1])
    every = np.ones(len(present), bool)
    found = effects_of(TERMS, present, {"t->v": found_of(scores)}, {"t->v": every}, draws=200)
    by_terms = {effect.terms: effect for effect in found["t->v"]}
    assert by_terms["t|v",].estimate.value == pytest.approx(30)
    assert by_terms["t|a",].estimate.value == pytest.approx(10)
    assert by_terms["v|a",].estimate.value == pytest.approx(-10)
    assert by_terms["t|v",].pairs == 3  # the empty subset was not trained
    for first, second in itertools.combinations(TERMS, 2):
        assert by_terms[first, second].estimate.value == pytest.approx(0, abs=1e-9)
        assert not by_terms[first, second].estimate.is_clear
    assert by_terms["t|v",].estimate.is_clear


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    present = present_of()
    truth = 0.3 + present @ np.array([0.1, 0.0, 0.0])
    every = {"d": np.ones(len(present), bool)}
    inside = 0
    for _ in range(60):
        hits = rng.random((len(present), 4, 200)) < truth[:, None, None]
        found = effects_of(TERMS, present, {"d": hits}, every, draws=200)["d"]
        inside += found[0].estimate.low <= 10 <= found[0].estimate.high
    assert inside >= 50  # of 60; 57 are expected


def test_means_of_draws_are_those_of_the_hits():
    hits = np.random.default_rng(0).random((3, 2, 400)) < 0.4
    drawn = draw_means(hits, 500)
    assert drawn.mean(axis=0) == pytest.approx(100 * hits.mean(axis=(1, 2)), abs=0.5)
    assert (drawn == draw_means(hits, 500)).all()


def test_halves_of_the_seeds_agree_where_the_effects_are_real():
    present = present_of()
    every = {"d": np.ones(len(present), bool)}
    scores = 0.2 + present @ np.array([0.3, 0.1, -0.1])
    assert agreement(TERMS, present, {"d": found_of(scores)}, every) == (pytest.approx(1), 3, 3)
    assert agreement(TERMS, present, {"d": found_of(scores, seeds=1)}, every) is None


def test_the_front_is_what_nothing_beats():
    cost, score = np.array([1.0, 2, 3, 2, 4]), np.array([5.0, 7, 6, 7.5, 9])
    assert pareto(cost, score) == [0, 3, 4]
