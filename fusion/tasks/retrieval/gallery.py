"""The gallery of retrieval: queries from the best to the worst, with the clips that they found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fusion.evaluation.embed import Embedded
from fusion.evaluation.ranking import Ranks, cosine_blocks, dot_products
from fusion.evaluation.retrieval import Ranked, side_embeddings
from fusion.report.gallery import GalleryItem, GalleryResult, Verdict

EVENLY_CHOSEN = (
    "Not picked by hand: queries are sorted by the rank of their right clip, and a few are taken"
    " at even distances, from the best to the worst."
)


def show_query(
    text: str,
    rank: float,
    results: Sequence[GalleryResult],
    right: GalleryResult | None = None,
) -> GalleryItem:
    """Show a query with its best clips, and with the right clip if that is not among them.

    ``rank`` is that of the right clip, from 1, with a half where it ties.
    """
    shown = f"{rank:.1f}".removesuffix(".0")
    cards = [(shown if r.is_right else str(place), r) for place, r in enumerate(results, start=1)]
    is_found = any(result.is_right for result in results)
    if right and not is_found:
        cards.append((shown, right))
    verdict: Verdict
    if rank == 1:
        verdict = "hit", "✓ right clip first"
    elif is_found:
        verdict = "near", f"right clip at rank {shown}"
    else:
        verdict = "far", f"✗ right clip at rank {shown}, not among the best {len(results)}"
    return GalleryItem(text, verdict, cards)


def choose_examples(ranks: Ranks, number: int = 8) -> list[int]:
    """Choose ``number`` queries evenly from the best to the worst, which is the last.

    ``ranks`` (Q,) are those of the right clips.
    """
    order = np.argsort(ranks, kind="stable")
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return [int(index) for index in order[places]]


def find_examples(
    embedded: Embedded, way: str, ranked: Ranked, folder: Path | None, number: int, best: int = 5
) -> list[GalleryItem]:
    """Choose at most ``number`` queries of a direction and show the ``best`` clips of each.

    Clips are in the order of the exact scores that ranks are counted from, so that of two clips
    that tie either may come first.

    Args:
        embedded: the clips that were ranked, with their ``items``.
        way: the direction, such as ``t->va``.
        ranked: its ranks, see :func:`fusion.evaluation.retrieval.rank_directions`.
        folder: of the media files; None: there are none.
        number: of queries.
        best: clips of each query.
    """
    items, sides = embedded.items or (), way.split("->")
    ranks, rows, candidates, clips_of_queries, *_ = ranked
    chosen = choose_examples(ranks, number)
    if not chosen:
        return []
    query, gallery = (
        side_embeddings(embedded, side.split("+"), chosen_rows)
        for side, chosen_rows in zip(sides, (rows[chosen], candidates), strict=True)
    )
    scores = torch.cat(list(cosine_blocks(query, gallery)))  # (number, M)
    if embedded.similarity == "dot":
        scores = dot_products(gallery)(scores)[0] * query.norm(dim=1, keepdim=True)
    own = clips_of_queries[chosen, None] == embedded.clips[candidates]  # of the same shape
    places = scores.argsort(dim=1, descending=True, stable=True)[:, :best]

    def show(i: int, place: int) -> GalleryResult:
        item = int(candidates[place])
        caption = items[item]
        return GalleryResult(
            clip_id=embedded.ids[item],
            caption=caption.text,
            path=folder / caption.video if folder else None,
            start=caption.start,
            end=caption.end,
            score=float(scores[i, place]),
            is_right=bool(own[i, place]),
        )

    examples = []
    for i, asked in enumerate(chosen):
        results = [show(i, place) for place in places[i].tolist()]
        right = int(scores[i].masked_fill(~own[i], -torch.inf).argmax())
        text = items[int(rows[asked])].text
        examples.append(show_query(text, float(ranks[asked]), results, show(i, right)))
    return examples
