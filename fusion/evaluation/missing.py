"""Recall against the share of the clips from which a modality is taken away.

The test is embedded once as it is and once with the modality taken away from every clip. Both
scores of a query and a clip are then known, and each share only chooses between them.

Shapes: N items, C clips, Q queries, M rows of the gallery, S shares, E embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.evaluation.embed import Embedded
from fusion.evaluation.metrics import RECALLS, Floats, is_hit
from fusion.evaluation.ranking import (
    TOLERANCE,
    Ranks,
    cosine_blocks,
    dot_products,
    places_of_scores,
)
from fusion.evaluation.retrieval import has_any, has_captions, side_rows
from fusion.modalities import Direction, letters_of

SHARES = tuple(range(0, 101, 10))  # per cent of the clips that have the modality
ORDERS = 5  # random orders in which clips lose it; recalls are means over them
FUSED, LATE = "fused", "late average"
MASKED, LEFT_OUT = "masking token", "left out"
Rows = tuple[Tensor, Tensor]  # (N, E) embeddings of a side: of clips as they are, and without


class Curves(NamedTuple):
    """What each clip found, by way (``fused, left out``) and share, a mean over the orders."""

    direction: str
    has: int  # clips that have the modality
    names: tuple[str, ...]  # (C,) of the clips, the first item of each
    queries: Floats  # (C + X,) of each clip, and of the X clips that count but are not searched
    found: Mapping[str, Floats]  # (C + X, S, 4) queries of each clip whose target R@k counts


class Chosen(nn.Module):
    """A model that embeds some combinations only."""

    def __init__(self, model: nn.Module, combinations: Sequence[str]) -> None:
        super().__init__()
        self.model, self.combinations = model, combinations
        self.similarity = getattr(model, "similarity", "cosine")

    def forward(self, inputs: Mapping[str, object]) -> Mapping[str, Tensor]:
        """Embed them."""
        embedded: Mapping[str, Tensor] = self.model(inputs, combinations=self.combinations)
        return embedded


def missing_curves(
    embedded: Embedded,
    without: Mapping[str, Tensor],
    modality: str,
    direction: Direction,
    counted: int,
    captions: Tensor | None = None,
) -> Curves:
    """Take a modality away from more and more clips, and rank them in a direction.

    Args:
        embedded: the clips that are searched, as they are.
        without: embeddings of the same items with the modality taken away from each: (N, E) of the
            fused combination and of the modality alone, as far as the model has them.
        modality: its name; it is in one side of the direction, together with another.
        direction: between combinations, see :func:`.retrieval_missing.choose_direction`.
        counted: number of clips with those that count as misses.
        captions: see :func:`fusion.evaluation.retrieval.retrieval_table`.

    Raises:
        ValueError: no clip has the modality, or the model embeds too few combinations.
    """
    test = _Test(embedded, modality, direction)
    found = {}
    for way, sides in _ways(embedded, without, modality, direction).items():
        found[way] = test.search(*sides)
    if not found:
        raise ValueError(
            f"{direction} cannot be evaluated: the model embeds neither {direction.query[0]} and"
            f" {direction.gallery[0]} nor each of their modalities alone"
        )
    return test.by_clip(found, counted, captions)


def order_of_clips(names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Order clips at random, (C,) numbers: the place of two depends on their names and the seed."""
    keys = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    return np.array(sorted(range(len(names)), key=keys.__getitem__), dtype=np.int64)


