"""The temporal shift: a convolution of a frame sees some channels of the frames beside it.

Lin, Gan and Han, arXiv:1811.08383. It has no parameters and does no arithmetic.

Shapes: B clips, T frames of the longest clip, N real frames of all clips, C channels, H and W
pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.models.batchnorm import rows_of_clips
from fusion.tokens import pick, place, true_places


def shift(
    x: Tensor, shift_div: int = 8, causal: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Shift channels of frames in time.

    The first C / ``shift_div`` channels of a frame (rounded down) become those of the next frame,
    as many after them those of the frame before; others stay. Where there is no such frame they
    become zero.

    Args:
        x: (B, T, C, H, W), or without H and W.
        shift_div: at least 2, and 1 is enough if ``causal``.
        causal: the first C / ``shift_div`` channels come from the frame before, and none from the
            next one.
        mask: (B, T) bool, where there are frames; others count as absent, and become zero.

    Returns:
        A tensor like ``x``.

    Raises:
        ValueError: there are fewer channels than would be shifted.
    """
    check_shift(shift_div, causal)
    clips = PackedFrames.of(x, mask)
    rows = shift_rows(clips.pack(x), clips.has_next, clips.has_previous, shift_div, causal)
    return clips.unpack(rows)


def check_shift(shift_div: int, causal: bool) -> None:
    """Raise ValueError if more than all channels would be shifted."""
    least = 1 if causal else 2
    if type(shift_div) is not int or shift_div < least:
        raise ValueError(f"shift_div must be a number from {least} on; got {shift_div!r}")


def shift_rows(
    x: Tensor, has_next: Tensor, has_previous: Tensor, shift_div: int, causal: bool
) -> Tensor:
    """Shift packed frames (N, C, …); (N,) bool say which have a neighbour in their clip."""
    fold = x.shape[1] // shift_div

    def neighbours(part: Tensor, step: int, there: Tensor) -> Tensor:
        there = there.view(-1, *[1] * (x.ndim - 1))
        return torch.where(there, part.roll(step, dims=0), part.new_zeros(()))

    if causal:
        past = neighbours(x[:, :fold], 1, has_previous)
        return torch.cat([past, x[:, fold:]], dim=1)
    future = neighbours(x[:, :fold], -1, has_next)
    past = neighbours(x[:, fold : 2 * fold], 1, has_previous)
    return torch.cat([future, past, x[:, 2 * fold :]], dim=1)


