"""The table of whole films: found by single captions, by all captions, and by votes.

Shapes: N captions, M clips, F films.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.localisation.assignment import Scores
from fusion.evaluation.localisation.whole_films import (
    Floats,
    Numbers,
    best_of_films,
    ranks_of_all_captions,
    ranks_of_captions,
    ranks_of_clips,
    votes_won,
)
from fusion.evaluation.metrics import interval_over, is_hit

CUTOFFS = (1, 5, 10)
CAPTION, CLIPS, ALL, VOTES = KINDS = ("caption", "caption by clips", "all captions", "votes")


@dataclasses.dataclass(frozen=True)
class FilmScores:
    """Captions and clips of films, and how they compare.

    Attributes:
        films: F names.
        captions: (N,) the film of each caption.
        clips: (M,) the film of each clip.
        known: (N,) whether a caption has a known word; others find nothing.
        scores: by direction (N, M).
        ids: N names of captions.
        texts: of the captions.
    """

    films: Sequence[str]
    captions: Numbers
    clips: Numbers
    known: NDArray[np.bool_]
    scores: Mapping[str, Scores]
    ids: Sequence[str]
    texts: Sequence[str]


class Found(NamedTuple):
    """What was found in a row: for each of ``CUTOFFS`` (Q,) hits, from 0 to 1."""

    hits: list[Floats]
    films: Numbers  # (Q,) of the queries
    ranks: Floats | None = None  # (Q,); votes have none


def whole_film_table(
    scored: FilmScores,
) -> tuple[dict[str, dict[str, Any]], dict[str, Found]]:
    """Measure every direction in every way.

    A caption without a known word counts as a miss, and gives no vote and no part of a mean.

    Returns:
        The rows, in per cent, and what was found in each.
    """
    table: dict[str, dict[str, Any]] = {}
    found: dict[str, Found] = {}
    for way, scores in scored.scores.items():
        for kind, its in _find(scored, scores).items():
            name = f"{way} {kind}"
            found[name] = its
            row: dict[str, Any] = {
                f"R@{k}": 100 * float(hits.mean())
                for k, hits in zip(CUTOFFS, its.hits, strict=True)
            }
            if its.ranks is not None:
                row["MedR"] = float(np.median(its.ranks))
            row["R@1_interval"] = interval_over(its.films, its.hits[0])
            table[name] = row | {"queries": len(its.films), "gallery": len(scored.films)}
    return table, found


def _find(scored: FilmScores, scores: Scores) -> dict[str, Found]:
    known, captions = scored.known, scored.captions
    best = best_of_films(scores[known], scored.clips, len(scored.films))
    own = captions[known]
    by_film, by_clip = (np.full(len(known), np.inf) for _ in range(2))
    by_film[known] = ranks_of_captions(best, own)
    by_clip[known] = ranks_of_clips(scores[known], scored.clips, own)
    films = np.unique(own)
    together = ranks_of_all_captions(best, own)
    return {
        CAPTION: Found(_hits(by_film), captions, by_film),
        CLIPS: Found(_hits(by_clip), captions, by_clip),
        ALL: Found(_hits(together), films, together),
        VOTES: Found([votes_won(best, own, k) for k in CUTOFFS], films),
    }


def _hits(ranks: Floats) -> list[Floats]:
    return [is_hit(ranks, k).astype(np.float64) for k in CUTOFFS]
