"""k-means by cosine, on rows that every rank has and of which each looks at its share.

Shapes: N rows, in one tensor or several, K clusters, E width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from fusion.distributed import all_reduce_, world_size

TOLERANCE = 1e-4  # squared distance that all centroids together may still move
MOST_ROUNDS = 100
ON_CENTROID = 1e-5  # what a cosine of 1 may lack
TILE_ROWS = 4096


class Clusters(NamedTuple):
    """What k-means found.

    Attributes:
        centroids: (K, E), means of their rows, which are not normalised.
        previous: (K, E), the centroids that the last assignment was made by.
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
    """Move centroids to the means of the rows that are nearest to them by cosine, until they rest.

    As published by cosine, to means of rows that are not normalised, until the squared distance
    that they moved is below 1e-4, or for 100 rounds. In the published code a cluster without rows
    becomes the zero vector; here it is given one of the rows that are farthest from their own
    centroid, or rests if there is none.

    Args:
        rows: tensors of N rows (…, E) in all, the same on every rank; each works on its share.
        valid: for each of them (…,) bool, the rows that count.
        centroids: (K, E) to begin with.
    """
    previous, empty = centroids, centroids.new_zeros((), dtype=torch.int64)
    for _ in range(MOST_ROUNDS):
        previous = centroids
        sums, sizes, nearness = _add_up(rows, valid, centroids)
        totals = all_reduce_(torch.cat([sums, sizes[:, None]], dim=1))
        sums, sizes = totals[:, :-1], totals[:, -1]
        is_empty = sizes == 0
        empty = empty + is_empty.sum()
        means = sums / sizes.clamp(min=1)[:, None]
        centroids = torch.where(is_empty[:, None], previous, means)
        if is_empty.any():  # the CPU waits for the device here anyway, below
            farthest = _farthest(rows, all_reduce_(nearness), int(is_empty.sum()))
            places = is_empty.nonzero()[: len(farthest), 0]
            centroids[places] = farthest
        if (centroids - previous).square().sum() <= TOLERANCE:
            break
    return Clusters(centroids, previous, empty)


def _add_up(
    rows: Sequence[Tensor], valid: Sequence[Tensor], centroids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Add up this rank's rows by cluster: sums (K, E), sizes (K,), and how near each is to its own.

    A row that is not of this rank's share has a nearness of 0, one that is not valid that of all.
    """
    directions = F.normalize(centroids, dim=1).T
    sums, sizes = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    nearness = centroids.new_zeros(sum(map(len, rows)))
    for first, tile, counts in _tiles(rows, valid):
        cosines = F.normalize(tile, dim=1) @ directions
        nearest, label = cosines.max(dim=1)
        nearness[first : first + len(tile)] = nearest.masked_fill(~counts, 1)
        # A product instead of scattered sums, whose order a GPU does not keep.
        member = F.one_hot(label, len(centroids)).to(tile.dtype) * counts[:, None]
        sums += member.T @ tile
        sizes += member.sum(dim=0)
    return sums, sizes, nearness


def _tiles(rows: Sequence[Tensor], valid: Sequence[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Cut this rank's share of the rows into tiles: place of the first row, rows, valid."""
    ranks = world_size()
    rank = dist.get_rank() if ranks > 1 else 0
    count, before = sum(map(len, rows)), 0
    begin, end = count * rank // ranks, count * (rank + 1) // ranks
    for part, counts in zip(rows, valid, strict=True):
        here = range(max(begin - before, 0), min(end - before, len(part)))
        for first in here[::TILE_ROWS]:
            cut = slice(first, min(first + TILE_ROWS, here.stop))
            yield before + first, part[cut], counts[cut]
        before += len(part)


def _farthest(rows: Sequence[Tensor], nearness: Tensor, count: int) -> Tensor:
    """Give the rows that are farthest from their centroid, at most so many, the farthest first."""
    # Of a row on its centroid, or one that is not valid, only rounding could say how far it is.
    away = int((nearness < 1 - ON_CENTROID).sum())
    places = nearness.argsort(stable=True)[: min(count, away)]
    found = nearness.new_empty(len(places), rows[0].shape[1])
    before = 0
    for part in rows:
        inside = (places >= before) & (places < before + len(part))
        found[inside] = part[places[inside] - before]
        before += len(part)
    return found
