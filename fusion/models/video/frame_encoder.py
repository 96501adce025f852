"""TSM as the encoder of a modality: from the frames of a clip to its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fusion.models.tsm import TSM
from fusion.models.video.shift import PackedFrames
from fusion.tokens import Tokens

IMAGENET = "pretrained"  # as weights: those of ImageNet, which timm downloads


class TSMEncoder(nn.Module):
    """One token for each frame, see :class:`fusion.models.TSM`.

    Args:
        network: see :class:`.frame_networks.FrameNetwork`.
        weights: folder of a checkpoint of a TSM, such as of a run of classification, or
            ``pretrained``: weights of ImageNet; None: random. A new run begins with them; here they
            are only kept.
        options: the other arguments of TSM, such as ``batchnorm_group``.

    Shape:
        tokens with values (N, 3, H, W), uint8 -> tokens with values (N, out_dim); with
        ``temporal_pool`` of every second frame

    Raises:
        ValueError: as TSM.
    """

    in_dim = 3

    def __init__(
        self,
        network: str | Mapping[str, Any] = "resnet50",
        weights: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if wrong := {"num_classes", "pretrained", "dropout"} & set(options):
            raise ValueError(
                f"an encoder of frames has no {min(wrong)}; choose weights={IMAGENET} or a"
                " checkpoint instead of pretrained"
            )
        self.network, self.weights, self.options = network, weights, options
        self.tsm = TSM(network, dropout=0.0, **options)
        self.out_dim = self.tsm.num_features

    def forward(self, frames: Tokens) -> Tokens:
        """Compute the tokens of each clip; a clip without frames has none."""
        clips = PackedFrames(frames.mask, frames.host_lengths.tolist())
        vectors, kept = self.tsm.encode(frames.values, clips)
        if kept is clips:
            return frames.replace(vectors)
        host_lengths = torch.tensor(list(kept.rows), dtype=torch.int64)
        return Tokens(vectors, kept.mask.sum(dim=1), host_lengths)
