"""The best late average: how the scores of single modalities are added, tuned on validation.

The plain row ``t->v+a`` averages the embeddings of v and a. The row ``t->v+a (tuned)`` adds the
scores of t with v and of t with a, in the way that finds most on the validation split:

* ``equal``: the plain row itself, untuned;
* ``weighted``: a weight for each score, fitted by the cross-entropy of matching pairs;
* ``calibrated``: each score is mapped to a log-likelihood ratio (LLR) by isotonic regression.

In the last two a modality that a clip lacks contributes an LLR of 0, so clips with one score and
clips with two can be compared. In the plain row the embedding of the masking token takes its place.

Shapes: N items, Q queries, M rows of the gallery.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.evaluation.calibration import Curve, Floats, fit_weights, isotonic_curve, linear_curve
from fusion.evaluation.embed import Embedded, keep, keep_complete
from fusion.evaluation.metrics import retrieval_metrics
from fusion.evaluation.ranking import (
    TOLERANCE,
    Places,
    cosine_blocks,
    lengths_of,
    places_of_scores,
)
from fusion.evaluation.retrieval import Ranked, rank_directions, side_rows
from fusion.modalities import Direction, directions, letters_of

TUNED = " (tuned)"  # behind the name of a direction
WAYS = ("equal", "weighted", "calibrated")  # of two that find as much, the first is taken
MOST_PAIRS = 2**22  # of validation; of more clips some are taken, evenly spaced
FEWEST_CLIPS = 10  # of validation, with every modality of the direction
RULE = (
    "the way of adding the scores of single modalities that finds most (R@1) on the validation"
    " split; of ways that find as much the first of equal, weighted, calibrated"
)


class Part(NamedTuple):
    """The scores of one modality with another, for a block of queries and the gallery."""

    name: str  # such as t->v
    scores: Tensor  # (block, M) float64 cosines or dot products
    slack: Tensor  # the distance up to which scores tie, of a shape that broadcasts to theirs
    there: Tensor  # (block, M) bool: both clips have the modality


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was tuned for a direction.

    Attributes:
        chosen: one of ``WAYS``.
        recalls: R@1 on validation in per cent, by way; without ``equal`` only where too few clips
            could be fitted to.
        curves: of each part, by its name, for the ways that could be fitted.
        weights: of each part, by its name, in ``weighted``.
        clips: of validation that have every modality of the direction.
    """

    chosen: str
    recalls: Mapping[str, float]
    curves: Mapping[str, Mapping[str, Curve]]
    weights: Mapping[str, float]
    clips: int

    def as_json(self) -> dict[str, Any]:
        """Write it; ``said`` is the same in one line."""
        found = ", ".join(f"{way} {recall:.1f}" for way, recall in self.recalls.items())
        weights = ", ".join(f"{part} {weight:g}" for part, weight in self.weights.items())
        said = f"{self.chosen}; R@1 on validation: {found}"
        if weights:
            said += f"; weights: {weights}"
        else:
            said += f"; only {self.clips} clips to fit to, and {FEWEST_CLIPS} are needed"
        return {
            "chosen": self.chosen,
            "R@1": dict(self.recalls),
            "weights": dict(self.weights),
            "clips": self.clips,
            "said": said,
        }


def tune(validation: Embedded) -> dict[str, Tuned]:
    """Tune every late average of a model on its validation split; the keys are directions."""
    validation = _thin(validation)
    ranked, late = rank_directions(validation), late_directions(validation)
    return {way: _tune(validation, late[way], ranked[way]) for way in late if len(ranked[way].rows)}


def rank_tuned(
    embedded: Embedded, ranked: Mapping[str, Ranked], tuned: Mapping[str, Tuned]
) -> dict[str, Ranked]:
    """Return the rows with a tuned one behind each late average.

    Args:
        embedded: the data set, such as the test.
        ranked: its plain rows, see :func:`fusion.evaluation.retrieval.rank_directions`.
        tuned: see :func:`tune`.
    """
    rows, late = {}, late_directions(embedded)
    for way, plain in ranked.items():
        rows[way] = plain
        if one := tuned.get(way):
            curves = one.curves.get(one.chosen)
            rows[way + TUNED] = _rank(embedded, late[way], plain, curves) if curves else plain
    return rows


def late_directions(embedded: Embedded) -> dict[str, Direction]:
    """Return the late averages of single modalities that the model embeds, by name."""
    return {
        str(way): way
        for way in directions(list(embedded.present))
        if len(way.query) + len(way.gallery) > 2
        and all(part in embedded.embeddings for part in way.query + way.gallery)
    }


def plain_name(row: str) -> str:
    """Return the direction of a row: ``t->v+a (tuned)`` -> ``t->v+a``."""
    return row.removesuffix(TUNED)


