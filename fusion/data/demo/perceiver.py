"""The highest expected retrieval scores on the built-in corpus, computed exactly.

A perfect perceiver of some modalities recognises all that they show: the attributes and places of
the shots, those of the sound, what the sentence says. It knows how the corpus is made: attributes
are independent, each of the shots is as likely to be the one that is spoken of, and the sound was
recorded where that one is. It ranks by how much more likely the query and a candidate are of one
clip than of two: P(both) / (P(query) P(candidate)). Ties are broken at random. No model that ranks
the candidates of each query on its own has a higher expected score.

For a late average, such as ``v+a``, perfect perceivers of the single modalities rank: the product
of their scores. Each of them is as good as it can be, but none knows what the other perceives.

Shapes: N clips, A attributes with the place, S shots of a clip.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fusion.data.demo.plan import Film, Scene
from fusion.data.demo.sentences import ATTRIBUTES, AUDIBLE, VISIBLE
from fusion.modalities import directions

MODALITIES = "tva"  # text, video, audio
CUTOFFS = (1, 5, 10, 50)
UNKNOWN = -1
MOST_SHOTS = 2


def ceilings(films: Sequence[Film]) -> dict[str, dict[str, float]]:
    """Score the perfect perceivers on the clips of some films, in every direction.

    As in the published evaluation, a clip with no modality on the query or the gallery side counts
    as a miss and is no candidate. A black or silent scene of a file with that stream is ranked,
    although it shows nothing.

    Returns:
        For each direction, such as ``t->va`` or ``t->v+a``: ``R@1``, ``R@5``, ``R@10``, ``R@50``
        in percent of all clips, ``MedR`` and ``MeanR`` over the clips that are ranked. All are
        expected values, except for the median: that of the expected ranks.
    """
    clips = [(film, scene) for film in films for scene in film.scenes]
    flags = [(bool(s.text), f.has_video_stream, f.has_audio_stream) for f, s in clips]
    present = dict(zip(MODALITIES, np.array(flags).T, strict=True))  # (N,) each
    shown = perceive([scene for _, scene in clips])
    ratios = functools.cache(shown.likelihood_ratios)
    scores = {}
    for direction in directions(["text", "video", "audio"]):
        sides = direction.query, direction.gallery
        ranked = np.all(
            [np.any([present[m] for m in "".join(side)], axis=0) for side in sides], axis=0
        )
        pairs = itertools.product(direction.query, direction.gallery)
        matrix = np.prod([ratios(query, gallery) for query, gallery in pairs], axis=0)
        scores[str(direction)] = _expected_scores(matrix[np.ix_(ranked, ranked)], len(ranked))
    return scores


@dataclasses.dataclass(frozen=True)
class Shown:
    """What each of some clips shows: numbers of values of A attributes, of which one is the place.

    Attributes:
        said: (N, 1, A), ``UNKNOWN`` for what the text leaves out.
        seen: (N, S, A), ``UNKNOWN`` for what is not seen.
        heard: (N, 1, A), ``UNKNOWN`` for what is not heard.
        is_shot: (N, S), 0 for shots that there are not; a black scene has one, which shows nothing.
        num_values: (A,), how many values each attribute has.
    """

    said: np.ndarray
    seen: np.ndarray
    heard: np.ndarray
    is_shot: np.ndarray
    num_values: np.ndarray

    def likelihood_ratios(self, query: str, gallery: str) -> np.ndarray:
        """Compare each clip's ``query`` with each one's ``gallery``, combinations such as ``ta``.

        Returns:
            (N, N): P(query of i and gallery of j are of one clip) / (P(query) P(gallery)).
        """
        rows, columns = np.s_[:, None], np.s_[None, :]
        both = self._joint(dict.fromkeys(query, rows) | dict.fromkeys(gallery, columns))
        alone = [self._joint(dict.fromkeys(side, np.s_[:])) for side in (query, gallery)]
        return both / alone[0][:, None] / alone[1][None, :]

    def _joint(self, axes: Mapping[str, Any]) -> np.ndarray:
        """P(all that these modalities tell) / product of P(modality): (N,), or (N, N).

        ``axes`` indexes the clips of each modality, so that they broadcast against one another.
        """
        shown = {"t": self.said, "v": self.seen, "a": self.heard}
        # (N, N, S, A), or 1 for some
        ratios = self._fit([shown[m][axis] for m, axis in axes.items()]).prod(axis=-1)
        if "v" in axes:  # each shot is as likely to be meant
            is_shot = self.is_shot[axes["v"]]
            ratios = ratios * is_shot / is_shot.sum(axis=-1, keepdims=True)
        total: np.ndarray = ratios.sum(axis=-1)
        return total

    def _fit(self, sources: Sequence[np.ndarray]) -> np.ndarray:
        """P(these values have one cause) / product of P(value), for each attribute: (..., A)."""
        value, ratio = np.array(UNKNOWN), np.array(1)
        for source in sources:
            both = (value != UNKNOWN) & (source != UNKNOWN)
            ratio = ratio * np.where(both, (value == source) * self.num_values, 1)
            value = np.where(value == UNKNOWN, source, value)
        return ratio


def _expected_scores(scores: np.ndarray, total: int) -> dict[str, float]:
    """Compute the scores of one direction from (N, N) scores; candidate i fits query i."""
    scores = np.round(scores, 9)  # equal ones are equal
    right = scores.diagonal()[:, None]
    better = (scores > right).sum(axis=1)
    equal = (scores == right).sum(axis=1)  # at least 1, the right one itself
    ranks = better + (equal + 1) / 2
    recalls = {
        f"R@{k}": 100 * float(np.clip((k - better) / equal, 0, 1).sum()) / total for k in CUTOFFS
    }
    return recalls | {"MedR": float(np.median(ranks)), "MeanR": float(ranks.mean())}


def perceive(scenes: Sequence[Scene]) -> Shown:
    """Number what is shown in each of N scenes."""
    places = sorted({shot.place for scene in scenes for shot in scene.shots} - {""})
    options = [*ATTRIBUTES.values(), tuple(places)]

    def numbers(values: Mapping[str, str], known: Collection[str], place: str) -> list[int]:
        found = [values[attribute] if attribute in known else "" for attribute in ATTRIBUTES]
        pairs = zip(options, [*found, place], strict=True)
        return [some.index(value) if value else UNKNOWN for some, value in pairs]

    said, heard = [], []
    seen = np.full((len(scenes), MOST_SHOTS, len(options)), UNKNOWN)
    is_shot = np.zeros((len(scenes), MOST_SHOTS))
    for i, scene in enumerate(scenes):
        told = set(ATTRIBUTES) - set(scene.unsaid)
        said.append([numbers(scene.values, told, scene.place if scene.says_place else "")])
        sound, place = (AUDIBLE, scene.place) if scene.has_sound else ((), "")
        heard.append([numbers(scene.values, sound, place)])
        shots = scene.shots if scene.has_picture else ()
        is_shot[i, : max(len(shots), 1)] = 1
        for number, shot in enumerate(shots):
            seen[i, number] = numbers(shot.values, VISIBLE, shot.place)
    num_values = np.array([max(len(some), 1) for some in options])
    return Shown(np.array(said), seen, np.array(heard), is_shot, num_values)
