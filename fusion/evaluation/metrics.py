"""Metrics of ranks, their values for a random order, bootstrap intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.ranking import Places, Ranks

RECALLS = (1, 5, 10, 50)
DRAWS, SEED = 10_000, 0  # of a paired test
DRAWS_OF_A_TABLE = 1000
BLOCK = 100  # draws at a time

Floats = NDArray[np.float64]


def is_hit(ranks: Ranks, k: int) -> NDArray[np.bool_]:
    """Return which ranks R@k counts as found.

    As published, half a place counts for R@5 and up, but for R@1 only the first place does.
    """
    return ranks == 1 if k == 1 else ranks < k + 1


def hits(ranks: Ranks, k: int) -> int:
    """Count the ranks that R@k counts as found, see :func:`is_hit`."""
    return int(is_hit(ranks, k).sum())


def retrieval_metrics(ranks: Ranks, num_queries: int | None = None) -> dict[str, float]:
    """Summarise ranks.

    Args:
        ranks: of the queries that were ranked.
        num_queries: the denominator of recalls; the number of ranks if not given. It is larger
            where clips that lack a modality of the direction count as misses.

    Returns:
        ``R@k`` in per cent for k of ``RECALLS``; ``MedR`` and ``MeanR`` of the given ranks alone;
        ``GeoMean``, the geometric mean of R@1, R@5 and R@10.

    Raises:
        ValueError: no rank is given.
    """
    if not len(ranks):
        raise ValueError("no clip has what this direction needs, so it cannot be evaluated")
    total = num_queries or len(ranks)
    metrics = {f"R@{k}": 100 * hits(ranks, k) / total for k in RECALLS}
    metrics["MedR"], metrics["MeanR"] = float(np.median(ranks)), float(np.mean(ranks))
    metrics["GeoMean"] = float(np.prod([metrics[f"R@{k}"] for k in (1, 5, 10)]) ** (1 / 3))
    return metrics


def expected_recalls(places: Places, num_queries: int) -> dict[str, float]:
    """Compute the recalls that are expected where ties are broken at random.

    Let b rows be better than the best row of a query's clip, m rows of other clips tie with it, and
    the clip have j such rows (one, unless it has several captions). In a random order of these
    j + m rows the first of the j comes behind x others with the probability that the first x are
    all others, so the clip is among the first k with the probability

        1 - product for i from 0 to k - b - 1 of (m - i) / (m + j - i),

    which is (k - b) / (m + 1), at most 1, for j = 1. A model that embeds all clips alike gets the
    recalls of :func:`chance`, or of :func:`chance_among_captions`.

    Args:
        places: of the queries that were ranked.
        num_queries: the denominator, see :func:`retrieval_metrics`.
    """
    tied, own = places.tied, places.own
    better = np.rint(places.ranks - 1 - tied / 2)
    missed, found = np.ones(len(tied)), {}
    for k in range(1, max(RECALLS) + 1):
        ahead = k - 1 - better  # i of the formula; below 0 only better rows are within k
        factor = np.clip(tied - ahead, 0, None) / np.maximum(tied + own - ahead, 1)
        missed *= np.where(ahead >= 0, factor, 1.0)
        found[k] = len(tied) - float(missed.sum())
    return {f"R@{k}": 100 * found[k] / num_queries for k in RECALLS}


def chance(gallery: int, counted: int | None = None) -> dict[str, float]:
    """Compute the metrics of a random order.

    Args:
        gallery: number of clips, each a query and in the gallery.
        counted: number of clips with those that count as misses; ``gallery`` if not given.
    """
    metrics = {f"R@{k}": 100 * min(k, gallery) / (counted or gallery) for k in RECALLS}
    return metrics | {"MedR": (gallery + 1) / 2, "MeanR": (gallery + 1) / 2}


def chance_among_captions(captions: NDArray[np.int64]) -> dict[str, float]:
    """Compute the metrics of a random order of captions, (C,) their clips, for queries of clips.

    The best of a clip's captions counts.
    """
    _, sizes = np.unique(captions, return_counts=True)
    total = len(captions)
    beyond = np.zeros(total + 1)  # for k from 0 on: the probability that the rank is above k
    for own, clips in zip(*np.unique(sizes, return_counts=True), strict=True):
        steps = np.arange(total)
        # The rank is above k if none of the first k captions is the clip's own.
        kept = np.cumprod(np.clip(total - own - steps, 0, None) / (total - steps))
        beyond += np.concatenate([[1.0], kept]) * clips / len(sizes)
    metrics = {f"R@{k}": 100 * (1 - float(beyond[min(k, total)])) for k in RECALLS}
    at_most_half = int((beyond > 0.5 + 1e-12).sum())  # the smallest k that half the ranks reach
    tied = abs(beyond[at_most_half] - 0.5) < 1e-12
    return metrics | {"MedR": float(at_most_half + 0.5 * tied), "MeanR": float(beyond.sum())}


def flatten_metrics(directions: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Name each number for a log: ``{"t->va": {"R@1": 5.0}}`` -> ``{"t->va R@1": 5.0}``."""
    names = (*(f"R@{k}" for k in RECALLS), "MedR", "MeanR", "GeoMean")
    return {f"{way} {name}": row[name] for way, row in directions.items() for name in names}


def draw_recalls(found: Floats, queries: Floats, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Draw C clips with replacement, each with all its queries, the same for all K columns.

    Args:
        found: (C, K) queries of each clip that ranked it first.
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


def draw_seeds(recalls: Floats, seed: int = SEED) -> Floats:
    """Draw the seeds of a method anew in every draw of clips, the same for all its rows.

    Of n seeds n - 1 are drawn with replacement, so that the variance of their mean is that of n
    seeds; n of n would give (n - 1) / n of it. Drawing clips and seeds apart is the pigeonhole
    bootstrap (Owen 2007, doi:10.1214/07-AOAS122), which rather gives too wide an interval.

    Args:
        recalls: (draws, n, K) R@1 of each seed in K rows, from draws of the same clips.
        seed: of the draws.

    Returns:
        (draws, K) the means over the drawn seeds.
    """
    draws, size, _ = recalls.shape
    if size == 1:
        return recalls[:, 0]
    drawn = np.random.default_rng(seed).integers(size, size=(draws, size - 1))
    means: Floats = np.take_along_axis(recalls, drawn[:, :, None], axis=1).mean(axis=1)
    return means


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

    The arguments are those of :func:`retrieval_metrics`.
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


def interval_over(groups: NDArray[np.int64], scores: Floats) -> list[float]:
    """Return the 95 % interval in per cent of the mean of scores for groups that are drawn anew.

    Args:
        groups: (Q,) the group of each score, such as the file; it is drawn with all of them.
        scores: (Q,) from 0 to 1.
    """
    _, owner = np.unique(groups, return_inverse=True)
    sums = np.bincount(owner, scores), np.bincount(owner)
    found, count = (n[:, None].astype(np.float64) for n in sums)
    return interval_of(draw_recalls(found, count, DRAWS_OF_A_TABLE))
