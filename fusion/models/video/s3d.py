"""S3D-G: from a few seconds of video to one feature, or to one embedding to compare with a text.

Xie et al., arXiv:1712.04851, as Miech et al., arXiv:1912.06430, trained it from scratch on
HowTo100M with MIL-NCE: Inception blocks, their 3x3x3 convolutions split into space and time.

Shapes: B chunks of a video, T frames, H x W pixels, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Sizes = tuple[int, int, int]  # frames, rows, columns

BLOCKS = {  # widths of an Inception block: 1x1x1 | 1x1x1, 3x3x3 | 1x1x1, 3x3x3 | pool, 1x1x1
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
POOLS = {  # kernel and stride (frames, rows, columns) of the pooling before a layer
    "2b": ((1, 3, 3), (1, 2, 2)),
    "3b": ((1, 3, 3), (1, 2, 2)),
    "4b": ((3, 3, 3), (2, 2, 2)),
    "5b": ((2, 2, 2), (2, 2, 2)),
}


class FeatureGate(nn.Module):
    """Scale every channel by a weight in 0..1, computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``x``."""
        scale = self.fc(x.mean(dim=(2, 3, 4))).sigmoid()  # (B, C)
        return x * scale[:, :, None, None, None]


class InceptionBlock(nn.Module):
    """Four gated branches over the same input; their outputs are concatenated.

    (B, C_in, T, H, W) -> (B, C_out, T, H, W); ``widths`` are in the order of ``BLOCKS``.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        direct, inner1, outer1, inner2, outer2, pooled = widths
        self.branches = nn.ModuleList(
            [
                nn.Sequential(_pointwise(in_channels, direct)),
                nn.Sequential(_pointwise(in_channels, inner1), _separable(inner1, outer1)),
                nn.Sequential(_pointwise(in_channels, inner2), _separable(inner2, outer2)),
                nn.Sequential(nn.MaxPool3d(3, 1, padding=1), _pointwise(in_channels, pooled)),
            ]
        )
        outputs = (direct, outer1, outer2, pooled)
        self.gates = nn.ModuleList(FeatureGate(width) for width in outputs)
        self.out_channels = sum(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Run the branches over ``x``."""
        pairs = zip(self.branches, self.gates, strict=True)
        return torch.cat([gate(branch(x)) for branch, gate in pairs], dim=1)


class S3D(nn.Module):
    """The video half of a model that embeds video and text into one space.

    Input: RGB in 0..1, that is /255, with no mean subtracted. The weights were trained on T = 32
    frames at 10 per second (3.2 s) of 200 x 200 pixels; their authors recommend 32 frames, call 16
    good too, and take H = W = 200 to 256. Their retrieval code
    (github.com/antoine77340/MIL-NCE_HowTo100M) cuts out the largest central square, scales it to
    224 x 224 and fills a short chunk up with black frames. They published no extractor: of
    HowTo100M's S3D features only their rate is known, 1 per second.

    Shape:
        (B, 3, T, H, W) -> (B, 1024); T, H and W are even
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(8 * 3, 64, (2, 4, 4), (1, 2, 2)))
        self.pointwise = _pointwise(64, 64)
        self.separable = _separable(64, 192)
        self.gate = FeatureGate(192)
        self.blocks = nn.ModuleDict()
        channels = 192
        for name, widths in BLOCKS.items():
            block = InceptionBlock(channels, widths)
            self.blocks[name], channels = block, block.out_channels
        self.out_dim, self.embedding_dim = channels, 512
        self.project = nn.Linear(self.out_dim, self.embedding_dim)

    def forward(self, video: Tensor) -> Tensor:
        """Compute the feature of each chunk, "mixed_5c" in the published code."""
        if any(size % 2 for size in video.shape[2:]):
            sizes = "x".join(map(str, video.shape[2:]))
            raise ValueError(f"S3D needs an even number of frames, rows, columns; got {sizes}")
        # Every 2x2x2 cell becomes one point with 8 times the channels.
        cells = rearrange(video, "b c (t x) (h y) (w z) -> b (x y z c) t h w", x=2, y=2, z=2)
        # Dropping the first outputs makes the padding TensorFlow's for even kernels: one less in
        # front. As published they are dropped after BatchNorm, whose statistics include them.
        x = self.stem(cells)[:, :, 1:, 1:, 1:]
        x = self.pointwise(_pool(x, "2b"))
        x = self.gate(self.separable(x))
        for name, block in self.blocks.items():
            x = block(_pool(x, name) if name in POOLS else x)
        return x.mean(dim=(2, 3, 4))

    def embed(self, video: Tensor) -> Tensor:
        """Embed each chunk: (B, 3, T, H, W) -> (B, 512), to compare with text by dot product.

        It is ``project`` of the feature, so one pass over a video gives both.
        """
        return self.project(self(video))


def _pool(x: Tensor, name: str) -> Tensor:
    """Take the maximum of a ReLU's values, padded as published: zeros at the end of each axis."""
    kernel, stride = POOLS[name]
    after = [size - step for size, step in zip(kernel, stride, strict=True)]
    padding = [0, after[2], 0, after[1], 0, after[0]]  # F.pad begins with the last axis
    return F.max_pool3d(F.pad(x, padding), kernel, stride, ceil_mode=True)


def _conv(in_channels: int, out_channels: int, kernel: Sizes, padding: Sizes) -> list[nn.Module]:
    conv = nn.Conv3d(in_channels, out_channels, kernel, padding=padding, bias=False)
    return [conv, nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True)]


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*_conv(in_channels, out_channels, (1, 1, 1), (0, 0, 0)))


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv(in_channels, out_channels, (1, 3, 3), (0, 1, 1)),
        *_conv(out_channels, out_channels, (3, 1, 1), (1, 0, 0)),
    )
