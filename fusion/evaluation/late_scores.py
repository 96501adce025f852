"""Scores of single modalities put together, with weights or curves that were fitted.

A clip may lack a modality of the gallery. So that its scores can be compared with those of other
clips, every score is a log-likelihood ratio (LLR) of match to no match, see
:mod:`fusion.evaluation.calibration`.

Shapes: N items, Q queries, M rows of the gallery, E embedding width.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.evaluation.calibration import Curve, Floats, fit_weights, isotonic_curve, linear_curve
from fusion.evaluation.embed import Embedded
from fusion.evaluation.ranking import TOLERANCE, cosine_blocks, lengths_of
from fusion.evaluation.retrieval import side_rows
from fusion.modalities import Direction, letters_of

STEPS = (1 / 4, 1 / 8, 1 / 16)  # of the search for the weights of an average
# (block, M) float64 scores, and the distance up to which each ties with another
Scored = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class ScoreSum:
    """The sum over pairs of modalities of an LLR of their score; a missing one contributes 0.

    Attributes:
        curves: from score to LLR, by pair, such as ``t->v``.
        weights: of the scores, by pair; empty where curves are not linear.
    """

    curves: Mapping[str, Curve]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def blocks(
        self, embedded: Embedded, direction: Direction, rows: Tensor, candidates: Tensor
    ) -> Iterator[Scored]:
        """Yield the scores of (Q,) items among (M,) candidates, a block of queries at a time."""
        for parts in _part_blocks(embedded, direction, rows, candidates):
            total, reach = torch.zeros(2, len(parts[0].scores), len(candidates)).double()
            for part in parts:
                values, slopes = self.curves[part.name](part.scores)
                total += values.where(part.there, 0.0)
                reach += (slopes * part.slack).where(part.there, 0.0)
            yield total, reach


@dataclasses.dataclass(frozen=True)
class WeightedAverage:
    """The score of averages with weights: ``scale * score - offset``, an LLR.

    A side is the average over the modalities that the clip has. Candidates that have the same ones
    share a scale and an offset.

    Attributes:
        weights: of the modalities of a side that has several, by letter; they sum to 1.
        scales: scale and offset, by the letters of the modalities that a candidate has.
    """

    weights: Mapping[str, float]
    scales: Mapping[str, tuple[float, float]]

    def blocks(
        self, embedded: Embedded, direction: Direction, rows: Tensor, candidates: Tensor
    ) -> Iterator[Scored]:
        """Yield the scores of (Q,) items among (M,) candidates, a block of queries at a time."""
        queries, gallery = (
            self._average(embedded, side, some)
            for side, some in ((direction.query, rows), (direction.gallery, candidates))
        )
        letters, scale, offset = letters_of(embedded.present), *torch.zeros(2, len(candidates))
        there = {x: embedded.present[letters[x]][candidates] for x in direction.gallery}
        scale, offset = scale.double(), offset.double()
        for kind, values in self.scales.items():
            mine = torch.stack([there[x] == (x in kind) for x in direction.gallery]).all(dim=0)
            scale[mine], offset[mine] = values
        asked, start = torch.ones(len(rows)).double(), 0
        if embedded.similarity == "dot":
            asked, scale = lengths_of(queries), scale * lengths_of(gallery)
        for cosines in cosine_blocks(queries, gallery):
            factor = asked[start : start + len(cosines), None] * scale
            yield factor * cosines - offset, TOLERANCE * factor
            start += len(cosines)

    def _average(self, embedded: Embedded, side: Sequence[str], rows: Tensor) -> Tensor:
        letters = letters_of(embedded.present)
        there = torch.stack([embedded.present[letters[x]][rows] for x in side]).double()
        weights = torch.tensor([self.weights.get(x, 1.0) for x in side]).double()[:, None] * there
        # Where only modalities of weight 0 are there, they count alike.
        weights = torch.where(weights.sum(dim=0) > 0, weights, there)
        weights = weights / weights.sum(dim=0).clamp(min=1e-9)
        parts = zip(weights, side, strict=True)
        return sum(w[:, None] * embedded.embeddings[x][rows].double() for w, x in parts)


def fit_sums(complete: Embedded, direction: Direction) -> tuple[ScoreSum, ScoreSum]:
    """Fit weights, and isotonic curves, to the scores of clips that have every modality."""
    rows, candidates, own = _pairs(complete, direction)
    blocks: dict[str, list[Tensor]] = {}
    for parts in _part_blocks(complete, direction, rows, candidates):
        for part in parts:
            blocks.setdefault(part.name, []).append(part.scores)
    scores = {name: torch.cat(some).numpy() for name, some in blocks.items()}
    weights = dict(zip(scores, fit_weights([*scores.values()], own)[0], strict=True))
    linear = {name: linear_curve(weights[name], part[~own]) for name, part in scores.items()}
    isotonic = {name: isotonic_curve(part[own], part[~own]) for name, part in scores.items()}
    return ScoreSum(linear, weights), ScoreSum(isotonic)


def fit_average(complete: Embedded, direction: Direction) -> WeightedAverage:
    """Fit the weights of an average by the cross-entropy of matching pairs of complete clips.

    The loss is that of :func:`fusion.evaluation.calibration.fit_weights` with one factor for the
    score. The search begins with equal weights and moves ``STEPS`` of weight from one modality to
    another while that lowers the loss.
    """
    rows, candidates, own = _pairs(complete, direction)
    sides = [(direction.query, rows), (direction.gallery, candidates)]
    products = _Products.of(complete, sides)
    weights = {x: 1 / len(side) for side, _ in sides for x in side}
    moves = [pair for side, _ in sides for pair in itertools.permutations(side, 2)]
    loss = fit_weights([products.scores(weights)], own)[1]
    for step in STEPS:
        while tried := [
            weights | {x: weights[x] - step, y: weights[y] + step}
            for x, y in moves
            if weights[x] >= step
        ]:
            losses = [fit_weights([products.scores(one)], own)[1] for one in tried]
            best = int(np.argmin(losses))
            if losses[best] > loss - 1e-6:
                break
            weights, loss = tried[best], losses[best]
    scales = _fit_scales(products, weights, direction, own)
    kept = {x: weights[x] for side, _ in sides for x in side if len(side) > 1}
    return WeightedAverage(kept, scales)


class _Products(NamedTuple):
    """Inner products of complete clips, by pair of modalities."""

    across: Mapping[tuple[str, str], Floats]  # (Q, M) of queries with the gallery
    within: tuple[Mapping[tuple[str, str], Floats], ...]  # (Q,) and (M,) within each side
    by_cosine: bool

    @classmethod
    def of(cls, complete: Embedded, sides: Sequence[tuple[Sequence[str], Tensor]]) -> _Products:
        """Compute them for both sides: modalities, and the items that are its rows."""
        queries, gallery = (
            {x: complete.embeddings[x][rows].double().numpy() for x in side} for side, rows in sides
        )
        across = {(q, g): queries[q] @ gallery[g].T for q in queries for g in gallery}
        within = tuple(
            {(x, y): (side[x] * side[y]).sum(axis=1) for x in side for y in side}
            for side in (queries, gallery)
        )
        return cls(across, within, complete.similarity == "cosine")

    def scores(self, weights: Mapping[str, float]) -> Floats:
        """Return the (Q, M) scores of averages with some weights; others are 0."""
        total = np.zeros(next(iter(self.across.values())).shape)
        for (q, g), product in self.across.items():
            total += weights.get(q, 0) * weights.get(g, 0) * product
        if self.by_cosine:
            for axis, side in enumerate(self.within):
                squares = sum(
                    weights.get(x, 0) * weights.get(y, 0) * p for (x, y), p in side.items()
                )
                lengths = np.sqrt(np.maximum(squares, 1e-30))
                total /= np.expand_dims(lengths, 1 - axis)
        return total


def _fit_scales(
    products: _Products,
    weights: Mapping[str, float],
    direction: Direction,
    own: NDArray[np.bool_],
) -> dict[str, tuple[float, float]]:
    """Fit scale and offset for every set of modalities that a candidate may have."""
    side, scales = direction.gallery, {}
    for size in range(1, len(side) + 1):
        for kind in itertools.combinations(side, size):
            total = sum(weights[x] for x in kind)
            kept = {x: weights[x] / total if total else 1 / size for x in kind}
            queries = {x: weights[x] for x in direction.query}
            scores = products.scores(queries | kept)
            scale = fit_weights([scores], own)[0][0]
            scales["".join(kind)] = scale, -float(linear_curve(scale, scores[~own]).y[0])
    return scales


def _pairs(complete: Embedded, direction: Direction) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
    """Return the queries (Q,), the candidates (M,) and which of them match (Q, M)."""
    every = torch.ones(len(complete.ids), dtype=torch.bool)
    rows, candidates = (
        side_rows(complete, side, every) for side in (direction.query, direction.gallery)
    )
    own = complete.clips[rows, None] == complete.clips[candidates]
    return rows, candidates, own.numpy()


class _Part(NamedTuple):
    """The scores of one modality with another, for a block of queries and the gallery."""

    name: str  # such as t->v
    scores: Tensor  # (block, M) float64 cosines or dot products
    slack: Tensor  # the distance up to which scores tie, of a shape that broadcasts to theirs
    there: Tensor  # (block, M) bool: both clips have the modality


def _part_blocks(
    embedded: Embedded, direction: Direction, rows: Tensor, candidates: Tensor
) -> Iterator[list[_Part]]:
    """Yield the scores of every pair of a modality of the query and one of the gallery."""
    letters = letters_of(embedded.present)
    pairs = list(itertools.product(direction.query, direction.gallery))
    sides = [(embedded.embeddings[q][rows], embedded.embeddings[g][candidates]) for q, g in pairs]
    lengths = [tuple(map(lengths_of, side)) for side in sides]
    start = 0
    for blocks in zip(*(cosine_blocks(*side) for side in sides), strict=True):
        some = slice(start, start + len(blocks[0]))
        parts = []
        for (q, g), (asked, found), cosines in zip(pairs, lengths, blocks, strict=True):
            there = embedded.present[letters[q]][rows[some], None]
            there = there & embedded.present[letters[g]][candidates]
            scale = torch.ones(1, dtype=torch.float64)
            if embedded.similarity == "dot":
                scale = asked[some, None] * found
            parts.append(_Part(f"{q}->{g}", cosines * scale, TOLERANCE * scale, there))
        yield parts
        start = some.stop
