"""Contrastive losses of lists of embeddings that pair up row by row.

Losses between the same embeddings share unit vectors and collectives. The B x B similarities never
exist as a whole: a tile of some rows yields its share of the sums over rows and over columns, so
both directions cost one product, and each tile is computed again for the gradient, unless the
matrix is small. With several ranks each has the rows of its own clips, b x B. It compares them with
the rows of all ranks of one list at a time, the columns. Their gradient is computed and sent back
before the next list is gathered, so no rank holds the columns of all lists.

Shapes: B clips of all ranks, b of this one, E embedding width, P pairs of lists, R rows of a tile.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusion.arithmetic import full_precision
from fusion.distributed import (
    all_reduce_,
    all_reduce_max_,
    gather_rows,
    own_rows,
    sum_own_rows,
    world_size,
)

KEPT_BYTES = 128 * 2**20  # matrices of one list of columns are kept for the gradient up to this
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
    return contrast([x, y], [(0, 1)], 1 / temperature, 0.0, valid, tile)[0]


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
    return contrast([x, y], [(0, 1)], 1.0, margin, valid, tile, normalize)[0]


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
    coefficients: Callable[[Tensor], Tensor] = torch.ones_like,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute P losses like :func:`nce`, each between a pair of the same (b, E) embeddings.

    The similarity of a positive is reduced by ``margin``, then all are multiplied by ``scale``.
    ``valid`` (P, b) bool are the clips that count in each loss. ``coefficients`` maps the (P,)
    numbers of clips that the losses are means over to (P,) factors.

    Returns:
        The sum of the losses times their coefficients, which alone has a gradient; the (P,) losses;
        the (P,) numbers of clips of all ranks. All are the same on every rank.

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
    pairs = _orient(pairs)
    columns = sorted({right for _, right in pairs})
    row_bytes = world_size() * num_rows * sides[0].element_size()
    most = max(sum(right == column for _, right in pairs) for column in columns)
    keep = tile is None and row_bytes * num_rows * most <= KEPT_BYTES and shift is not None
    rows = num_rows if keep else tile or TILE_BYTES // max(1, row_bytes)
    differentiate = torch.is_grad_enabled() and any(side.requires_grad for side in sides)
    setting = _Setting(
        pairs, columns, scale, margin, max(1, rows), keep, shift, coefficients, differentiate
    )
    with no_autocast(sides[0]):
        if normalize:
            sides = [_Normalize.apply(side) for side in sides]
        return _SymmetricInfoNCE.apply(setting, weights, *sides)


def _orient(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Turn pairs around so that few lists are on the right; the losses are symmetric."""
    chosen: list[int] = []
    while left := [pair for pair in pairs if not {*pair} & {*chosen}]:
        sides = [side for pair in left for side in pair[::-1]]
        chosen.append(max(sides, key=sides.count))
    return [(a, b) if b in chosen else (b, a) for a, b in pairs]


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
    keep: bool  # the tiles, until the gradient is computed
    shift: float | None  # the highest logit possible, if the lowest is not too far below
    coefficients: Callable[[Tensor], Tensor]
    differentiate: bool


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
        c_j = log sum_i exp(s_ij), over all tiles of all ranks
        loss = 1/n sum_i (r_i - s_ii + c_i - s_ii)
        d loss / d s_ij = 1/n (exp(s_ij - r_i) + exp(s_ij - c_j) - 2 [i = j]) =: g_ij
        d loss / d x = scale g y, and d loss / d y = scale g^T x
    Cosines are bounded, so for them s is shifted by its bound. No exponential overflows then, and
    e_ij = exp(s_ij) serves rows and columns; dot products need a maximum for each.

    The gradient needs nothing from what follows but one factor, so it is computed here, while the
    columns are at hand; the backward pass only multiplies.
    """

    @staticmethod
    def forward(
        ctx: Any, setting: _Setting, weights: Tensor, *sides: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute sum, (P,) losses and numbers of clips; ``weights`` (P, b) are 1 or 0."""
        all_weights = gather_rows(weights.T).T  # (P, B)
        num_clips = all_weights.sum(dim=1)
        means = num_clips.clamp(min=1)
        coefficients = setting.coefficients(num_clips)
        grads = [torch.zeros_like(side) for side in sides if setting.differentiate]
        losses = torch.zeros_like(means)
        for column in setting.columns:
            part = _Columns(setting, weights, all_weights, sides, column)
            for pair, loss in part.losses():
                losses[pair] = loss
            if setting.differentiate:
                part.add_gradients(grads, coefficients * setting.scale / means)
            del part  # free its columns before the next ones are gathered
        losses = all_reduce_(losses) / means
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(losses, num_clips)
        return (coefficients * losses).sum(), losses, num_clips

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        factor = gradient * world_size()
        return None, None, *(grad * factor for grad in ctx.saved_tensors)


