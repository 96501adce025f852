"""Retrieval in every direction: rank what was embedded and summarise it.

Shapes: N items, Q queries, M rows of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
from fusion.evaluation.ranking import Places, Ranks, Rescore, places_of_pairs, rank_both_ways
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


def rank_directions(
    embedded: Embedded,
    rescorer: Rescorer | None = None,
    only: Collection[str] | None = None,
    device: torch.device | None = None,
    together: bool = False,
) -> dict[str, Ranked]:
    """Rank every direction whose combinations the model embeds.

    On a side with text, every caption is a query or a candidate; on a side without text, every clip
    is. The best of a clip's captions counts, see :func:`fusion.evaluation.ranking.places_of_pairs`.

    Args:
        embedded: the data set.
        rescorer: changes the scores; a direction for which it returns None is left out.
        only: names of directions; None: all.
        device: where scores are computed; None: the CPU.
        together: every process calls this with the same arguments, does a share of the work and
            gets all ranks. Not with a ``rescorer``.
    """
    searches = {
        str(way): _Search(embedded, way)
        for way in directions(list(embedded.present))
        if (only is None or str(way) in only)
        and all(part in embedded.embeddings for part in way.query + way.gallery)
    }
    ranked: dict[str, Ranked] = {}
    for name, search in searches.items():
        if rescorer is not None:
            if places := search.rescored(rescorer):
                ranked[name] = search.describe(places)
        elif name not in ranked:  # else it was ranked with the one in reverse
            back = str(Direction(search.way.gallery, search.way.query))
            found = search.both_ways(back in searches, device, together)
            for one, places in zip((name, back), found, strict=True):
                if places is not None:
                    ranked[one] = searches[one].describe(places)
    return {name: ranked[name] for name in searches if name in ranked}


class _Search:
    """One direction: the items on both sides."""

    def __init__(self, embedded: Embedded, way: Direction) -> None:
        self.embedded, self.way = embedded, way
        able = has_any(embedded, way.query) & has_any(embedded, way.gallery)
        self.rows = side_rows(embedded, way.query, able)
        self.candidates = side_rows(embedded, way.gallery, able)
        self.clips = embedded.clips[self.rows]

    def describe(self, places: Places) -> Ranked:
        """Put the ranks together with what was ranked."""
        by_caption = has_captions(self.embedded, self.way.query)
        found = places.ranks, self.rows, self.candidates, self.clips, by_caption, places
        return Ranked(*found)

    def both_ways(
        self, with_back: bool, device: torch.device | None, together: bool
    ) -> tuple[Places | None, Places | None]:
        """Rank the queries among the candidates, and the reverse if asked for."""
        query = self.embedded.side(self.way.query, self.rows)
        gallery = self.embedded.side(self.way.gallery, self.candidates)
        of_query, of_gallery = self.clips, self.embedded.clips[self.candidates]
        is_dot = self.embedded.similarity == "dot"
        if len(gallery) <= len(query):  # the processes share out the longer side
            clips, ways = (of_query, of_gallery), (True, with_back)
            return rank_both_ways(query, gallery, clips, is_dot, ways, device, together=together)
        clips, ways = (of_gallery, of_query), (with_back, True)
        back, there = rank_both_ways(gallery, query, clips, is_dot, ways, device, together=together)
        return there, back

    def rescored(self, rescorer: Rescorer) -> Places | None:
        """Rank by changed scores; None: not possible."""
        query = side_embeddings(self.embedded, self.way.query, self.rows)
        gallery = side_embeddings(self.embedded, self.way.gallery, self.candidates)
        rescore = rescorer(self.way, query, gallery) if len(self.rows) else None
        if rescore is None:
            return None
        # Rows i of both sides are a pair unless clips have several captions.
        owners = self.clips, self.embedded.clips[self.candidates]
        is_paired = self.rows.equal(self.candidates)
        return places_of_pairs(
            query, gallery, owners=None if is_paired else owners, rescore=rescore
        )


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
    found = embedded.side(side, rows)
    return found.block(0, len(found), torch.device("cpu"))


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
