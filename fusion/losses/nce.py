"""Contrastive losses of two lists of embeddings that pair up row by row, in little memory.

The B x B similarities are made in tiles of some rows. One look at a tile gives its share of the
sums over rows and over columns, so both directions cost one product; the backward pass makes each
tile again, which costs another. Where the whole matrix is small, it is one tile and is kept. On
several ranks each has the rows of its own pairs, b x B.

Shapes: B pairs of all ranks, b of this one, E embedding width, R rows of a tile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusion.losses.exchange import (
    equal_counts,
    first_row,
    gather_rows,
    num_ranks,
    sum_over_ranks,
)

KEPT_BYTES = 64 * 2**20  # a matrix up to this size is kept
TILE_BYTES = 16 * 2**20  # a larger one is made in tiles of about this size
LOWEST_TEMPERATURE = 0.003
LARGEST_MARGIN = 2
SHORTEST = 1e-12  # shorter vectors are not scaled up to unit length, as in `F.normalize`
FLOAT32_RANGE = 80  # exp(-80) is a normal float32


def nce(
    x: Tensor,
    y: Tensor,
    temperature: float = 0.05,
    valid: Tensor | None = None,
    tile: int | None = None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Make each row of ``x`` find its partner among the rows of ``y``, and the reverse.

    Also called InfoNCE (arXiv:1807.03748). As in EAO the losses of the two directions are added;
    CLIP averages them.

    Args:
        x: (b, E) embeddings; they are normalised here.
        y: (b, E) embeddings; row i is the positive of row i of ``x``, all others are negatives.
        temperature: divides the cosine similarities; smaller is sharper.
        valid: (b,) bool, the pairs to compute the loss of; all if not given.
        tile: rows of the similarity matrix that exist at a time; chosen by its size if not given.
        counts: pairs of each rank, see :mod:`fusion.losses.exchange`: the loss is over the pairs of
            all ranks. As many as here if not given.

    Returns:
        A scalar, at least 0, the same on every rank; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the temperature is too low for float32.
    """
    if not temperature >= LOWEST_TEMPERATURE:
        raise ValueError(f"temperature must be at least {LOWEST_TEMPERATURE}; got {temperature}")
    return _contrast(x, y, 1 / temperature, 0.0, valid, tile, counts)


