"""Ranks of a gallery that are the same on every processor, and in which equal clips tie.

A floating-point matrix product rounds, and the order of its sums depends on the processor, the
number of threads and the place of a row in the gallery: equal clips get scores that differ in the
last bit. So unit vectors are first rounded to a grid, queries to multiples of 2^-24 and the gallery
to multiples of 2^-28. Products are then multiples of 2^-52, and by Cauchy-Schwarz no partial sum
reaches 2, so that float64, with its 53 bits, holds every partial sum exactly, in any order.

Two clips tie where their scores differ by at most ``TOLERANCE`` = 2^-19 of the length of the pair's
embedding (1 for cosines). By Cauchy-Schwarz this includes all clips whose embeddings lie within
2^-20 of their length from each other: room for sixteen float32 roundings (2^-24) of a whole
embedding; one clip in batches of different size differs by 6e-7 = 10 roundings with EAO. The grid
adds at most 2^-28 sqrt(E), less than 2^-20 up to E = 65,536. bfloat16 differs by about 2^-8 between
batches of different size: such clips tie only where their embeddings are equal.

A score depends on one query and one row of the gallery alone, and a rank on the scores of one
query alone. So no order of the gallery or of the queries and no size of a block can change a rank.
Other batches of clips move scores by at most 2^-19; a rank can then change only where a score lies
that close to the edge of the tolerance, and by half a place.

Where scores are plain cosines, float32 decides most comparisons: its error is at most u = 2^-24 for
the rounding of the gallery and E u / (1 - E u) for a sum of E products in any order, together less
than 2 (E + 4) u. Only cosines that lie within this bound plus the tolerance from the pair's are
computed exactly, so the ranks are those of exact cosines.

Shapes: Q queries, N rows of the gallery, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOLERANCE = 2.0**-19
QUERY_BITS, GALLERY_BITS = 24, 28  # of the grids; ties are between rows of the gallery
UNIT = 2.0 ** -(QUERY_BITS + GALLERY_BITS)  # of a product
TILE = 512  # rows that are converted to a floating-point type at a time

Ranks = NDArray[np.float64]
# (block, N) cosines -> (block, N) float64 scores, and the distance up to which each ties with
# another, of a shape that broadcasts to theirs
Rescore = Callable[[Tensor], tuple[Tensor, Tensor]]


class Places(NamedTuple):
    """Where the best row of each query's clip is among the rows of other clips."""

    ranks: Ranks  # (Q,) from 1; rows that tie share the mean of their places, so halves occur
    tied: NDArray[np.int64]  # (Q,) rows of other clips that tie with it
    own: NDArray[np.int64]  # (Q,) rows of its own clip that are as good, with itself


def ranks_of_pairs(
    queries: Tensor,
    gallery: Tensor,
    block: int | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
    rescore: Rescore | None = None,
) -> Ranks:
    """Rank, for each query, the clip of the gallery that is its pair: the ranks of places_of_pairs.

    The arguments and errors are those of :func:`places_of_pairs`.
    """
    return places_of_pairs(queries, gallery, block, owners, rescore).ranks


def places_of_pairs(
    queries: Tensor,
    gallery: Tensor,
    block: int | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
    rescore: Rescore | None = None,
) -> Places:
    """Place, for each query, the clip of the gallery that is its pair, by cosine.

    Clips that tie (see the top of this file) share the mean of their places, as in the published
    code; otherwise a model that embeds all clips alike would be perfect. Where rows share a clip
    (its captions), the best row of the query's clip is ranked among all rows of other clips, as in
    Collaborative Experts (arXiv:1907.13487).

    Args:
        queries: (Q, E) embeddings.
        gallery: (N, E) embeddings.
        block: queries at a time; memory is block x N. About 2^22 cosines if not given.
        owners: the clips of the queries (Q,) and of the rows of the gallery (N,); every query's
            clip has a row. None: Q = N, and row i belongs to query i.
        rescore: makes scores of cosines.

    Raises:
        ValueError: an embedding is not finite, or without ``owners`` Q is not N.
    """
    if owners is None and len(queries) != len(gallery):
        raise ValueError(
            f"{len(queries)} queries cannot be pairs of {len(gallery)} rows; give owners"
        )
    query_clips, row_clips = owners or (torch.arange(len(queries)), torch.arange(len(gallery)))
    none = np.zeros(0, np.int64)
    parts = [Places(np.zeros(0), none, none)]
    for start, rows, columns in _grid_blocks(queries, gallery, block):
        own = query_clips[start : start + len(rows), None] == row_clips  # (block, N)
        if rescore is None:
            parts.append(_places_by_cosine(rows, columns, own))
        else:
            parts.append(places_of_scores(*rescore(_cosines(rows, columns)), own))
    return Places(*map(np.concatenate, zip(*parts, strict=True)))


def places_of_scores(scores: Tensor, slack: Tensor, own: Tensor) -> Places:
    """Place the best of a query's own rows, (block, N) bool, among all others.

    ``scores`` and ``slack`` are what a :data:`Rescore` returns.
    """
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    reach = torch.where(own & (scores == best), slack, 0.0).amax(dim=1, keepdim=True)
    return _make_places(*_count(scores, best, reach, own))


