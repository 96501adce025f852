"""Exact cosines of rows on a grid, see :mod:`fusion.evaluation.ranking`.

Shapes: Q queries, N rows of the gallery, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TOLERANCE = 2.0**-19
QUERY_BITS, GALLERY_BITS = 24, 28  # of the grids; ties are between rows of the gallery
UNIT = 2.0 ** -(QUERY_BITS + GALLERY_BITS)  # of a product
SHORTEST = 1e-150  # a shorter embedding has no direction: its cosines are 0
TILE = 512  # rows that are converted to float64 at a time for a product of matrices
PIECE = 2**16  # numbers that are converted to float64 at a time: they stay in the cache

# (block, N) cosines -> (block, N) float64 scores, and the distance up to which each ties with
# another, of a shape that broadcasts to theirs
Rescore = Callable[[Tensor], tuple[Tensor, Tensor]]


def dot_products(gallery: Tensor) -> Rescore:
    """Compare by dot product: each cosine times the length of its row of the (N, E) gallery.

    The length of the query is left out: it changes no rank.
    """
    lengths = lengths_of(gallery)
    return lambda cosines: (cosines * lengths, TOLERANCE * lengths)


def lengths_of(embeddings: Tensor) -> Tensor:
    """Return the lengths of (n, E) embeddings, (n,) float64, the same on every processor."""
    found = embeddings.new_empty(len(embeddings), dtype=torch.float64)
    size = rows_of_piece(embeddings)
    for rows, own in zip(embeddings.split(size), found.split(size), strict=True):
        own.copy_(_lengths(rows.double())[:, 0])
    return found


def rows_of_piece(embeddings: Tensor) -> int:
    """Return how many rows are converted to float64 at a time."""
    return max(1, PIECE // max(1, embeddings.shape[1]))


def check_finite(lengths: Tensor) -> None:
    """Raise ValueError if a length of (n,) is not finite, as where an embedding holds NaN."""
    if bad := int((~lengths.isfinite()).sum()):
        raise ValueError(
            f"{bad} of {len(lengths)} embeddings are not finite: they hold NaN or infinite numbers"
        )


def cosine_blocks(queries: Tensor, gallery: Tensor, block: int | None = None) -> Iterator[Tensor]:
    """Yield exact (block, N) float64 cosines; the arguments are those of ranks_of_pairs."""
    for _, rows, columns in grid_blocks(queries, gallery, block):
        yield grid_cosines(rows, columns)


def grid_blocks(
    queries: Tensor, gallery: Tensor, block: int | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the number of the first query, (block, E) queries, (N, E) gallery, on int32 grids."""
    block = block or min(1024, max(1, 2**22 // max(1, len(gallery))))
    columns = on_grid(gallery, GALLERY_BITS)
    for start in range(0, len(queries), block):
        yield start, on_grid(queries[start : start + block], QUERY_BITS), columns


def grid_cosines(queries: Tensor, gallery: Tensor) -> Tensor:
    """Compute the (block, N) float64 cosines of rows on the grids, exactly."""
    queries = queries.double()
    cosines = queries.new_empty(len(queries), len(gallery))
    for first in range(0, len(gallery), TILE):
        cosines[:, first : first + TILE] = queries @ gallery[first : first + TILE].double().T
    return cosines.mul_(UNIT)


def on_grid(embeddings: Tensor, bits: int) -> Tensor:
    """Round the directions of (n, E) embeddings to multiples of 2^-bits; counts them in int32."""
    lengths = lengths_of(embeddings)
    check_finite(lengths)
    grid = torch.empty_like(embeddings, dtype=torch.int32)
    size = rows_of_piece(embeddings)
    parts = zip(embeddings.split(size), lengths.split(size), grid.split(size), strict=True)
    for rows, own, places in parts:
        places.copy_(directions_of(rows, own).mul_(2.0**bits).round_())
    return grid


def directions_of(rows: Tensor, lengths: Tensor) -> Tensor:
    """Divide rows (n, E) by their lengths (n,): float64."""
    return rows.double() / lengths.clamp(min=SHORTEST)[:, None]


def cosines_of_directions(queries: Tensor, gallery: Tensor) -> Tensor:
    """Compute the exact cosines (n,) of pairs of rows, both (n, E) as directions_of returns."""
    asked = (queries * 2.0**QUERY_BITS).round_()
    return asked.mul_((gallery * 2.0**GALLERY_BITS).round_()).sum(dim=1).mul_(UNIT)


def _lengths(rows: Tensor) -> Tensor:
    """Compute the lengths of (n, E) float64 rows, (n, 1), in an order that is always the same."""
    squares = rows.square()
    while squares.shape[1] > 1:
        squares = torch.nn.functional.pad(squares, (0, squares.shape[1] % 2))
        half = squares.shape[1] // 2
        squares = squares[:, :half] + squares[:, half:]
    return squares.sqrt()