def mms(
    x: Tensor,
    y: Tensor,
    margin: float = 0.001,
    valid: Tensor | None = None,
    tile: int | None = None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Masked margin softmax (Ilharco et al., arXiv:1910.08841), as AVLnet and MCN use it.

    Unlike :func:`nce` it has no temperature, and a positive must win by ``margin``.

    Args:
        x: (b, E) embeddings; they are normalised here.
        y: (b, E) embeddings, paired with ``x`` row by row.
        margin: subtracted from the cosine similarity of each pair.
        valid: see :func:`nce`.
        tile: see :func:`nce`.
        counts: see :func:`nce`.

    Returns:
        A scalar, at least 0, the same on every rank; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the margin is wider than any two cosines.
    """
    if not abs(margin) <= LARGEST_MARGIN:
        raise ValueError(
            f"margin must be between -{LARGEST_MARGIN} and {LARGEST_MARGIN}, as cosines differ by"
            f" no more; got {margin}"
        )
    return _contrast(x, y, 1.0, margin, valid, tile, counts)


def _contrast(
    x: Tensor,
    y: Tensor,
    scale: float,
    margin: float,
    valid: Tensor | None,
    tile: int | None,
    counts: Sequence[int] | None,
) -> Tensor:
    if x.shape != y.shape:
        raise ValueError(f"x and y must pair up row by row; got {tuple(x.shape)}, {tuple(y.shape)}")
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    x, y = x.to(dtype), y.to(dtype)
    weights = x.new_ones(len(x)) if valid is None else valid.to(dtype)
    counts = list(counts or equal_counts(len(x)))
    row_bytes = sum(counts) * x.element_size()
    keep = tile is None and row_bytes * len(x) <= KEPT_BYTES
    rows = len(x) if keep else tile or TILE_BYTES // max(1, row_bytes)
    with _all_digits(x):
        return _BothDirections.apply(x, y, weights, scale, margin, max(1, rows), keep, counts)


def _all_digits(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Switch autocast off: sums over a whole batch need all their digits."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


class _BothDirections(torch.autograd.Function):
    """Mean over valid pairs of both directions' losses, of vectors scaled to unit length.

    With exp(logit - shift) = e_ij the loss of row i is log(sum_j e_ij) - log(e_ii), and that of
    column i likewise. As no cosine exceeds 1, one shift serves all: no maximum is needed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        weights: Tensor,
        scale: float,
        margin: float,
        rows: int,
        keep: bool,
        counts: list[int],
    ) -> Tensor:
        """Add up the sums over rows and over columns, tile by tile: own rows, all columns."""
        left_out = (weights == 0)[:, None]  # whatever is there, NaN even, is not looked at
        lengths = [
            side.norm(dim=1, keepdim=True).clamp(min=SHORTEST).masked_fill_(left_out, 1)
            for side in (x, y)
        ]
        x, y = (
            (side / length).masked_fill_(left_out, 0)
            for side, length in zip((x, y), lengths, strict=True)
        )
        all_y, all_weights = gather_rows(y, counts), gather_rows(weights, counts)
        first = first_row(counts)
        own = slice(first, first + len(x))
        sums, positives, kept = [], [], []
        dtype = torch.float64 if 2 * scale > FLOAT32_RANGE else x.dtype
        column_sums = x.new_zeros(len(all_y), dtype=dtype)
        for part, e in _tiles(x, all_y, scale, margin, rows, first):
            sums.append(e @ all_weights.to(dtype))
            positives.append(e.diagonal(first + part.start).log())
            column_sums += weights[part].to(dtype) @ e
            if keep:
                kept.append(e)
        empty = column_sums[:0]
        # A pair that is not valid has no partner to find; its sums may be 0.
        row_sums = torch.cat([empty, *sums]).clamp(min=torch.finfo(dtype).tiny)
        column_sums = sum_over_ranks(column_sums).clamp(min=torch.finfo(dtype).tiny)
        count = all_weights.sum().clamp(min=1)
        ctx.save_for_backward(
            x, all_y, *lengths, weights, all_weights, row_sums, column_sums, count, *kept
        )
        ctx.setting = (scale, margin, rows, first)
        logs = row_sums.log() + column_sums[own].log()
        losses = torch.where(weights > 0, logs - 2 * torch.cat([empty, *positives]), 0)
        return (sum_over_ranks(losses.sum()) / count).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Make the tiles again, unless they were kept; each serves both gradients."""
        with _all_digits(gradient):
            return *_gradients(ctx, gradient), *[None] * 6


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x, all_y, length_x, length_y, weights, all_weights = ctx.saved_tensors[:6]
    row_sums, column_sums, count, *kept = ctx.saved_tensors[6:]
    scale, margin, rows, first = ctx.setting
    own = slice(first, first + len(x))
    strength = gradient * scale / count
    per_row = (weights * strength).to(row_sums.dtype) / row_sums
    per_column = (all_weights * strength).to(row_sums.dtype) / column_sums
    counted = all_weights.to(row_sums.dtype)
    grad_x, grad_all_y = torch.empty_like(x), torch.zeros_like(all_y)
    room = per_row.new_empty(min(rows, len(x)), len(all_y))
    for part, e in _tiles(x, all_y, scale, margin, rows, first, kept):
        slope = torch.outer(per_row[part], counted, out=room[: len(e)])
        slope = slope.addr_(counted[own][part], per_column).mul_(e).to(x.dtype)
        torch.mm(slope, all_y, out=grad_x[part])  # without the positives yet
        torch.addmm(grad_all_y, slope.T, x[part], out=grad_all_y)
    y, grad_y = all_y[own], sum_over_ranks(grad_all_y)[own]
    for grad, side, other, length in ((grad_x, x, y, length_x), (grad_y, y, x, length_y)):
        grad.addcmul_((weights * strength)[:, None], other, value=-2)
        along = (grad[:, None] @ side[..., None])[..., 0]  # (b, 1)
        grad.addcmul_(along, side, value=-1).div_(length).mul_(num_ranks())
    return grad_x, grad_y


def _tiles(
    x: Tensor,
    y: Tensor,
    scale: float,
    margin: float,
    rows: int,
    first: int,
    kept: Sequence[Tensor] = (),
) -> Iterator[tuple[slice, Tensor]]:
    """Give, for some rows at a time, which they are and their exp(logit - highest logit): (R, B).

    The lowest is exp(-2 scale), so a large scale needs float64. A tile is overwritten by the next.
    Row i of ``x`` has its partner in row ``first`` + i of ``y``.
    """
    highest = scale * (1 + max(0.0, -margin))
    # One room for all tiles: the C library would not find the place of the last one again.
    room = x.new_empty(0 if kept else min(rows, len(x)), len(y))
    for number, start in enumerate(range(0, len(x), rows)):
        part = slice(start, start + rows)
        if kept:
            yield part, kept[number]
            continue
        logits = torch.mm(x[part], y.T, out=room[: len(x[part])])
        if margin:
            logits.diagonal(first + start).sub_(margin)
        if 2 * scale > FLOAT32_RANGE:
            logits = logits.double()
        yield part, logits.mul_(scale).sub_(highest).exp_()
