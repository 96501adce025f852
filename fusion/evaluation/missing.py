"""Recall against the share of the clips from which a modality is taken away.

The test is embedded once as it is and once with the modality taken away from every clip. Both
scores of a query and a clip are then known, and each share only chooses between them.

Shapes: N items, C clips, Q queries, M rows of the gallery, S shares, E embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fusion.evaluation.embed import Embedded
from fusion.evaluation.metrics import RECALLS, Floats, is_hit
from fusion.evaluation.ranking import TOLERANCE, Ranks, cosine_blocks, dot_products
from fusion.evaluation.retrieval import has_any, has_captions, side_rows
from fusion.modalities import Direction, letters_of

SHARES = tuple(range(0, 101, 10))  # per cent of the clips that have the modality
SCORES = 2**20  # at a time
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
    ways = _ways(embedded, without, modality, direction)
    if not ways:
        raise ValueError(
            f"{direction} cannot be evaluated: the model embeds neither {direction.query[0]} and"
            f" {direction.gallery[0]} nor each of their modalities alone"
        )
    total = len(ways) * len(test.rows)
    with tqdm(total=total, desc=f"without {modality}", unit="query", leave=False) as bar:
        found = {way: test.search(*sides, bar) for way, sides in ways.items()}
    return test.by_clip(found, counted, captions)


def order_of_clips(names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Order clips at random, (C,) numbers: the place of two depends on their names and the seed."""
    keys = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    return np.array(sorted(range(len(names)), key=keys.__getitem__), dtype=np.int64)


class _Test:
    """Which items ask and are searched, and from which each order and share takes the modality.

    A clip has two states, 0 as it is and 1 without the modality. The state of a query's clip is
    also that of the rows of the gallery that it looks for.
    """

    def __init__(self, embedded: Embedded, modality: str, direction: Direction) -> None:
        self.embedded, self.direction = embedded, direction
        self.asks = modality[0] in direction.query[0]  # the modality is in the query
        gone = {**embedded.present, modality: torch.zeros(len(embedded.ids), dtype=torch.bool)}
        states = (embedded, Embedded(embedded.ids, {}, gone, embedded.shows))
        able = [has_any(e, direction.query) & has_any(e, direction.gallery) for e in states]
        self.rows = side_rows(embedded, direction.query, able[0])  # (Q,)
        self.columns = side_rows(embedded, direction.gallery, able[0])  # (M,)
        _, self.numbers = np.unique(embedded.clips.numpy(), return_inverse=True)  # (N,) from 0
        first = embedded.one_per_clip(torch.arange(len(embedded.ids)))
        in_order = first[np.argsort(self.numbers[first.numpy()])]
        self.names = tuple(embedded.ids[i] for i in in_order.tolist())
        sides = ((direction.query, self.rows), (direction.gallery, self.columns))
        alive = [[self._alive(side, able[state])[rows] for state in (0, 1)] for side, rows in sides]
        self.asking, self.there = alive  # by state, (Q,) and (M,)
        having = np.unique(self.numbers[embedded.present[modality].numpy()])
        if not len(having):
            raise ValueError(f"no clip of the test has {modality}, so it cannot be taken away")
        self.has = len(having)
        self.taken = self._losers(having)  # (N, orders x S)
        self.block = min(1024, max(1, SCORES // max(1, len(self.columns))))  # queries at a time

    def _alive(self, side: Sequence[str], able: Tensor) -> Tensor:
        """Return which items stand for something on a side: themselves, or their clip."""
        if has_captions(self.embedded, side):
            return able
        clips = np.zeros(len(self.names), bool)
        np.logical_or.at(clips, self.numbers, able.numpy())
        return torch.from_numpy(clips[self.numbers])

    def _losers(self, having: NDArray[np.int64]) -> Tensor:
        """For each order and share the items that lose the modality: (N, orders x S) bool."""
        losers = []
        for seed in range(ORDERS):
            order = having[order_of_clips([self.names[clip] for clip in having], seed)]
            counts = (int(share * len(order) / 100 + 0.5) for share in SHARES)
            losers += [np.isin(self.numbers, order[:count]) for count in counts]
        return torch.from_numpy(np.stack(losers, axis=1))

    def search(self, queries: Rows, gallery: Rows, bar: Any) -> Floats:
        """Return (Q, S, 4): whether R@k counts each query, a mean over the orders."""
        found = []
        for start, scores in self._blocks(queries, gallery):
            block = slice(start, start + len(scores[0][0]))
            ranks = self._ranks(block, scores).reshape(-1, ORDERS, len(SHARES))
            counted = [is_hit(ranks, k).mean(axis=1) for k in RECALLS]
            found.append(np.stack(counted, axis=-1))
            bar.update(len(ranks))
        return np.concatenate([np.zeros((0, len(SHARES), len(RECALLS))), *found])

    def _ranks(self, block: slice, scores: Sequence[Rows]) -> Ranks:
        """Rank the targets of some queries for all orders and shares: (block, orders x S).

        Whether a row of the gallery beats the target depends on the states of both alone, so rows
        are compared once for each pair of states, and counted by a product of matrices.
        """
        rows = self.rows[block]
        own = self.embedded.clips[rows, None] == self.embedded.clips[self.columns]
        taken = self.taken[self.columns]
        weights = [(~taken).float(), taken.float()]  # counts below 2^24 are exact
        ranks = []
        for state in (0, 1):
            best, reach = _best(*scores[state], own & self.there[state])
            total = torch.ones(len(rows), taken.shape[1], dtype=torch.float64)
            for other in (0, 1):
                values = scores[state if self.asks else other][0]
                counts = ~own & self.there[other]
                places = (values > best + reach).float() + (values >= best - reach).float()
                total += (places.mul_(counts) @ weights[other]).double() / 2
            total[~self.asking[state][block]] = torch.inf
            ranks.append(total)
        return torch.where(self.taken[rows], ranks[1], ranks[0]).numpy()

    def _blocks(self, queries: Rows, gallery: Rows) -> Iterator[tuple[int, list[Rows]]]:
        """Yield the first of some queries, and for each state their scores and slacks."""
        sides = [
            (queries[i][self.rows], gallery[0 if self.asks else i][self.columns]) for i in (0, 1)
        ]
        is_dot = self.embedded.similarity == "dot"
        rescores = [dot_products(columns) if is_dot else _plain for _, columns in sides]
        pairs = zip(*(cosine_blocks(*side, self.block) for side in sides), strict=True)
        for number, cosines in enumerate(pairs):
            scores = [rescore(x) for rescore, x in zip(rescores, cosines, strict=True)]
            yield number * self.block, scores

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
        return Curves(str(self.direction), self.has, self.names, asked, sums)


def _best(scores: Tensor, slack: Tensor, own: Tensor) -> Rows:
    """Return each query's best own score, and how far others may be that tie with it: (Q, 1)."""
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    reach = torch.where(own & (scores == best), slack, 0.0).amax(dim=1, keepdim=True)
    return best, reach


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
