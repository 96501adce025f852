"""The loss of MCN: pairs of modalities, clusters, reconstruction (Chen et al., arXiv:2104.12671).

Shapes: b clips of this rank, M modalities, E embedding width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fusion.distributed import all_reduce, all_reduce_with_grad
from fusion.interfaces import Loss, Named, Result
from fusion.losses.clusters import ClusterLoss
from fusion.losses.combinatorial import CombinatorialLoss, check_weight
from fusion.modalities import letters_of

RECONSTRUCTION = "reconstruction"


class MCNLoss(Loss):
    """Masked margin softmax of all pairs, plus cluster contrast, plus reconstruction.

    A clip that lacks a modality is left out of the parts that need it.

    Args:
        modalities: names of the modalities, in the model's order.
        margin: subtracted from the similarity of a pair, and of a clip to its own centroid.
        clusters: number of clusters of clips.
        queue_batches: batches in the queue, which is clustered beside the current batch once it is
            full; 0: none.
        queue_stride: every n-th clip of a batch goes into the queue; published: 2.
        every: steps from one k-means to the next; in between the centroids stay.
        cluster_weight: of the cluster contrast; 0 leaves it out.
        reconstruction_weight: of the reconstruction; 0 leaves it out.
        presence: see :class:`CombinatorialLoss`; for clusters and reconstruction too.

    Raises:
        ValueError: a number is out of its range, or ``presence`` names an unknown modality.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        margin: float = 0.001,
        clusters: int = 256,
        queue_batches: int = 20,
        queue_stride: int = 2,
        every: int = 20,
        cluster_weight: float = 1.0,
        reconstruction_weight: float = 50.0,
        presence: Mapping[str, str] | None = None,
    ) -> None:
        letters = letters_of(modalities)
        pairs = [f"{a}|{b}" for a, b in itertools.combinations(letters, 2)]
        self.pairwise = CombinatorialLoss(
            modalities, dict.fromkeys(pairs, 1.0), "mms_dot", margin=margin, presence=presence
        )
        self.modalities, self.letters = list(modalities), {m: x for x, m in letters.items()}
        self.combinations = self.pairwise.combinations
        for name, weight in ("cluster", cluster_weight), ("reconstruction", reconstruction_weight):
            check_weight(f"loss.{name}_weight", weight)
        self.cluster_weight, self.reconstruction_weight = cluster_weight, reconstruction_weight
        self.clusters = ClusterLoss(clusters, queue_batches, queue_stride, every, margin)

    def __call__(
        self, embeddings: Named, present: Named | None = None, /, *targets: object
    ) -> Result:
        """Compute the loss, see :meth:`.Loss.__call__`.

        ``embeddings`` are (b, E) for each modality's letter, and ``reconstruction`` (b, M), errors.
        Without ``present`` every clip has every modality.

        Raises:
            ValueError: the model reconstructs nothing, or see :class:`ClusterLoss`.
        """
        loss, terms = self.pairwise.compare(embeddings, present)  # a term without clips is 0
        shown = self.pairwise.shown(embeddings, present)
        flags = torch.stack([shown[m] for m in self.modalities])  # (M, b)
        if self.cluster_weight:
            sides = [embeddings[self.letters[m]] for m in self.modalities]
            contrast, facts = self.clusters(sides, flags)
            loss = loss + self.cluster_weight * contrast
            terms |= {"cluster": contrast.detach(), **facts}
        if self.reconstruction_weight:
            if RECONSTRUCTION not in embeddings:
                raise ValueError(
                    "the model reconstructs nothing; set model.reconstruction_dim, or"
                    " loss.reconstruction_weight=0"
                )
            weights = flags.T.to(embeddings[RECONSTRUCTION].dtype)
            error = (embeddings[RECONSTRUCTION].masked_fill(~flags.T, 0) * weights).sum(dim=0)
            mean = all_reduce_with_grad(error) / all_reduce(weights.sum(dim=0)).clamp(min=1)
            reconstruction = self.reconstruction_weight * mean.sum()
            loss = loss + reconstruction
            terms[RECONSTRUCTION] = reconstruction.detach()
        return loss, terms

    def commit(self) -> None:
        """Make the last call's state the current one."""
        if self.cluster_weight:
            self.clusters.commit()

    def undo(self) -> None:
        """Forget the last call."""
        self.clusters.undo()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        return self.clusters.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over a state from any number of ranks."""
        self.clusters.load_state_dict(state)
