"""A loss that contrasts clips with k-means clusters of recent clips.

Chen et al., arXiv:2104.12671. The published code runs on one GPU, with sizes written into it. Here
all ranks have the same queue and the same clusters, and each works on its share of the rows.

Shapes: B clips of all ranks, b of this one, N rows to cluster, Q rows of the queue, K clusters,
E embedding width, M modalities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fusion import distributed
from fusion.interfaces import Result

TOLERANCE = 1e-4  # k-means ends when the squared movement of all centroids is at most this
MOST_ROUNDS = 100
ON_CENTROID = 1e-5  # a cosine of at least 1 minus this counts as 1
TILE_ROWS = 4096


class Clusters(NamedTuple):
    """Result of k-means."""

    centroids: Tensor  # (K, E), means of their rows, not normalised
    previous: Tensor  # (K, E), the centroids that the last assignment used
    empty: Tensor  # scalar int64, how often an assignment left a cluster without rows


@dataclasses.dataclass
class State:
    """State of a :class:`ClusterLoss`."""

    step: int = 0  # steps done
    batches: int = 0  # batches in the queue
    queue: Tensor | None = None  # (Q, E) fused embeddings; the oldest batch is overwritten
    valid: Tensor | None = None  # (Q,) bool, the rows that have all modalities
    centroids: Tensor | None = None  # (K, E)
    empty: Tensor | None = None  # of the last k-means, see Clusters


class ClusterLoss:
    """Cluster the fused embeddings of recent clips, and contrast each modality with the clusters.

    The fused embedding of a clip is the mean of its modalities' embeddings; those of clips with all
    modalities are clustered. A call changes no state; :meth:`commit` does. The arguments are those
    of :class:`.MCNLoss`; ``clusters`` is K.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, clusters: int, queue_batches: int, queue_stride: int, every: int, margin: float
    ) -> None:
        least = {"clusters": 2, "queue_batches": 0, "queue_stride": 1, "every": 1}
        given = dict(zip(least, (clusters, queue_batches, queue_stride, every), strict=True))
        for name, value in given.items():
            if type(value) is not int or value < least[name]:
                raise ValueError(f"loss.{name} must be a number from {least[name]} on; got {value}")
        self.clusters, self.queue_batches, self.queue_stride = clusters, queue_batches, queue_stride
        self.every, self.margin = every, margin
        self.state = State()
        self._last_call: tuple[Tensor, Tensor, Clusters] | None = None

    def __call__(self, embeddings: Sequence[Tensor], present: Tensor) -> Result:
        """Compute the loss of a batch, a scalar, from M of (b, E) and (M, b) bool flags.

        Also returns ``empty_clusters``, how often the last k-means found a cluster without rows.

        Raises:
            ValueError: the first batch has too few clips with all modalities for the clusters.
        """
        dtype = torch.promote_types(embeddings[0].dtype, torch.float32)
        sides = [x.to(dtype) for x in embeddings]
        with torch.no_grad():
            fused = torch.zeros_like(sides[0])
            for x, flags in zip(sides, present, strict=True):
                fused += x.masked_fill(~flags[:, None], 0)
            fused /= present.sum(dim=0).clamp(min=1)[:, None]
            batch = distributed.all_gather(fused)
            valid = distributed.all_gather(present.all(dim=0).to(dtype)) > 0
            finite = batch.isfinite().all(dim=1)
            batch, valid = batch.masked_fill(~finite[:, None], 0), valid & finite
            self._make_queue(batch, valid)
            found = self._cluster(batch, valid)
            labels = assign(fused, found.previous)
        loss = cluster_contrast(sides, present, labels, found.centroids, self.margin)
        self._last_call = batch[:: self.queue_stride], valid[:: self.queue_stride], found
        return loss, {"empty_clusters": found.empty.to(dtype)}

    def commit(self) -> None:
        """Make the last call's state the current one; allocates nothing, so it cannot fail."""
        assert self._last_call is not None
        batch, valid, found = self._last_call
        state = self.state
        if state.queue is not None and state.valid is not None:
            first = state.step % self.queue_batches * len(batch)
            state.queue[first : first + len(batch)] = batch
            state.valid[first : first + len(batch)] = valid
            state.batches = min(state.batches + 1, self.queue_batches)
        state.step, state.centroids, state.empty = state.step + 1, found.centroids, found.empty
        self._last_call = None

    def undo(self) -> None:
        """Forget the last call."""
        self._last_call = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        return dict(vars(self.state))

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over a state from any number of ranks."""
        self.state = State(**state)

    def _cluster(self, batch: Tensor, valid: Tensor) -> Clusters:
        state = self.state
        if state.centroids is None:
            centroids = self._first(batch, valid)
        else:
            centroids = state.centroids.to(batch)
            if state.step % self.every:
                assert state.empty is not None
                return Clusters(centroids, centroids, state.empty.to(batch.device))
        if self.queue_batches and state.batches >= self.queue_batches:
            assert state.queue is not None and state.valid is not None
            return kmeans([state.queue, batch], [state.valid, valid], centroids)
        return kmeans([batch], [valid], centroids)

    def _first(self, batch: Tensor, valid: Tensor) -> Tensor:
        """Begin with clips of the first batch, which is in random order."""
        places = valid.nonzero()[:, 0]
        if len(places) < self.clusters:
            raise ValueError(
                f"loss.clusters is {self.clusters}, but of the {len(batch)} clips of a batch"
                f" {len(places)} have all modalities; lower it, or raise trainer.batch_size"
            )
        chosen = torch.arange(self.clusters, device=batch.device) * len(places) // self.clusters
        return batch[places[chosen]].clone()

    def _make_queue(self, batch: Tensor, valid: Tensor) -> None:
        """Move the queue to the batch's device, or allocate it in its full size."""
        state = self.state
        if state.queue is not None and state.valid is not None:
            state.queue, state.valid = state.queue.to(batch), state.valid.to(valid.device)
        elif self.queue_batches:
            size = len(batch[:: self.queue_stride]) * self.queue_batches
            state.queue, state.valid = batch.new_zeros(size, batch.shape[1]), valid.new_zeros(size)


