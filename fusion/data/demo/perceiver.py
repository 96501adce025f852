"""The highest expected retrieval scores on the built-in corpus, computed exactly.

A perfect perceiver knows every attribute that a modality shows, and nothing else. It ranks by the
probability that a query and a candidate belong together: the product over attributes of 1 where
both show the same value, 0 where they show different ones, and 1 / (number of values) where either
does not show it. Ties are broken at random. No model that ranks the candidates of each query
without looking at the other queries has a higher expected score.

Shapes: N clips, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.data.demo.attributes import ATTRIBUTES, AUDIBLE, VISIBLE
from fusion.data.demo.plan import Film
from fusion.modalities import directions

MODALITIES = "tva"  # text, video, audio
CUTOFFS = (1, 5, 10, 50)
UNKNOWN = -1


def ceilings(films: Sequence[Film]) -> dict[str, dict[str, float]]:
    """Score the perfect perceiver on the clips of some films, in every direction.

    As in the published evaluation, a clip with no modality on the query or the gallery side counts
    as a miss and is no candidate. A black or silent scene of a file with that stream is ranked,
    although it shows nothing.

    Returns:
        For each direction, such as ``t->va`` or ``t->v+a``: ``R@1``, ``R@5``, ``R@10``, ``R@50``
        in percent of all clips, ``MedR`` and ``MeanR`` over the clips that are ranked. All are
        expected values, except for the median: that of the expected ranks.
    """
    knowledge = {m: _known(films, m) for m in MODALITIES}
    present = {m: _present(films, m) for m in MODALITIES}
    scores = {}
    for direction in directions(["text", "video", "audio"]):
        query, candidate = "".join(direction.query), "".join(direction.gallery)
        scores[str(direction)] = score_direction(
            _combine([knowledge[m] for m in query]),
            _combine([knowledge[m] for m in candidate]),
            np.any([present[m] for m in query], axis=0)
            & np.any([present[m] for m in candidate], axis=0),
        )
    return scores


def score_direction(
    queries: np.ndarray, candidates: np.ndarray, present: np.ndarray
) -> dict[str, float]:
    """Compute the expected scores of one direction.

    Args:
        queries: (N, A) values known of each query, as numbers, or ``UNKNOWN``.
        candidates: (N, A) likewise; candidate i is the right one for query i.
        present: (N,) bool, clips that are ranked.
    """
    scores = match_scores(queries[present], candidates[present])
    right = scores.diagonal()[:, None]
    better = (scores > right).sum(axis=1)
    equal = (scores == right).sum(axis=1)  # at least 1, the right one itself
    ranks = better + (equal + 1) / 2
    recalls = {
        f"R@{k}": 100 * float(np.clip((k - better) / equal, 0, 1).sum()) / len(present)
        for k in CUTOFFS
    }
    return recalls | {"MedR": float(np.median(ranks)), "MeanR": float(ranks.mean())}


def match_scores(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Score all pairs, times the number of combinations, so that scores are exact: (N, N) int."""
    scores = np.ones((len(queries), len(candidates)), np.int64)
    for q, c, values in zip(queries.T, candidates.T, ATTRIBUTES.values(), strict=True):
        unknown = (q == UNKNOWN)[:, None] | (c == UNKNOWN)[None, :]
        scores *= np.where(unknown, 1, (q[:, None] == c[None, :]) * len(values))
    return scores


def _known(films: Sequence[Film], modality: str) -> np.ndarray:
    """Number the attribute values that a modality shows: (N, A), ``UNKNOWN`` for others."""
    rows = []
    for scene in (scene for film in films for scene in film.scenes):
        shown = {
            "t": set(ATTRIBUTES) - set(scene.unsaid),
            "v": set(VISIBLE) if scene.has_picture else set(),
            "a": set(AUDIBLE) if scene.has_sound else set(),
        }[modality]
        rows.append(
            [
                values.index(scene.values[attribute]) if attribute in shown else UNKNOWN
                for attribute, values in ATTRIBUTES.items()
            ]
        )
    return np.array(rows)


def _present(films: Sequence[Film], modality: str) -> np.ndarray:
    """Return which clips have a modality, even if it shows nothing: (N,) bool."""
    flags = [
        (bool(scene.text), film.has_video_stream, film.has_audio_stream)
        for film in films
        for scene in film.scenes
    ]
    return np.array(flags)[:, MODALITIES.index(modality)]


def _combine(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join what several modalities show; those of the same clip never disagree."""
    return np.max(parts, axis=0)
