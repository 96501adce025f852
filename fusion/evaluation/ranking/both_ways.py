"""Rank both directions between two sides with one product of matrices.

Every process compares its share of the rows of one side with all rows of the other, and counts are
added up. Rows are read and compared in blocks; scores are not kept.

Shapes: Q rows of side x, N rows of side y, n queries of a way, P pairs of rows of one clip,
B x T scores at a time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.arithmetic import full_precision
from fusion.evaluation.ranking.count import count_true
from fusion.evaluation.ranking.exact import SHORTEST, check_finite, cosines_of_directions
from fusion.evaluation.ranking.rough import (
    are_safe,
    error_of_width,
    product_type,
    products,
    scaled_block,
)
from fusion.evaluation.ranking.side import Side, pieces
from fusion.evaluation.ranking.way import Way, directions_of_pairs
from fusion.evaluation.together import all_or_none, max_, share_of, sum_
from fusion.out_of_memory import Blocks

Ranks = NDArray[np.float64]
ROWS, COLUMNS = 1024, 512  # scores at a time on a CPU: they stay in the cache
ON_DEVICE = 8192  # rows and columns of scores at a time on a GPU
HELD = 2**22  # numbers of side x that are held in float32; of side y a quarter as many
MANY = 64  # where one of so many scores is near, all are computed exactly


class Places(NamedTuple):
    """Where the best row of each query's clip is among the rows of other clips."""

    ranks: Ranks  # (Q,) from 1; rows that tie share the mean of their places, so halves occur
    tied: NDArray[np.int64]  # (Q,) rows of other clips that tie with it
    own: NDArray[np.int64]  # (Q,) rows of its own clip that are as good, with itself


def make_places(better: Tensor, tied: Tensor, own: Tensor) -> Places:
    """Make places of counts (Q,): rows that are better than the best own one, and that tie."""
    ranks = (1 + better + tied / 2).double().cpu().numpy()
    return Places(ranks, tied.cpu().numpy(), own.cpu().numpy())


def rank_both_ways(
    x: Side,
    y: Side,
    clips: tuple[Tensor, Tensor],
    is_dot: bool = False,
    ways: tuple[bool, bool] = (True, True),
    device: torch.device | None = None,
    block: int | None = None,
    together: bool = False,
) -> tuple[Places | None, Places | None]:
    """Place the clip of every row of one side among the rows of the other, and the reverse.

    Args:
        x: a side.
        y: the other side.
        clips: of the rows of both, (Q,) and (N,) int64. Every row whose way is asked for has a row
            of its clip on the other side.
        is_dot: compare by the dot product of the query's direction with the row; else by cosine.
        ways: whether x asks for y, and whether y asks for x.
        device: where scores are computed; None: the CPU.
        block: rows of x at a time. It changes memory and speed only.
        together: every process calls this with the same arguments and does a share of the work.

    Returns:
        The places of the rows of x among those of y, and the reverse; None where not asked for.

    Raises:
        ValueError: an embedding is not finite.
        OtherProcessFailed: another process failed.
    """
    if device is None or device.type == "mps":  # which has no float64
        device = torch.device("cpu")
    with full_precision(device.type):  # TF32, which is on for networks, would need float64 here
        return _rank(x, y, clips, is_dot, ways, device, block, together)


def _rank(
    x: Side,
    y: Side,
    clips: tuple[Tensor, Tensor],
    is_dot: bool,
    ways: tuple[bool, bool],
    device: torch.device,
    block: int | None,
    together: bool,
) -> tuple[Places | None, Places | None]:
    mine = share_of(len(x)) if together else slice(0, len(x))
    with all_or_none(together):
        search = _Search(x.part(mine), y, (clips[0][mine], clips[1]), is_dot, device, ways)
    there, back = search.ways
    if together and ways[1]:  # rows of other processes may be better
        max_(back.best)
    search.set_within()
    if together and ways[1]:
        max_(back.within)
    with all_or_none(together):
        search.count(block)
    found: list[Places | None] = [None, None]
    if ways[0]:
        counts = there.counts.new_zeros(3, len(x))
        counts[:, mine] = there.counts
        found[0] = make_places(*(sum_(counts) if together else counts))
    if ways[1]:
        found[1] = make_places(*(sum_(back.counts) if together else back.counts))
    return found[0], found[1]


