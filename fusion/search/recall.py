"""How often an index finds what a caption describes: recall of known captions.

A caption asks, and the clips of the index are ranked as a search ranks them, or by one combination.
There are two tests:

* The index was cut at captions. Each asks, all clips of captions are candidates, and only the
  caption's own clip is right, as in ``fusion evaluate``.
* The captions come from a file, and the index was cut into windows that do not know their times.
  All clips of the index are candidates, and those that lie right are right, see :data:`RIGHT`.

A clip that lacks every modality of a combination is never found in it; a caption whose clip is
never found, or that the model cannot read, is a miss.

Shapes: Q captions, N clips, E embedding width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.evaluation.ranking import TOLERANCE, Ranks, cosine_blocks, places_of_scores
from fusion.inference.embedder import Embedder
from fusion.search.storage import SearchError, Storage

LARGEST = "largest"  # what a search compares: of each clip its largest combination, calibrated
TEXT = "t"
BLOCK = 256  # captions ranked at a time

Times = NDArray[np.float64]  # (N, 2) seconds


def overlap(clips: Times, asked: Times) -> NDArray[np.bool_]:
    """Return which clips (N, 2) have an intersection over union of 0.5 or more with (Q, 2)."""
    first = np.maximum(clips[None, :, 0], asked[:, None, 0])  # (Q, N)
    last = np.minimum(clips[None, :, 1], asked[:, None, 1])
    shared = np.clip(last - first, 0, None)
    lengths = (clips[:, 1] - clips[:, 0])[None] + (asked[:, 1] - asked[:, 0])[:, None]
    return shared >= 0.5 * (lengths - shared) - 1e-9


def centre(clips: Times, asked: Times) -> NDArray[np.bool_]:
    """Return which clips (N, 2) have their centre within (Q, 2)."""
    middle = clips.mean(axis=1)[None]
    return (asked[:, :1] <= middle) & (middle <= asked[:, 1:])


# When a clip of the right film is right: what to write behind a row, and the rule.
RIGHT: dict[str, Callable[[Times, Times], NDArray[np.bool_]]] = {
    "IoU>=0.5": overlap,
    "centre": centre,
}


@dataclasses.dataclass(frozen=True)
class Content:
    """The clips of an index; ``vectors`` are (N, E) by combination, zeros where a clip lacks it."""

    films: Sequence[str]
    times: Times  # (N, 2)
    texts: Sequence[str]
    has: Sequence[str]
    vectors: Mapping[str, Tensor]

    @classmethod
    def read(cls, storage: Storage) -> Content:
        """Read all clips of an index."""
        ids, rows, films, has = storage.table()
        clips = [storage.clip(number)[1] for number in ids.tolist()]
        if not clips:
            raise SearchError(f"{storage.folder} has no clips; index some films first")
        times = np.array([[clip.start, clip.end] for clip in clips], dtype=np.float64)
        vectors = {c: torch.tensor(storage.vectors(c)[rows]) for c in storage.fact("combinations")}
        return cls(films, times, [clip.text for clip in clips], has, vectors)

    def captioned(self) -> Content:
        """Keep the clips that have a caption."""
        kept = [place for place, text in enumerate(self.texts) if text.strip()]
        return Content(
            [self.films[place] for place in kept],
            self.times[kept],
            [self.texts[place] for place in kept],
            [self.has[place] for place in kept],
            {c: values[kept] for c, values in self.vectors.items()},
        )

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number the clips; captions of one clip have the same number."""
        found: dict[Any, int] = {}
        clips = zip(self.films, *self.times.T.tolist(), strict=True)
        return np.array([found.setdefault(clip, len(found)) for clip in clips])


@dataclasses.dataclass(frozen=True)
class Asked:
    """The captions of a test.

    Attributes:
        captions: texts with their times, (Q,).
        clips: numbers of their clips, (Q,).
        ranks: of each row, (Q,); NaN of captions that the model cannot read, or for which no clip
            that can be found is right.
        candidates: number of clips.
    """

    captions: Sequence[Caption]
    clips: NDArray[np.int64]
    ranks: Mapping[str, Ranks]
    candidates: int


def ask_own_captions(content: Content) -> Asked:
    """Ask with the captions that an index was cut at; SearchError: there are none."""
    content = content.captioned()
    if not content.texts or TEXT not in content.vectors:
        raise SearchError("no clip has a caption that the model reads; give some: --captions FILE")
    clips = content.numbers
    _, first = np.unique(clips, return_index=True)  # a candidate for each clip
    gallery = _Gallery(content, np.sort(first))
    readable = np.array([TEXT in letters for letters in content.has])

    def right(block: slice) -> Tensor:
        return torch.from_numpy(clips[block, None] == clips[gallery.rows])

    ranks = gallery.rank(content.vectors[TEXT], readable, right)
    captions = _captions_of(content)
    return Asked(captions, clips, ranks, len(gallery.rows))


