"""The best late average: how single modalities are put together, tuned on validation.

The plain row ``t->v+a`` ranks by the average of the embeddings of v and a. The row
``t->v+a (tuned)`` ranks in the way that finds most on the validation split:

* ``equal``: as the plain row;
* ``weighted``: the average has weights;
* ``summed``: the scores of t with v and of t with a are added, with weights;
* ``calibrated``: they are added after each was mapped to a log-likelihood ratio (LLR) by isotonic
  regression.

Only the validation split is read to fit and to choose. In the last three a modality that a clip
lacks takes no part, and scores are LLRs, so that clips of one modality and of two can be compared.
In the plain row the embedding of the masking token takes its place.

Shapes: N items, Q queries, M rows of the gallery.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fusion.evaluation.embed import Embedded, keep, keep_complete
from fusion.evaluation.late_scores import ScoreSum, WeightedAverage, fit_average, fit_sums
from fusion.evaluation.metrics import retrieval_metrics
from fusion.evaluation.ranking import Places, places_of_scores
from fusion.evaluation.retrieval import Ranked, rank_directions
from fusion.modalities import Direction, directions, letters_of

TUNED = " (tuned)"  # behind the name of a direction
WAYS = ("equal", "weighted", "summed", "calibrated")
MOST_PAIRS = 2**20  # of validation; of more clips some are taken, evenly spaced
FEWEST_CLIPS = 5  # of validation, with every modality of the direction
RULE = (
    "the late average in the way that finds most (R@1) on the validation split; of ways that find"
    f" as much, the first of {', '.join(WAYS)}"
)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was tuned for a direction.

    Attributes:
        chosen: one of ``WAYS``.
        recalls: R@1 on validation in per cent, by way.
        fitted: the ways that were fitted: all but ``equal``, or none if there were too few clips.
        clips: of validation that have every modality of the direction.
    """

    chosen: str
    recalls: Mapping[str, float]
    fitted: Mapping[str, ScoreSum | WeightedAverage]
    clips: int

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """The weights of each way that has some, by letter or by pair."""
        return {way: dict(one.weights) for way, one in self.fitted.items() if one.weights}

    def as_json(self) -> dict[str, Any]:
        """Write it; ``said`` is the same in one line."""
        weights = self.weights.get(self.chosen, {})
        which = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
        found = ", ".join(f"{way} {recall:.1f}" for way, recall in self.recalls.items())
        said = f"{self.chosen}{f' ({which})' if which else ''}; R@1 on validation: {found}"
        if not self.fitted:
            said += f"; only {self.clips} clips to fit to, and {FEWEST_CLIPS} are needed"
        return {
            "chosen": self.chosen,
            "R@1": dict(self.recalls),
            "weights": self.weights,
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
        if way in tuned:
            fitted = tuned[way].fitted.get(tuned[way].chosen)
            rows[way + TUNED] = rank_late(embedded, late[way], plain, fitted) if fitted else plain
    return rows


def rank_late(
    embedded: Embedded, direction: Direction, plain: Ranked, fitted: ScoreSum | WeightedAverage
) -> Ranked:
    """Rank the queries of the ``plain`` row among its candidates, in a way that was fitted."""
    found, start = [], 0
    for scores, slack in fitted.blocks(embedded, direction, plain.rows, plain.candidates):
        clips = plain.clips[start : start + len(scores), None]
        found.append(places_of_scores(scores, slack, clips == embedded.clips[plain.candidates]))
        start += len(scores)
    if not found:
        return plain
    places = Places(*map(np.concatenate, zip(*found, strict=True)))
    return plain._replace(ranks=places.ranks, places=places)


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
    fitted: dict[str, ScoreSum | WeightedAverage] = {}
    if complete.num_clips >= FEWEST_CLIPS:
        fitted["weighted"] = fit_average(complete, direction)
        fitted["summed"], fitted["calibrated"] = fit_sums(complete, direction)
    ranks = {"equal": plain.ranks}
    ranks |= {way: rank_late(validation, direction, plain, f).ranks for way, f in fitted.items()}
    recalls = {way: retrieval_metrics(found)["R@1"] for way, found in ranks.items()}
    chosen = max(WAYS, key=lambda way: recalls.get(way, -1.0))  # the first of those that are equal
    return Tuned(chosen, recalls, fitted, complete.num_clips)


def _thin(validation: Embedded) -> Embedded:
    """Keep so many clips, evenly spaced, that at most about ``MOST_PAIRS`` pairs are compared."""
    clips, size = validation.clips, validation.num_clips
    most = max(1, int((MOST_PAIRS * size / max(1, len(clips))) ** 0.5))
    if size <= most:
        return validation
    chosen = clips.unique()[torch.arange(most) * size // most]
    return keep(validation, torch.isin(clips, chosen))
