"""The films of the built-in corpus with steps: the sentences about their scenes, in order.

Every film of the test is narrated throughout, so the sentences of some scenes are left out: these
scenes are its background.

Shapes: K steps of a film, N scenes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions.match import Ways
from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import SPLITS
from fusion.data.demo import VERSION, demo_corpus
from fusion.data.demo.perceiver import perceive
from fusion.data.demo.plan import Film
from fusion.data.demo.versions import plan_corpus
from fusion.data.features.problems import MAX_BAD
from fusion.data.steps.annotation import Notes, StepCaption, StepError
from fusion.data.steps.films import StepVideos
from fusion.modalities import Direction

STREAM = 20_000  # of random numbers of a film that nothing else has
BACKGROUND = 3  # scenes of a film


class Perceived(NamedTuple):
    """What a perfect perceiver knows of a film with K steps and N scenes."""

    alone: NDArray[np.float64]  # (K, N): how likely each step is each scene
    in_order: NDArray[np.float64]  # the same, knowing that steps are in order
    scenes: tuple[tuple[float, float], ...]  # from when to when each is told about
    right: tuple[int, ...]  # the scene of each step


@dataclasses.dataclass(eq=False)
class DemoSteps(StepVideos):
    """See :func:`demo_steps`; ``films`` by split, and which of their scenes are steps."""

    planned: Mapping[str, Sequence[tuple[Film, tuple[int, ...]]]] = dataclasses.field(
        default_factory=dict
    )

    def _read_all(
        self,
        place: Path,
        videos: Collection[str],
        max_bad: float = MAX_BAD,
        ways: Ways = lambda name: (),
    ) -> list[Caption]:
        self._notes[place] = Notes()
        captions: list[Caption] = []
        for film, kept in self.planned[place.stem]:
            steps = tuple(film.scenes[i].text for i in kept)
            for number, scene in enumerate(film.scenes[i] for i in kept):
                times = scene.caption_start, scene.caption_end
                captions.append(StepCaption(film.path, *times, scene.text, number, steps))
        return captions

    def describe(self, split: str) -> str:
        """Say what the films of a split are."""
        films = self.planned[split]
        scenes, steps = len(films[0][0].scenes), len(films[0][1])
        rest = f"{scenes - steps} of {scenes} scenes of a film are background"
        return f"{super().describe(split)}, {rest}"

    def perceived(self, split: str, way: Direction) -> dict[str, Perceived]:
        """Say by film what a perfect perceiver knows, see :func:`perceive_film`."""
        return {film.path: perceive_film(film, kept, way) for film, kept in self.planned[split]}


def demo_steps(
    background: int = BACKGROUND,
    films: int | None = None,
    version: int = VERSION,
    before: float = 1.0,
    after: float = 2.0,
    step: float = 1.0,
    pictures: str = "window",
    max_video_tokens: int = 12,
    max_audio_frames: int = 256,
) -> DemoSteps:
    """Open the built-in corpus as films with steps; render it on first use.

    The steps of a film are the sentences about its scenes, except for ``background`` scenes drawn
    at random. ``films`` and ``version`` are those of :func:`fusion.data.datasets.demo.demo`,
    ``before``, ``after``, ``step`` and ``pictures`` those of :class:`.windows.Windows`.

    Raises:
        StepError: films have no more scenes than ``background``.
    """
    folder = demo_corpus(size=films, version=version)
    planned: dict[str, list[tuple[Film, tuple[int, ...]]]] = {split: [] for split in SPLITS[1:]}
    for film in plan_corpus(films, version):
        if film.split in planned:
            told = [i for i, scene in enumerate(film.scenes) if scene.text]
            if not 0 <= background < len(told):
                raise StepError(
                    f"data.background is {background}; a film has {len(told)} scenes, of which at"
                    " least one is a step"
                )
            left = film.generator(STREAM).permutation(told)[background:]
            planned[film.split].append((film, tuple(sorted(left.tolist()))))
    files: dict[str, Any] = {split: str(folder / f"{split}.csv") for split in planned}
    windows: dict[str, Any] = {"before": before, "after": after, "step": step}
    lengths: dict[str, Any] = {
        "max_video_tokens": max_video_tokens,
        "max_audio_frames": max_audio_frames,
    }
    # With ceilings it is known as the built-in corpus, whose films are cut on purpose.
    more: dict[str, Any] = {"ceilings": str(folder / "ceilings.json"), "planned": planned}
    return DemoSteps(**files, **windows, **lengths, **more, pictures=pictures)


def perceive_film(film: Film, steps: Sequence[int], way: Direction) -> Perceived:
    """Compute how likely each step is each scene, for a perfect perceiver.

    It perceives all that a scene shows or plays, and knows the cuts between scenes, but not which
    scenes are background. It knows how likely a sentence and a scene are of one scene rather than
    of two, see :mod:`fusion.data.demo.perceiver`. Without order, a step is any of the scenes, each
    as likely before anything is seen. With order, all ordered choices of scenes are as likely.

    Args:
        film: of the corpus.
        steps: numbers of its scenes that are steps, K of N.
        way: from what to what; of a late average the ratios are multiplied.
    """
    shown = perceive(film.scenes)
    pairs = itertools.product(way.query, way.gallery)
    ratios = np.prod([shown.likelihood_ratios(q, g) for q, g in pairs], axis=0)[list(steps)]
    orders = np.array(list(itertools.combinations(range(len(film.scenes)), len(steps))))
    weights = ratios[np.arange(len(steps)), orders].prod(axis=1)
    in_order = np.zeros(ratios.shape)
    np.add.at(in_order, (np.arange(len(steps))[None, :], orders), weights[:, None])
    scenes = tuple((scene.caption_start, scene.caption_end) for scene in film.scenes)
    return Perceived(_shares(ratios), _shares(in_order), scenes, tuple(steps))


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.sum(axis=1, keepdims=True)
    even = np.full(weights.shape, 1 / weights.shape[1])
    shares: NDArray[np.float64] = np.where(total > 0, weights / np.maximum(total, 1e-300), even)
    return shares
