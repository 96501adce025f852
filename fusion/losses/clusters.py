"""Clusters of clips, found by k-means among recent ones, and a loss that keeps them apart.

Chen et al., arXiv:2104.12671. The published code runs on one GPU, with sizes written into it; here
all ranks have the same queue and the same clusters, and each looks at its share of the rows.

Shapes: B clips of all ranks, b of this one, Q rows of the queue, N rows that are clustered, K
clusters, E embedding width, M modalities.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fusion.distributed import all_gather, all_reduce, all_reduce_with_grad
from fusion.losses.kmeans import TILE_ROWS, Clusters, assign, kmeans


def cluster_contrast(
    embeddings: Sequence[Tensor],
    present: Tensor,
    labels: Tensor,
    centroids: Tensor,
    margin: float,
) -> Tensor:
    """Have each modality of a clip tell the clip's centroid from the others, by dot products.

    Args:
        embeddings: M of (b, E).
        present: (M, b) bool; a modality that a clip lacks is left out.
        labels: (b,) int64, the cluster of each clip.
        centroids: (K, E).
        margin: subtracted from the similarity to the clip's own centroid.

    Returns:
        The mean over modalities of means over the clips of all ranks, a scalar; a modality that no
        clip has is left out.
    """
    sums = torch.stack(
        [
            _contrast_tiles(x, flags, labels, centroids, margin)
            for x, flags in zip(embeddings, present, strict=True)
        ]
    )
    clips = all_reduce(present.sum(dim=1).to(sums.dtype))
    means = all_reduce_with_grad(sums) / clips.clamp(min=1)
    return means.sum() / (clips > 0).sum().clamp(min=1)


def _contrast_tiles(
    x: Tensor, flags: Tensor, labels: Tensor, centroids: Tensor, margin: float
) -> Tensor:
    """Add up the cross-entropies of the rows that count, of one modality."""
    total = x.new_zeros(())
    for first in range(0, max(len(x), 1), TILE_ROWS):  # a rank without rows takes part, too
        tile = slice(first, first + TILE_ROWS)
        total = total + checkpoint(
            _contrast,
            x[tile],
            flags[tile],
            labels[tile],
            centroids,
            margin,
            use_reentrant=False,
            preserve_rng_state=False,
        )
    return total


def _contrast(x: Tensor, flags: Tensor, labels: Tensor, centroids: Tensor, margin: float) -> Tensor:
    rows = x.masked_fill(~flags[:, None], 0)  # what a clip lacks may be anything, even NaN
    own = F.one_hot(labels, len(centroids)).to(x.dtype) * margin
    return (F.cross_entropy(rows @ centroids.T - own, labels, reduction="none") * flags).sum()


@dataclasses.dataclass
class State:
    """What lasts from step to step.

    Attributes:
        step: steps done.
        batches: batches in the queue.
        queue: (Q, E) fused embeddings, the same on every rank; the oldest batch is overwritten.
        valid: (Q,) bool, the rows that have all modalities.
        centroids: (K, E).
        empty: scalar int64, how often the last k-means found a cluster without rows.
    """

    step: int = 0
    batches: int = 0
    queue: Tensor | None = None
    valid: Tensor | None = None
    centroids: Tensor | None = None
    empty: Tensor | None = None


class ClusterLoss:
    """Clusters the fused embeddings of recent clips, and contrasts each modality with them.

    The fused embedding of a clip is the mean of its modalities' embeddings; those of clips with all
    modalities are clustered. A step leaves no trace until :meth:`commit`.

    Args:
        clusters: K.
        queue_batches: batches in the queue; 0: none. It is used once it is full.
        queue_stride: of a batch each so many-th clip goes into the queue, as published 2.
        every: steps from k-means to k-means; between them the centroids rest.
        margin: see :func:`cluster_contrast`.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        clusters: int = 256,
        queue_batches: int = 20,
        queue_stride: int = 2,
        every: int = 20,
        margin: float = 0.001,
    ) -> None:
        least = {"clusters": 2, "queue_batches": 0, "queue_stride": 1, "every": 1}
        given = dict(zip(least, (clusters, queue_batches, queue_stride, every), strict=True))
        for name, value in given.items():
            if type(value) is not int or value < least[name]:
                raise ValueError(f"loss.{name} must be a number from {least[name]} on; got {value}")
        self.clusters, self.queue_batches, self.queue_stride = clusters, queue_batches, queue_stride
        self.every, self.margin = every, margin
        self.state = State()
        self._next: Callable[[], None] | None = None

    def __call__(
        self, embeddings: Sequence[Tensor], present: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch.

        Args:
            embeddings: M of (b, E).
            present: (M, b) bool.

        Returns:
            The loss, and ``empty_clusters``, how often the last k-means found one.

        Raises:
            ValueError: the first batch has too few clips with all modalities for the clusters.
        """
        dtype = torch.promote_types(embeddings[0].dtype, torch.float32)
        sides = [x.to(dtype) for x in embeddings]
        with torch.no_grad():
            fused = _mean(sides, present)
            complete = present.all(dim=0)
            batch = all_gather(fused)
            valid = all_gather(complete.to(dtype)) > 0
            finite = batch.isfinite().all(dim=1)
            batch, valid = batch.masked_fill(~finite[:, None], 0), valid & finite
            self._make_queue(batch, valid)
            found = self._find(batch, valid)
            labels = assign(fused, found.previous)
        loss = cluster_contrast(sides, present, labels, found.centroids, self.margin)
        kept = batch[:: self.queue_stride], valid[:: self.queue_stride]
        self._next = functools.partial(self._move_on, *kept, found)
        return loss, {"empty_clusters": found.empty.to(dtype)}

    def commit(self) -> None:
        """Make what the last call found last; takes no memory, as nobody could wait for it."""
        assert self._next is not None
        self._next()
        self._next = None

    def undo(self) -> None:
        """Forget the last call."""
        self._next = None

    def state_dict(self) -> dict[str, Any]:
        """Give what lasts, for a checkpoint."""
        return dict(vars(self.state))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what lasted, on any number of ranks."""
        self.state = State(**state)

    def _find(self, batch: Tensor, valid: Tensor) -> Clusters:
        state = self.state
        centroids = None if state.centroids is None else state.centroids.to(batch)
        if centroids is not None and state.step % self.every:
            assert state.empty is not None
            return Clusters(centroids, centroids, state.empty.to(batch.device))
        rows, counted = [batch], [valid]
        if self.queue_batches and state.batches >= self.queue_batches:
            assert state.queue is not None and state.valid is not None
            rows, counted = [state.queue, batch], [state.valid, valid]
        return kmeans(rows, counted, self._first(batch, valid) if centroids is None else centroids)

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
        """Have the queue where the batch is, with a place for each clip that it will hold."""
        state = self.state
        if state.queue is not None and state.valid is not None:
            state.queue, state.valid = state.queue.to(batch), state.valid.to(valid.device)
        elif self.queue_batches:
            size = len(batch[:: self.queue_stride]) * self.queue_batches
            state.queue, state.valid = batch.new_zeros(size, batch.shape[1]), valid.new_zeros(size)

    def _move_on(self, batch: Tensor, valid: Tensor, found: Clusters) -> None:
        state = self.state
        if state.queue is not None and state.valid is not None:
            first = state.step % self.queue_batches * len(batch)
            state.queue[first : first + len(batch)] = batch
            state.valid[first : first + len(batch)] = valid
            state.batches = min(state.batches + 1, self.queue_batches)
        state.step, state.centroids, state.empty = state.step + 1, found.centroids, found.empty


def _mean(embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
    """Average the embeddings that a clip has: M of (b, E) -> (b, E)."""
    total = torch.zeros_like(embeddings[0])
    for x, flags in zip(embeddings, present, strict=True):
        total += x.masked_fill(~flags[:, None], 0)
    return total / present.sum(dim=0).clamp(min=1)[:, None]
