"""The gallery of retrieval: queries from the best to the worst, with the clips that they found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import Embedded
from fusion.evaluation.retrieval import rank_directions, side_embeddings
from fusion.modalities import directions
from fusion.report.gallery import GalleryItem, GalleryResult, Verdict

EVENLY_CHOSEN = (
    "Not picked by hand: queries are sorted by the rank of their right clip, and a few are taken"
    " at even distances, from the best to the worst."
)


def show_query(
    text: str,
    rank: int | None,
    results: Sequence[GalleryResult],
    right: GalleryResult | None = None,
    clip: GalleryResult | None = None,
) -> GalleryItem:
    """Show a query with its best clips, and with the right clip if that is not among them.

    ``text`` and ``clip`` are the two forms of a query. ``rank`` is that of the right clip, from 1;
    None if the clip is not in what was searched.
    """
    cards = [(str(place), result) for place, result in enumerate(results, start=1)]
    is_found = any(result.is_right for result in results)
    if right and not is_found:
        cards.append(("?" if rank is None else str(rank), right))
    verdict: Verdict
    if rank is None:
        verdict = "far", "✗ the right clip is not in what was searched"
    elif rank == 1:
        verdict = "hit", "✓ right clip first"
    elif is_found:
        verdict = "near", f"right clip at rank {rank}"
    else:
        verdict = "far", f"✗ right clip at rank {rank}, not among the best {len(results)}"
    return GalleryItem(text, verdict, cards, clip)


def choose_examples(ranks: Sequence[float] | np.ndarray, number: int = 8) -> list[int]:
    """Choose ``number`` queries evenly from the best to the worst, which is the last.

    ``ranks`` (Q,) are those of the right clips, from 1; NaN or below 1 where a query has none.
    """
    values = np.asarray(ranks, dtype=float)
    order = np.argsort(values, kind="stable")
    order = order[values[order] >= 1]  # NaN is not
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return [int(index) for index in order[places]]


def find_examples(
    embedded: Embedded, clips: ClipSet, number: int, best: int = 5
) -> list[GalleryItem]:
    """Choose at most ``number`` queries of one direction and show the ``best`` clips of each.

    It is from text, the first modality, to the largest combination that the model embeds.
    """
    names = list(embedded.present)
    ways = [
        d
        for d in directions(names)
        if d.query == (names[0][0],) and len(d.gallery) == 1
        if all(side in embedded.embeddings for side in d.query + d.gallery)
    ]
    if not ways or number < 1:
        return []
    way = max(ways, key=lambda d: len(d.gallery[0]))
    ranks, rows, candidates, clips_of_queries, _ = rank_directions(embedded, [way])[str(way)]
    chosen = choose_examples(ranks, number)
    query, gallery = (
        side_embeddings(embedded, side, items)
        for side, items in ((way.query, rows), (way.gallery, candidates))
    )
    if embedded.similarity == "cosine":
        query, gallery = (torch.nn.functional.normalize(side, dim=-1) for side in (query, gallery))
    similarities = query[chosen] @ gallery.T  # (number, size of the gallery)
    own = clips_of_queries[chosen, None] == embedded.clips[candidates]  # of the same shape
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
        text = clips.captions[int(rows[asked])].text
        examples.append(show_query(text, round(ranks[asked]), results, show(i, right)))
    return examples
