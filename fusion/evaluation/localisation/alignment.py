"""Cut a film into segments whose order is given, by Viterbi, and measure how well.

MiningYouTube (arXiv:1906.01012): the actions of a film are known in their order, with the
background between them; each second gets one of them.

Shapes: T seconds of a film, C labels, S segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.localisation.assignment import Scores

Labels = NDArray[np.int64]


class Segment(NamedTuple):
    """A run of seconds with one label, from ``start`` to before ``end``."""

    label: int
    start: int
    end: int


class Agreement(NamedTuple):
    """How well segments fit, from 0 to 1; None where a film has no segment that counts."""

    frames: float  # share of the seconds with the right label
    iou: float | None
    iod: float | None


def align(scores: Scores, sequence: Sequence[int]) -> Labels:
    """Find the segments of a given order for which the sum of the scores is highest (Viterbi).

    Each segment has at least one second, and each second one segment. With ``best[s, t]`` the
    highest sum of seconds 0 to t where second t is in segment s,

        best[s, t] = max(best[s, t - 1], best[s - 1, t - 1]) + scores[t, sequence[s]].

    Adding a number to all scores of a second changes nothing, so scores and their log softmax give
    the same segments. Of equal sums the last segment begins as early as possible, then the one
    before, and so on. A second whose scores are not finite counts as 0 for all labels.

    Args:
        scores: (T, C), the higher the better.
        sequence: the labels of the S segments.

    Returns:
        (T,) the number of each second's segment, from 0.

    Raises:
        ValueError: there are more segments than seconds, or none.
    """
    seconds, number = len(scores), len(sequence)
    if not 0 < number <= seconds:
        raise ValueError(
            f"{number} segments cannot be aligned to {seconds} seconds: each needs one, and there"
            " must be at least one"
        )
    known = np.isfinite(scores).all(axis=1, keepdims=True)
    values = np.where(known, scores, 0).astype(np.float64)[:, list(sequence)]  # (T, S)
    best = np.full(number, -np.inf)
    best[0] = values[0, 0]
    begins = np.zeros((seconds, number), bool)  # whether a segment begins at this second
    for second in range(1, seconds):
        before = np.concatenate([[-np.inf], best[:-1]])
        begins[second] = before > best  # of equal ones it goes on, so that it began earlier
        best = np.maximum(before, best) + values[second]
    labels = np.zeros(seconds, np.int64)
    segment = number - 1
    for second in reversed(range(seconds)):
        labels[second] = segment
        segment -= int(begins[second, segment])
    return labels


def runs_of(labels: Labels) -> list[Segment]:
    """List the runs of equal labels (T,)."""
    if not len(labels):
        return []
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [Segment(int(labels[a]), a, b) for a, b in itertools.pairwise(cuts)]


def compare_segments(truth: Labels, found: Labels, background: int) -> Agreement:
    """Measure segments, of which both sides have the same in the same order.

    Segment i of the truth, G, is compared with segment i that was found, D: IoU is |G and D| /
    |G or D|, IoD is |G and D| / |D|. Both are averaged over the segments that are not background;
    the label of a second counts for all seconds.

    Args:
        truth: (T,) the right label of each second; its runs are the sequence that was aligned.
        found: (T,) the number of each second's segment, see :func:`align`.
        background: the label of seconds without a step.
    """
    runs = runs_of(truth)
    given = np.array([run.label for run in runs])
    ious, iods = [], []
    for number, run in enumerate(runs):
        if run.label == background:
            continue
        places = np.flatnonzero(found == number)
        shared = int(((places >= run.start) & (places < run.end)).sum())
        ious.append(shared / (len(places) + run.end - run.start - shared))
        iods.append(shared / max(1, len(places)))
    right = float((given[found] == truth).mean())
    if not ious:
        return Agreement(right, None, None)
    return Agreement(right, sum(ious) / len(ious), sum(iods) / len(iods))
