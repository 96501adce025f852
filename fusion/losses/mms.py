"""Masked margin softmax (Ilharco et al., arXiv:1910.08841), of cosines and of dot products.

AVLnet and MCN take plain dot products, in which the lengths of embeddings count and which have no
bound. So each row and each column needs the largest of its similarities; a tile of rows has whole
rows, and the columns' sums are carried on from tile to tile.

Shapes: B clips of all ranks, b of this one, E embedding width, P pairs of lists, R rows of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusion.distributed import (
    all_gather,
    all_reduce_,
    equal_counts,
    first_row,
    sum_over_ranks,
    world_size,
)
from fusion.losses.contrastive import TILE_BYTES, contrast, no_autocast

LARGEST_MARGIN = 2


def mms(
    x: Tensor,
    y: Tensor,
    margin: float = 0.001,
    valid: Tensor | None = None,
    tile: int | None = None,
    counts: Sequence[int] | None = None,
    normalize: bool = True,
) -> Tensor:
    """Make each row of ``x`` find its partner among the rows of ``y``, and the reverse.

    Unlike :func:`fusion.losses.contrastive.nce` it has no temperature, and a positive must win by
    ``margin``.

    Args:
        x: (b, E) embeddings.
        y: (b, E) embeddings, paired with ``x`` row by row.
        margin: subtracted from the similarity of each pair.
        valid: see :func:`fusion.losses.contrastive.nce`.
        tile: see :func:`fusion.losses.contrastive.nce`.
        counts: see :func:`fusion.losses.contrastive.nce`.
        normalize: compare by cosine, as EAO does; by dot product otherwise, as AVLnet and MCN do.

    Returns:
        A scalar, the same on every rank; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the margin is wider than any two cosines.
    """
    check_margin(margin)
    valid = None if valid is None else valid[None]
    if normalize:
        return contrast([x, y], [(0, 1)], 1.0, margin, valid, tile, counts)[0][0]
    return contrast_dots([x, y], [(0, 1)], margin, valid, tile, counts)[0][0]


def check_margin(margin: float) -> None:
    """Check the range of a margin.

    Raises:
        ValueError: it is out of it.
    """
    if not abs(margin) <= LARGEST_MARGIN:
        raise ValueError(
            f"loss.margin must be between -{LARGEST_MARGIN} and {LARGEST_MARGIN}; got {margin}"
        )


def contrast_dots(
    embeddings: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    margin: float = 0.0,
    valid: Tensor | None = None,
    tile: int | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute several losses like :func:`mms` of dot products between the same embeddings.

    Args:
        embeddings: (b, E) each, all of the same clips.
        pairs: which two of them each loss compares.
        margin: subtracted from the similarities of positives.
        valid: (P, b) bool, the clips that count in each loss; all if not given.
        tile: rows of the similarities that exist at a time; chosen by their size if not given.
        counts: clips of each rank; as many as here if not given.

    Returns:
        (P,) values, the same on every rank, and the (P,) numbers of clips, of all ranks, that each
        is a mean over.

    Raises:
        ValueError: two lists differ in shape.
    """
    shapes = [tuple(side.shape) for side in embeddings]
    if len(set(shapes)) > 1:
        raise ValueError(f"embeddings must pair up row by row; got {', '.join(map(str, shapes))}")
    dtype = torch.promote_types(embeddings[0].dtype, torch.float32)
    sides = [side.to(dtype) for side in embeddings]
    num_rows = len(sides[0])
    weights = sides[0].new_ones(len(pairs), num_rows) if valid is None else valid.to(dtype)
    if valid is not None:  # what no loss reads may be anything
        read = [valid[[n in pair for pair in pairs]].any(dim=0) for n in range(len(sides))]
        sides = [x.masked_fill(~rows[:, None], 0) for x, rows in zip(sides, read, strict=True)]
    counts = list(counts or equal_counts(num_rows))
    rows = tile or TILE_BYTES // max(1, sum(counts) * sides[0].element_size())
    setting = _Setting(list(pairs), margin, max(1, rows), counts)
    with no_autocast(sides[0]):
        return _DotProducts.apply(setting, weights, *sides)


class _Setting(NamedTuple):
    pairs: list[tuple[int, int]]
    margin: float
    rows: int
    counts: list[int]

    @property
    def columns(self) -> list[int]:
        """The embeddings of which all ranks' rows are needed."""
        return sorted({right for _, right in self.pairs})


