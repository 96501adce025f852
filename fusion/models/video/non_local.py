"""Attention of every place of every frame to all places of all frames of its clip.

Wang et al., arXiv:1711.07971, as TSM adds it to a ResNet (arXiv:1811.08383).

Shapes: B clips, T frames of the longest clip, N real frames of all clips, C channels, I = C / 2,
H and W pixels, h and w half of them.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fusion.models.batchnorm import GroupedBatchNorm
from fusion.models.video.shift import PackedFrames


class NonLocal(nn.Module):
    """Add to each place of a frame what it attends to: (N, C, H, W) -> (N, C, H, W).

    It attends to the maxima of 2 x 2 places. At the beginning of training it adds nothing.
    ``group`` and ``frozen`` are for :class:`fusion.models.batchnorm.GroupedBatchNorm`.
    """

    def __init__(self, channels: int, group: int | None, frozen: bool) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = GroupedBatchNorm(channels, group, frozen)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, clips: PackedFrames) -> Tensor:
        """Attend within each clip; padding is not attended to."""
        q, k, v = self.query(x), F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        attended = _attend(clips.unpack(q), clips.unpack(k), clips.unpack(v), clips.mask)
        return x + self.norm(self.out(clips.pack(attended)))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention of (B, T, I, H, W) to (B, T, I, h, w), by (B, T) real frames."""
    sizes = (q.shape[1], *q.shape[3:])
    places = k.shape[-2] * k.shape[-1]
    q, k, v = (x.movedim(2, -1).flatten(1, 3) for x in (q, k, v))  # (B, T H W, I)
    # A clip without frames may attend to anything: a softmax over nothing has no gradient.
    seen = (mask | ~mask.any(dim=1, keepdim=True)).repeat_interleave(places, dim=1)[:, None]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0)
    return y.unflatten(1, sizes).movedim(-1, 2)


def places_of(stages: list[nn.Sequential]) -> list[tuple[int, int]]:
    """List stage and number of the blocks that are followed by one, counted from 0.

    As published for ResNet-50: every second block of the second and third stage.
    """
    return [(stage, i) for stage in (1, 2) for i in range(0, len(stages[stage]), 2)]


def width_of(stage: nn.Sequential) -> int:
    """Return C of what the blocks of a stage of a ResNet give."""
    block: Any = stage[0]
    return int((block.conv3 if hasattr(block, "conv3") else block.conv2).out_channels)