def cluster_contrast(
    embeddings: Sequence[Tensor], present: Tensor, labels: Tensor, centroids: Tensor, margin: float
) -> Tensor:
    """Cross-entropy of the dot products of M embeddings (b, E) with the centroids (K, E).

    ``labels`` (b,) are the clips' own clusters. A modality that a clip lacks, see ``present``
    (M, b), is left out. Mean over the modalities of means over the clips of all ranks.
    """

    def of_tile(x: Tensor, flags: Tensor, labels: Tensor) -> Tensor:
        rows = x.masked_fill(~flags[:, None], 0)  # rows of missing modalities may hold NaN
        own = F.one_hot(labels, len(centroids)).to(x.dtype) * margin
        losses = F.cross_entropy(rows @ centroids.T - own, labels, reduction="none")
        return (losses * flags).sum()

    sums = []
    for side, flags in zip(embeddings, present, strict=True):
        tiles = zip(*(x.split(TILE_ROWS) for x in (side, flags, labels)), strict=True)
        each = [
            checkpoint(of_tile, *tile, use_reentrant=False, preserve_rng_state=False)
            for tile in tiles
        ]
        sums.append(torch.stack(each).sum())
    total = distributed.all_reduce_with_grad(torch.stack(sums))
    clips = distributed.all_reduce(present.sum(dim=1).to(total.dtype))
    return (total / clips.clamp(min=1)).sum() / (clips > 0).sum().clamp(min=1)


def assign(rows: Tensor, centroids: Tensor) -> Tensor:
    """Find for each row the centroid with the largest cosine: (N, E), (K, E) -> (N,) int64."""
    directions = F.normalize(centroids, dim=1).T
    labels = [(F.normalize(tile, dim=1) @ directions).argmax(1) for tile in rows.split(TILE_ROWS)]
    return torch.cat(labels)


def kmeans(rows: Sequence[Tensor], valid: Sequence[Tensor], centroids: Tensor) -> Clusters:
    """Cluster rows by cosine, beginning with the (K, E) centroids.

    The rows, tensors (…, E) with (…,) bool flags of those that count, are the same on every rank.
    As published, a centroid is the mean of its rows, which are not normalised. In the published
    code a cluster without rows becomes the zero vector; here it gets one of the rows that are
    farthest from their own centroid, or keeps its place if there is none.
    """
    previous, empty = centroids, centroids.new_zeros((), dtype=torch.int64)
    for _ in range(MOST_ROUNDS):
        previous = centroids
        sums, sizes, nearness = _sum_by_cluster(rows, valid, centroids)
        totals = distributed.all_reduce_(torch.cat([sums, sizes[:, None]], dim=1))
        sums, sizes = totals[:, :-1], totals[:, -1]
        is_empty = sizes == 0
        empty = empty + is_empty.sum()
        means = sums / sizes.clamp(min=1)[:, None]
        centroids = torch.where(is_empty[:, None], previous, means)
        if is_empty.any():  # synchronises with the GPU, as the end of the loop does anyway
            farthest = _farthest(rows, distributed.all_reduce_(nearness), int(is_empty.sum()))
            centroids[is_empty.nonzero()[: len(farthest), 0]] = farthest
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
    count, before, shares = sum(map(len, rows)), 0, distributed.world_size()
    begin, end = (count * r // shares for r in (distributed.rank(), distributed.rank() + 1))
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
