"""Alignment by Viterbi, against all cuts of small films, and its measures worked by hand."""

import itertools

import numpy as np
import pytest

from fusion.evaluation.localisation import align, compare_segments, runs_of

BACKGROUND = 9


def all_cuts(seconds, segments):
    """The segment of each second, for every way to cut."""
    for cuts in itertools.combinations(range(1, seconds), segments - 1):
        bounds = [0, *cuts, seconds]
        yield [s for s in range(segments) for _ in range(bounds[s], bounds[s + 1])]


def total(scores, sequence, labels):
    value = float(scores[0, sequence[labels[0]]])
    for second in range(1, len(labels)):
        value = value + float(scores[second, sequence[labels[second]]])
    return value


@pytest.mark.parametrize(("seconds", "sequence"), [(1, [0]), (4, [0, 1, 0]), (9, [2, 0, 1, 2])])
def test_viterbi_equals_all_cuts_bit_for_bit(seconds, sequence):
    for seed in range(40):
        scores = np.random.default_rng([seed, seconds]).normal(size=(seconds, 3))
        found = align(scores, sequence).tolist()
        cuts = {tuple(c): total(scores, sequence, c) for c in all_cuts(seconds, len(sequence))}
        assert cuts[tuple(found)] == max(cuts.values())
        shifted = align(scores - scores.max(axis=1, keepdims=True) + 7, sequence)
        assert shifted.tolist() == found  # what all labels of a second share does not matter


def test_ties_begin_the_last_segment_as_early_as_possible():
    for seed in range(40):
        scores = np.random.default_rng(seed).integers(0, 2, (8, 2)).astype(float)
        sequence = [0, 1, 0]
        cuts = {tuple(c): total(scores, sequence, c) for c in all_cuts(8, 3)}
        best = [c for c, value in cuts.items() if value == max(cuts.values())]
        first = min(best, key=lambda c: (c.index(2), c.index(1)))
        assert tuple(align(scores, sequence)) == first


def test_more_segments_than_seconds_is_an_error():
    with pytest.raises(ValueError, match="3 segments cannot be aligned to 2 seconds"):
        align(np.zeros((2, 3)), [0, 1, 2])
    with pytest.raises(ValueError, match="0 segments cannot be aligned to 2 seconds"):
        align(np.zeros((2, 3)), [])


def test_unknown_seconds_leave_the_cut_to_the_others():
    scores = np.array([[1.0, 0.0], [-np.inf, -np.inf], [0.0, 1.0]])
    assert align(scores, [0, 1]).tolist() == [0, 1, 1]


def test_frames_iou_and_iod_by_hand():
    truth = np.array([9, 0, 0, 0, 9, 1, 1, 9])
    found = np.array([0, 0, 1, 1, 1, 2, 3, 4])  # segments: 9 0 9 1 9
    assert [run.label for run in runs_of(truth)] == [9, 0, 9, 1, 9]
    agreement = compare_segments(truth, found, BACKGROUND)
    # right: seconds 0, 2, 3, 6 and 7. The first action: 2 shared, 3 found, 3 true; the second: 1.
    assert agreement.frames == 5 / 8
    assert agreement.iou == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert agreement.iod == pytest.approx((2 / 3 + 1 / 1) / 2)
    perfect = compare_segments(truth, np.array([0, 1, 1, 1, 2, 3, 3, 4]), BACKGROUND)
    assert perfect == (1.0, 1.0, 1.0)


def test_a_film_of_background_alone_has_no_iou():
    assert compare_segments(np.full(3, 9), np.zeros(3, int), BACKGROUND) == (1.0, None, None)
    assert runs_of(np.zeros(0, int)) == []


def test_two_segments_of_one_step_are_compared_each_with_its_own():
    truth = np.array([0, 0, 9, 0, 0])
    found = np.array([0, 1, 2, 2, 2])
    agreement = compare_segments(truth, found, BACKGROUND)
    # Second 1 is called background, second 2 the step
    assert agreement == (3 / 5, pytest.approx((1 / 2 + 2 / 3) / 2), pytest.approx((1 + 2 / 3) / 2))
