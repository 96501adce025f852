"""Contrastive losses of two lists of embeddings that pair up row by row, in little memory.

The B x B similarities are made in tiles of some rows. One look at a tile gives its share of the
sums over rows and over columns, so both directions cost one product; the backward pass makes each
tile again, which costs another. Where the whole matrix is small, it is one tile and is kept.

Shapes: B pairs, E embedding width, R rows of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

KEPT_BYTES = 64 * 2**20  # a matrix up to this size is kept
TILE_BYTES = 16 * 2**20  # a larger one is made in tiles of about this size
LOWEST_TEMPERATURE = 0.003
SHORTEST = 1e-12  # shorter vectors are not scaled up to unit length, as in `F.normalize`
FLOAT32_RANGE = 80  # exp(-80) is a normal float32


def nce(
    x: Tensor,
    y: Tensor,
    temperature: float = 0.05,
    valid: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Make each row of ``x`` find its partner among the rows of ``y``, and the reverse.

    Also called InfoNCE (arXiv:1807.03748). As in EAO the losses of the two directions are added;
    CLIP averages them.

    Args:
        x: (B, E) embeddings; they are normalised here.
        y: (B, E) embeddings; row i is the positive of row i of ``x``, all others are negatives.
        temperature: divides the cosine similarities; smaller is sharper.
        valid: (B,) bool, the pairs to compute the loss of; all if not given.
        tile: rows of the similarity matrix that exist at a time; chosen by its size if not given.

    Returns:
        A scalar, at least 0; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the temperature is too low for float32.
    """
    if not temperature >= LOWEST_TEMPERATURE:
        raise ValueError(f"temperature must be at least {LOWEST_TEMPERATURE}; got {temperature}")
    return _contrast(x, y, 1 / temperature, 0.0, valid, tile)


def mms(
    x: Tensor,
    y: Tensor,
    margin: float = 0.001,
    valid: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Masked margin softmax (Ilharco et al., arXiv:1910.08841), as AVLnet and MCN use it.

    Unlike :func:`nce` it has no temperature, and a positive must win by ``margin``.

    Args:
        x: (B, E) embeddings; they are normalised here.
        y: (B, E) embeddings, paired with ``x`` row by row.
        margin: subtracted from the cosine similarity of each pair.
        valid: see :func:`nce`.
        tile: see :func:`nce`.

    Returns:
        A scalar, at least 0; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape.
    """
    return _contrast(x, y, 1.0, margin, valid, tile)


def _contrast(
    x: Tensor, y: Tensor, scale: float, margin: float, valid: Tensor | None, tile: int | None
) -> Tensor:
    if x.shape != y.shape:
        raise ValueError(f"x and y must pair up row by row; got {tuple(x.shape)}, {tuple(y.shape)}")
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    x, y = x.to(dtype), y.to(dtype)
    weights = x.new_ones(len(x)) if valid is None else valid.to(dtype)
    row_bytes = len(x) * x.element_size()
    keep = tile is None and row_bytes * len(x) <= KEPT_BYTES
    rows = len(x) if keep else tile or max(1, TILE_BYTES // row_bytes)
    return _BothDirections.apply(x, y, weights, scale, margin, rows, keep)


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
    ) -> Tensor:
        """Add up the sums over rows and over columns, tile by tile."""
        lengths = [side.norm(dim=1, keepdim=True).clamp(min=SHORTEST) for side in (x, y)]
        x, y = x / lengths[0], y / lengths[1]
        parts, positives, kept = [], [], []
        column_sums: Tensor | float = 0.0
        for part, e in _tiles(x, y, scale, margin, rows):
            parts.append(e @ weights.to(e.dtype))
            positives.append(e.diagonal(part.start).log())
            column_sums = column_sums + weights[part].to(e.dtype) @ e
            if keep:
                kept.append(e)
        assert isinstance(column_sums, Tensor)
        row_sums = torch.cat(parts)
        # A pair that is not valid has no partner to find; its sums may be 0.
        tiny = torch.finfo(row_sums.dtype).tiny
        logs = row_sums.clamp(min=tiny).log() + column_sums.clamp(min=tiny).log()
        count = weights.sum().clamp(min=1)
        ctx.save_for_backward(x, y, *lengths, weights, row_sums, column_sums, count, *kept)
        ctx.setting = (scale, margin, rows)
        losses = torch.where(weights > 0, logs - 2 * torch.cat(positives), 0)
        return (losses.sum() / count).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Make the tiles again, unless they were kept; each serves both gradients."""
        x, y, *lengths = ctx.saved_tensors[:4]
        weights, row_sums, column_sums, count, *kept = ctx.saved_tensors[4:]
        scale, margin, rows = ctx.setting
        share = weights * (gradient * scale / count)  # (B,)
        tiny = torch.finfo(row_sums.dtype).tiny
        per_row = share.to(row_sums.dtype) / row_sums.clamp(min=tiny)
        per_column = share.to(row_sums.dtype) / column_sums.clamp(min=tiny)
        counted = weights.to(row_sums.dtype)
        grad_x, grad_y = torch.empty_like(x), torch.zeros_like(y)
        room = per_row.new_empty(min(rows, len(x)), len(x))
        for part, e in _tiles(x, y, scale, margin, rows, kept):
            slope = torch.outer(per_row[part], counted, out=room[: len(e)])
            slope = slope.addr_(counted[part], per_column).mul_(e).to(x.dtype)  # no positives yet
            torch.mm(slope, y, out=grad_x[part])
            grad_y.addmm_(slope.T, x[part])
        for grad, own, other, length in ((grad_x, x, y, lengths[0]), (grad_y, y, x, lengths[1])):
            grad.addcmul_(share[:, None], other, value=-2)
            along = (grad[:, None] @ own[..., None])[..., 0]  # (B, 1)
            grad.addcmul_(along, own, value=-1).div_(length)
        return grad_x, grad_y, *[None] * 5


def _tiles(
    x: Tensor,
    y: Tensor,
    scale: float,
    margin: float,
    rows: int,
    kept: Sequence[Tensor] = (),
) -> Iterator[tuple[slice, Tensor]]:
    """Give, for some rows at a time, which they are and their exp(logit - highest logit): (R, B).

    The lowest is exp(-2 scale), so a large scale needs float64. A tile is overwritten by the next.
    """
    highest = scale * (1 + max(0.0, -margin))
    # One room for all tiles: the C library would not find the place of the last one again.
    room = x.new_empty(0 if kept else min(rows, len(x)), len(x))
    for number, start in enumerate(range(0, len(x), rows)):
        part = slice(start, start + rows)
        if kept:
            yield part, kept[number]
            continue
        logits = torch.mm(x[part], y.T, out=room[: len(x[part])])
        if margin:
            logits.diagonal(start).sub_(margin)
        if 2 * scale > FLOAT32_RANGE:
            logits = logits.double()
        yield part, logits.mul_(scale).sub_(highest).exp_()
