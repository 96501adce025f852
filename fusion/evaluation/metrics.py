"""Ranks and what is made of them: recall, median and mean rank, intervals, chance.

Shapes: Q queries, N clips in the gallery, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALLS = (1, 5, 10, 50)
Ranks = NDArray[np.float64]


def ranks_of_pairs(queries: Tensor, gallery: Tensor, block: int = 1024) -> Ranks:
    """Rank, for each query, the clip of the gallery that is its pair.

    Of clips with equal similarity the mean of their places counts, as in the published code: with
    the place that a lucky order would give, a model that embeds all clips alike would be perfect.

    Args:
        queries: (N, E) embeddings; row i belongs to row i of ``gallery``. They are normalised here.
        gallery: (N, E) embeddings.
        block: queries that are compared with the gallery at a time, so that memory is
            block x N instead of N x N.

    Returns:
        (N,) ranks from 1; halves occur.

    Raises:
        ValueError: an embedding is not finite. (NaN would compare as the best of all.)
    """
    queries = torch.nn.functional.normalize(queries.float(), dim=-1)
    gallery = torch.nn.functional.normalize(gallery.float(), dim=-1)
    ranks = []
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        # The pair's similarity is read from the product, so that it equals itself to the last bit.
        similarities = part @ gallery.T  # (block, N)
        own = similarities[torch.arange(len(part)), torch.arange(start, start + len(part)), None]
        ranks.append(_ranks(similarities, own))
    return np.concatenate(ranks) if ranks else np.zeros(0)


def ranks_of_matrix(similarities: Tensor) -> Ranks:
    """Rank the diagonal of a (Q, N) similarity matrix in its rows, as :func:`ranks_of_pairs`."""
    return _ranks(similarities, similarities.diagonal()[:, None])


def retrieval_metrics(ranks: Ranks, num_queries: int | None = None) -> dict[str, float]:
    """Summarise ranks.

    Args:
        ranks: of the queries that could be asked.
        num_queries: what recalls are divided by; more than there are ranks when clips that lack
            what the direction needs count as misses. The number of ranks if not given.

    Returns:
        ``R@k`` in per cent for k of ``RECALLS``; ``MedR`` and ``MeanR`` of the given ranks alone;
        ``GeoMean``, the geometric mean of R@1, R@5 and R@10.

    Raises:
        ValueError: no rank is given.
    """
    if not len(ranks):
        raise ValueError("no clip has what this direction needs, so it cannot be evaluated")
    total = num_queries or len(ranks)
    metrics = {f"R@{k}": 100 * _hits(ranks, k) / total for k in RECALLS}
    metrics["MedR"], metrics["MeanR"] = float(np.median(ranks)), float(np.mean(ranks))
    metrics["GeoMean"] = float(np.prod([metrics[f"R@{k}"] for k in (1, 5, 10)]) ** (1 / 3))
    return metrics


def bootstrap_interval(
    ranks: Ranks, num_queries: int, k: int = 1, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Give the 95 % interval of R@k that drawing other queries of the same kind would give.

    Args:
        ranks: see :func:`retrieval_metrics`.
        num_queries: see :func:`retrieval_metrics`.
        k: of the recall.
        samples: number of draws, each of ``num_queries`` queries with replacement.
        seed: of the draws.

    Returns:
        Lower and upper bound in per cent.
    """
    # Drawing queries with replacement makes the number of hits binomial.
    hits = _hits(ranks, k)
    draws = np.random.default_rng(seed).binomial(num_queries, hits / num_queries, samples)
    low, high = np.percentile(100 * draws / num_queries, [2.5, 97.5])
    return float(low), float(high)


def chance(gallery: int) -> dict[str, float]:
    """Say what guessing reaches in a gallery of N clips: the metrics of a random order."""
    metrics = {f"R@{k}": 100 * min(k, gallery) / gallery for k in RECALLS}
    return metrics | {"MedR": (gallery + 1) / 2, "MeanR": (gallery + 1) / 2}


def flatten_metrics(directions: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Name each number for a log: ``{"t->va": {"R@1": 5.0}}`` -> ``{"t->va R@1": 5.0}``."""
    kept = (*(f"R@{k}" for k in RECALLS), "MedR", "MeanR", "GeoMean")
    return {
        f"{direction} {name}": metrics[name]
        for direction, metrics in directions.items()
        for name in kept
    }


def _hits(ranks: Ranks, k: int) -> int:
    # As published: half a place still counts for R@5 and up, but only the first place for R@1.
    return int((ranks == 1).sum() if k == 1 else (ranks < k + 1).sum())


def _ranks(similarities: Tensor, own: Tensor) -> Ranks:
    if not bool(torch.isfinite(similarities).all()):
        raise ValueError("a similarity is not finite: the embeddings hold NaN or infinite numbers")
    better = (similarities > own).sum(dim=1)
    equal = (similarities == own).sum(dim=1)  # the pair itself is one of them
    return (better + (equal + 1) / 2).double().cpu().numpy()
