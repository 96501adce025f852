"""Image encoders: from pixels to a grid of tokens, each of which knows its place.

Shapes: B clips, N images (a clip has one or none), S side in pixels, C channels, h and w rows and
columns of the feature map, P = h w tokens of an image.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusion.tokens import Tokens

WAVES = 4  # frequencies of the places, for each axis
PRETRAINED = "pretrained"  # as weights: those that timm downloads
RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # 1 / standard deviation of max(0, normal)


class Places(nn.Module):
    """Add to each token of a feature map where it is, in two dimensions; any size of map.

    Sines and cosines of the relative row and column (Vaswani et al., arXiv:1706.03762, in two
    dimensions) are projected to the width of the tokens: (N, h, w, C) -> (N, h, w, C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(4 * WAVES, dim)

    def forward(self, maps: Tensor) -> Tensor:
        """Add the places."""
        kind = self.project.weight  # device and dtype
        axes = [(torch.arange(n).to(kind) + 0.5) / n for n in maps.shape[1:3]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # (h, w, 2), 0 to 1
        waves = math.pi * 2 ** torch.arange(WAVES).to(kind)
        angles = (grid[..., None] * waves).flatten(-2)  # (h, w, 2 WAVES)
        return maps + self.project(torch.cat([angles.sin(), angles.cos()], dim=-1)).to(maps.dtype)


class ImageEncoder(nn.Module):
    """Pixels of images become the tokens of their feature maps, row after row.

    The network gives (N, C, h, w). A clip without an image has no token. Equal images that follow
    one another, such as those of several questions about one, are encoded once.

    Shape:
        tokens with values (N, 3, S, S) uint8 -> tokens with values (N P, C)
    """

    in_dim = 3
    mean: Tensor
    std: Tensor

    def __init__(self, out_dim: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.places = Places(out_dim)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def feature_map(self, pixels: Tensor) -> Tensor:
        """Compute the (N, C, h, w) features of normalised pixels (N, 3, S, S)."""
        raise NotImplementedError

    def forward(self, images: Tokens) -> Tokens:
        """Compute the tokens of each clip's image."""
        if not len(images.values):
            return Tokens(self.mean.new_zeros(0, self.out_dim), images.lengths, images.host_lengths)
        is_new = differs_from_previous(images.values)
        pixels = (images.values[is_new].to(self.mean.dtype) / 255 - self.mean) / self.std
        maps = self.places(self.feature_map(pixels).movedim(1, -1))[is_new.cumsum(0) - 1]
        count = maps.shape[1] * maps.shape[2]
        return Tokens(maps.flatten(0, 2), images.lengths * count, images.host_lengths * count)


class StandardisedConv(nn.Conv2d):
    """A 3 x 3 convolution whose filters have mean 0 and a fixed length, times a learned gain.

    Scaled weight standardisation (Brock et al., arXiv:2101.08692): what leaves the ReLU after it
    has about unit variance, so no layer has to normalise its input, and an image does not depend
    on its batch. On small pictures of shapes it learns several times faster than GroupNorm.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim, 3, padding=1)
        self.gain = nn.Parameter(torch.full((out_dim, 1, 1, 1), RELU_GAIN))
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve (N, C, h, w) maps."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        length = centred.square().sum(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(maps, centred * self.gain * (length + 1e-6).rsqrt(), self.bias)


class SmallCNN(ImageEncoder):
    """A few convolutions, trained from scratch, for small and simple pictures.

    Each stage is a convolution, the maximum of 2 x 2 places, and a ReLU: the same as with the ReLU
    first, for a quarter of its work.

    Args:
        widths: C of each stage.

    Raises:
        ValueError: a width is none.
    """

    def __init__(self, widths: Sequence[int] = (8, 16, 32, 64)) -> None:
        if not widths or any(width < 1 for width in widths):
            raise ValueError(f"widths must be at least one number above 0; got {widths}")
        super().__init__(widths[-1], [0.5] * 3, [0.25] * 3)
        layers: list[nn.Module] = []
        for narrow, wide in zip((3, *widths[:-1]), widths, strict=True):
            layers += [StandardisedConv(narrow, wide), nn.MaxPool2d(2), nn.ReLU()]
        self.net = nn.Sequential(*layers)

    def feature_map(self, pixels: Tensor) -> Tensor:
        """Compute the features."""
        # With the channels of a place side by side, a CPU computes the pools several times faster.
        maps: Tensor = self.net(pixels.contiguous(memory_format=torch.channels_last))
        return maps


class TimmImage(ImageEncoder):
    """A network of the library timm up to its last feature map; ResNet-50: 7 x 7 x 2048 of 224.

    Its BatchNorm always uses the running statistics, so that an image does not depend on its batch.

    Args:
        model: name in timm.
        weights: file with weights as timm or torchvision names them, or ``pretrained``: those that
            timm downloads; None: random. A new run begins with them; here they are only kept.
        train: whether it is trained; if not, its weights stay as they are.

    Raises:
        ValueError: timm has no such network, or it gives no feature map.
    """

    def __init__(
        self, model: str = "resnet50", weights: str | None = PRETRAINED, train: bool = False
    ) -> None:
        import timm  # slow to import

        try:
            net: Any = timm.create_model(model, pretrained=False, num_classes=0, global_pool="")
        except RuntimeError:
            near = difflib.get_close_matches(model, timm.list_models(), 3) or ["resnet50"]
            raise ValueError(
                f"timm has no model {model!r}; did you mean {' or '.join(near)}?"
            ) from None
        facts: Mapping[str, Any] = net.pretrained_cfg
        super().__init__(net.num_features, facts["mean"], facts["std"])
        self.net, self.name, self.weights, self.is_trained = net, model, weights, train
        self.prefix = int(getattr(net, "num_prefix_tokens", 0))  # class tokens and registers
        self.net.requires_grad_(train).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; the network stays in evaluation mode."""
        super().train(mode)
        self.net.eval()
        return self

    def feature_map(self, pixels: Tensor) -> Tensor:
        """Compute the features."""
        with torch.set_grad_enabled(self.is_trained and torch.is_grad_enabled()):
            maps: Tensor = self.net(pixels)
        if maps.ndim == 3:  # of a vision transformer: tokens
            maps = maps[:, self.prefix :].mT
            side = math.isqrt(maps.shape[-1])
            maps = maps.unflatten(-1, (side, side))
        elif maps.shape[1] != self.out_dim:  # of a network with channels last, such as Swin
            maps = maps.movedim(-1, 1)
        return maps


def differs_from_previous(images: Tensor) -> Tensor:
    """Compare each of N images with the one before: (N, 3, S, S) -> (N,) bool; the first: True."""
    same = (images[1:] == images[:-1]).flatten(1).all(dim=1)
    return torch.cat([same.new_zeros(1), same]).logical_not()


IMAGE_ENCODERS: dict[str, type[nn.Module]] = {"cnn": SmallCNN, "timm": TimmImage}
