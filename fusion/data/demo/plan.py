"""The content of every film of the built-in corpus, drawn without rendering.

Random numbers are seeded by (version, split, film). So a film does not depend on the process or
the order in which it is rendered, and a small corpus is the beginning of the full one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fusion.data.demo.sentences import ATTRIBUTES, AUDIBLE, VISIBLE, write_sentence

FRAMES_PER_SECOND = 10
SPLITS = ("train", "validation", "test")

UNSAID = 0.02  # probability that a sentence leaves out an attribute
BLACK, SILENT, UNNARRATED = 0.02, 0.02, 0.03  # shares of scenes, the last in training only
EVERY_WITHOUT_SOUND, EVERY_WITHOUT_PICTURE = 40, 60  # one in 40, 60 films lacks the stream
NUM_THINGS, NUM_TUNES = (math.prod(map(len, some.values())) for some in (VISIBLE, AUDIBLE))
NUM_COMBINATIONS = NUM_THINGS * NUM_TUNES


@dataclasses.dataclass(frozen=True)
class Shot:
    """What a scene shows without a cut."""

    values: Mapping[str, str]  # of each visible attribute
    num_frames: int
    place: str = ""  # where the camera stands; empty: nowhere in particular


@dataclasses.dataclass(frozen=True)
class Scene:
    """One narrated scene."""

    values: Mapping[str, str]  # of each attribute that the sentence is about
    num_frames: int
    caption_start: float  # seconds from the start of the film
    caption_end: float
    text: str  # empty without narration
    unsaid: tuple[str, ...]  # attributes that the text leaves out
    has_picture: bool  # false if it is black or the film has no video stream
    has_sound: bool  # false if it is silent or the film has no audio stream
    shots: tuple[Shot, ...]  # in turn; the sentence is about one of them
    place: str = ""  # where the sound was recorded; empty: nowhere in particular
    says_place: bool = False  # whether the text does


@dataclasses.dataclass(frozen=True)
class Film:
    """One video file."""

    version: int  # of the corpus
    split: str
    index: int  # within the split
    scenes: tuple[Scene, ...]  # without gaps
    has_video_stream: bool
    has_audio_stream: bool

    @property
    def path(self) -> str:
        """Path within the corpus folder."""
        return f"videos/{self.split}_{self.index:04d}.mp4"

    def generator(self, *stream: int) -> np.random.Generator:
        """Make the generator of the film, or of one ``stream`` (scene, purpose) within it."""
        return film_generator(self.version, self.split, self.index, *stream)


def film_generator(version: int, split: str, index: int, *stream: int) -> np.random.Generator:
    """Make the generator of a film, or of one ``stream`` within it."""
    return np.random.default_rng([version, SPLITS.index(split), index, *stream])


def combination(number: int) -> dict[str, str]:
    """Return the values of combination ``number``, which is in [0, ``NUM_COMBINATIONS``)."""
    chosen = {}
    for attribute, values in ATTRIBUTES.items():
        number, index = divmod(number, len(values))
        chosen[attribute] = values[index]
    return chosen


def combination_of(thing: int, tune: int) -> dict[str, str]:
    """Return the values of one of all things that can be seen, and of one of all tunes."""
    return combination(thing + NUM_THINGS * tune)


def seen_of(values: Mapping[str, str]) -> dict[str, str]:
    """Keep the visible attributes."""
    return {attribute: values[attribute] for attribute in VISIBLE}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of one version of the corpus."""

    version: int
    films: Mapping[str, int]  # of each split
    most_films: int  # for training
    scene_frames: tuple[int, int]  # fewest and most
    mistimed: float  # probability that a sentence starts early or late, by up to:
    mistimed_seconds: float

    def sizes(self, size: int | None) -> dict[str, int]:
        """Return how many films each split has.

        ``size`` is the number of training films; the other splits have as many, at most ``films``.
        None: ``films`` of each. ValueError: it is not 1 to ``most_films``.
        """
        if size is None:
            return dict(self.films)
        if not 1 <= size <= self.most_films:
            raise ValueError(
                f"data.films is {size}; choose 1 to {self.most_films} films for training, or none"
                f" for the whole corpus ({self.films['train']})"
            )
        return {s: size if s == "train" else min(size, n) for s, n in self.films.items()}


def narrate(
    recipe: Recipe, split: str, index: int, contents: Sequence[Mapping[str, str]]
) -> tuple[Film, np.random.Generator]:
    """Draw a film whose scenes have these attributes: lengths, sentences, what is missing.

    Returns:
        The film, with one shot in each scene, and the generator that goes on.
    """
    rng = film_generator(recipe.version, split, index)
    has_audio_stream = index % EVERY_WITHOUT_SOUND != 1
    has_video_stream = index % EVERY_WITHOUT_PICTURE != 2
    low, high = recipe.scene_frames
    lengths = rng.integers(low, high + 1, len(contents)).tolist()
    scenes = []
    for number, values in enumerate(contents):
        draw = rng.random()  # at most one of three is missing
        black, silent = draw < BLACK, BLACK <= draw < BLACK + SILENT
        unnarrated = split == "train" and BLACK + SILENT <= draw < BLACK + SILENT + UNNARRATED
        unsaid = tuple(a for a in ATTRIBUTES if rng.random() < UNSAID)
        text = write_sentence(values, unsaid, rng)
        place = (sum(lengths[:number]), lengths[number], sum(lengths))
        start, end = _draw_window(recipe, *place, rng)
        scenes.append(
            Scene(
                values=values,
                num_frames=lengths[number],
                caption_start=start,
                caption_end=end,
                text="" if unnarrated else text,
                unsaid=tuple(ATTRIBUTES) if unnarrated else unsaid,
                has_picture=has_video_stream and not black,
                has_sound=has_audio_stream and not silent,
                shots=(Shot(seen_of(values), lengths[number]),),
            )
        )
    streams = has_video_stream, has_audio_stream
    return Film(recipe.version, split, index, tuple(scenes), *streams), rng


def _draw_window(
    recipe: Recipe, start: int, length: int, total: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Draw when the sentence about a scene starts and ends, in seconds; numbers are frames."""
    late = rng.random() < recipe.mistimed
    shift = recipe.mistimed_seconds * (2 * rng.random() - 1) if late else 0.0
    first = max(0.0, start / FRAMES_PER_SECOND + shift)
    last = min(total / FRAMES_PER_SECOND, (start + length) / FRAMES_PER_SECOND + shift)
    return round(first, 2), round(last, 2)
