"""How many steps were found, how well seconds are ranked, and what guessing reaches.

Shapes: T seconds of a film, K steps, N seconds of several films.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.localisation.assignment import Scores, Seconds

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
ROUNDING = 1e-9  # of a place on the grid


def mask_of(
    intervals: Iterable[tuple[int, float, float]], seconds: int, steps: int, grid: float = 1.0
) -> Mask:
    """Mark the seconds at which steps occur.

    As in the code of CrossTask (``read_assignment``), an interval has every second of which it has
    a part: from its start rounded down to its end rounded up. What is beyond the film is cut off.

    Args:
        intervals: step, start and end in seconds; a step may have several, or none.
        seconds: T, of the film.
        steps: K.
        grid: seconds from one point to the next, where they are not seconds.

    Returns:
        (T, K).
    """
    mask = np.zeros((seconds, steps), bool)
    for step, start, end in intervals:
        first = math.floor(start / grid + ROUNDING)
        mask[max(first, 0) : max(math.ceil(end / grid - ROUNDING), 0), step] = True
    return mask


def steps_found(mask: Mask, found: Seconds) -> Mask:
    """Tell which of the steps that occur, in their order, have a second within an interval.

    Args:
        mask: (T, K), see :func:`mask_of`.
        found: (K,), the second of each step, below 0 for none.

    Returns:
        A flag for each step that occurs; its mean is the recall of the film.
    """
    occurs = np.flatnonzero(mask.any(axis=0))
    return (found[occurs] >= 0) & mask[found[occurs], occurs]


def chance_best(mask: Mask) -> Floats:
    """Compute how likely each step that occurs is found if its second is drawn from all seconds."""
    return mask[:, mask.any(axis=0)].mean(axis=0) if mask.any() else np.zeros(0)


def chance_in_order(mask: Mask) -> Floats:
    """Compute the same if all ordered choices of K different seconds are equally likely.

    Step k has second t in C(t, k) C(T - 1 - t, K - 1 - k) of the C(T, K) choices. Of a film with
    fewer than K seconds nothing is found.
    """
    occurs = np.flatnonzero(mask.any(axis=0))
    seconds, steps = mask.shape
    if seconds < steps:
        return np.zeros(len(occurs))
    logs = np.cumsum(np.log(np.arange(1, seconds + 1)))
    factorials = np.concatenate([[0.0], logs])

    def choose(of: NDArray[np.int64], number: int) -> Floats:
        rest = of - number
        counted = factorials[of] - factorials[number] - factorials[np.maximum(rest, 0)]
        return np.where(rest >= 0, counted, -np.inf)

    places = np.arange(seconds)
    total = choose(np.array([seconds]), steps)
    chances = []
    for step in occurs.tolist():
        ways = choose(places, step) + choose(seconds - 1 - places, steps - 1 - step) - total
        chances.append(float(np.exp(ways[mask[:, step]]).sum()))
    return np.array(chances)


def average_precision(scores: Scores, mask: Mask) -> float | None:
    """Compute the average precision of each step that occurs, and average over these steps.

    Of one step: seconds are ranked by score; the precision at each of its seconds, averaged over
    them. Seconds of equal score are passed at once, as in scikit-learn. A task's seconds are those
    of all its films together, as in MCN's code.

    Args:
        scores: (N, K).
        mask: (N, K), whether a step occurs at a second.

    Returns:
        From 0 to 1; None if no step occurs.
    """
    values = []
    for step in np.flatnonzero(mask.any(axis=0)):
        order = np.argsort(-scores[:, step], kind="stable")
        ranked, right = scores[order, step], mask[order, step]
        last = np.append(ranked[1:] != ranked[:-1], True)  # the last second of each score
        hits = np.cumsum(right)[last]
        precision = hits / (np.flatnonzero(last) + 1)
        values.append(float((np.diff(hits, prepend=0) * precision).sum() / hits[-1]))
    return sum(values) / len(values) if values else None


def mean_over_tasks(values: Sequence[float], tasks: Sequence[str]) -> float:
    """Average the values of films over the films of each task, and those over tasks."""
    return float(weights_of(tasks) @ np.asarray(values, np.float64))


def weights_of(tasks: Sequence[str]) -> Floats:
    """Return the weight of each film in :func:`mean_over_tasks`; together they are 1."""
    names, number, counts = np.unique(
        np.asarray(tasks, dtype=str), return_inverse=True, return_counts=True
    )
    return 1.0 / (len(names) * counts[number.reshape(-1)])


def pooled_over_tasks(found: Sequence[Mask], tasks: Sequence[str]) -> float:
    """Average recall over the steps of all films of a task together, and those over tasks.

    So the code of CrossTask counts (``get_recalls``): a film with many steps weighs more.
    """
    by_task: dict[str, list[Mask]] = {}
    for flags, task in zip(found, tasks, strict=True):
        by_task.setdefault(task, []).append(flags)
    recalls = [float(np.concatenate(flags).mean()) for flags in by_task.values()]
    return sum(recalls) / len(recalls)
