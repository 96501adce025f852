"""The content of every film of the built-in corpus, drawn without rendering.

Random numbers are seeded by (version, split, film). So a film does not depend on the process or
the order in which it is rendered, and a small corpus is the beginning of the full one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fusion.data.demo.attributes import ATTRIBUTES, NUM_COMBINATIONS, combination
from fusion.data.demo.sentences import write_sentence

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
EVERY_WITHOUT_SOUND, EVERY_WITHOUT_PICTURE = 40, 60  # one in 40, 60 films lacks the stream


@dataclasses.dataclass(frozen=True)
class Scene:
    """One narrated scene.

    Attributes:
        values: the value of each attribute.
        num_frames: its length, in frames of 1 / ``FRAMES_PER_SECOND`` seconds.
        caption_start: where its sentence starts, in seconds from the start of the film.
        caption_end: where its sentence ends.
        text: its sentence, empty without narration.
        unsaid: attributes that the sentence leaves out.
        has_picture: false if the picture is black or the film has none.
        has_sound: false if it is silent or the film has no sound.
    """

    values: dict[str, str]
    num_frames: int
    caption_start: float
    caption_end: float
    text: str
    unsaid: tuple[str, ...]
    has_picture: bool
    has_sound: bool


@dataclasses.dataclass(frozen=True)
class Film:
    """One video file.

    Attributes:
        split: one of ``SPLITS``.
        index: its number within the split.
        scenes: in order, without gaps.
        has_video_stream: false if the file has no picture at all.
        has_audio_stream: false if the file has no sound at all.
    """

    split: str
    index: int
    scenes: tuple[Scene, ...]
    has_video_stream: bool
    has_audio_stream: bool

    @property
    def path(self) -> str:
        """Path within the corpus folder."""
        return f"videos/{self.split}_{self.index:04d}.mp4"


def film_generator(split: str, index: int, *stream: int) -> np.random.Generator:
    """Make the generator of a film, or of one ``stream`` (scene, purpose) within it."""
    return np.random.default_rng([VERSION, SPLITS.index(split), index, *stream])


def plan_corpus(size: int | None = None) -> list[Film]:
    """Draw all films: attributes, sentence and missing modalities of each scene.

    Args:
        size: films for training; the other splits have as many, but no more than ``NUM_VIDEOS``.
            ``NUM_VIDEOS`` of each if None.

    Raises:
        ValueError: ``size`` is not a possible number of films.
    """
    pools = _pools()
    most = 4 * len(pools["train"]) // sum(SCENES_PER_VIDEO)
    if size is not None and not 1 <= size <= most:
        raise ValueError(
            f"films is {size}; choose 1 to {most} films for training, or none for the whole corpus"
            f" ({NUM_VIDEOS['train']})"
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


def _pools() -> dict[str, list[int]]:
    """Divide the combinations of attributes among the splits, each in a random order."""
    order = np.random.default_rng([VERSION]).permutation(NUM_COMBINATIONS).tolist()
    test = round(RESERVED["test"] * NUM_COMBINATIONS)
    validation = test + round(RESERVED["validation"] * NUM_COMBINATIONS)
    return {
        "train": order[validation:],
        "validation": order[test:validation],
        "test": order[:test],
    }


def _plan_film(split: str, index: int, combinations: list[dict[str, str]]) -> Film:
    rng = film_generator(split, index)
    has_audio_stream = index % EVERY_WITHOUT_SOUND != 1
    has_video_stream = index % EVERY_WITHOUT_PICTURE != 2
    lengths = rng.integers(SCENE_FRAMES[0], SCENE_FRAMES[1] + 1, len(combinations)).tolist()
    scenes = []
    for number, values in enumerate(combinations):
        black, silent, unnarrated = _draw_missing(split, rng)
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


def _draw_missing(split: str, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Draw whether a scene is black, silent, without narration; at most one of them."""
    draw = rng.random()
    black = draw < BLACK
    silent = not black and draw < BLACK + SILENT
    unnarrated = not black and not silent and draw < BLACK + SILENT + UNNARRATED
    return black, silent, unnarrated and split == "train"


def _draw_window(
    start: int, length: int, total: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Draw when the sentence about a scene starts and ends, in seconds; numbers are frames."""
    shift = 0.0
    if rng.random() < MISTIMED:
        shift = MISTIMED_SECONDS * (2 * rng.random() - 1)
    first = max(0.0, start / FRAMES_PER_SECOND + shift)
    last = min(total / FRAMES_PER_SECOND, (start + length) / FRAMES_PER_SECOND + shift)
    return round(first, 2), round(last, 2)
