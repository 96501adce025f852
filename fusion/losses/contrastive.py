"""Contrastive losses of lists of embeddings that pair up row by row.

Losses between the same embeddings share unit vectors and collectives. The B x B similarities never
exist as a whole: a tile of some rows yields its share of the sums over rows and over columns, so
both directions cost one product, and the backward pass computes each tile again. A small matrix is
one tile, and is kept. With several ranks each has the rows of its own clips, b x B.

Shapes: B clips of all ranks, b of this one, E embedding width, P pairs of lists, R rows of a tile.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusion.arithmetic import full_precision
from fusion.distributed import all_gather, all_reduce, all_reduce_, own_rows, world_size

KEPT_BYTES = 128 * 2**20  # the matrices of all pairs are kept up to this size
TILE_BYTES = 16 * 2**20  # a larger one is computed in tiles of about this size
LOWEST_TEMPERATURE = 0.003
LARGEST_MARGIN = 2
FLOAT32_RANGE = 80  # exp(-80) is a normal float32
SHORTEST = 1e-12  # shorter vectors are not scaled up to unit length, as in `F.normalize`


def nce(
    x: Tensor,
    y: Tensor,
    temperature: float = 0.05,
    valid: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Symmetric InfoNCE (arXiv:1807.03748) of cosines.

    Row i of ``y`` is the positive of row i of ``x``; all other rows are negatives. As in EAO the
    losses of the two directions are added; CLIP averages them.

    Args:
        x: (b, E) embeddings; they are normalised here.
        y: (b, E) embeddings, paired with ``x`` row by row.
        temperature: divides the cosine similarities; smaller is sharper.
        valid: (b,) bool, the pairs that count; all if not given. Others may hold anything.
        tile: R; chosen by the size of the matrix if not given.

    Returns:
        A scalar, at least 0, the mean over the pairs of all ranks; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the temperature is too low for float32.
    """
    check_range(temperature=temperature)
    valid = None if valid is None else valid[None]
    return contrast([x, y], [(0, 1)], 1 / temperature, 0.0, valid, tile)[0][0]


def mms(
    x: Tensor,
    y: Tensor,
    margin: float = 0.001,
    valid: Tensor | None = None,
    tile: int | None = None,
    normalize: bool = True,
) -> Tensor:
    """Masked margin softmax (arXiv:1910.08841): :func:`nce` with a margin and no temperature.

    The margin is subtracted from the similarity of each pair. Similarities are cosines, as in EAO;
    with ``normalize=False`` dot products, as in AVLnet and MCN.

    Raises:
        ValueError: the two batches differ in shape, or the margin is wider than any two cosines.
    """
    check_range(margin=margin)
    valid = None if valid is None else valid[None]
    return contrast([x, y], [(0, 1)], 1.0, margin, valid, tile, normalize)[0][0]


def check_range(temperature: float = 1.0, margin: float = 0.0) -> None:
    """Raise ValueError if float32 cannot hold the exponentials at this temperature.

    The same if the margin is wider than the difference of any two cosines.
    """
    if not temperature >= LOWEST_TEMPERATURE:
        raise ValueError(
            f"loss.temperature must be at least {LOWEST_TEMPERATURE}; got {temperature}"
        )
    if not abs(margin) <= LARGEST_MARGIN:
        raise ValueError(
            f"loss.margin must be between -{LARGEST_MARGIN} and {LARGEST_MARGIN}; got {margin}"
        )


