"""Recall, median and mean of ranks, and their values for a random order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.ranking import Ranks

RECALLS = (1, 5, 10, 50)


def hits(ranks: Ranks, k: int) -> int:
    """Count the ranks that R@k counts as found.

    As published, half a place counts for R@5 and up, but for R@1 only the first place does.
    """
    return int((ranks == 1).sum() if k == 1 else (ranks < k + 1).sum())


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
