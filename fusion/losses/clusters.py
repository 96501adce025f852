"""A loss that contrasts clips with clusters of recent clips.

Chen et al., arXiv:2104.12671. The published code runs on one GPU, with sizes written into it. Here
all ranks have the same queue and the same clusters, and each works on its share of the rows.

Shapes: B clips of all ranks, b of this one, Q rows of the queue, K clusters, E embedding width, M
modalities.
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
    """Cross-entropy of the dot products of each modality's embeddings with the centroids.

    Args:
        embeddings: M of (b, E).
        present: (M, b) bool; a modality that a clip lacks is left out.
        labels: (b,) int64, the cluster of each clip.
        centroids: (K, E).
        margin: subtracted from the similarity to the clip's own centroid.

    Returns:
        A scalar: the mean, over the modalities that any clip has, of means over the clips of all
        ranks.
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
    total = all_reduce_with_grad(torch.stack(sums))
    clips = all_reduce(present.sum(dim=1).to(total.dtype))
    return (total / clips.clamp(min=1)).sum() / (clips > 0).sum().clamp(min=1)


@dataclasses.dataclass
class State:
    """State of a :class:`ClusterLoss`.

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
    """Cluster the fused embeddings of recent clips, and contrast each modality with the clusters.

    The fused embedding of a clip is the mean of its modalities' embeddings; those of clips with all
    modalities are clustered. A call changes no state; :meth:`commit` does.

    Args:
        clusters: K.
        queue_batches: batches in the queue; 0: none. It is used once it is full.
        queue_stride: every n-th clip of a batch goes into the queue; published: 2.
        every: steps from one k-means to the next; in between the centroids stay.
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
        self._commit: Callable[[], None] | None = None

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
            batch = all_gather(fused)
            valid = all_gather(present.all(dim=0).to(dtype)) > 0
            finite = batch.isfinite().all(dim=1)
            batch, valid = batch.masked_fill(~finite[:, None], 0), valid & finite
            self._make_queue(batch, valid)
            found = self._find(batch, valid)
            labels = assign(fused, found.previous)
        loss = cluster_contrast(sides, present, labels, found.centroids, self.margin)
        kept = batch[:: self.queue_stride], valid[:: self.queue_stride]
        self._commit = functools.partial(self._move_on, *kept, found)
        return loss, {"empty_clusters": found.empty.to(dtype)}

    def commit(self) -> None:
        """Make the last call's state the current one; allocates nothing, so it cannot fail."""
        assert self._commit is not None
        self._commit()
        self._commit = None

    def undo(self) -> None:
        """Forget the last call."""
        self._commit = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        return dict(vars(self.state))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from any number of ranks."""
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
        """Move the queue to the batch's device, or allocate it in its full size."""
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
