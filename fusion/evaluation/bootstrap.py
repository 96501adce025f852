"""Bootstrap intervals, and paired tests of methods with the same draws for every method."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.metrics import hits
from fusion.evaluation.ranking import Ranks

DRAWS, SEED = 10_000, 0  # of a paired test
DRAWS_OF_A_TABLE = 1000
BLOCK = 100  # draws at a time

Floats = NDArray[np.float64]


def draw_recalls(found: Floats, queries: Floats, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Draw C clips with replacement, each with all its queries, the same for all K columns.

    Args:
        found: (C, K) queries of each clip that ranked it first, a mean over seeds.
        queries: (C, K) queries of each clip.
        draws: how often C clips are drawn.
        seed: of the draws.

    Returns:
        (draws, K) R@1 in per cent.
    """
    generator, size = np.random.default_rng(seed), len(found)
    recalls = []
    for start in range(0, draws, BLOCK):
        block = range(min(BLOCK, draws - start))
        drawn = [np.bincount(generator.integers(size, size=size), minlength=size) for _ in block]
        counts = np.stack(drawn).astype(np.float64)  # (block, C)
        recalls.append(100 * (counts @ found) / (counts @ queries))
    return np.concatenate(recalls)


def paired_test(ours: Floats, theirs: Floats) -> dict[str, Any]:
    """Test whether two methods differ, from (draws,) R@1 of the same draws for both.

    Returns:
        ``interval`` of the difference; two-sided ``p``, twice the smaller share of draws on one
        side of 0, which is never less than 2 / (draws + 1) (Davison and Hinkley, Bootstrap Methods
        and their Application, 1997, 4.2); ``includes_zero``.
    """
    # Means over seeds have rounding errors, but the difference of equal methods must be 0.
    differences = np.round(ours - theirs, 9)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    low, high = interval_of(differences)
    p = min(1.0, 2 * (tail + 1) / (len(differences) + 1))
    return {"interval": [low, high], "p": p, "includes_zero": low <= 0 <= high}


def interval_of(draws: Floats) -> list[float]:
    """Return the 95 % interval of (draws,) values, by percentiles."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return [float(low), float(high)]


def interval_over_queries(ranks: Ranks, num_queries: int) -> list[float]:
    """Return the 95 % interval of R@1 in per cent for queries that are drawn anew.

    The arguments are those of :func:`fusion.evaluation.metrics.retrieval_metrics`.
    """
    # The number of hits among queries drawn with replacement is binomial.
    share, generator = hits(ranks, 1) / num_queries, np.random.default_rng(SEED)
    return interval_of(100 * generator.binomial(num_queries, share, DRAWS_OF_A_TABLE) / num_queries)


def interval_over_clips(
    ranks: Ranks, clips: NDArray[np.int64], captions: NDArray[np.int64]
) -> list[float]:
    """Return the 95 % interval of R@1 in per cent for clips that are drawn anew.

    A clip is drawn with all its captions: they depend on each other, so drawing single captions
    would make the interval too narrow.

    Args:
        ranks: (Q,) of the captions that were ranked.
        clips: (Q,) their clips.
        captions: the clips of all captions that count, Q or more.
    """
    names, owner = np.unique(captions, return_inverse=True)
    first = np.bincount(np.searchsorted(names, clips[ranks == 1]), minlength=len(names))
    found, queries = (n[:, None].astype(np.float64) for n in (first, np.bincount(owner)))
    return interval_of(draw_recalls(found, queries, DRAWS_OF_A_TABLE))