def contrast(
    embeddings: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    scale: float = 1.0,
    margin: float = 0.0,
    valid: Tensor | None = None,
    tile: int | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compute P losses like :func:`nce`, each between a pair of the same (b, E) embeddings.

    The similarity of a positive is reduced by ``margin``, then all are multiplied by ``scale``.
    ``valid`` (P, b) bool are the clips that count in each loss.

    Returns:
        (P,) values, the same on every rank, and the (P,) numbers of clips of all ranks that each
        value is a mean over.

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
    if valid is not None:  # rows that no loss reads may hold anything, even NaN
        for n, side in enumerate(sides):
            read = torch.stack([valid[p] for p, pair in enumerate(pairs) if n in pair]).any(dim=0)
            sides[n] = side.masked_fill(~read[:, None], 0)
    highest = scale * (1 + max(0.0, -margin))
    lowest = -scale * (1 + max(0.0, margin))
    shift = highest if normalize and highest - lowest <= FLOAT32_RANGE else None
    row_bytes = world_size() * num_rows * sides[0].element_size()
    small = row_bytes * num_rows * len(pairs) <= KEPT_BYTES
    keep = tile is None and small and shift is not None
    rows = num_rows if keep else tile or TILE_BYTES // max(1, row_bytes)
    columns = sorted({right for _, right in pairs})
    setting = _Setting(pairs, columns, scale, margin, max(1, rows), keep, shift)
    with no_autocast(sides[0]):
        if normalize:
            sides = [_Normalize.apply(side) for side in sides]
        return _SymmetricInfoNCE.apply(setting, weights, *sides)


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Disable autocast and TF32 on the device of ``x``: batch-wide sums need float32."""
    return full_precision(x.device.type)


class _Setting(NamedTuple):
    """What the losses of P pairs have in common; see :func:`contrast`."""

    pairs: Sequence[tuple[int, int]]
    columns: list[int]  # the embeddings of which the rows of all ranks are needed
    scale: float
    margin: float
    rows: int  # R
    keep: bool  # the tiles, for the backward pass
    shift: float | None  # the highest logit possible, if the lowest is not too far below


class _Normalize(torch.autograd.Function):
    """``F.normalize`` of rows, but it saves its output and not its input as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = x.norm(dim=1, keepdim=True).clamp(min=SHORTEST)
        unit = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        along = (gradient * unit).sum(dim=1, keepdim=True)
        return torch.addcmul(gradient, along, unit, value=-1).div_(length)


class _SymmetricInfoNCE(torch.autograd.Function):
    """Cross-entropy over rows plus that over columns, of the n clips that count.

    With s_ij = scale (x_i y_j - margin [i = j]), and -inf if clip i or j does not count:
        r_i = log sum_j exp(s_ij), whole in one tile
        c_j = log sum_i exp(s_ij), running: after each tile c_j = log(exp(c_j) + exp(c_j of tile))
        loss = 1/n sum_i (r_i - s_ii + c_i - s_ii)
        d loss / d s_ij = 1/n (exp(s_ij - r_i) + exp(s_ij - c_j) - 2 [i = j]) =: g_ij
        d loss / d x = scale g y, and d loss / d y = scale g^T x
    Cosines are bounded, so for them s is shifted by its bound. No exponential overflows then, and
    e_ij = exp(s_ij) serves rows and columns; dot products need a maximum for each.
    """

    @staticmethod
    def forward(
        ctx: Any, setting: _Setting, weights: Tensor, *sides: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the (P,) losses and numbers of clips; ``weights`` (P, b) are 1 or 0."""
        all_sides, all_weights = _gather(setting, sides, weights)
        own = own_rows(weights.shape[1])
        rows, positives = torch.empty_like(weights), torch.empty_like(weights)
        columns = torch.full_like(all_weights, -math.inf)
        kept = []
        for pair, (left, right) in enumerate(setting.pairs):
            x, y = sides[left], all_sides[right]
            for part, tile in _tiles(setting, x, y, weights[pair], all_weights[pair]):
                of_tile = tile.diagonal(own.start + part.start)
                if setting.shift is None:
                    sums = tile.logsumexp(dim=1), tile.logsumexp(dim=0)
                    positives[pair, part] = of_tile
                else:
                    sums = tile.sum(dim=1).log(), tile.sum(dim=0).log()
                    positives[pair, part] = of_tile.log()
                rows[pair, part] = sums[0]
                columns[pair] = torch.logaddexp(columns[pair], sums[1])
                if setting.keep:
                    kept.append(tile)
        columns = all_gather(columns[None]).logsumexp(dim=0)  # of the rows of all ranks
        # The sum of a masked clip is empty (-inf); use 0, because its terms are masked anyway.
        rows, columns = (x.masked_fill(x.isneginf(), 0) for x in (rows, columns))
        ctx.setting, ctx.num_kept, ctx.num_sides = setting, len(kept), len(sides)
        saved = (weights, all_weights, rows, columns, *kept, *sides, *all_sides.values())
        ctx.save_for_backward(*saved)
        losses = torch.where(weights > 0, rows + columns[:, own] - 2 * positives, 0).sum(dim=1)
        num_clips = all_weights.sum(dim=1)
        ctx.mark_non_differentiable(num_clips)
        return all_reduce(losses) / num_clips.clamp(min=1), num_clips

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        with no_autocast(gradient):
            return None, None, *_gradients(ctx, gradient)


def _gradients(ctx: Any, gradient: Tensor) -> list[Tensor]:
    """Compute the tiles again, unless they were kept; each serves both gradients."""
    setting: _Setting = ctx.setting
    weights, all_weights, rows, columns, *rest = ctx.saved_tensors
    kept, rest = rest[: ctx.num_kept], rest[ctx.num_kept :]
    sides, rest = rest[: ctx.num_sides], rest[ctx.num_sides :]
    all_sides = dict(zip(setting.columns, rest, strict=True))
    own = own_rows(weights.shape[1])
    strength = gradient * setting.scale / all_weights.sum(dim=1).clamp(min=1)
    grads = [torch.zeros_like(side) for side in sides]
    alone = world_size() == 1
    shape = (0 if alone else len(all_sides), all_weights.shape[1], sides[0].shape[1])
    everything = weights.new_zeros(shape)
    all_grads = {n: grads[n] if alone else everything[k] for k, n in enumerate(setting.columns)}
    room = rows.new_empty(min(setting.rows, weights.shape[1]), all_weights.shape[1])
    for pair, (left, right) in enumerate(setting.pairs):
        if kept:
            tiles: Iterable[tuple[slice, Tensor]] = [(slice(0, len(sides[left])), kept[pair])]
        else:
            tiles = _tiles(setting, sides[left], all_sides[right], weights[pair], all_weights[pair])
        for part, tile in tiles:
            row, column, out = rows[pair, part, None], columns[pair], room[: len(tile)]
            if setting.shift is None:
                slope = torch.sub(tile, row, out=out).exp_().add_(tile.sub_(column).exp_())
            else:
                slope = torch.add((-row).exp(), (-column).exp(), out=out).mul_(tile)
            slope.diagonal(own.start + part.start).sub_(2 * weights[pair, part])
            slope.mul_(strength[pair])
            grads[left][part].addmm_(slope, all_sides[right])
            all_grads[right].addmm_(slope.T, sides[left][part])
    if not alone:
        for number, grad in zip(setting.columns, all_reduce_(everything)[:, own], strict=True):
            grads[number] += grad
    return [grad.mul_(world_size()) for grad in grads]


def _gather(
    setting: _Setting, sides: Sequence[Tensor], weights: Tensor
) -> tuple[dict[int, Tensor], Tensor]:
    """Get the clips of all ranks in one collective: columns (B, E) and weights (P, B)."""
    if world_size() == 1:
        return {number: sides[number] for number in setting.columns}, weights
    mine = [sides[number] for number in setting.columns]
    everything = all_gather(torch.cat([*mine, weights.T], dim=1))
    *columns, all_weights = everything.split([*(x.shape[1] for x in mine), len(weights)], dim=1)
    return dict(zip(setting.columns, columns, strict=True)), all_weights.T


def _tiles(
    setting: _Setting, x: Tensor, y: Tensor, weights: Tensor, all_weights: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Yield some rows and their s_ij, or e_ij if there is a shift: (R, B), overwritten later."""
    first = own_rows(len(x)).start
    row_mask, column_mask = weights.log(), all_weights.log()  # 0, or -inf for clips left out
    # Reuse one buffer; malloc would not reuse the freed one.
    room = x.new_empty(min(setting.rows, len(x)), len(y))
    for start in range(0, len(x), setting.rows):
        part = slice(start, min(start + setting.rows, len(x)))
        tile = torch.add(row_mask[part, None], column_mask, out=room[: part.stop - start])
        tile.addmm_(x[part], y.T, alpha=setting.scale)
        if setting.margin:
            tile.diagonal(first + start).sub_(setting.scale * setting.margin)
        yield part, tile if setting.shift is None else tile.sub_(setting.shift).exp_()
