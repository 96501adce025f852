"""k-means by cosine, on rows that every rank has and of which each looks at its share.

Shapes: N rows, K clusters, E width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from fusion.losses.exchange import add_up_, num_ranks

TOLERANCE = 1e-4  # squared distance that all centroids together may still move
MOST_ROUNDS = 100
TILE_ROWS = 4096


class Clusters(NamedTuple):
    """What k-means found.

    Attributes:
        centroids: (K, E), means of their rows, which are not normalised.
        previous: (K, E), the centroids that the last assignment was made by.
        empty: scalar int64, the clusters that had no row in the last assignment.
    """

    centroids: Tensor
    previous: Tensor
    empty: Tensor


def assign(rows: Tensor, centroids: Tensor) -> Tensor:
    """Find for each row the centroid with the largest cosine: (N, E), (K, E) -> (N,) int64."""
    directions = F.normalize(centroids, dim=1).T
    tiles = [F.normalize(tile, dim=1) @ directions for tile in rows.split(TILE_ROWS)]
    return torch.cat([tile.argmax(dim=1) for tile in tiles]) if tiles else rows.new_zeros(0).long()


def kmeans(rows: Tensor, valid: Tensor, centroids: Tensor) -> Clusters:
    """Move centroids to the means of the rows that are nearest to them by cosine, until they rest.

    As published by cosine, to means of rows that are not normalised, until the squared distance
    that they moved is below 1e-4, or for 100 rounds. A cluster without rows is given one of those
    that are farthest from their own centroid; in the published code it becomes the zero vector.

    Args:
        rows: (N, E), the same on every rank; each works on its share.
        valid: (N,) bool, the rows that count.
        centroids: (K, E) to begin with.
    """
    share = _share(len(rows))
    mine, counted = rows[share], valid[share]
    previous, empty = centroids, centroids.new_zeros((), dtype=torch.int64)
    for _ in range(MOST_ROUNDS):
        previous = centroids
        sums, sizes, nearness = _add_up(mine, counted, centroids)
        totals = add_up_(torch.cat([sums, sizes[:, None]], dim=1))
        sums, sizes = totals[:, :-1], totals[:, -1]
        is_empty = sizes == 0
        empty = is_empty.sum()
        centroids = sums / sizes.clamp(min=1)[:, None]
        if empty:  # the CPU waits for the device here anyway, below
            farthest = _farthest(rows, nearness, share, len(centroids))
            turn = (is_empty.cumsum(dim=0) - 1).clamp(0, len(farthest) - 1)
            centroids = torch.where(is_empty[:, None], farthest[turn], centroids)
        if (centroids - previous).square().sum() <= TOLERANCE:
            break
    return Clusters(centroids, previous, empty)


def _share(count: int) -> slice:
    """Say which of the rows this rank looks at."""
    if num_ranks() == 1:
        return slice(0, count)
    rank = dist.get_rank()
    return slice(count * rank // num_ranks(), count * (rank + 1) // num_ranks())


def _add_up(rows: Tensor, counted: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add up the rows of each cluster: sums (K, E), sizes (K,); and how near each is to its own."""
    directions = F.normalize(centroids, dim=1).T
    sums, sizes = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    nearness = []
    for tile, counts in zip(rows.split(TILE_ROWS), counted.split(TILE_ROWS), strict=True):
        cosines = F.normalize(tile, dim=1) @ directions
        nearest, label = cosines.max(dim=1)
        nearness.append(nearest.masked_fill(~counts, 2.0))  # is never among the farthest
        # A product instead of scattered sums, whose order a GPU does not keep.
        member = F.one_hot(label, len(centroids)).to(tile.dtype) * counts[:, None]
        sums += member.T @ tile
        sizes += member.sum(dim=0)
    return sums, sizes, torch.cat(nearness) if nearness else sizes.new_zeros(0)


def _farthest(rows: Tensor, nearness: Tensor, share: slice, count: int) -> Tensor:
    everywhere = nearness.new_zeros(len(rows))
    everywhere[share] = nearness
    order = add_up_(everywhere).argsort(stable=True)
    return rows[order[:count]]
