"""Cross-entropy over the rows and the columns of a similarity matrix that never exists as a whole.

A tile of some rows yields its share of the sums over rows and over columns, so both directions
cost one product; the backward pass computes each tile again, unless it was kept. With several
ranks each has the rows of its own clips, b x B.

Shapes: B clips of all ranks, b of this one, E embedding width, P pairs of lists, R rows of a tile.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusion.distributed import all_gather, all_reduce, all_reduce_, own_rows, world_size

SHORTEST = 1e-12  # shorter vectors are not scaled up to unit length, as in `F.normalize`


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Disable autocast on the device of ``x``: batch-wide sums need float32."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


class Setting(NamedTuple):
    """What the losses of P pairs have in common; see :func:`fusion.losses.contrastive.contrast`."""

    pairs: list[tuple[int, int]]
    scale: float
    margin: float
    rows: int  # R
    keep: bool  # the tiles, for the backward pass
    shift: float | None  # the highest logit possible, if the lowest is not too far below

    @property
    def columns(self) -> list[int]:
        """The embeddings of which the rows of all ranks are needed."""
        return sorted({right for _, right in self.pairs})


class Normalize(torch.autograd.Function):
    """``F.normalize`` of rows, but it saves its output and not its input as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Normalise (b, E) rows."""
        length = x.norm(dim=1, keepdim=True).clamp(min=SHORTEST)
        unit = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Project the gradient onto the sphere."""
        unit, length = ctx.saved_tensors
        along = (gradient * unit).sum(dim=1, keepdim=True)
        return torch.addcmul(gradient, along, unit, value=-1).div_(length)


class SymmetricInfoNCE(torch.autograd.Function):
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
        ctx: Any, setting: Setting, weights: Tensor, *sides: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the (P,) losses and numbers of clips; ``weights`` (P, b) are 1 or 0."""
        all_sides, all_weights = _gather(setting, sides, weights)
        own = own_rows(weights.shape[1])
        rows, positives = torch.empty_like(weights), torch.empty_like(weights)
        columns = torch.full_like(all_weights, -math.inf)
        kept = []
        for pair, (left, right) in enumerate(setting.pairs):
            masks = weights[pair], all_weights[pair]
            for part, tile in _tiles(setting, sides[left], all_sides[right], *masks):
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
        # The sum of a clip that does not count is empty. Zero is as good: all its s_ij are -inf.
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
        """Compute the tiles again, unless they were kept; each serves both gradients."""
        with no_autocast(gradient):
            return None, None, *_gradients(ctx, gradient)


def _gradients(ctx: Any, gradient: Tensor) -> list[Tensor]:
    setting: Setting = ctx.setting
    weights, all_weights, rows, columns, *rest = ctx.saved_tensors
    kept, rest = rest[: ctx.num_kept], rest[ctx.num_kept :]
    sides = rest[: ctx.num_sides]
    all_sides = dict(zip(setting.columns, rest[ctx.num_sides :], strict=True))
    own = own_rows(weights.shape[1])
    strength = gradient * setting.scale / all_weights.sum(dim=1).clamp(min=1)
    grads = [torch.zeros_like(side) for side in sides]
    alone = world_size() == 1
    shape = (0 if alone else len(all_sides), all_weights.shape[1], sides[0].shape[1])
    everything = weights.new_zeros(shape)
    all_grads = {n: grads[n] if alone else everything[k] for k, n in enumerate(setting.columns)}
    room = rows.new_empty(min(setting.rows, weights.shape[1]), all_weights.shape[1])
    for pair, (left, right) in enumerate(setting.pairs):
        masks = weights[pair], all_weights[pair]
        tiles = _tiles(setting, sides[left], all_sides[right], *masks, kept[pair : pair + 1])
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
    setting: Setting, sides: Sequence[Tensor], weights: Tensor
) -> tuple[dict[int, Tensor], Tensor]:
    """Get the clips of all ranks in one collective: columns (B, E) and weights (P, B)."""
    if world_size() == 1:
        return {number: sides[number] for number in setting.columns}, weights
    mine = [sides[number] for number in setting.columns]
    everything = all_gather(torch.cat([*mine, weights.T], dim=1))
    *columns, all_weights = everything.split([*(x.shape[1] for x in mine), len(weights)], dim=1)
    return dict(zip(setting.columns, columns, strict=True)), all_weights.T


def _tiles(
    setting: Setting,
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    all_weights: Tensor,
    kept: Sequence[Tensor] = (),
) -> Iterator[tuple[slice, Tensor]]:
    """Yield some rows at a time, and their s_ij, or e_ij if there is a shift: (R, B).

    A tile is overwritten by the next.
    """
    if kept:
        yield slice(0, len(x)), kept[0]
        return
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
