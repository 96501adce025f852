"""The content of every film of the built-in corpus, drawn without rendering.

Random numbers are seeded by (version, split, film). So a film does not depend on the process or
the order in which it is rendered, and a small corpus is the beginning of the full one.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fusion.data.demo.sentences import ATTRIBUTES, write_sentence

VERSION = 2
FRAMES_PER_SECOND = 10

NUM_VIDEOS = {"train": 320, "validation": 36, "test": 72}
SPLITS = tuple(NUM_VIDEOS)
SCENES_PER_VIDEO = (6, 9, 7, 8)  # in turn
SCENE_FRAMES = (25, 35)

# Shares of all combinations of attributes that only one split may use; training has the rest.
RESERVED = {"test": 0.2, "validation": 0.1}

UNSAID = 0.02  # probability that a sentence leaves out an attribute
MISTIMED = 0.15  # probability that a sentence starts early or late, by up to:
MISTIMED_SECONDS = 1.0
BLACK, SILENT, UNNARRATED = 0.02, 0.02, 0.03  # shares of scenes, the last in training only
NUM_COMBINATIONS = math.prod(len(values) for values in ATTRIBUTES.values())
EVERY_WITHOUT_SOUND, EVERY_WITHOUT_PICTURE = 40, 60  # one in 40, 60 films lacks the stream


@dataclasses.dataclass(frozen=True)
class Scene:
    """One narrated scene."""

    values: dict[str, str]  # of each attribute
    num_frames: int
    caption_start: float  # seconds from the start of the film
    caption_end: float
    text: str  # empty without narration
    unsaid: tuple[str, ...]  # attributes that the text leaves out
    has_picture: bool  # false if it is black or the film has no video stream
    has_sound: bool  # false if it is silent or the film has no audio stream


@dataclasses.dataclass(frozen=True)
class Film:
    """One video file."""

    split: str
    index: int  # within the split
    scenes: tuple[Scene, ...]  # without gaps
    has_video_stream: bool
    has_audio_stream: bool

    @property
    def path(self) -> str:
        """Path within the corpus folder."""
        return f"videos/{self.split}_{self.index:04d}.mp4"


def combination(number: int) -> dict[str, str]:
    """Return the values of combination ``number``, which is in [0, ``NUM_COMBINATIONS``)."""
    chosen = {}
    for attribute, values in ATTRIBUTES.items():
        number, index = divmod(number, len(values))
        chosen[attribute] = values[index]
    return chosen


def film_generator(split: str, index: int, *stream: int) -> np.random.Generator:
    """Make the generator of a film, or of one ``stream`` (scene, purpose) within it."""
    return np.random.default_rng([VERSION, SPLITS.index(split), index, *stream])


def plan_corpus(size: int | None = None) -> list[Film]:
    """Draw all films: attributes, sentence and missing modalities of each scene.

    ``size`` is the number of training films; the other splits have as many, at most ``NUM_VIDEOS``.
    None: ``NUM_VIDEOS`` of each. Raises ValueError if there are not so many.
    """
    # Each split gets its own part of the combinations, in a random order.
    order = np.random.default_rng([VERSION]).permutation(NUM_COMBINATIONS).tolist()
    test = round(RESERVED["test"] * NUM_COMBINATIONS)
    rest = test + round(RESERVED["validation"] * NUM_COMBINATIONS)
    pools = {"train": order[rest:], "validation": order[test:rest], "test": order[:test]}
    most = 4 * len(pools["train"]) // sum(SCENES_PER_VIDEO)
    if size is not None and not 1 <= size <= most:
        raise ValueError(
            f"data.films is {size}; choose 1 to {most} films for training, or none for the whole"
            f" corpus ({NUM_VIDEOS['train']})"
        )
    films = []
    for split, numbers in pools.items():
        first, count = 0, NUM_VIDEOS[split]
        if size is not None:
            count = size if split == "train" else min(size, count)
        for index in range(count):
            last = first + SCENES_PER_VIDEO[index % len(SCENES_PER_VIDEO)]
            films.append(_plan_film(split, index, [combination(n) for n in numbers[first:last]]))
            first = last
    return films


def _plan_film(split: str, index: int, combinations: list[dict[str, str]]) -> Film:
    rng = film_generator(split, index)
    has_audio_stream = index % EVERY_WITHOUT_SOUND != 1
    has_video_stream = index % EVERY_WITHOUT_PICTURE != 2
    lengths = rng.integers(SCENE_FRAMES[0], SCENE_FRAMES[1] + 1, len(combinations)).tolist()
    scenes = []
    for number, values in enumerate(combinations):
        draw = rng.random()  # at most one of three is missing
        black, silent = draw < BLACK, BLACK <= draw < BLACK + SILENT
        unnarrated = split == "train" and BLACK + SILENT <= draw < BLACK + SILENT + UNNARRATED
        unsaid = tuple(a for a in ATTRIBUTES if rng.random() < UNSAID)
        text = write_sentence(values, unsaid, rng)
        start, end = _draw_window(sum(lengths[:number]), lengths[number], sum(lengths), rng)
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
            )
        )
    return Film(split, index, tuple(scenes), has_video_stream, has_audio_stream)


def _draw_window(
    start: int, length: int, total: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Draw when the sentence about a scene starts and ends, in seconds; numbers are frames."""
    mistimed = rng.random() < MISTIMED
    shift = MISTIMED_SECONDS * (2 * rng.random() - 1) if mistimed else 0.0
    first = max(0.0, start / FRAMES_PER_SECOND + shift)
    last = min(total / FRAMES_PER_SECOND, (start + length) / FRAMES_PER_SECOND + shift)
    return round(first, 2), round(last, 2)