class _Columns:
    """The pairs whose right side is one list of embeddings, with its rows of all ranks."""

    def __init__(
        self,
        setting: _Setting,
        weights: Tensor,
        all_weights: Tensor,
        sides: Sequence[Tensor],
        column: int,
    ) -> None:
        self.setting, self.sides, self.column = setting, sides, column
        self.weights, self.all_weights = weights, all_weights
        self.pairs = [p for p, (_, right) in enumerate(setting.pairs) if right == column]
        self.own, self.kept = own_rows(weights.shape[1]), list[Tensor]()
        self.y = gather_rows(sides[column])  # (B, E)
        some = len(self.pairs), weights.shape[1]
        self.rows, self.positives = weights.new_empty(some), weights.new_empty(some)
        self.columns = weights.new_zeros(len(self.pairs), all_weights.shape[1])

    def losses(self) -> Iterator[tuple[int, Tensor]]:
        """Yield pairs and this rank's share of their losses, not yet divided by the clips."""
        if self.setting.shift is None:
            self.columns.fill_(-math.inf)
        for k, pair in enumerate(self.pairs):
            for part, tile in self._tiles(pair):
                self._add_sums(k, part, tile)
                if self.setting.keep:
                    self.kept.append(tile)
        if self.setting.shift is None:
            # Empty sums are -inf; a difference of two of them would be NaN.
            highest = all_reduce_max_(self.columns.clone()).clamp(min=torch.finfo(self.y.dtype).min)
            self.columns = all_reduce_(self.columns.sub_(highest).exp_()).log_().add_(highest)
        else:
            self.columns = all_reduce_(self.columns).log_()
        # The sum of a masked clip is empty (-inf); use 0, because its terms are masked anyway.
        self.rows, self.columns = (
            x.masked_fill(x.isneginf(), 0) for x in (self.rows, self.columns)
        )
        each = self.rows + self.columns[:, self.own] - 2 * self.positives
        for pair, own in zip(self.pairs, each, strict=True):
            yield pair, torch.where(self.weights[pair] > 0, own, 0).sum()

    def add_gradients(self, grads: Sequence[Tensor], strength: Tensor) -> None:
        """Add to the (b, E) gradients those of the pairs, times ``strength`` (P,)."""
        alone = world_size() == 1
        of_columns = grads[self.column] if alone else torch.zeros_like(self.y)
        room = self.rows.new_empty(min(self.setting.rows, len(self.rows[0])), len(self.y))
        for k, pair in enumerate(self.pairs):
            left = self.setting.pairs[pair][0]
            tiles = [(slice(0, len(self.rows[k])), self.kept[k])] if self.kept else None
            for part, tile in tiles or self._tiles(pair):
                row, column, out = self.rows[k, part, None], self.columns[k], room[: len(tile)]
                if self.setting.shift is None:
                    slope = torch.sub(tile, row, out=out).exp_().add_(tile.sub_(column).exp_())
                else:
                    slope = torch.add((-row).exp(), (-column).exp(), out=out).mul_(tile)
                slope.diagonal(self.own.start + part.start).sub_(2 * self.weights[pair, part])
                slope.mul_(strength[pair])
                grads[left][part].addmm_(slope, self.y)
                of_columns.addmm_(slope.T, self.sides[left][part])
        if not alone:
            grads[self.column].add_(sum_own_rows(of_columns))

    def _add_sums(self, k: int, part: slice, tile: Tensor) -> None:
        of_tile = tile.diagonal(self.own.start + part.start)
        if self.setting.shift is None:
            self.rows[k, part], self.positives[k, part] = tile.logsumexp(dim=1), of_tile
            self.columns[k] = torch.logaddexp(self.columns[k], tile.logsumexp(dim=0))
        else:
            self.rows[k, part] = tile.sum(dim=1).log()
            self.positives[k, part] = of_tile.log()
            self.columns[k] += tile.sum(dim=0)

    def _tiles(self, pair: int) -> Iterator[tuple[slice, Tensor]]:
        left = self.setting.pairs[pair][0]
        weights, all_weights = self.weights[pair], self.all_weights[pair]
        return _tiles(self.setting, self.sides[left], self.y, weights, all_weights)


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
