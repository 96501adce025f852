"""Queries and their best clips, as the report shows them.

Shapes: M rows of the gallery.
"""

from __future__ import annotations

import torch

from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import Embedded
from fusion.evaluation.retrieval import rank_directions, side_embeddings
from fusion.modalities import Direction, directions
from fusion.report.gallery import GalleryQuery, GalleryResult, choose_examples


def find_examples(
    embedded: Embedded, clips: ClipSet, number: int, best: int = 5
) -> list[GalleryQuery]:
    """Choose queries evenly from the best to the worst and find their best clips.

    Args:
        embedded: the clips as the model sees them.
        clips: where they come from.
        number: of queries.
        best: clips to show for each.

    Returns:
        At most ``number`` queries of the richest direction that the model has: text (the first
        modality) to all other modalities at once, where it embeds that.
    """
    if (direction := _richest(embedded)) is None or number < 1:
        return []
    ranks, rows, candidates, clips_of_queries, _ = rank_directions(embedded, [direction])[
        str(direction)
    ]
    chosen = choose_examples(ranks, number)
    query, gallery = (
        side_embeddings(embedded, side, items)
        for side, items in ((direction.query, rows), (direction.gallery, candidates))
    )
    if embedded.similarity == "cosine":
        query, gallery = (torch.nn.functional.normalize(side, dim=-1) for side in (query, gallery))
    similarities = query[chosen] @ gallery.T  # (number, M)
    own = clips_of_queries[chosen, None] == embedded.clips[candidates]  # (number, M)
    places = similarities.topk(min(best, len(candidates))).indices  # (number, best)

    def show(i: int, place: int) -> GalleryResult:
        item = int(candidates[place])
        caption = clips.captions[item]
        return GalleryResult(
            clip_id=embedded.ids[item],
            caption=caption.text,
            path=clips.folder / caption.video if clips.folder else None,
            start=caption.start,
            end=caption.end,
            score=float(similarities[i, place]),
            is_right=bool(own[i, place]),
        )

    examples = []
    for i, asked in enumerate(chosen):
        results = [show(i, place) for place in places[i].tolist()]
        right = int(similarities[i].masked_fill(~own[i], -torch.inf).argmax())
        apart = None if any(r.is_right for r in results) else show(i, right)
        text = clips.captions[int(rows[asked])].text
        examples.append(GalleryQuery(text, round(ranks[asked]), results, right=apart))
    return examples


def _richest(embedded: Embedded) -> Direction | None:
    names = list(embedded.present)
    fused = [
        d
        for d in directions(names)
        if d.query == (names[0][0],)
        and len(d.gallery) == 1
        and all(side in embedded.embeddings for side in d.query + d.gallery)
    ]
    return max(fused, key=lambda d: len(d.gallery[0]), default=None)
