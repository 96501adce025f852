"""3D ResNeXt-101: from sixteen frames to one feature.

Hara et al., arXiv:1711.09577, after the ResNeXt of Xie et al., arXiv:1611.05431. With weights from
Kinetics it made the 3D features of HowTo100M (arXiv:1906.03327) that MCN, AVLnet and EAO train on.

Shapes: B chunks of a video, T frames, H x W pixels, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

NUM_BLOCKS = (3, 4, 23, 3)  # in each stage
WIDTHS = (256, 512, 1024, 2048)  # C of the output of each stage; inside its blocks it is half
GROUPS = 32  # groups of channels that a block convolves separately ("cardinality")


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 (in groups) and 1 frames and pixels, around a shortcut.

    (B, C_in, T, H, W) -> (B, C_out, T / stride, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inner = out_channels // 2
        self.conv1 = _conv(in_channels, inner)
        self.conv2 = _conv(inner, inner, 3, stride, GROUPS)
        self.conv3 = _conv(inner, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``."""
        y = F.relu(self.conv1(x), inplace=True)
        y = F.relu(self.conv2(y), inplace=True)
        return F.relu(self.conv3(y) + self.shortcut(x), inplace=True)


class ResNeXt101(nn.Module):
    """The convolutional network without its classifier, then the mean over frames and pixels.

    Input, as the published extractor (github.com/antoine77340/video_feature_extractor) makes it:

    * 24 frames per second, RGB, range 0 to 255, minus the mean of Kinetics, (110.6, 103.2, 96.3);
    * the shorter side scaled to 112 pixels, the longer one in proportion and rounded down, then
      the central 112 x 112 pixels;
    * chunks of T = 16 frames, one after the other: 1.5 features per second. The last chunk is
      filled up with black frames, before the mean is subtracted.

    The published features are divided by their L2 norm and stored in float16; this model leaves
    them as they are. The published code averages over the extent that 16 x 112 x 112 leads to; this
    model over any.

    Shape:
        (B, 3, T, H, W) -> (B, 2048)
    """

    def __init__(self) -> None:
        super().__init__()
        self.out_dim = WIDTHS[-1]  # 2048
        stem = nn.Sequential(
            *_conv(3, 64, 7, (1, 2, 2)),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(kernel_size=3, stride=2, padding=1),
        )
        stages, channels = [stem], 64
        for num_blocks, width in zip(NUM_BLOCKS, WIDTHS, strict=True):
            stride = 1 if len(stages) == 1 else 2  # the stem's pooling was the first stage's stride
            blocks = [Bottleneck(channels, width, stride)]
            blocks += [Bottleneck(width, width, 1) for _ in range(num_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.stages = nn.Sequential(*stages)

    def forward(self, video: Tensor) -> Tensor:
        """Compute the feature of each chunk."""
        return self.stages(video).mean(dim=(2, 3, 4))  # (B, C, T / 16, H / 32, W / 32) -> (B, C)


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int | tuple[int, int, int] = 1,
    groups: int = 1,
) -> nn.Sequential:
    conv = nn.Conv3d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels))
