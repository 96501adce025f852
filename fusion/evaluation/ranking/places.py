"""Where the right clip of each query is among the others.

Shapes: Q queries, N rows of the gallery, E embedding width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusion.evaluation.ranking.both_ways import Places as Places
from fusion.evaluation.ranking.both_ways import Ranks as Ranks
from fusion.evaluation.ranking.both_ways import make_places, rank_both_ways
from fusion.evaluation.ranking.exact import Rescore, grid_blocks, grid_cosines
from fusion.evaluation.ranking.side import Side


def ranks_of_pairs(
    queries: Tensor,
    gallery: Tensor,
    block: int | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
    rescore: Rescore | None = None,
) -> Ranks:
    """Rank, for each query, the clip of the gallery that is its pair: the ranks of places_of_pairs.

    The arguments and errors are those of :func:`places_of_pairs`.
    """
    return places_of_pairs(queries, gallery, block, owners, rescore).ranks


def places_of_pairs(
    queries: Tensor,
    gallery: Tensor,
    block: int | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
    rescore: Rescore | None = None,
) -> Places:
    """Place, for each query, the clip of the gallery that is its pair, by cosine.

    Clips that tie (see the top of this file) share the mean of their places, as in the published
    code; otherwise a model that embeds all clips alike would be perfect. Where rows share a clip
    (its captions), the best row of the query's clip is ranked among all rows of other clips, as in
    Collaborative Experts (arXiv:1907.13487).

    Args:
        queries: (Q, E) embeddings.
        gallery: (N, E) embeddings.
        block: queries at a time; memory is block x N. About 2^22 cosines if not given.
        owners: the clips of the queries (Q,) and of the rows of the gallery (N,); every query's
            clip has a row. None: Q = N, and row i belongs to query i.
        rescore: makes scores of cosines.

    Raises:
        ValueError: an embedding is not finite, or without ``owners`` Q is not N.
    """
    if owners is None and len(queries) != len(gallery):
        raise ValueError(
            f"{len(queries)} queries cannot be pairs of {len(gallery)} rows; give owners"
        )
    query_clips, row_clips = owners or (torch.arange(len(queries)), torch.arange(len(gallery)))
    if rescore is None:
        sides = Side([queries]), Side([gallery])
        found, _ = rank_both_ways(*sides, (query_clips, row_clips), ways=(True, False), block=block)
        assert found is not None
        return found
    none = np.zeros(0, np.int64)
    parts = [Places(np.zeros(0), none, none)]
    for start, rows, columns in grid_blocks(queries, gallery, block):
        own = query_clips[start : start + len(rows), None] == row_clips  # (block, N)
        parts.append(places_of_scores(*rescore(grid_cosines(rows, columns)), own))
    return Places(*map(np.concatenate, zip(*parts, strict=True)))


def places_of_scores(scores: Tensor, slack: Tensor, own: Tensor) -> Places:
    """Place the best of a query's own rows, (block, N) bool, among all others.

    ``scores`` and ``slack`` are what a :data:`Rescore` returns.
    """
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    reach = torch.where(own & (scores == best), slack, 0.0).amax(dim=1, keepdim=True)
    return make_places(*_count(scores, best, reach, own))


def _count(scores: Tensor, best: Tensor, reach: Tensor | float, own: Tensor) -> tuple[Tensor, ...]:
    """Count rows that are better than the best own one, others that tie with it, and own ones."""
    at_least = scores >= best - reach
    better = (scores > best + reach).sum(dim=1)
    return better, (at_least & ~own).sum(dim=1) - better, (at_least & own).sum(dim=1)