def _count(scores: Tensor, best: Tensor, reach: Tensor | float, own: Tensor) -> tuple[Tensor, ...]:
    """Count rows that are better than the best own one, others that tie with it, and own ones."""
    at_least = scores >= best - reach
    better = (scores > best + reach).sum(dim=1)
    return better, (at_least & ~own).sum(dim=1) - better, (at_least & own).sum(dim=1)


def _make_places(better: Tensor, tied: Tensor, own: Tensor) -> Places:
    ranks = (1 + better + tied / 2).double().cpu().numpy()
    return Places(ranks, tied.cpu().numpy(), own.cpu().numpy())


def dot_products(gallery: Tensor) -> Rescore:
    """Compare by dot product: each cosine times the length of its row of the (N, E) gallery.

    The length of the query is left out: it changes no rank.
    """
    lengths = lengths_of(gallery)
    return lambda cosines: (cosines * lengths, TOLERANCE * lengths)


def lengths_of(embeddings: Tensor) -> Tensor:
    """Return the lengths of (n, E) embeddings, (n,) float64, the same on every processor."""
    return torch.cat([_lengths(rows.double())[:, 0] for rows in embeddings.split(TILE)])


def cosine_blocks(queries: Tensor, gallery: Tensor, block: int | None = None) -> Iterator[Tensor]:
    """Yield exact (block, N) float64 cosines; the arguments are those of ranks_of_pairs."""
    for _, rows, columns in _grid_blocks(queries, gallery, block):
        yield _cosines(rows, columns)


def _grid_blocks(
    queries: Tensor, gallery: Tensor, block: int | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the number of the first query, (block, E) queries, (N, E) gallery, on int32 grids."""
    block = block or min(1024, max(1, 2**22 // max(1, len(gallery))))
    columns = _on_grid(gallery, GALLERY_BITS)
    for start in range(0, len(queries), block):
        yield start, _on_grid(queries[start : start + block], QUERY_BITS), columns


def _cosines(queries: Tensor, gallery: Tensor) -> Tensor:
    """Compute the (block, N) float64 cosines of rows on the grids, exactly."""
    queries = queries.double()
    cosines = queries.new_empty(len(queries), len(gallery))
    for first in range(0, len(gallery), TILE):
        cosines[:, first : first + TILE] = queries @ gallery[first : first + TILE].double().T
    return cosines.mul_(UNIT)


def _pairs(queries: Tensor, gallery: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute the exact cosines of single pairs."""
    parts = zip(rows.split(TILE), columns.split(TILE), strict=True)
    return UNIT * torch.cat([(queries[i].double() * gallery[j]).sum(dim=1) for i, j in parts])


def _places_by_cosine(queries: Tensor, gallery: Tensor, own: Tensor) -> Places:
    """Do as :func:`places_of_scores` for the cosines of rows on the grids, most in float32."""
    rows, columns = own.nonzero(as_tuple=True)
    best = torch.full((len(queries),), -torch.inf, dtype=torch.float64)
    best.scatter_reduce_(0, rows, _pairs(queries, gallery, rows, columns), "amax")
    best, close = best[:, None], TOLERANCE + 2.0**-23 * (queries.shape[1] + 4)
    counts, rough = torch.zeros(3, len(queries), dtype=torch.int64), queries.float()
    for tile, mine in zip(gallery.split(TILE), own.split(TILE, dim=1), strict=True):
        cosines = (rough @ tile.float().T).double().mul_(UNIT)
        rows, columns = ((cosines - best).abs_() <= close).nonzero(as_tuple=True)
        if len(rows) > cosines.numel() // 64:  # many, as where all embeddings are alike
            cosines = _cosines(queries, tile)
        else:
            cosines[rows, columns] = _pairs(queries, tile, rows, columns)
        counts += torch.stack(_count(cosines, best, TOLERANCE, mine))
    return _make_places(*counts)


def _on_grid(embeddings: Tensor, bits: int) -> Tensor:
    """Round the directions of (n, E) embeddings to multiples of 2^-bits; counts them in int32."""
    grid = torch.empty_like(embeddings, dtype=torch.int32)
    for rows, places in zip(embeddings.split(TILE), grid.split(TILE), strict=True):
        exact = rows.double()
        lengths = _lengths(exact)
        if bad := int((~lengths.isfinite()).sum()):
            raise ValueError(
                f"{bad} of {len(rows)} embeddings are not finite: they hold NaN or infinite numbers"
            )
        places.copy_((exact / lengths.clamp(min=1e-150) * 2**bits).round_())
    return grid


def _lengths(rows: Tensor) -> Tensor:
    """Compute the lengths of (n, E) float64 rows, (n, 1), in an order that is always the same."""
    squares = rows.square()
    while squares.shape[1] > 1:
        squares = torch.nn.functional.pad(squares, (0, squares.shape[1] % 2))
        half = squares.shape[1] // 2
        squares = squares[:, :half] + squares[:, half:]
    return squares.sqrt()
