"""Retrieval in every direction: rank what was embedded and summarise it.

Shapes: N items, Q queries, M rows of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusion.evaluation.embed import Embedded
from fusion.evaluation.metrics import (
    expected_recalls,
    interval_over_clips,
    interval_over_queries,
    retrieval_metrics,
)
from fusion.evaluation.ranking import Places, Ranks, Rescore, dot_products, places_of_pairs
from fusion.modalities import Direction, directions, letters_of

EXPECTED = "expected"  # in a row, the recalls with ties broken at random
CAPTION = "text"  # the modality in which items of one clip differ

# A direction, its (Q, E) queries and (M, E) gallery -> how to rescore, or None: not possible
Rescorer = Callable[[Direction, Tensor, Tensor], Rescore | None]


class Ranked(NamedTuple):
    """The ranks of one direction."""

    ranks: Ranks  # (Q,)
    rows: Tensor  # (Q,) int64, the items of the data set that are queries
    candidates: Tensor  # (M,) int64, the items that are the gallery
    clips: Tensor  # (Q,) int64, the clip of each query
    by_caption: bool  # whether every caption is a query; otherwise every clip is
    places: Places  # the ranks, and what ties


def rank_directions(embedded: Embedded, rescorer: Rescorer | None = None) -> dict[str, Ranked]:
    """Rank every direction whose combinations the model embeds.

    On a side with text, every caption is a query or a candidate; on a side without text, every clip
    is. The best of a clip's captions counts, see :func:`fusion.evaluation.ranking.places_of_pairs`.

    Args:
        embedded: the data set.
        rescorer: changes the scores; a direction for which it returns None is left out.
    """
    ranked = {}
    for direction in directions(list(embedded.present)):
        parts = direction.query + direction.gallery
        if not all(part in embedded.embeddings for part in parts):
            continue
        able = has_any(embedded, direction.query) & has_any(embedded, direction.gallery)
        rows, candidates = (
            side_rows(embedded, side, able) for side in (direction.query, direction.gallery)
        )
        query = side_embeddings(embedded, direction.query, rows)
        gallery = side_embeddings(embedded, direction.gallery, candidates)
        rescore = dot_products(gallery) if embedded.similarity == "dot" else None
        if rescorer:
            rescore = rescorer(direction, query, gallery) if len(rows) else None
            if rescore is None:
                continue
        clips = embedded.clips[rows]
        # Rows i of both sides are a pair unless clips have several captions.
        owners = None if rows.equal(candidates) else (clips, embedded.clips[candidates])
        places = places_of_pairs(query, gallery, owners=owners, rescore=rescore)
        by_caption = has_captions(embedded, direction.query)
        ranked[str(direction)] = Ranked(places.ranks, rows, candidates, clips, by_caption, places)
    return ranked


def has_any(embedded: Embedded, side: Sequence[str]) -> Tensor:
    """Return which items have any modality of a side, (N,) bool."""
    letters = letters_of(embedded.present)
    return torch.stack([embedded.present[letters[x]] for x in "".join(side)]).any(dim=0)


def has_captions(embedded: Embedded, side: Sequence[str]) -> bool:
    """Return whether a side has text, so that each caption is a row of its own."""
    letters = letters_of(embedded.present)
    return any(letters[x] == CAPTION for x in "".join(side))


def side_rows(embedded: Embedded, side: Sequence[str], able: Tensor) -> Tensor:
    """Choose the items of a side among ``able``, (N,) bool: all with text, else one per clip."""
    rows = able.nonzero()[:, 0]
    return rows if has_captions(embedded, side) else embedded.one_per_clip(rows)


def side_embeddings(embedded: Embedded, side: Sequence[str], rows: Tensor) -> Tensor:
    """Average the embeddings of a side's combinations for some items."""
    return torch.stack([embedded.embeddings[part][rows] for part in side]).mean(dim=0)


def retrieval_table(
    ranked: Mapping[str, Ranked],
    num_clips: int,
    captions: Tensor | None = None,
    intervals: bool = True,
) -> dict[str, dict[str, Any]]:
    """Summarise the ranks of each direction that has any; ``EXPECTED``: see expected_recalls.

    Args:
        ranked: see :func:`rank_directions`.
        num_clips: the denominator of recalls where clips are queries.
        captions: the clip of each caption, with those that count as misses; their number is the
            denominator where captions are queries. None: every clip has one.
        intervals: whether to add ``R@1_interval``, see :mod:`fusion.evaluation.metrics`.
    """
    table: dict[str, dict[str, Any]] = {}
    for direction, (ranks, _, candidates, clips, by_caption, places) in ranked.items():
        if not len(ranks):
            continue
        counted = captions if by_caption else None
        queries = num_clips if counted is None else len(counted)
        row: dict[str, Any] = retrieval_metrics(ranks, queries)
        row[EXPECTED] = expected_recalls(places, queries)
        if intervals and counted is not None:
            row["R@1_interval"] = interval_over_clips(ranks, clips.numpy(), counted.numpy())
        elif intervals:
            row["R@1_interval"] = interval_over_queries(ranks, num_clips)
        table[direction] = row | {"queries": queries, "gallery": len(candidates)}
    return table
