"""Whole films: best clip, all captions, votes, by hand and against plain twins."""

import itertools

import numpy as np
import pytest

from fusion.evaluation.localisation import (
    best_of_films,
    ranks_of_all_captions,
    ranks_of_captions,
    ranks_of_clips,
    votes_won,
)

CLIPS = np.array([0, 0, 1, 1, 2])
CAPTIONS = np.array([0, 0, 1])
SCORES = np.array(
    [
        [0.1, 0.9, 0.2, 0.3, 0.4],  # film 0 first
        [0.1, 0.2, 0.9, 0.8, 0.7],  # film 1, then 2, then 0: as clips four places
        [0.5, 0.1, 0.4, 0.2, 0.6],  # film 2, then 0, then 1
    ]
)


def test_the_best_clip_of_a_film_counts():
    best = best_of_films(SCORES, CLIPS, 4)
    assert best[:, :3].tolist() == [[0.9, 0.3, 0.4], [0.2, 0.9, 0.7], [0.5, 0.4, 0.6]]
    assert np.isneginf(best[:, 3]).all()  # a film without clips
    assert ranks_of_captions(best, CAPTIONS).tolist() == [1, 3, 3]
    assert ranks_of_captions(best, np.array([3, 0, 1]))[0] == np.inf
    assert ranks_of_clips(SCORES, CLIPS, CAPTIONS).tolist() == [1, 4, 3]
    assert ranks_of_clips(SCORES, CLIPS, np.array([3, 0, 1]))[0] == np.inf
    shuffled = np.array([3, 0, 4, 2, 1])
    assert np.array_equal(best_of_films(SCORES[:, shuffled], CLIPS[shuffled], 4), best)


def test_all_captions_are_averaged_over_the_best_clips():
    best = best_of_films(SCORES, CLIPS, 3)
    # Film 0: means 0.55, 0.6, 0.55: its place is shared with film 2. Film 1: the last.
    assert ranks_of_all_captions(best, CAPTIONS).tolist() == [2.5, 3.0]
    assert ranks_of_all_captions(best[:0], CAPTIONS[:0]).tolist() == []


def test_votes():
    best = best_of_films(SCORES, CLIPS, 3)
    # By one vote each, film 0 ties with film 1 for its captions; film 1 gets no vote of its own.
    assert votes_won(best, CAPTIONS, 1).tolist() == [0.5, 0.0]
    # By two votes: caption 0 for 0 and 2, caption 1 for 1 and 2, caption 2 for 2 and 0.
    assert votes_won(best, CAPTIONS, 2).tolist() == [0.5, 0.0]
    assert votes_won(best, CAPTIONS, 5).tolist() == [1.0, 1.0]
    assert votes_won(best[:0], CAPTIONS[:0], 1).tolist() == []


def plain_votes(best, k):
    """Draw every order of films that tie, in the votes of each caption and among the votes."""
    films = best.shape[1]
    wins = np.zeros(films)
    counts = np.zeros(films)
    for row in best:
        orders = list(itertools.permutations(range(films)))
        for order in orders:
            chosen = sorted(range(films), key=lambda f: (-row[f], order[f]))[:k]
            counts[chosen] += 1 / len(orders)
    counts = counts.round(9)
    for order in (orders := list(itertools.permutations(range(films)))):
        ranked = sorted(range(films), key=lambda f: (-counts[f], order[f]))[:k]
        wins[[film for film in ranked if counts[film] > 0]] += 1 / len(orders)
    return wins


@pytest.mark.parametrize("k", [1, 2, 3])
def test_votes_equal_all_ways_to_break_ties(k):
    for seed in range(10):
        best = np.random.default_rng(seed).integers(0, 3, (3, 4)).astype(float)
        wins = plain_votes(best, k)
        for film in range(4):
            own = np.full(3, film)
            assert votes_won(best, own, k).tolist() == pytest.approx([wins[film]])


def test_equal_scores_are_chance():
    best = np.zeros((6, 10))
    captions = np.array([0, 0, 3, 3, 3, 9])
    assert ranks_of_captions(best, captions).tolist() == [5.5] * 6
    assert votes_won(best, captions, 5).tolist() == pytest.approx([0.5] * 3)
