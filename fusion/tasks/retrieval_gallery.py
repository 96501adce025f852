"""The gallery of retrieval: queries from the best to the worst, with the clips that they found.

Shapes: M rows of the gallery.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import Embedded
from fusion.evaluation.retrieval import rank_directions, side_embeddings
from fusion.modalities import Direction, directions
from fusion.report.gallery import GalleryResult

EVENLY_CHOSEN = (
    "Not picked by hand: queries are sorted by the rank of their right clip, and a few are taken"
    " at even distances, from the best to the worst."
)


@dataclasses.dataclass(frozen=True)
class GalleryQuery:
    """A query and its best clips, see :class:`fusion.report.gallery.GalleryItem`.

    Attributes:
        text: the sentence that asks; empty if the query has no text.
        rank: of the right clip, the best is 1; None if the clip is not in what was searched.
        results: the best clips, best first.
        right: the right clip, shown apart where it is not among the results.
        clip: the clip that asks, where the query is seen or heard.
    """

    text: str
    rank: int | None
    results: Sequence[GalleryResult]
    right: GalleryResult | None = None
    clip: GalleryResult | None = None

    @property
    def verdict(self) -> tuple[Literal["hit", "near", "far"], str]:
        """Say at which rank the right clip is."""
        if self.rank is None:
            return "far", "✗ the right clip is not in what was searched"
        if self.rank == 1:
            return "hit", "✓ right clip first"
        if any(clip.is_right for clip in self.results):
            return "near", f"right clip at rank {self.rank}"
        best = len(self.results)
        return "far", f"✗ right clip at rank {self.rank}, not among the best {best}"

    @property
    def cards(self) -> list[tuple[str, GalleryResult]]:
        """The best clips with their places, and the right one where it is not among them."""
        cards = [(str(place), clip) for place, clip in enumerate(self.results, start=1)]
        if self.right and not any(clip.is_right for clip in self.results):
            cards.append(("?" if self.rank is None else str(self.rank), self.right))
        return cards


def choose_examples(ranks: Sequence[float] | np.ndarray, number: int = 8) -> list[int]:
    """Choose queries evenly from the best to the worst, so that failures show in proportion.

    Args:
        ranks: (Q,) rank of each query's right clip, from 1; NaN or below 1 where it has none.
        number: how many to choose.

    Returns:
        At most ``number`` different indices, by rising rank; the worst query is the last.
    """
    values = np.asarray(ranks, dtype=float)
    order = np.argsort(values, kind="stable")
    order = order[values[order] >= 1]  # NaN is not
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return [int(index) for index in order[places]]


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
        At most ``number`` queries of one direction: from text, the first modality, to the
        combination of the most other modalities that the model embeds.
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
        apart = None if any(result.is_right for result in results) else show(i, right)
        text = clips.captions[int(rows[asked])].text
        examples.append(GalleryQuery(text, round(ranks[asked]), results, apart))
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
