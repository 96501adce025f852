"""The highest expected retrieval scores on the built-in corpus, computed exactly.

A perfect perceiver knows each attribute that a modality shows, and nothing else. It ranks by the
probability that a query and a candidate match: the product over attributes of 1 where both show the
same value, 0 where they show different ones, and 1 / (number of values) where either does not show
it. Ties are broken at random. No model that ranks the candidates of each query on its own has a
higher expected score.

Shapes: N clips, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.data.demo.plan import Film
from fusion.data.demo.sentences import ATTRIBUTES, AUDIBLE, VISIBLE
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
    known = {m: _known(films, m) for m in MODALITIES}
    flags = [
        (bool(scene.text), film.has_video_stream, film.has_audio_stream)
        for film in films
        for scene in film.scenes
    ]
    present = dict(zip(MODALITIES, np.array(flags).T, strict=True))  # (N,) each
    scores = {}
    for direction in directions(["text", "video", "audio"]):
        sides = "".join(direction.query), "".join(direction.gallery)
        ranked = np.all([np.any([present[m] for m in side], axis=0) for side in sides], axis=0)
        # Modalities of one clip never disagree, so the maximum joins what they show.
        joined = [np.max([known[m] for m in side], axis=0)[ranked] for side in sides]
        scores[str(direction)] = _expected_scores(joined[0], joined[1], len(ranked))
    return scores


def _expected_scores(queries: np.ndarray, candidates: np.ndarray, total: int) -> dict[str, float]:
    """Compute the scores of one direction: values (N, A) each; candidate i fits query i."""
    # Times the number of combinations, so that scores are exact: (N, N) int
    scores = np.ones((len(queries), len(candidates)), np.int64)
    for q, c, values in zip(queries.T, candidates.T, ATTRIBUTES.values(), strict=True):
        unknown = (q == UNKNOWN)[:, None] | (c == UNKNOWN)[None, :]
        scores *= np.where(unknown, 1, (q[:, None] == c[None, :]) * len(values))
    right = scores.diagonal()[:, None]
    better = (scores > right).sum(axis=1)
    equal = (scores == right).sum(axis=1)  # at least 1, the right one itself
    ranks = better + (equal + 1) / 2
    recalls = {
        f"R@{k}": 100 * float(np.clip((k - better) / equal, 0, 1).sum()) / total for k in CUTOFFS
    }
    return recalls | {"MedR": float(np.median(ranks)), "MeanR": float(ranks.mean())}


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
