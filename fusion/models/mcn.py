"""Multimodal Clustering Networks: the branches of AVLnet-Text, which reconstruct their input.

Chen et al., ICCV 2021, arXiv:2104.12671. The losses are in :mod:`fusion.losses.mcn`.

Shapes: B clips, M modalities, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusion.models.avlnet import AVLnet
from fusion.tokens import Tokens

RECONSTRUCTION = "reconstruction"


class MCN(AVLnet):
    """Embed each modality of a clip separately; in training, also reconstruct its pooled features.

    Args:
        modalities: see :class:`fusion.models.avlnet.AVLnet`.
        embedding_dim: E.
        reconstruction_dim: hidden width of the reconstruction; 0: none.
        mean_over_padding: see :class:`fusion.models.pooled.AudioBranch`; published as true.

    Raises:
        ValueError: see :class:`fusion.models.avlnet.AVLnet`.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        embedding_dim: int = 6144,
        reconstruction_dim: int = 1024,
        mean_over_padding: bool = True,
    ) -> None:
        super().__init__(modalities, embedding_dim, mean_over_padding=mean_over_padding)
        self.reconstruct = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(embedding_dim, reconstruction_dim),
                    nn.ReLU(),
                    nn.Linear(reconstruction_dim, width),
                    nn.ReLU(),
                )
                for name, width in (self.pooled_dims.items() if reconstruction_dim else ())
            }
        )

    def forward(
        self,
        inputs: Mapping[str, Tokens],
        combinations: Iterable[str] | None = None,
        skip_incomplete: bool = False,
        seeds: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Embed a batch, see :meth:`fusion.models.avlnet.AVLnet.forward`.

        Returns:
            For each combination (B, E) embeddings, not normalised; in training also
            ``reconstruction`` (B, M), for each modality the mean squared error over its features.
        """
        if not (self.training and self.reconstruct):
            return super().forward(inputs, combinations)
        tokens = {name: self._tokens(name, inputs) for name in self.modalities}
        branches = {name: self.branches[name](x) for name, x in tokens.items()}
        embeddings = {
            c: self._embed(c, names, tokens, branches) for c, names in self.combinations.items()
        }
        errors = [
            (self.reconstruct[name](embedding) - pooled).square().mean(dim=-1)
            for name, (pooled, embedding) in branches.items()
        ]
        return embeddings | {RECONSTRUCTION: torch.stack(errors, dim=1)}