def _tune(validation: Embedded, direction: Direction, plain: Ranked) -> Tuned:
    letters = letters_of(validation.present)
    complete = keep_complete(validation, [letters[x] for x in direction.query + direction.gallery])
    curves: dict[str, Mapping[str, Curve]] = {}
    weights: dict[str, float] = {}
    if complete.num_clips >= FEWEST_CLIPS:
        parts, own = _matrices(complete, direction)
        weights = dict(zip(parts, fit_weights([*parts.values()], own), strict=True))
        curves["weighted"] = {n: linear_curve(weights[n], part[~own]) for n, part in parts.items()}
        curves["calibrated"] = {n: isotonic_curve(p[own], p[~own]) for n, p in parts.items()}
    ranks = {"equal": plain.ranks}
    ranks |= {way: _rank(validation, direction, plain, fit).ranks for way, fit in curves.items()}
    recalls = {way: retrieval_metrics(found)["R@1"] for way, found in ranks.items()}
    chosen = max(WAYS, key=lambda way: recalls.get(way, -1.0))  # max takes the first of equal ones
    return Tuned(chosen, recalls, curves, weights, complete.num_clips)


def _matrices(
    embedded: Embedded, direction: Direction
) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
    """Return the (Q, M) scores of each part of complete clips, and which pairs match."""
    every = torch.ones(len(embedded.ids), dtype=torch.bool)
    rows, candidates = (
        side_rows(embedded, side, every) for side in (direction.query, direction.gallery)
    )
    blocks: dict[str, list[Tensor]] = {}
    for parts in _score_blocks(embedded, direction, rows, candidates):
        for part in parts:
            blocks.setdefault(part.name, []).append(part.scores)
    own = embedded.clips[rows, None] == embedded.clips[candidates]
    return {name: torch.cat(some).numpy() for name, some in blocks.items()}, own.numpy()


def _rank(
    embedded: Embedded, direction: Direction, plain: Ranked, curves: Mapping[str, Curve]
) -> Ranked:
    """Rank the queries of the plain row among its candidates by the sum of the curves."""
    found, start = [], 0
    for parts in _score_blocks(embedded, direction, plain.rows, plain.candidates):
        total = reach = torch.zeros(1, dtype=torch.float64)
        for part in parts:
            values, slopes = curves[part.name](part.scores)
            total = total + values.where(part.there, 0.0)
            reach = reach + (slopes * part.slack).where(part.there, 0.0)
        clips = plain.clips[start : start + len(total), None]
        found.append(places_of_scores(total, reach, clips == embedded.clips[plain.candidates]))
        start += len(total)
    if not found:
        return plain
    places = Places(*map(np.concatenate, zip(*found, strict=True)))
    return plain._replace(ranks=places.ranks, places=places)


def _score_blocks(
    embedded: Embedded, direction: Direction, rows: Tensor, candidates: Tensor
) -> Iterator[list[Part]]:
    """Yield the scores of every part of a direction, some queries at a time.

    Args:
        embedded: the data set.
        direction: a late average; each modality of its query is compared with each of its gallery.
        rows: (Q,) items that are queries.
        candidates: (M,) items that are the gallery.
    """
    letters, pairs = (
        letters_of(embedded.present),
        [*itertools.product(*dataclasses.astuple(direction))],
    )
    sides = [(embedded.embeddings[q][rows], embedded.embeddings[g][candidates]) for q, g in pairs]
    lengths = [tuple(map(lengths_of, side)) for side in sides]
    start = 0
    for blocks in zip(*(cosine_blocks(*side) for side in sides), strict=True):
        some = slice(start, start + len(blocks[0]))
        parts = []
        for (q, g), (long, wide), cosines in zip(pairs, lengths, blocks, strict=True):
            there = embedded.present[letters[q]][rows[some], None]
            there = there & embedded.present[letters[g]][candidates]
            scale = torch.ones(1, dtype=torch.float64)
            if embedded.similarity == "dot":
                scale = long[some, None] * wide
            parts.append(Part(f"{q}->{g}", cosines * scale, TOLERANCE * scale, there))
        yield parts
        start = some.stop


def _thin(validation: Embedded) -> Embedded:
    """Keep so many clips, evenly spaced, that at most about ``MOST_PAIRS`` pairs are compared."""
    clips, size = validation.clips, validation.num_clips
    most = max(1, int((MOST_PAIRS * size / max(1, len(clips))) ** 0.5))
    if size <= most:
        return validation
    numbers = clips.unique()
    chosen = numbers[torch.arange(most) * size // most]
    return keep(validation, torch.isin(clips, chosen))
