"""Find when steps happen in a film, with a trained model; seconds come out while it is read.

Shapes: T seconds of a film, K steps, E embedding width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips
from fusion.data.datasets.dataset import collate
from fusion.data.steps.windows import Windows
from fusion.evaluation.localisation.assignment import assign_best, assign_in_order
from fusion.evaluation.localisation.scores import (
    combinations_of,
    directions_from_text,
    score_vectors,
)
from fusion.inference.clips import fill
from fusion.inference.embedder import Embedder
from fusion.inference.model import Model
from fusion.inference.streaming import ONLY, FilmStream
from fusion.modalities import ORDER, Direction, letters_of

LONGEST = 8.0  # seconds of a window, as published, where the model takes so many
BATCH = 64  # windows that the model takes at a time


class Second(NamedTuple):
    """A second of a film, and how well each step fits it."""

    start: float  # seconds
    end: float
    scores: NDArray[np.float32]  # (K,); minus infinity where the film lacks what is compared


@dataclasses.dataclass(frozen=True)
class Located:
    """Where steps were found in a film.

    Attributes:
        steps: the K steps.
        scores: (T, K), how well each step fits each second; minus infinity for a second that has
            no modality of the direction, such as of a silent film for ``t->a``.
        seconds: (K,) the number of the second of each step; -1 if fewer seconds than steps have
            scores.
        grid: seconds from one to the next.
    """

    steps: tuple[str, ...]
    scores: NDArray[np.float32]
    seconds: NDArray[np.int64]
    grid: float

    def times(self) -> list[tuple[float, float] | None]:
        """Return from when to when the second of each step lasts."""
        return [
            None if t < 0 else (t * self.grid, (t + 1) * self.grid) for t in self.seconds.tolist()
        ]


class Localiser:
    """Finds steps in films.

    Args:
        model: embeds texts and films, see :func:`fusion.load`.
        steps: what is looked for.
        direction: such as ``t->va``; None: the one with the most modalities, if possible in one
            embedding.
        window: seconds that are looked at around each second; None: 8, or the most that the model
            takes.
        step: seconds from one window to the next.

    Raises:
        ValueError: there is no step, the model cannot read one, or an argument is not possible.
    """

    def __init__(
        self,
        model: Embedder,
        steps: Sequence[str],
        direction: str | None = None,
        window: float | None = None,
        step: float = 1.0,
    ) -> None:
        self.model: Any = model
        self.steps = tuple(text.strip() for text in steps)
        if not self.steps or not all(self.steps):
            raise ValueError("there is no step to look for, or an empty one; write what happens")
        self.way = choose_direction(model, direction)
        longest = model.longest
        length = min(LONGEST, longest) if window is None else window
        if not 0 < length <= longest * 1.01:
            raise ValueError(
                f"window must be above 0 and at most {longest:.1f} s, which is the longest clip"
                f" that the model takes; got {length:g}"
            )
        before = max(0.0, (length - step) / 2)
        self.windows = Windows(before, length - before, step)
        self.texts: Tensor = model.encode(list(self.steps), self.way.query[0])  # (K, E)

    def stream(self, film: str | Path) -> Iterator[Second]:
        """Yield the seconds of a film in their order, each as soon as its window was read.

        Of a model of this project pictures and their features are dropped on the way, so that
        films of any length fit into memory. Models that read frames, and those of others, embed the
        whole film first.

        Raises:
            MediaError: the film cannot be read.
        """
        for number, window in enumerate(self.embed(film)):
            start = number * self.windows.step
            yield Second(start, start + self.windows.step, self.score(*window))

    def embed(self, film: str | Path) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """Yield each window of a film as :meth:`score` takes it, whatever the steps are.

        MediaError: the film cannot be read.
        """
        path = Path(film)
        streamed = isinstance(self.model, Model) and not self.model.maker.reads_frames
        return self._streamed(path) if streamed else self._at_once(path)

    def score(self, vectors: Mapping[str, Tensor], known: bool) -> NDArray[np.float32]:
        """Return how well each step fits a window: (K,).

        Args:
            vectors: (1, E) by combination.
            known: whether the film has any modality of the direction there.
        """
        scores: NDArray[np.float32]
        scores = score_vectors(vectors, self.texts, self.way, self._similarity)[0]
        # As in fusion.evaluation.localisation.scores.score_windows:
        return scores if known else np.full_like(scores, -np.inf)

    def locate(self, film: str | Path, in_order: bool = True, tell: Any = None) -> Located:
        """Find the second of each step.

        Args:
            film: a media file.
            in_order: whether the steps happen in their order; otherwise each gets its best second.
            tell: called with each :class:`Second` while the film is read.

        Raises:
            MediaError: the film cannot be read, or has neither picture nor sound.
        """
        rows = []
        for second in self.stream(film):
            rows.append(second.scores)
            if tell is not None:
                tell(second)
        scores = np.stack(rows) if rows else np.zeros((0, len(self.steps)), np.float32)
        found = assign_in_order(scores) if in_order else assign_best(scores)
        return Located(self.steps, scores, found, self.windows.step)

    @property
    def _similarity(self) -> str:
        return getattr(getattr(self.model, "network", None), "similarity", "cosine")

    def _at_once(self, path: Path) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """Yield the vectors of each window, and whether it has one: here others are zeros."""
        seconds = self.model.seconds(path)
        times = [self.windows.times(t, seconds) for t in range(self.windows.count(seconds))]
        for first in range(0, len(times), BATCH):
            clips = [(*window, "") for window in times[first : first + BATCH]]
            made = self.model.embed_film(path, clips)
            for place, has in enumerate(made.has):
                yield (
                    {
                        c: torch.from_numpy(v[place : place + 1])
                        for c, v in made.vectors.items()
                        if c in self._parts
                    },
                    any(set(part) <= set(has) for part in self._parts),
                )

    @property
    def _parts(self) -> list[str]:
        return combinations_of([self.way])

    def _streamed(self, path: Path) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """Yield the vectors of each window, and whether it has any modality of the direction."""
        stream = FilmStream(self.model.maker.films, path)
        done = 0
        while True:
            if not stream.ended:
                stream.advance()
            ready = self._ready(stream)
            if ready - done >= BATCH or stream.ended:
                for first in range(done, ready, BATCH):
                    numbers = range(first, min(first + BATCH, ready))
                    yield from self._embed(stream, numbers)
                done = max(done, ready)
                stream.forget(max(0.0, done * self.windows.step - self.windows.before - 1))
            if stream.ended:
                return

    def _ready(self, stream: FilmStream) -> int:
        """Return how many windows can be read; those at the end depend on where the film ends."""
        if stream.ended:
            return self.windows.count(stream.seconds)
        seen = stream.seen - 1  # features of a window may end a little later
        if seen < self.windows.before + self.windows.after:  # the first ones are shifted inwards
            return 0
        return max(0, math.floor((seen - self.windows.after) / self.windows.step))

    def _embed(
        self, stream: FilmStream, numbers: Sequence[int]
    ) -> Iterator[tuple[dict[str, Tensor], bool]]:
        model, recipe = self.model, self.model.maker.recipe
        # Until the end is known, windows lie before it and are not shifted.
        seconds = stream.seconds if stream.ended else math.inf
        times = [self.windows.times(number, seconds) for number in numbers]
        most = recipe["max_video_tokens"], recipe["max_audio_frames"]
        captions = [Caption(ONLY, start, end, "") for start, end in times]
        clips = Clips(None, captions, stream, None, *most, long_clips=recipe["long_clips"])
        clips.further = [name for name in model.maker.of_films if name not in ORDER]
        clips.max_tokens = recipe.get("max_tokens", {})
        wanted = set(model.maker.of_films)
        items = [
            {name: x for name, x in clips[i].items() if name == "id" or name in wanted}
            for i in range(len(captions))
        ]
        batch = collate(fill(items)).to(model.device)
        with torch.no_grad():
            made = model.network(batch.inputs, self._parts)
        finished = {part: model.finish(rows) for part, rows in made.items()}
        letters, asked = letters_of(model.modalities), set("".join(self._parts))
        for place, item in enumerate(items):
            known = any(len(item.get(letters[letter], ())) for letter in asked)
            yield {part: rows[place : place + 1] for part, rows in finished.items()}, known


def choose_direction(model: Embedder, wanted: str | None) -> Direction:
    """Choose in which direction steps are compared with films.

    Raises:
        ValueError: the model does not embed what is wanted, or compares no text with films.
    """
    ways = {str(way): way for way in directions_from_text(model.modalities, model.combinations)}
    if not ways:
        raise ValueError("the model compares no text with films; take one that was trained on text")
    if wanted is None:
        return ways[max(ways, key=lambda way: (len(way.replace("+", "")), "+" not in way))]
    if wanted not in ways:
        raise ValueError(f"direction: {wanted!r} is not one of {', '.join(ways)}")
    return ways[wanted]
