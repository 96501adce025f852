"""Ranks and what is made of them: recall, median and mean rank, intervals, chance.

Shapes: Q queries, N clips in the gallery, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALLS = (1, 5, 10, 50)
Ranks = NDArray[np.float64]
Rescore = Callable[[Tensor], Tensor]  # (block, N) similarities -> (block, N) scores


def ranks_of_pairs(
    queries: Tensor,
    gallery: Tensor,
    block: int | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
    rescore: Rescore | None = None,
    normalize: bool = True,
) -> Ranks:
    """Rank, for each query, the clip of the gallery that is its pair.

    Of clips with equal similarity the mean of their places counts, as in the published code: with
    the place that a lucky order would give, a model that embeds all clips alike would be perfect.
    Where rows share a clip (its captions), the best row of the query's clip counts, among all rows
    of other clips, as in Collaborative Experts (arXiv:1907.13487).

    Args:
        queries: (Q, E) embeddings.
        gallery: (N, E) embeddings.
        block: queries that are compared with the gallery at a time, so that memory is
            block x N instead of Q x N; 1024 if not given, or fewer with either of what follows.
        owners: the clip of each query (Q,) and of each row of the gallery (N,), which has those of
            all queries; not given: Q = N, and row i belongs to row i.
        rescore: changes similarities before they are ranked; not at all if not given.
        normalize: compare by cosine; otherwise by dot product.

    Returns:
        (Q,) ranks from 1; halves occur.

    Raises:
        ValueError: an embedding is not finite. (NaN would compare as the best of all.)
    """
    if block is None:
        is_plain = owners is None and rescore is None
        block = 1024 if is_plain else rows_at_a_time(len(gallery))
    ranks = []
    for start, similarities in similarity_blocks(queries, gallery, block, normalize):
        scores = similarities if rescore is None else rescore(similarities)  # (block, N)
        if owners is None:
            # The pair's similarity is read from the product, so it equals itself to the last bit.
            places = torch.arange(start, start + len(scores))
            ranks.append(_ranks(scores, scores[torch.arange(len(scores)), places, None]))
        else:
            same = owners[0][start : start + len(scores), None] == owners[1]  # (block, N)
            best = scores.masked_fill(~same, -torch.inf).amax(dim=1, keepdim=True)
            ranks.append(_ranks(scores, best, same))
    return np.concatenate(ranks) if ranks else np.zeros(0)


def rows_at_a_time(gallery: int) -> int:
    """How many queries to compare with a gallery where several copies of a block are needed."""
    return min(1024, max(1, 2**24 // max(1, gallery)))


def similarity_blocks(
    queries: Tensor, gallery: Tensor, block: int, normalize: bool = True
) -> Iterator[tuple[int, Tensor]]:
    """Yield the similarities of (Q, E) and (N, E) embeddings: first query, and (block, N)."""
    queries, gallery = queries.float(), gallery.float()
    if normalize:
        queries = torch.nn.functional.normalize(queries, dim=-1)
        gallery = torch.nn.functional.normalize(gallery, dim=-1)
    for start in range(0, len(queries), block):
        yield start, queries[start : start + block] @ gallery.T


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


def bootstrap_interval_of_clips(
    ranks: Ranks,
    clips: NDArray[np.int64],
    captions: NDArray[np.int64],
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Give the 95 % interval of R@1 that drawing other clips, with their captions, would give.

    Captions of one clip are found or missed together more often than others; drawn one by one they
    would make the interval too narrow.

    Args:
        ranks: (Q,) of the captions that could be asked.
        clips: (Q,) their clips.
        captions: (C,) the clips of all captions that count, C at least Q.
        samples: number of draws, each of as many clips as there are, with replacement.
        seed: of the draws.

    Returns:
        Lower and upper bound in per cent.
    """
    names, owner = np.unique(captions, return_inverse=True)
    asked = np.bincount(owner)
    hits = np.bincount(np.searchsorted(names, clips[ranks == 1]), minlength=len(names))
    generator, draws = np.random.default_rng(seed), np.empty(samples)
    for i in range(samples):
        drawn = generator.integers(len(names), size=len(names))
        draws[i] = hits[drawn].sum() / asked[drawn].sum()
    low, high = np.percentile(100 * draws, [2.5, 97.5])
    return float(low), float(high)


def chance(gallery: int, counted: int | None = None) -> dict[str, float]:
    """Say what guessing reaches: the metrics of a random order.

    Args:
        gallery: clips that ask and are searched.
        counted: clips that recalls are shares of, those that are misses as well; if not given,
            ``gallery``.
    """
    metrics = {f"R@{k}": 100 * min(k, gallery) / (counted or gallery) for k in RECALLS}
    return metrics | {"MedR": (gallery + 1) / 2, "MeanR": (gallery + 1) / 2}


def chance_among_captions(captions: NDArray[np.int64]) -> dict[str, float]:
    """Say what guessing reaches where clips look for the best of their own captions among all.

    Args:
        captions: (C,) the clip of each caption.
    """
    _, sizes = np.unique(captions, return_counts=True)
    total = len(captions)
    beyond = np.zeros(total + 1)  # for k from 0 on the chance that the rank is above k
    for own, clips in zip(*np.unique(sizes, return_counts=True), strict=True):
        steps = np.arange(total)
        # None of the first k is one's own; above the others there is no rank.
        kept = np.cumprod(np.clip(total - own - steps, 0, None) / (total - steps))
        beyond += np.concatenate([[1.0], kept]) * clips / len(sizes)
    metrics = {f"R@{k}": 100 * (1 - float(beyond[min(k, total)])) for k in RECALLS}
    at_most_half = int((beyond > 0.5 + 1e-12).sum())  # the least k that half the ranks reach
    tied = abs(beyond[at_most_half] - 0.5) < 1e-12
    return metrics | {"MedR": float(at_most_half + 0.5 * tied), "MeanR": float(beyond.sum())}


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


def _ranks(scores: Tensor, own: Tensor, same: Tensor | None = None) -> Ranks:
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a similarity is not finite: the embeddings hold NaN or infinite numbers")
    better = (scores > own).sum(dim=1)
    ties = scores == own
    others = ties.sum(dim=1) - 1 if same is None else (ties & ~same).sum(dim=1)
    return (better + 1 + others / 2).double().cpu().numpy()
