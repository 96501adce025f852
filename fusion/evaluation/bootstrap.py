"""Paired bootstrap over clips: the same draws for every method.

Shapes: C clips that count, K columns, each a method in a direction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS, SEED = 10_000, 0
BLOCK = 100  # draws at a time

Floats = NDArray[np.float64]


def draw_recalls(hits: Floats, asked: Floats, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Draw clips anew, with replacement and with all their queries, the same for every column.

    Args:
        hits: (C, K) queries of each clip whose clip came first, a mean over seeds.
        asked: (C, K) queries of each clip.
        draws: how many times C clips are drawn.
        seed: of the draws.

    Returns:
        (draws, K) R@1 in per cent.
    """
    generator, size = np.random.default_rng(seed), len(hits)
    recalls = []
    for start in range(0, draws, BLOCK):
        block = range(min(BLOCK, draws - start))
        drawn = [np.bincount(generator.integers(size, size=size), minlength=size) for _ in block]
        counts = np.stack(drawn).astype(np.float64)  # (block, C)
        recalls.append(100 * (counts @ hits) / (counts @ asked))
    return np.concatenate(recalls)


def paired_test(ours: Floats, theirs: Floats) -> dict[str, Any]:
    """Test whether two methods differ by what the same draws gave them.

    Args:
        ours: (draws,) R@1.
        theirs: (draws,) R@1 of the baseline.

    Returns:
        ``interval`` of the difference; two-sided ``p``, twice the smaller share of draws on one
        side of 0, which is never less than 2 / (draws + 1) (Davison and Hinkley, Bootstrap Methods
        and their Application, 1997, 4.2); ``includes_zero``.
    """
    # Equal methods differ by 0, not by what is left of rounding means over seeds.
    differences = np.round(ours - theirs, 9)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    low, high = interval_of(differences)
    p = min(1.0, 2 * (tail + 1) / (len(differences) + 1))
    return {"interval": [low, high], "p": p, "includes_zero": low <= 0 <= high}


def interval_of(draws: Floats) -> list[float]:
    """Give the 95 % interval of (draws,) values, by percentiles."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return [float(low), float(high)]
