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

Where scores are cosines or dot products, float32 decides most comparisons: its error is at most
5 u, u = 2^-24, for the rounding of both rows and E u / (1 - E u) for a sum of E products in any
order, together less than 2 (E + 6) u. Wide rows are summed in parts, so that E is that of a part,
see ``products``. Only scores that lie within this bound plus the tolerance from the pair's are
computed exactly, so the ranks are those of exact scores. One product of matrices serves both
directions between two sides, such as ``t->v`` and ``v->t``.

Shapes: Q queries, N rows of the gallery, E embedding width.
"""

from fusion.evaluation.ranking.both_ways import rank_both_ways
from fusion.evaluation.ranking.exact import (
    TOLERANCE,
    Rescore,
    cosine_blocks,
    dot_products,
    lengths_of,
)
from fusion.evaluation.ranking.places import (
    Places,
    Ranks,
    places_of_pairs,
    places_of_scores,
    ranks_of_pairs,
)
from fusion.evaluation.ranking.side import Side

__all__ = [
    "TOLERANCE",
    "Places",
    "Ranks",
    "Rescore",
    "Side",
    "cosine_blocks",
    "dot_products",
    "lengths_of",
    "places_of_pairs",
    "places_of_scores",
    "rank_both_ways",
    "ranks_of_pairs",
]
