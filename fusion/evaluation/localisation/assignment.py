"""Which second each step gets, from a matrix of scores.

A score that is not finite says that nothing is known of a second: no step gets it.

Shapes: T seconds of a film, K steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOWHERE = -1  # the second of a step that gets none

Scores = NDArray[np.floating]
Seconds = NDArray[np.int64]


def assign_in_order(scores: Scores) -> Seconds:
    """Give each step exactly one second, in order, so that the sum of the scores is highest.

    Step k comes before step k + 1, and no second has two steps (CrossTask, arXiv:1903.08225, which
    minimises the sum of costs). Dynamic programming: with ``best[k, t]`` the highest sum of steps 0
    to k where step k has second t,

        best[k, t] = max over u < t of best[k - 1, u] + scores[t, k].

    Sums are of float64, from the first step to the last. Of equal sums the earliest second of the
    last step is taken, then the earliest of the step before, and so on.

    Args:
        scores: (T, K), the higher the better.

    Returns:
        (K,) int64, ascending; ``NOWHERE`` for all steps if fewer than K seconds are known.
    """
    known = _known(scores)
    number = scores.shape[1]
    found = np.full(number, NOWHERE)
    if len(known) < number or not number:
        return found
    values = scores[known].astype(np.float64).T  # (K, known)
    best = np.full(values.shape, -np.inf)
    best[0] = values[0]
    for step in range(1, number):
        before = np.maximum.accumulate(best[step - 1])[:-1]
        best[step, step:] = before[step - 1 :] + values[step, step:]
    last = len(known)
    for step in reversed(range(number)):
        last = step + int(np.argmax(best[step, step:last]))  # the first of equal ones
        found[step] = known[last]
    return found


def assign_best(scores: Scores) -> Seconds:
    """Give each step its best second, the first of equal ones, whatever the others have.

    Returns:
        (K,) int64; ``NOWHERE`` if no second is known.
    """
    known = _known(scores)
    if not len(known):
        return np.full(scores.shape[1], NOWHERE)
    return known[scores[known].argmax(axis=0)]


def label_seconds(scores: Scores) -> NDArray[np.bool_]:
    """Give each second its best step, the first of equal ones, as MCN's code does.

    MCN's second row of CrossTask (``arg_max_predict`` of its ``eval_cross.py``) is made so: a step
    has as many seconds as it wins, and is found if any of them is right.

    Returns:
        (T, K): whether a second has a step.
    """
    labels = np.zeros(scores.shape, bool)
    if scores.shape[1]:
        known = _known(scores)
        labels[known, scores[known].argmax(axis=1)] = True
    return labels


def log_softmax(scores: Scores, scale: float) -> Scores:
    """Compare the steps of each second: log softmax over steps of the scores times ``scale``.

    MCN's code does so on MiningYouTube, and the models of CrossTask have such scores.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(scores).all(axis=1))
    scaled = np.where(known[:, None], scores, 0).astype(np.float64) * scale
    shifted = scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf)
    logs: Scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    logs[~known] = -np.inf
    return logs


def _known(scores: Scores) -> Seconds:
    return np.flatnonzero(np.isfinite(scores).all(axis=1))
