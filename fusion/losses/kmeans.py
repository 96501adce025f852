"""k-means by cosine. All ranks have the same rows; each works on its share of them.

Shapes: N rows, in one tensor or several, K clusters, E width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.distributed import all_reduce_, rank, world_size

TOLERANCE = 1e-4  # squared distance that all centroids together may still move
MOST_ROUNDS = 100
ON_CENTROID = 1e-5  # a cosine of at least 1 minus this counts as 1
TILE_ROWS = 4096


class Clusters(NamedTuple):
    """Result of k-means.

    Attributes:
        centroids: (K, E), means of their rows, not normalised.
        previous: (K, E), the centroids that the last assignment used.
        empty: scalar int64, how often an assignment left a cluster without rows.
    """

    centroids: Tensor
    previous: Tensor
    empty: Tensor


def assign(rows: Tensor, centroids: Tensor) -> Tensor:
    """Find for each row the centroid with the largest cosine: (N, E), (K, E) -> (N,) int64."""
    directions = F.normalize(centroids, dim=1).T
    labels = [(F.normalize(tile, dim=1) @ directions).argmax(1) for tile in rows.split(TILE_ROWS)]
    return torch.cat(labels)


def kmeans(rows: Sequence[Tensor], valid: Sequence[Tensor], centroids: Tensor) -> Clusters:
    """Cluster rows by cosine.

    As published, a centroid is the mean of its rows, which are not normalised; k-means ends when
    the centroids' squared movement is at most 1e-4, or after 100 rounds. In the published code a
    cluster without rows becomes the zero vector; here it gets one of the rows that are farthest
    from their own centroid, or keeps its place if there is none.

    Args:
        rows: tensors of N rows (…, E) in all, the same on every rank; each works on its share.
        valid: for each of them (…,) bool, the rows that count.
        centroids: (K, E) to begin with.
    """
    previous, empty = centroids, centroids.new_zeros((), dtype=torch.int64)
    for _ in range(MOST_ROUNDS):
        previous = centroids
        sums, sizes, nearness = _sum_by_cluster(rows, valid, centroids)
        totals = all_reduce_(torch.cat([sums, sizes[:, None]], dim=1))
        sums, sizes = totals[:, :-1], totals[:, -1]
        is_empty = sizes == 0
        empty = empty + is_empty.sum()
        means = sums / sizes.clamp(min=1)[:, None]
        centroids = torch.where(is_empty[:, None], previous, means)
        if is_empty.any():  # synchronises with the GPU, as the end of the loop does anyway
            farthest = _farthest(rows, all_reduce_(nearness), int(is_empty.sum()))
            places = is_empty.nonzero()[: len(farthest), 0]
            centroids[places] = farthest
        if (centroids - previous).square().sum() <= TOLERANCE:
            break
    return Clusters(centroids, previous, empty)


def _sum_by_cluster(
    rows: Sequence[Tensor], valid: Sequence[Tensor], centroids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum this rank's rows by cluster: sums (K, E), sizes (K,), and (N,) cosines with the own one.

    The cosine is 0 for a row of another rank's share, 1 for one that is not valid.
    """
    directions = F.normalize(centroids, dim=1).T
    sums, sizes = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    nearness = centroids.new_zeros(sum(map(len, rows)))
    for first, tile, counts in _own_tiles(rows, valid):
        cosines = F.normalize(tile, dim=1) @ directions
        nearest, label = cosines.max(dim=1)
        nearness[first : first + len(tile)] = nearest.masked_fill(~counts, 1)
        # A product instead of scattered sums, whose order a GPU does not keep.
        member = F.one_hot(label, len(centroids)).to(tile.dtype) * counts[:, None]
        sums += member.T @ tile
        sizes += member.sum(dim=0)
    return sums, sizes, nearness


def _own_tiles(
    rows: Sequence[Tensor], valid: Sequence[Tensor]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Cut this rank's share of the rows into tiles: place of the first row, rows, valid."""
    count, before = sum(map(len, rows)), 0
    begin, end = (count * r // world_size() for r in (rank(), rank() + 1))
    for part, counts in zip(rows, valid, strict=True):
        here = range(max(begin - before, 0), min(end - before, len(part)))
        for first in here[::TILE_ROWS]:
            cut = slice(first, min(first + TILE_ROWS, here.stop))
            yield before + first, part[cut], counts[cut]
        before += len(part)


def _farthest(rows: Sequence[Tensor], nearness: Tensor, count: int) -> Tensor:
    """Return at most so many rows, those farthest from their centroid, the farthest first."""
    away = int((nearness < 1 - ON_CENTROID).sum())  # among the others the order is rounding
    places = nearness.argsort(stable=True)[: min(count, away)]
    found = nearness.new_empty(len(places), rows[0].shape[1])
    before = 0
    for part in rows:
        inside = (places >= before) & (places < before + len(part))
        found[inside] = part[places[inside] - before]
        before += len(part)
    return found
