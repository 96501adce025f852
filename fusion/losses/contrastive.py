"""Contrastive losses of lists of embeddings that pair up row by row, in little memory.

The B x B similarities are made in tiles of some rows. One look at a tile gives its share of the
sums over rows and over columns, so both directions cost one product; the backward pass makes each
tile again, which costs another. Where the whole matrix is small, it is one tile and is kept. On
several ranks each has the rows of its own clips, b x B. Several losses between the same embeddings
share their unit vectors, and what the ranks tell one another.

Shapes: B clips of all ranks, b of this one, E embedding width, P pairs of lists, R rows of a tile.
"""

from __future__ import annotations

import contextlib
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

KEPT_BYTES = 128 * 2**20  # the matrices of all pairs are kept up to this size
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
        counts: pairs of each rank, see :mod:`fusion.distributed`: the loss is over the pairs of
            all ranks. As many as here if not given.

    Returns:
        A scalar, at least 0, the same on every rank; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the temperature is too low for float32.
    """
    if not temperature >= LOWEST_TEMPERATURE:
        raise ValueError(f"temperature must be at least {LOWEST_TEMPERATURE}; got {temperature}")
    valid = None if valid is None else valid[None]
    return contrast([x, y], [(0, 1)], 1 / temperature, 0.0, valid, tile, counts)[0][0]


def contrast(
    embeddings: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    scale: float,
    margin: float = 0.0,
    valid: Tensor | None = None,
    tile: int | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute several losses like :func:`nce` between the same embeddings.

    Args:
        embeddings: (b, E) each, all of the same clips; they are normalised here.
        pairs: which two of them each loss compares.
        scale: multiplies the cosine similarities.
        margin: subtracted from those of positives before that.
        valid: (P, b) bool, the clips that count in each loss; all if not given.
        tile: see :func:`nce`.
        counts: see :func:`nce`.

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
    counts = list(counts or equal_counts(num_rows))
    row_bytes = sum(counts) * sides[0].element_size()
    keep = tile is None and row_bytes * num_rows * len(pairs) <= KEPT_BYTES
    rows = num_rows if keep else tile or TILE_BYTES // max(1, row_bytes)
    setting = _Setting(list(pairs), scale, margin, max(1, rows), keep, counts)
    with no_autocast(sides[0]):
        return _BothDirections.apply(setting, weights, *sides)


class _Setting(NamedTuple):
    pairs: list[tuple[int, int]]
    scale: float
    margin: float
    rows: int
    keep: bool
    counts: list[int]

    @property
    def first(self) -> int:
        return first_row(self.counts)

    @property
    def columns(self) -> list[int]:
        """The embeddings of which all ranks' rows are needed."""
        return sorted({right for _, right in self.pairs})

    def dtype(self, like: Tensor) -> torch.dtype:
        """The type that holds sums of exp: the lowest is exp(-2 scale)."""
        return torch.float64 if 2 * self.scale > FLOAT32_RANGE else like.dtype


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Switch autocast off: sums over a whole batch need all their digits."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