def temporal_pool(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Halve the number of frames: the maximum of every second frame and its neighbours.

    As published: windows of 3 frames, a step of 2. ``mask`` (B, T) as for :func:`shift`.

    Shape:
        (B, T, C, H, W) -> (B, T / 2 rounded up, C, H, W)
    """
    clips = PackedFrames.of(x, mask)
    rows, pooled = clips.temporal_pool(clips.pack(x))
    return pooled.unpack(rows)


class Time(Protocol):
    """How the frames that a network computes at the same time are neighbours."""

    rows: Sequence[int]  # frames of each clip

    def shift(self, x: Tensor, owner: nn.Module, shift_div: int, causal: bool) -> Tensor:
        """Shift (N, C, H, W) frames; ``owner`` is the layer that asks."""


class PackedFrames:
    """Where the N real frames of B clips are, which are packed clip after clip.

    Args:
        mask: (B, T) bool.
        rows: the number of real frames of each clip, in CPU memory; they are read back from the
            device if not given.
    """

    def __init__(self, mask: Tensor, rows: Sequence[int] | None = None) -> None:
        self.mask = mask
        self.rows: Sequence[int] = mask.sum(dim=1).tolist() if rows is None else rows
        count = sum(self.rows)
        self._places = None if count == mask.numel() else true_places(mask, count)
        after, before = torch.zeros_like(mask), torch.zeros_like(mask)
        after[:, :-1] = before[:, 1:] = mask[:, 1:] & mask[:, :-1]
        self.has_next, self.has_previous = self.pack(after), self.pack(before)

    @classmethod
    def of(
        cls, x: Tensor, mask: Tensor | None = None, rows: Sequence[int] | None = None
    ) -> PackedFrames:
        """Describe padded clips (B, T, …); without a mask all of their frames are real.

        ``rows`` as for the class. ValueError: the mask is of another shape.
        """
        if mask is None:
            return cls(x.new_ones(x.shape[:2], dtype=torch.bool), [x.shape[1]] * len(x))
        if mask.shape != x.shape[:2]:
            raise ValueError(
                f"the mask must have a value for each of {list(x.shape[:2])} frames; its shape is"
                f" {list(mask.shape)}"
            )
        return cls(mask.bool(), rows)

    def pack(self, x: Tensor) -> Tensor:
        """Drop padding: (B, T, …) -> (N, …)."""
        x = x.flatten(0, 1)
        return x if self._places is None else pick(x, self._places)

    def unpack(self, rows: Tensor) -> Tensor:
        """Add padding, which is zero: (N, …) -> (B, T, …)."""
        if self._places is not None:
            rows = place(rows, self._places, self.mask.numel())
        return rows.unflatten(0, self.mask.shape)

    def shift(self, x: Tensor, owner: nn.Module, shift_div: int, causal: bool) -> Tensor:
        """See :class:`Time`."""
        return shift_rows(x, self.has_next, self.has_previous, shift_div, causal)

    def temporal_pool(self, x: Tensor) -> tuple[Tensor, PackedFrames]:
        """Pool packed frames, see :func:`temporal_pool`; return them and where they are now."""
        padded = self.unpack(x)
        if self._places is not None:
            absent = ~self.mask.view(*self.mask.shape, *[1] * (x.ndim - 1))
            padded = padded.masked_fill(absent, -torch.inf)
        maxima = F.max_pool3d(padded.movedim(2, 1), (3, 1, 1), (2, 1, 1), (1, 0, 0)).movedim(1, 2)
        # A frame stays if the middle of its window is real: padding adds none.
        mask = self.mask[:, ::2]
        full = [mask.shape[1]] * len(mask)
        pooled = PackedFrames(mask, full if self._places is None else None)
        return pooled.pack(maxima), pooled


class OnlineFrames:
    """One frame of each of B films at a time; keeps the channels that the next frame will see."""

    def __init__(self) -> None:
        self.rows: Sequence[int] = ()
        self.size: torch.Size | None = None  # of a frame, once there was one
        self.caches: dict[nn.Module, Tensor] = {}  # (B, C / shift_div, H, W) of each layer

    def shift(self, x: Tensor, owner: nn.Module, shift_div: int, causal: bool) -> Tensor:
        """See :class:`Time`; before the first frame is nothing."""
        assert causal
        fold = x.shape[1] // shift_div
        now = x[:, :fold].clone()  # alone, so that the rest is freed, and not changed in place
        past = self.caches.get(owner)
        self.caches[owner] = now
        return torch.cat([torch.zeros_like(now) if past is None else past, x[:, fold:]], dim=1)


_TIME: ContextVar[Time] = ContextVar("time")


@contextlib.contextmanager
def in_time(time: Time) -> Iterator[None]:
    """Within the block, layers shift along ``time``, and BatchNorm knows the frames of a clip."""
    token = _TIME.set(time)
    try:
        with rows_of_clips(time.rows):
            yield
    finally:
        _TIME.reset(token)


class Shift(nn.Module):
    """The shift of the frames of :func:`in_time`: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, shift_div: int, causal: bool) -> None:
        super().__init__()
        self.shift_div, self.causal = shift_div, causal

    def forward(self, x: Tensor) -> Tensor:
        """Shift."""
        return _TIME.get().shift(x, self, self.shift_div, self.causal)


class ShiftedConv2d(nn.Conv2d):
    """A convolution of shifted frames; it has the weights, and their names, of a plain one.

    ValueError: ``conv`` is a convolution of another kind.
    """

    def __init__(self, conv: nn.Module, shift_div: int, causal: bool) -> None:
        if type(conv) is not nn.Conv2d:
            raise ValueError(
                f"the first convolution of a block is a {type(conv).__name__}, which cannot be"
                " shifted; take another network, or shift_place=block"
            )
        sizes = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        super().__init__(conv.in_channels, conv.out_channels, *sizes, bias=conv.bias is not None)  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        self.shift = Shift(shift_div, causal)

    def forward(self, x: Tensor) -> Tensor:
        """Shift and convolve."""
        return super().forward(self.shift(x))