def ask_captions(content: Content, captions: Sequence[Caption], model: Embedder) -> Asked:
    """Ask with captions whose times the clips of an index do not know.

    ``captions`` name their films as ``content`` does.
    """
    queries, readable = _embed(captions, model)
    gallery = _Gallery(content, np.arange(len(content.films)))
    films, asked = np.array(content.films), np.array([caption.video for caption in captions])
    lengths = {film: content.times[films == film, 1].max() for film in set(content.films)}
    times = np.array([[c.start, min(c.end, lengths.get(c.video, c.end))] for c in captions])
    ranks: dict[str, Ranks] = {}
    for name, is_right in RIGHT.items():

        def right(block: slice, rule: Any = is_right) -> Tensor:
            same = asked[block, None] == films
            return torch.from_numpy(same & rule(content.times, times[block]))

        found = gallery.rank(queries, readable, right)
        ranks |= {f"{way} {name}": values for way, values in found.items()}
    named: dict[Any, int] = {}
    clips = [named.setdefault((c.video, c.start, c.end), len(named)) for c in captions]
    return Asked(captions, np.array(clips), ranks, len(content.films))


class _Gallery:
    """The candidates of a test: some rows of an index."""

    def __init__(self, content: Content, rows: NDArray[np.int64]) -> None:
        self.rows, self.has = rows, [content.has[row] for row in rows]
        known = [c for c in content.vectors if TEXT not in c]
        self.vectors = {c: content.vectors[c][rows] for c in sorted(known, key=len)}
        self.there = {c: self._having(c) for c in self.vectors}
        for c in known:
            if len(c) > 1:  # the late average; of a clip that lacks one the others
                late = "+".join(c)
                parts = [x for x in c if x in self.vectors]
                self.vectors[late] = torch.stack([self.vectors[x] for x in parts]).sum(dim=0)
                self.there[late] = torch.stack([self.there[x] for x in parts]).any(dim=0)

    def _having(self, combination: str) -> Tensor:
        return torch.tensor([set(combination) <= set(letters) for letters in self.has])

    def rank(
        self, queries: Tensor, readable: NDArray[np.bool_], right: Callable[[slice], Tensor]
    ) -> dict[str, Ranks]:
        """Rank the best right clip of each query (Q, E), by row: (Q,), NaN where none is found.

        ``right`` returns which of the candidates are right, (block, N), for a slice of the queries.
        """
        ranks: dict[str, list[Ranks]] = {}
        blocks = [cosine_blocks(queries, rows, BLOCK) for rows in self.vectors.values()]
        for number, parts in enumerate(zip(*blocks, strict=True)):
            block = slice(number * BLOCK, number * BLOCK + len(parts[0]))
            own = right(block)
            for way, scores in self._scores(dict(zip(self.vectors, parts, strict=True))).items():
                found = places_of_scores(scores, torch.tensor(TOLERANCE).double(), own).ranks
                can = (own & scores.isfinite()).any(dim=1).numpy() & readable[block]
                ranks.setdefault(f"t->{way}", []).append(np.where(can, found, np.nan))
        return {way: np.concatenate(parts) for way, parts in ranks.items()}

    def _scores(self, cosines: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scores (block, N) of each row; minus infinity where a clip has nothing."""
        by = {c: x.masked_fill(~self.there[c], -torch.inf) for c, x in cosines.items()}
        fused = sorted((c for c in by if "+" not in c), key=len, reverse=True)
        means = {c: cosines[c][:, self.there[c]].mean(dim=1, keepdim=True) for c in fused}
        scores = {LARGEST: _first_of([by[c] - means[c] for c in fused])}
        for way in by:  # where a clip lacks a part, what it has of the combination
            scores[way] = _first_of([by[way], *(by[c] for c in fused if set(c) < set(way))])
        return scores


def _first_of(scores: Sequence[Tensor]) -> Tensor:
    """Take each score from the first of some (block, N) that has a finite one."""
    result = scores[0]
    for other in scores[1:]:
        result = torch.where(result.isfinite(), result, other)
    return result


def _embed(captions: Sequence[Caption], model: Embedder) -> tuple[Tensor, NDArray[np.bool_]]:
    """Embed captions (Q, E), and say which the model reads."""
    made: list[Tensor | None] = []
    for caption in captions:
        try:
            made.append(model.encode({"text": caption.text}))
        except ValueError:  # without a known word
            made.append(None)
    some = next((one for one in made if one is not None), None)
    if some is None:
        raise SearchError(f"the model reads none of {len(captions):,} captions")
    filled = torch.stack([torch.zeros_like(some) if one is None else one for one in made])
    return filled, np.array([one is not None for one in made])


def _captions_of(content: Content) -> list[Caption]:
    return [
        Caption(film, start, end, text)
        for film, (start, end), text in zip(
            content.films, content.times.tolist(), content.texts, strict=True
        )
    ]