class _Test:
    """Which items ask and are searched, and from which each order and share takes the modality."""

    def __init__(self, embedded: Embedded, modality: str, direction: Direction) -> None:
        self.embedded, self.direction = embedded, direction
        self.asks = modality[0] in direction.query[0]  # the modality is in the query
        gone = {**embedded.present, modality: torch.zeros(len(embedded.ids), dtype=torch.bool)}
        bare = Embedded(embedded.ids, {}, gone, embedded.shows)
        able = [
            has_any(e, direction.query) & has_any(e, direction.gallery) for e in (embedded, bare)
        ]
        self.able, self.able_without = able
        self.rows = side_rows(embedded, direction.query, self.able)  # (Q,)
        self.columns = side_rows(embedded, direction.gallery, self.able)  # (M,)
        _, self.numbers = np.unique(embedded.clips.numpy(), return_inverse=True)  # (N,) from 0
        first = embedded.one_per_clip(torch.arange(len(embedded.ids)))
        self.clips = self.numbers[first.numpy()]
        self.names = tuple(embedded.ids[i] for i in first.tolist())
        having = np.unique(self.numbers[embedded.present[modality].numpy()])
        if not len(having):
            raise ValueError(f"no clip of the test has {modality}, so it cannot be taken away")
        self.has = len(having)
        self.losers = self._losers(having)

    def _losers(self, having: NDArray[np.int64]) -> list[tuple[int, Tensor]]:
        """For each order and share the number of the share and the items, (N,) bool."""
        name_of = dict(zip(self.clips.tolist(), self.names, strict=True))
        names = [name_of[clip] for clip in having.tolist()]
        losers = []
        for seed in range(ORDERS):
            order = having[order_of_clips(names, seed)]
            for place, share in enumerate(SHARES):
                count = int(share * len(order) / 100 + 0.5)
                taken = np.isin(self.numbers, order[:count])
                losers.append((place, torch.from_numpy(taken)))
        return losers

    def search(self, queries: Rows, gallery: Rows) -> Floats:
        """Return (Q, S, 4): whether R@k counts each query, a mean over the orders."""
        found = np.zeros((len(self.rows), len(SHARES), len(RECALLS)))
        alive = [self._alive(taken) for _, taken in self.losers]
        start = 0
        for scores, others in self._blocks(queries, gallery):
            block = slice(start, start + len(scores[0]))
            own = self.embedded.clips[self.rows[block], None] == self.embedded.clips[self.columns]
            for (place, taken), (asking, there) in zip(self.losers, alive, strict=True):
                chosen = taken[self.rows[block], None] if self.asks else taken[self.columns]
                mixed = [torch.where(chosen, b, a) for a, b in zip(scores, others, strict=True)]
                mixed[0] = mixed[0].masked_fill_(~there, -torch.inf)
                ranks: Ranks = places_of_scores(mixed[0], mixed[1], own).ranks
                ranks[~asking[block].numpy()] = np.inf
                found[block, place] += np.stack([is_hit(ranks, k) for k in RECALLS], axis=1)
            start = block.stop
        return found / ORDERS

    def _blocks(self, queries: Rows, gallery: Rows) -> Iterator[tuple[Rows, Rows]]:
        """Yield scores and slacks of some queries: of clips as they are, and without."""
        sides = [
            (queries[i][self.rows], gallery[0 if self.asks else i][self.columns]) for i in (0, 1)
        ]
        is_dot = self.embedded.similarity == "dot"
        rescores = [dot_products(columns) if is_dot else _plain for _, columns in sides]
        for blocks in zip(*(cosine_blocks(*side) for side in sides), strict=True):
            both = [rescore(cosines) for rescore, cosines in zip(rescores, blocks, strict=True)]
            yield both[0], both[1]

    def _alive(self, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Return which queries (Q,) and candidates (M,) have a modality left on both sides."""
        able = torch.where(taken, self.able_without, self.able)
        clips = np.zeros(len(self.names), bool)
        np.logical_or.at(clips, self.numbers, able.numpy())
        by_clip = torch.from_numpy(clips)[torch.from_numpy(self.numbers)]
        query, gallery = (
            (able if has_captions(self.embedded, side) else by_clip)[rows]
            for side, rows in (
                (self.direction.query, self.rows),
                (self.direction.gallery, self.columns),
            )
        )
        return query, gallery

    def by_clip(self, found: Mapping[str, Floats], counted: int, captions: Tensor | None) -> Curves:
        """Sum what the queries of each clip found."""
        asked = np.ones(max(counted, len(self.names)))
        if captions is not None and has_captions(self.embedded, self.direction.query):
            numbers, sizes = np.unique(captions.numpy(), return_counts=True)
            mine = np.isin(numbers, self.embedded.clips.numpy())  # both are in ascending order
            asked = np.concatenate([sizes[mine], sizes[~mine]]).astype(np.float64)
        owners = self.numbers[self.rows.numpy()]
        sums = {}
        for way, values in found.items():
            sums[way] = np.zeros((len(asked), *values.shape[1:]))
            np.add.at(sums[way], owners, values)
        in_order = [name for _, name in sorted(zip(self.clips, self.names, strict=True))]
        return Curves(str(self.direction), self.has, tuple(in_order), asked, sums)


def _plain(cosines: Tensor) -> tuple[Tensor, Tensor]:
    return cosines, torch.tensor(TOLERANCE, dtype=cosines.dtype)


def _ways(
    embedded: Embedded, without: Mapping[str, Tensor], modality: str, direction: Direction
) -> dict[str, tuple[Rows, Rows]]:
    """Embed both sides in each way that the model has, with and without the modality."""
    letters, letter = letters_of(embedded.present), modality[0]
    sides_in_letters = "".join((*direction.query, *direction.gallery))
    present = {x: embedded.present[letters[x]] for x in sides_in_letters}
    gone = present | {letter: torch.zeros(len(embedded.ids), dtype=torch.bool)}
    before, after = embedded.embeddings, {**embedded.embeddings, **without}
    ways = {}
    for kind, make in ((FUSED, _fuse), (LATE, _average)):
        for treatment in (MASKED, LEFT_OUT):
            sides = []
            for side in (direction.query[0], direction.gallery[0]):
                out = treatment == LEFT_OUT and letter in side
                as_is = make(before, side, present if out else None)
                lost = make(before, side, gone) if out else make(after, side, None)
                sides.append((as_is, lost if letter in side else as_is))
            if all(rows is not None for pair in sides for rows in pair):
                ways[f"{kind}, {treatment}"] = (sides[0], sides[1])
    return ways  # type: ignore[return-value]


def _fuse(
    embeddings: Mapping[str, Tensor], side: str, present: Mapping[str, Tensor] | None
) -> Tensor | None:
    """Return one embedding of a side, of all of it or of what each item has; None: there is none.

    Items that have nothing get zeros.
    """
    if present is None or side not in embeddings:
        return embeddings.get(side)
    rows = torch.zeros_like(embeddings[side])
    codes = torch.stack([present[x].long() << place for place, x in enumerate(side)]).sum(
        dim=0
    )  # (N,)
    for code in codes.unique().tolist():
        part = "".join(x for place, x in enumerate(side) if code >> place & 1)
        if part and part not in embeddings:
            return None
        if part:
            rows[codes == code] = embeddings[part][codes == code]
    return rows


def _average(
    embeddings: Mapping[str, Tensor], side: str, present: Mapping[str, Tensor] | None
) -> Tensor | None:
    """Return the late average of a side, see :func:`_fuse`."""
    if not all(x in embeddings for x in side):
        return None
    rows = torch.stack([embeddings[x] for x in side])  # (letters, N, E)
    if present is None:
        return rows.mean(dim=0)
    weights = torch.stack([present[x] for x in side]).to(rows.dtype)[..., None]
    return (rows * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=1)
