"""One direction of a search, with exact scores where they are needed.

Shapes: n queries, N rows of the gallery, P pairs of a query and a row, B x T scores at a time,
E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fusion.evaluation.ranking.exact import (
    GALLERY_BITS,
    QUERY_BITS,
    TOLERANCE,
    cosines_of_directions,
    directions_of,
    grid_cosines,
    on_grid,
)
from fusion.evaluation.ranking.side import Side, pieces


class Way:
    """One direction of a search: the scores of its n queries, and what was counted.

    Attributes:
        best: (n,) float64, the best score of a row of the own clip.
        within: (n,) float64, the distance up to which others tie with it.
        counts: (3, n) int64: rows that are better, that tie, and own rows that are as good.
    """

    def __init__(
        self, sides: tuple[Side, Side], lengths: tuple[Tensor, Tensor], is_dot: bool
    ) -> None:
        self.sides, self.lengths, self.is_dot = sides, lengths, is_dot
        self.device = lengths[0].device
        queries = len(sides[0])
        self.best = lengths[0].new_full((queries,), -torch.inf)
        self.within = torch.zeros_like(self.best)
        self.counts = torch.zeros(3, queries, dtype=torch.int64, device=self.device)

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Compute the exact scores of pairs: (P,) queries and rows of the gallery."""
        cosines = self.best.new_empty(len(rows))
        for place, x, y in directions_of_pairs(self.sides, self.lengths, (rows, columns)):
            cosines[place] = cosines_of_directions(x, y)
        return self.as_scores(cosines, columns)

    def exact_block(self, rows: slice, columns: slice) -> Tensor:
        """Compute the exact scores of neighbouring queries and rows: (B, T) float64."""
        asked = on_grid(self.sides[0].block(rows.start, rows.stop, self.device), QUERY_BITS)
        there = on_grid(self.sides[1].block(columns.start, columns.stop, self.device), GALLERY_BITS)
        return self.as_scores(grid_cosines(asked, there), columns)

    def slack(self, columns: Tensor) -> Tensor:
        """Return how far others may be that tie with rows of the gallery: (P,) float64."""
        return self.as_scores(self.best.new_full((len(columns),), TOLERANCE), columns)

    def add(self, rows: Tensor, columns: Tensor) -> None:
        """Count rows of other clips by their exact scores, (P,) pairs."""
        scores, best, within = self.exact(rows, columns), self.best[rows], self.within[rows]
        better = scores > best + within
        ties = (scores >= best - within) & ~better
        self.counts[0].index_add_(0, rows, better.long())
        self.counts[1].index_add_(0, rows, ties.long())

    def add_block(self, rows: slice, columns: slice, own: tuple[Tensor, Tensor]) -> None:
        """Count all rows of a block that are not of the own clip, by exact scores."""
        scores = self.exact_block(rows, columns)
        scores[own] = -torch.inf
        best, within = self.best[rows, None], self.within[rows, None]
        better = (scores > best + within).sum(dim=1)
        self.counts[0, rows] += better
        self.counts[1, rows] += (scores >= best - within).sum(dim=1) - better

    def as_scores(self, cosines: Tensor, columns: Tensor | slice) -> Tensor:
        """Make scores of cosines with rows of the gallery."""
        return cosines * self.lengths[1][columns] if self.is_dot else cosines


def directions_of_pairs(
    sides: tuple[Side, Side], lengths: tuple[Tensor, Tensor], pairs: tuple[Tensor, Tensor]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield the directions of both rows of (P,) pairs, some pairs at a time: (p, E) float64.

    The caller should write its results into one tensor, at the slice that comes with each part:
    small tensors that are kept between large ones would fragment the memory.
    """
    device = lengths[0].device
    for start, stop in pieces(0, len(pairs[0]), sides[0].piece(device)):
        x, y = (
            directions_of(side.pick(rows[start:stop], device), own[rows[start:stop]])
            for side, own, rows in zip(sides, lengths, pairs, strict=True)
        )
        yield slice(start, stop), x, y
