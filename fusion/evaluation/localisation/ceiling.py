"""The recall of a perfect perceiver.

Shapes: T seconds of a film, K steps, N scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fusion.evaluation.localisation.assignment import Scores, Seconds
from fusion.evaluation.localisation.recall import Floats, mask_of

DRAWS = 32  # of ties
SMALL = 1e-9  # less than what probabilities of different value differ by


def perceiver_recall(
    shares: Floats,
    scenes: Sequence[tuple[float, float]],
    right: Sequence[int],
    seconds: int,
    grid: float,
    assign: Callable[[Scores], Seconds],
) -> float:
    """Compute the recall of who takes the seconds with the most hits in expectation.

    A second counts for every scene of which it has a part. How likely it is right for a step is the
    sum over its scenes, and :func:`.assign_in_order` finds the ordered seconds for which the sum of
    these is highest, :func:`.assign_best` the best second of each. Of equal ones one is drawn; the
    mean over draws is returned.

    Args:
        shares: (K, N), how likely each step is each scene.
        scenes: from when to when each is told about, in seconds.
        right: the scene of each step.
        seconds: T.
        grid: seconds from one point to the next.
        assign: one of these two.
    """
    intervals = [(number, *times) for number, times in enumerate(scenes)]
    mask = mask_of(intervals, seconds, len(scenes), grid)
    likely = mask.astype(np.float64) @ shares.T  # (T, K)
    rng, recalls = np.random.default_rng(0), []
    for _ in range(DRAWS):
        found = assign(likely + SMALL * rng.random(likely.shape))
        recalls.append(float((mask[found, list(right)] & (found >= 0)).mean()))
    return float(np.mean(recalls))
