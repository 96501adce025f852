"""Find whole films by one of their captions, or by all of them, as MCN does (arXiv:2104.12671).

Shapes: N captions, M clips, F films.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from fusion.config import ConfigError
from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips
from fusion.data.datasets.dataset import ClipSet
from fusion.data.features.readers import seconds_of
from fusion.evaluation.embed import Embedded, embed
from fusion.evaluation.localisation.scores import (
    combinations_of,
    directions_from_text,
    score_windows,
)
from fusion.evaluation.localisation.settings import WholeFilmSettings
from fusion.evaluation.localisation.whole_table import FilmScores
from fusion.evaluation.retrieval import CAPTION
from fusion.modalities import Direction, spell
from fusion.tasks.localisation.task import OfTrainedRetrieval
from fusion.tasks.localisation.whole_films_result import describe_whole_films
from fusion.tasks.retrieval.ranking import embed_clips
from fusion.tasks.task import Evaluation

SHORTEST = 1.0  # seconds of a clip outside of captions


class WholeFilms(OfTrainedRetrieval):
    """Find whole films, see :class:`fusion.tasks.task.Task`."""

    settings_class = WholeFilmSettings

    def evaluate(
        self, model: nn.Module, clips: ClipSet, split: str, accelerator: Accelerator
    ) -> Evaluation | None:
        """Look for every film by its captions, in every direction from text."""
        settings = self.test_settings
        inner: Any = getattr(model, "module", model)
        names = list(inner.modalities)
        ways = directions_from_text(names, inner.combinations)
        if not ways:
            raise ConfigError("the model compares no text with films; it has no combination t")
        embedded = embed_clips(model, clips, accelerator, settings.batch_size)
        films = [self._film_of(caption.video) for caption in embedded.items or ()]
        further = outside_of_captions(clips, settings.background_seconds)
        more: Embedded | None = None
        if further is not None:
            where = (accelerator, settings.batch_size)
            more = embed(model, further, *where, combinations=combinations_of(ways))
        if not accelerator.is_main_process:
            return None
        scored = _score(embedded, films, more, self._films_of(further), ways)
        result, scores = describe_whole_films(self.source, split, scored, settings)
        return Evaluation(result, scores)

    def _film_of(self, name: str) -> str:
        letters = self.test_settings.film_letters
        return name[:letters] if letters is not None else name

    def _films_of(self, clips: ClipSet | None) -> list[str]:
        return [] if clips is None else [self._film_of(c.video) for c in clips.captions]


def outside_of_captions(clips: ClipSet, length: float | None) -> Clips | None:
    """Cut all that is outside of captions into clips of at most so many seconds.

    Stretches shorter than a second are left out. None: there is none, or ``length`` is None.

    Raises:
        ConfigError: the clips are not of films whose features can be read elsewhere.
    """
    if length is None:
        return None
    if not isinstance(clips, Clips) or any(caption.is_whole for caption in clips.captions):
        raise ConfigError(
            "evaluation.background_seconds needs films; these data are clips that were cut before"
        )
    told: dict[str, list[tuple[float, float]]] = {}
    for caption in clips.captions:
        told.setdefault(caption.video, []).append((caption.start, caption.end))
    free: list[Caption] = []
    known = set(clips.reader.videos)
    for video in filter(known.__contains__, told):
        end, stretches = 0.0, []
        for start, stop in [*sorted(told[video]), (seconds_of(clips.reader, video), float("inf"))]:
            if start - end >= SHORTEST:
                stretches.append((end, start))
            end = max(end, stop)
        windows = [w for stretch in stretches for w in _windows(*stretch, length)]
        free += [Caption(video, *w, "") for w in windows if w[1] - w[0] >= SHORTEST]
    if not free:
        return None
    made = dataclasses.replace(clips, captions=free, text_encoder=None, texts=None)
    made.further, made.max_tokens = clips.further, clips.max_tokens
    return made


def _windows(start: float, stop: float, length: float) -> list[tuple[float, float]]:
    count = max(1, math.ceil((stop - start) / length - 1e-9))
    begins = [start + i * length for i in range(count)]
    return [(begin, min(begin + length, stop)) for begin in begins]


def _score(
    embedded: Embedded,
    films: Sequence[str],
    more: Embedded | None,
    further: Sequence[str],
    ways: Sequence[Direction],
) -> FilmScores:
    """Compare all captions with all clips."""
    names, numbers = np.unique([*films, *further], return_inverse=True)
    numbers = numbers.reshape(-1)
    clip_rows = embedded.one_per_clip(torch.arange(len(embedded.ids)))
    galleries = [_pick(embedded, clip_rows)] + ([] if more is None else [more])
    texts, known = embedded.embeddings[spell([CAPTION])], embedded.present[CAPTION]
    scores = {}
    for way in ways:
        parts = [score_windows(part, texts, known, [way])[str(way)].T for part in galleries]
        scores[str(way)] = np.concatenate(parts, axis=1)
    return FilmScores(
        films=[str(name) for name in names],
        captions=numbers[: len(films)],
        clips=np.concatenate([numbers[clip_rows.numpy()], numbers[len(films) :]]),
        known=known.numpy(),
        scores=scores,
        ids=embedded.ids,
        texts=[caption.text for caption in embedded.items or ()],
    )


def _pick(embedded: Embedded, rows: torch.Tensor) -> Embedded:
    places = rows.tolist()
    return Embedded(
        tuple(embedded.ids[place] for place in places),
        {c: values[rows] for c, values in embedded.embeddings.items()},
        {m: flags[rows] for m, flags in embedded.present.items()},
        similarity=embedded.similarity,
    )