class _Search:
    """The comparison of a process' share of side x with side y; two ways, there and back."""

    def __init__(
        self,
        x: Side,
        y: Side,
        clips: tuple[Tensor, Tensor],
        is_dot: bool,
        device: torch.device,
        ways: tuple[bool, bool],
    ) -> None:
        self.sides, self.device, self.dtype = (x, y), device, product_type(device)
        self.asked = [number for number in (0, 1) if ways[number]]
        lengths = x.lengths(0, len(x), device), y.lengths(0, len(y), device)
        for own in lengths:
            check_finite(own)
        self.ways = (
            Way((x, y), lengths, is_dot),
            Way((y, x), (lengths[1], lengths[0]), is_dot),
        )
        self.pairs = pairs_of(*clips)  # on the CPU, by ascending rows of x
        self.scores = self._own_scores(lengths)
        for number, scores in self.scores.items():
            rows = self.pairs[number].to(device)
            self.ways[number].best.scatter_reduce_(0, rows, scores, "amax")
        # In float32 rows are divided by ``divisors``; ``factors`` make such products of scores.
        most = [max(float(own.max()) if len(own) else 0.0, SHORTEST) for own in lengths]
        bound = error_of_width(x.width)
        if is_dot:
            self.divisors = [torch.full_like(n, m) for n, m in zip(lengths, most, strict=True)]
            self.factors = [own / most[0] / most[1] for own in lengths]
            self.errors = [own / m * bound for own, m in zip(lengths, most, strict=True)]
        else:
            self.divisors = [own.clamp(min=SHORTEST) for own in lengths]
            self.factors = [torch.ones_like(own) for own in lengths]
            self.errors = [own * bound for own in self.factors]
        self.are_safe = [are_safe(own) for own in self.divisors]

    def _own_scores(self, lengths: tuple[Tensor, Tensor]) -> dict[int, Tensor]:
        """Compute the scores (P,) of rows of one clip in the ways that are asked for."""
        pairs = self.pairs[0].to(self.device), self.pairs[1].to(self.device)
        found = {number: lengths[0].new_empty(len(pairs[0])) for number in self.asked}
        for place, x, y in directions_of_pairs(self.sides, lengths, pairs):
            for number, cosines in found.items():
                cosines[place] = cosines_of_directions(*((x, y) if number == 0 else (y, x)))
        return {
            number: self.ways[number].as_scores(cosines, pairs[1 - number])
            for number, cosines in found.items()
        }

    def set_within(self) -> None:
        """Set up to which distance others tie with the best own row, once that is known."""
        for number, scores in self.scores.items():
            way, rows = self.ways[number], self.pairs[number].to(self.device)
            slack = way.slack(self.pairs[1 - number].to(self.device))
            slack = torch.where(scores == way.best[rows], slack, 0.0)
            way.within.scatter_reduce_(0, rows, slack, "amax")

    def count(self, block: int | None) -> None:
        """Compare all rows, by blocks."""
        self.limits = []
        for way, factor, error in zip(self.ways, self.factors, self.errors, strict=True):
            near = error + 2.0**-100  # numbers too small for float32 are lost
            high, low = ((way.best + sign * way.within) * factor + sign * near for sign in (1, -1))
            self.limits.append((high.to(self.dtype), low.to(self.dtype)))
        for number, scores in self.scores.items():
            way, rows = self.ways[number], self.pairs[number].to(self.device)
            as_good = scores >= (way.best - way.within)[rows]
            way.counts[2].index_add_(0, rows, as_good.long())
        Blocks(block or self._rows(), "queries").run(len(self.sides[0]), self._count_block)

    def _count_block(self, start: int, stop: int) -> None:
        """Compare some rows of x with all of y; if that fails, counts are as before."""
        before = [way.counts.clone() for way in self.ways]
        try:
            self._compare(start, stop)
        except BaseException:
            for way, counts in zip(self.ways, before, strict=True):
                way.counts = counts
            raise

    def _compare(self, start: int, stop: int) -> None:
        on_cpu = self.device.type == "cpu"
        height, width = (ROWS, self._columns()) if on_cpu else (stop - start, ON_DEVICE)
        x = self._scale(0, start, self._buffer(stop - start))
        # All blocks of y use one buffer: many large ones in turn would fragment the memory.
        buffer = self._buffer(min(width, len(self.sides[1])))
        first, last = np.searchsorted(self.pairs[0].numpy(), (start, stop))
        own = [part[first:last] for part in self.pairs]
        order = own[1].argsort(stable=True)
        own = [part[order] for part in own]
        for left, right in pieces(0, len(self.sides[1]), width):
            y = self._scale(1, left, buffer[: right - left])
            first, last = np.searchsorted(own[1].numpy(), (left, right))
            rows, columns = (part[first:last] for part in own)
            for top, bottom in pieces(start, stop, height):
                scores = products(x[top - start : bottom - start], y)
                here = (rows >= top) & (rows < bottom)
                mine = ((rows[here] - top).to(self.device), (columns[here] - left).to(self.device))
                scores[mine] = -torch.inf
                for number in self.asked:
                    self._tally(number, scores, slice(top, bottom), slice(left, right), mine)

    def _tally(
        self,
        number: int,
        scores: Tensor,
        rows: slice,
        columns: slice,
        own: tuple[Tensor, Tensor],
    ) -> None:
        """Count what is better or ties in one way among (B, T) scores; near ones exactly."""
        way, (high, low) = self.ways[number], self.limits[number]
        queries, gallery = (rows, columns) if number == 0 else (columns, rows)
        shape = (-1, 1) if number == 0 else (1, -1)
        above = scores > high[queries].view(shape)
        maybe = scores >= low[queries].view(shape)
        counts = [count_true(flags, 1 - number) for flags in (above, maybe)]
        way.counts[0, queries] += counts[0]
        if counts[0].equal(counts[1]):
            return
        near = maybe.logical_xor_(above).nonzero(as_tuple=True)
        if len(near[0]) > max(1, scores.numel() // MANY):
            way.counts[0, queries] -= counts[0]
            way.add_block(queries, gallery, own if number == 0 else own[::-1])
        else:
            asked, there = near if number == 0 else near[::-1]
            way.add(asked + queries.start, there + gallery.start)

    def _rows(self) -> int:
        if self.device.type != "cpu":
            return ON_DEVICE
        held = max(ROWS // 2, min(8 * ROWS, HELD // max(1, self.sides[0].width)))
        rows = max(1, len(self.sides[0]))
        return math.ceil(rows / math.ceil(rows / held))  # blocks that are as large as one another

    def _columns(self) -> int:
        held = HELD // 4 // max(1, self.sides[1].width)
        return max(COLUMNS // 4, min(COLUMNS, held // 8 * 8))  # eight are counted at a time

    def _buffer(self, rows: int) -> Tensor:
        return torch.empty(rows, self.sides[0].width, dtype=self.dtype, device=self.device)

    def _scale(self, side: int, start: int, out: Tensor) -> Tensor:
        known = self.sides[side], self.divisors[side]
        return scaled_block(*known, start, self.are_safe[side], out)


def pairs_of(x_clips: Tensor, y_clips: Tensor) -> tuple[Tensor, Tensor]:
    """List all pairs of rows of one clip: (P,) rows of x, ascending, and (P,) rows of y."""
    order = y_clips.argsort(stable=True)
    in_order = y_clips[order].contiguous()
    first = torch.searchsorted(in_order, x_clips.contiguous())
    counts = torch.searchsorted(in_order, x_clips.contiguous(), right=True) - first
    rows = torch.arange(len(x_clips)).repeat_interleave(counts)
    # Behind the first of its clip, a row of y has the number of the pair within its row of x.
    place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    return rows, order[first[rows] + place]