class _DotProducts(torch.autograd.Function):
    """Means over valid clips of both directions' losses; each tile is made twice."""

    @staticmethod
    def forward(
        ctx: Any, setting: _Setting, weights: Tensor, *sides: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Carry the logarithms of sums over rows and columns from tile to tile."""
        everything = {n: all_gather(sides[n], setting.counts) for n in setting.columns}
        all_weights = all_gather(weights.T.contiguous(), setting.counts).T  # (P, B)
        row_sums, positives = torch.empty_like(weights), torch.empty_like(weights)
        column_sums = torch.full_like(all_weights, -math.inf)  # as logarithms, as are the rows'
        for pair, (left, right) in enumerate(setting.pairs):
            for part, logits in _tiles(setting, sides[left], everything[right]):
                own = _diagonal(setting, part, logits)
                positives[pair, part] = own
                row_sums[pair, part] = (logits + all_weights[pair].log()).logsumexp(dim=1)
                logits += weights[pair, part].log()[:, None]
                column_sums[pair] = torch.logaddexp(column_sums[pair], logits.logsumexp(dim=0))
        if world_size() > 1:  # each rank has the sums over its own rows
            of_ranks = all_gather(column_sums[None], [1] * world_size())  # (ranks, P, B)
            column_sums = of_ranks.logsumexp(dim=0)
        # Of a clip that does not count the sum may be empty; nothing reads it.
        lowest = torch.finfo(weights.dtype).min / 4
        row_sums, column_sums = row_sums.clamp(min=lowest), column_sums.clamp(min=lowest)
        ctx.setting, ctx.num_sides = setting, len(sides)
        ctx.save_for_backward(
            weights, all_weights, row_sums, column_sums, *sides, *everything.values()
        )
        first = first_row(setting.counts)
        own_columns = column_sums[:, first : first + weights.shape[1]]
        losses = torch.where(weights > 0, row_sums + own_columns - 2 * positives, 0).sum(dim=1)
        num_clips = all_weights.sum(dim=1)
        ctx.mark_non_differentiable(num_clips)
        return sum_over_ranks(losses) / num_clips.clamp(min=1), num_clips

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Make the tiles again; each serves both gradients."""
        with no_autocast(gradient):
            return None, None, *_gradients(ctx, gradient)


def _gradients(ctx: Any, gradient: Tensor) -> list[Tensor]:
    setting: _Setting = ctx.setting
    weights, all_weights, row_sums, column_sums, *tensors = ctx.saved_tensors
    sides, everything = tensors[: ctx.num_sides], tensors[ctx.num_sides :]
    all_sides = dict(zip(setting.columns, everything, strict=True))
    first = first_row(setting.counts)
    strength = gradient / all_weights.sum(dim=1).clamp(min=1)
    grads = [torch.zeros_like(side) for side in sides]
    all_grads = {n: torch.zeros_like(all_sides[n]) for n in setting.columns}
    for pair, (left, right) in enumerate(setting.pairs):
        counted = weights[pair] * strength[pair]
        for part, logits in _tiles(setting, sides[left], all_sides[right]):
            # What does not count is left out before the exponential, which it might overflow.
            slope = (logits + all_weights[pair].log()).sub_(row_sums[pair, part, None]).exp_()
            slope.mul_(counted[part, None])
            logits += weights[pair, part].log()[:, None]
            of_columns = logits.sub_(column_sums[pair]).exp_()
            slope.addcmul_(of_columns, (all_weights[pair] * strength[pair]).expand_as(slope))
            _diagonal(setting, part, slope).sub_(2 * counted[part])
            grads[left][part] += slope @ all_sides[right]
            all_grads[right] += slope.T @ sides[left][part]
    for number, grad in all_grads.items():
        grads[number] += all_reduce_(grad)[first : first + weights.shape[1]]
    return [grad * world_size() for grad in grads]


def _tiles(setting: _Setting, x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Give, for some rows at a time, which they are and their dot products: (R, B)."""
    for start in range(0, len(x), setting.rows):
        part = slice(start, min(start + setting.rows, len(x)))
        logits = x[part] @ y.T
        _diagonal(setting, part, logits).sub_(setting.margin)
        yield part, logits


def _diagonal(setting: _Setting, part: slice, tile: Tensor) -> Tensor:
    """View the similarities of the rows of a tile to their partners: (R,)."""
    return tile.diagonal(first_row(setting.counts) + part.start)[: len(tile)]
