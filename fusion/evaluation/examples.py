"""Queries and their best clips, as the report shows them."""

from __future__ import annotations

import torch

from fusion.data.source import ClipSet
from fusion.evaluation.gallery import GalleryQuery, GalleryResult, choose_examples
from fusion.evaluation.retrieval import Embedded, rank_directions
from fusion.modalities import Direction, directions


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
    ranks, rows = rank_directions(embedded, [direction])[str(direction)]
    chosen = choose_examples(ranks, number)
    query, gallery = (
        torch.nn.functional.normalize(embedded.embeddings[side][rows], dim=-1)
        for side in (direction.query[0], direction.gallery[0])
    )
    scores, places = (query[chosen] @ gallery.T).topk(min(best, len(rows)))  # (number, best)

    def show(place: int, score: float, right: int) -> GalleryResult:
        caption = clips.captions[int(rows[place])]
        return GalleryResult(
            clip_id=embedded.ids[int(rows[place])],
            caption=caption.text,
            path=clips.folder / caption.video if clips.folder else None,
            start=caption.start,
            end=caption.end,
            score=score,
            is_right=place == right,
        )

    examples = []
    for i, right in enumerate(chosen):
        results = [
            show(place, score, right)
            for place, score in zip(places[i].tolist(), scores[i].tolist(), strict=True)
        ]
        score = float(query[right] @ gallery[right])
        apart = None if any(r.is_right for r in results) else show(right, score, right)
        text = clips.captions[int(rows[right])].text
        examples.append(GalleryQuery(text, round(ranks[right]), results, right=apart))
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
