"""Crop, scale and mirror the frames of clips, all clips of one crop size in one call.

The published training of TSM (``GroupMultiScaleCrop``, arXiv:1608.00859): a crop whose sides are
shares of the shorter side, at one of 13 places, scaled to the size of the network. All frames of a
clip are cut alike.

Shapes: B clips, T frames, H x W pixels, S pixels of the side of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

SCALES = (1.0, 0.875, 0.75, 0.66)  # as published for Kinetics
# Places of crops, in quarters of the room to the right and below.
_PLACES = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0)]
_PLACES += [(1, 1), (3, 1), (1, 3), (3, 3)]
_EXACT = 3  # pixels; a crop that is nearer to the wanted size is not scaled
_THREE = ((0, 2), (2, 2), (4, 2))  # left, middle, right, of a wide picture


class Box(NamedTuple):
    """A crop, in pixels."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


def crop_for_training(
    frames: Tensor, size: int, scales: Sequence[float], flip: bool, seeds: Tensor
) -> Tensor:
    """Crop clips at random, each by its own seed.

    Args:
        frames: (B, T, 3, H, W) uint8.
        size: S.
        scales: sides of crops as shares of the shorter side; neighbours in this list may be the
            height and the width of one crop.
        flip: mirror half of the clips.
        seeds: (B,) int64.

    Returns:
        (B, T, 3, S, S) uint8.
    """
    height, width = frames.shape[-2:]
    return cut(
        frames, size, [draw_box(height, width, size, scales, flip, s) for s in seeds.tolist()]
    )


def draw_box(
    height: int, width: int, size: int, scales: Sequence[float], flip: bool, seed: int
) -> Box:
    """Draw the crop of a clip."""
    rng = np.random.default_rng(seed % 2**63)
    sides = [int(min(height, width) * scale) for scale in scales]
    sides = [size if abs(side - size) < _EXACT else side for side in sides]
    sides = [min(side, height, width) for side in sides]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    h, w = pairs[rng.integers(len(pairs))]
    x, y = _PLACES[rng.integers(len(_PLACES))]
    mirrored = bool(rng.random() < 0.5) and flip
    return Box((height - h) // 4 * y, (width - w) // 4 * x, h, w, mirrored)


def crop_for_test(frames: Tensor, size: int, crops: int) -> list[Tensor]:
    """Cut the middle, or three crops along the longer side.

    Three crops are as high as the frames are (for frames that are higher than wide: as wide), as
    published, and of side S in square frames.

    Args:
        frames: (B, T, 3, H, W) uint8.
        size: S.
        crops: 1 or 3.

    Returns:
        (B, T, 3, S', S') for each crop.
    """
    height, width = frames.shape[-2:]
    side = min(height, width)
    if crops == 1 or height == width:
        side = min(side, size)
    places = [(2, 2)] if crops == 1 else _THREE
    if height > width:
        places = [(y, x) for x, y in places]
    tops = [((height - side) * y // 4, (width - side) * x // 4) for x, y in places]
    cropped = [frames[..., top : top + side, left : left + side] for top, left in tops]
    if crops == 1 and side != size:  # frames are smaller than the network wants
        return [_scale(cropped[0], size)]
    return cropped


def cut(frames: Tensor, size: int, boxes: Sequence[Box]) -> Tensor:
    """Cut a box out of each clip and scale it to S: (B, T, 3, H, W) -> (B, T, 3, S, S)."""
    device = frames.device
    result = frames.new_empty(*frames.shape[:3], size, size)
    for height, width in dict.fromkeys((box.height, box.width) for box in boxes):
        here = [n for n, box in enumerate(boxes) if (box.height, box.width) == (height, width)]
        clips = torch.tensor(here, device=device)[:, None, None]
        tops, lefts = (
            torch.tensor([(boxes[n].top, boxes[n].left) for n in here], device=device)
        ).unbind(dim=1)
        rows = tops[:, None, None] + torch.arange(height, device=device)[:, None]  # (n, h, 1)
        columns = lefts[:, None, None] + torch.arange(width, device=device)  # (n, 1, w)
        part = frames[clips, :, :, rows, columns]  # (n, h, w, T, 3)
        result[clips[:, 0, 0]] = _scale(rearrange(part, "n h w t c -> n t c h w"), size)
    mirrored = torch.tensor([box.mirrored for box in boxes], device=device)
    return torch.where(mirrored[:, None, None, None, None], result.flip(-1), result)


def _scale(frames: Tensor, size: int) -> Tensor:
    """Scale (B, T, 3, h, w) uint8 frames to S x S."""
    if frames.shape[-2:] == (size, size):
        return frames
    flat = frames.flatten(0, 1).float()
    scaled = F.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    return scaled.round().to(frames.dtype).unflatten(0, frames.shape[:2])
