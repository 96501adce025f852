"""The gallery of retrieval: queries from the best to the worst, with the clips that they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fusion.evaluation.embed import Embedded
from fusion.evaluation.ranking import cosine_blocks, dot_products
from fusion.evaluation.retrieval import Ranked, side_embeddings
from fusion.modalities import directions
from fusion.report.gallery import GalleryItem, GalleryResult, Verdict

EVENLY_CHOSEN = (
    "Not picked by hand: queries are sorted by the rank of their right clip, and a few are taken"
    " at even distances, from the best to the worst."
)


def show_query(
    text: str,
    rank: float | None,
    results: Sequence[GalleryResult],
    right: GalleryResult | None = None,
    clip: GalleryResult | None = None,
) -> GalleryItem:
    """Show a query with its best clips, and with the right clip if that is not among them.

    ``text`` and ``clip`` are the two forms of a query. ``rank`` is that of the right clip, from 1,
    with a half where it ties; None if the clip is not in what was searched.
    """
    shown = "?" if rank is None else f"{rank:.1f}".removesuffix(".0")
    cards = [(shown if r.is_right else str(place), r) for place, r in enumerate(results, start=1)]
    is_found = any(result.is_right for result in results)
    if right and not is_found:
        cards.append((shown, right))
    verdict: Verdict
    if rank is None:
        verdict = "far", "✗ the right clip is not in what was searched"
    elif rank == 1:
        verdict = "hit", "✓ right clip first"
    elif is_found:
        verdict = "near", f"right clip at rank {shown}"
    else:
        verdict = "far", f"✗ right clip at rank {shown}, not among the best {len(results)}"
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
    embedded: Embedded,
    ranked: Mapping[str, Ranked],
    folder: Path | None,
    number: int,
    best: int = 5,
) -> list[GalleryItem]:
    """Choose at most ``number`` queries of one direction and show the ``best`` clips of each.

    It is from text, the first modality, to the largest combination that the model embeds. Clips are
    in the order of the scores that ``ranked`` counts, so a clip that ties may come before or after.

    Args:
        embedded: the clips of the gallery, with their ``items``.
        ranked: see :func:`fusion.evaluation.retrieval.rank_directions`.
        folder: of the media files; None: there are none.
        number: of queries.
        best: clips of each query.
    """
    names, items = list(embedded.present), embedded.items or ()
    ways = [
        d
        for d in directions(names)
        if str(d) in ranked and d.query == (names[0][0],) and len(d.gallery) == 1
    ]
    if not ways:
        return []
    way = max(ways, key=lambda d: len(d.gallery[0]))
    ranks, rows, candidates, clips_of_queries, _ = ranked[str(way)]
    chosen = choose_examples(ranks, number)
    if not chosen:
        return []
    query = side_embeddings(embedded, way.query, rows[chosen])
    gallery = side_embeddings(embedded, way.gallery, candidates)
    scores = torch.cat([block for _, block in cosine_blocks(query, gallery)])  # (number, M)
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