class _BothDirections(torch.autograd.Function):
    """Means over valid clips of both directions' losses, of vectors scaled to unit length.

    With exp(logit - shift) = e_ij the loss of row i is log(sum_j e_ij) - log(e_ii), and that of
    column i likewise. As no cosine exceeds 1, one shift serves all: no maximum is needed.
    """

    @staticmethod
    def forward(
        ctx: Any, setting: _Setting, weights: Tensor, *sides: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add up the sums over rows and over columns, tile by tile: own rows, all columns."""
        units, lengths = zip(*_unit_vectors(setting, weights, sides), strict=True)
        all_units, all_weights = _gather(setting, units, weights)
        first, dtype = setting.first, setting.dtype(weights)
        row_sums = weights.new_empty(weights.shape, dtype=dtype)
        column_sums = weights.new_zeros(all_weights.shape, dtype=dtype)
        positives = torch.empty_like(row_sums)
        kept = []
        for pair, (left, right) in enumerate(setting.pairs):
            for part, e in _tiles(setting, units[left], all_units[right]):
                row_sums[pair, part] = e @ all_weights[pair].to(dtype)
                positives[pair, part] = e.diagonal(first + part.start).log()
                column_sums[pair] += weights[pair, part].to(dtype) @ e
                if setting.keep:
                    kept.append(e)
        # A clip that is not valid has no partner to find; its sums may be 0.
        row_sums.clamp_(min=torch.finfo(dtype).tiny)
        column_sums = sum_over_ranks(column_sums).clamp(min=torch.finfo(dtype).tiny)
        ctx.setting, ctx.num_kept = setting, len(kept)
        ctx.save_for_backward(
            weights,
            all_weights,
            row_sums,
            column_sums,
            *kept,
            *lengths,
            *units,
            *all_units.values(),
        )
        own = slice(first, first + weights.shape[1])
        logs = row_sums.log() + column_sums[:, own].log()
        losses = torch.where(weights > 0, logs - 2 * positives, 0).sum(dim=1)
        num_clips = all_weights.sum(dim=1)
        ctx.mark_non_differentiable(num_clips)
        values = sum_over_ranks(losses) / num_clips.clamp(min=1)
        return values.to(weights.dtype), num_clips

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Make the tiles again, unless they were kept; each serves both gradients."""
        with no_autocast(gradient):
            return None, None, *_gradients(ctx, gradient)


def _unit_vectors(
    setting: _Setting, weights: Tensor, sides: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    for number, side in enumerate(sides):
        read = torch.stack([weights[p] for p, pair in enumerate(setting.pairs) if number in pair])
        left_out = ~read.any(dim=0)[:, None]  # whatever is there, NaN even, is not looked at
        length = side.norm(dim=1, keepdim=True).clamp(min=SHORTEST).masked_fill_(left_out, 1)
        yield (side / length).masked_fill_(left_out, 0), length


def _gather(
    setting: _Setting, units: Sequence[Tensor], weights: Tensor
) -> tuple[dict[int, Tensor], Tensor]:
    """Get what is needed of all ranks' clips: columns (B, E) and weights (P, B)."""
    if world_size() == 1:
        return {number: units[number] for number in setting.columns}, weights
    mine = [units[number] for number in setting.columns]
    everything = all_gather(torch.cat([*mine, weights.T], dim=1), setting.counts)
    *columns, all_weights = everything.split([*(unit.shape[1] for unit in mine), len(weights)], 1)
    return dict(zip(setting.columns, columns, strict=True)), all_weights.T


def _gradients(ctx: Any, gradient: Tensor) -> list[Tensor]:
    setting: _Setting = ctx.setting
    weights, all_weights, row_sums, column_sums, *rest = ctx.saved_tensors
    kept, rest = rest[: ctx.num_kept], rest[ctx.num_kept :]
    count = (len(rest) - len(setting.columns)) // 2
    lengths, units = rest[:count], rest[count : 2 * count]
    all_units = dict(zip(setting.columns, rest[2 * count :], strict=True))
    own = slice(setting.first, setting.first + weights.shape[1])
    strength = gradient * setting.scale / all_weights.sum(dim=1).clamp(min=1)
    grads = [torch.zeros_like(unit) for unit in units]
    alone = world_size() == 1
    shape = (0 if alone else len(all_units), all_weights.shape[1], units[0].shape[1])
    everything = weights.new_zeros(shape)
    all_grads = {n: grads[n] if alone else everything[k] for k, n in enumerate(setting.columns)}
    tiles_of_pair = len(kept) // len(setting.pairs)
    room = row_sums.new_empty(min(setting.rows, weights.shape[1]), all_weights.shape[1])
    for pair, (left, right) in enumerate(setting.pairs):
        per_row = (weights[pair] * strength[pair]).to(row_sums.dtype) / row_sums[pair]
        per_column = (all_weights[pair] * strength[pair]).to(row_sums.dtype) / column_sums[pair]
        counted = all_weights[pair].to(row_sums.dtype)
        mine = kept[pair * tiles_of_pair : (pair + 1) * tiles_of_pair]
        for part, e in _tiles(setting, units[left], all_units[right], mine):
            slope = torch.outer(per_row[part], counted, out=room[: len(e)])
            slope = slope.addr_(counted[own][part], per_column).mul_(e).to(weights.dtype)
            grads[left][part].addmm_(slope, all_units[right])
            all_grads[right].addmm_(slope.T, units[left][part])
        positive = (weights[pair] * strength[pair])[:, None]
        grads[left].addcmul_(positive, units[right], value=-2)
        grads[right].addcmul_(positive, units[left], value=-2)
    if not alone:
        for number, grad in zip(setting.columns, all_reduce_(everything)[:, own], strict=True):
            grads[number] += grad
    for grad, unit, length in zip(grads, units, lengths, strict=True):
        along = (grad[:, None] @ unit[..., None])[..., 0]  # (b, 1)
        grad.addcmul_(along, unit, value=-1).div_(length).mul_(world_size())
    return grads


def _tiles(
    setting: _Setting, x: Tensor, y: Tensor, kept: Sequence[Tensor] = ()
) -> Iterator[tuple[slice, Tensor]]:
    """Give, for some rows at a time, which they are and their exp(logit - highest logit): (R, B).

    A tile is overwritten by the next, unless it is kept. Row i of ``x`` has its partner in row
    ``setting.first`` + i of ``y``.
    """
    scale, rows = setting.scale, setting.rows
    highest = scale * (1 + max(0.0, -setting.margin))
    # One room for all tiles: the C library would not find the place of the last one again.
    room = x.new_empty(0 if kept else min(rows, len(x)), len(y))
    for number, start in enumerate(range(0, len(x), rows)):
        part = slice(start, start + rows)
        if kept:
            yield part, kept[number]
            continue
        logits = torch.mm(x[part], y.T, out=room[: len(x[part])])
        if setting.margin:
            logits.diagonal(setting.first + start).sub_(setting.margin)
        yield part, logits.to(setting.dtype(x)).mul_(scale).sub_(highest).exp_()
