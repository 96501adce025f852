"""Clips with the frames of their films, for a model that is trained from pixels.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusion.data.datasets.dataset import ChangedClips, ClipSet
from fusion.data.features.problems import name_some, tolerate
from fusion.data.labelled.cache import NO_PICTURE, FrameCache, list_problems, part_of
from fusion.data.labelled.film import LabelledFilm, frame_size
from fusion.data.labelled.frame_sampling import uniform_test, uniform_train
from fusion.data.media.shown import VERSION, Size

KEY = "raw_video"  # of the section data


@dataclasses.dataclass(frozen=True)
class RawVideo:
    """Which frames a clip has.

    Args:
        frames: T: the clip is cut into so many segments. In training a frame is drawn of each, anew
            in each epoch; otherwise it is the middle one (TSN, arXiv:1608.00859).
        frame_size: pixels; the shorter side is scaled to it and the middle square cut out. Or
            ``[height, width]``: frames are stretched to it.
        modality: which they are for the model: ``video``, instead of the features of the data; or
            another name, beside them.
        max_bad: the share of clips whose frames may be unreadable.

    Raises:
        ValueError: a setting has no possible value.
    """

    frames: int = 8
    frame_size: int | list[int] = 64
    modality: str = "video"
    max_bad: float = 0.05

    def __post_init__(self) -> None:
        frame_size(f"data.{KEY}.frame_size", self.frame_size)
        if self.frames < 1:
            raise ValueError(f"data.{KEY}.frames must be at least 1; got {self.frames}")
        if not self.modality or self.modality in ("text", "audio"):
            raise ValueError(
                f"data.{KEY}.modality is {self.modality!r}; frames can be video, or a modality with"
                " a name of its own, such as frames"
            )

    @property
    def size(self) -> Size:
        """The size of the frames."""
        return frame_size(f"data.{KEY}.frame_size", self.frame_size)

    def recipe(self) -> dict[str, Any]:
        """Say how the frames of a clip are chosen and scaled, ready for JSON."""
        size = self.frame_size if isinstance(self.frame_size, int) else list(self.frame_size)
        made = {"frames": self.frames, "frame_size": size, "version": VERSION}
        return made | ({} if self.modality == "video" else {"modality": self.modality})


class WithFrames(ChangedClips):
    """Clips with a further modality, or another one: (T, 3, H, W) uint8 RGB frames.

    All frames of the clips are decoded once and kept in the cache, see :class:`.FrameCache`. A clip
    whose film cannot be read, or has no picture, has 0 frames. ``data.random_crop_seconds`` does
    not change the frames, as they are drawn anyway.

    Raises:
        ValueError: there are no media files, or too many clips cannot be read.
    """

    def __init__(self, clips: ClipSet, settings: RawVideo) -> None:
        super().__init__(clips)
        if clips.folder is None:
            raise ValueError(f"data.{KEY} needs films, and these data are features without them")
        self.settings = settings
        self.films = [
            LabelledFilm(str(number), c.video, "", c.start, None if math.isinf(c.end) else c.end)
            for number, c in enumerate(clips.captions)
        ]
        self.cache = FrameCache(clips.folder, self.films, settings.size)
        # A film of sound alone is no mistake: its clips lack the modality.
        problems = {p: why for p, why in self.cache.problems.items() if why != NO_PICTURE}
        if problems:
            number = sum(part_of(film) in problems for film in self.films)
            named = name_some(list_problems(problems), "; ")
            said = f"the frames of {number} of {len(self.films)} clips cannot be read ({named})"
            tolerate(said, number / len(self.films), "missing", settings.max_bad)
        self._seed: int | None = None

    def set_epoch(self, seed: int) -> None:
        """Draw the frames at random from now on, by the seed and the clip."""
        super().set_epoch(seed)
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an item and its frames."""
        item = self.clips[index]
        number = index if self.whole is None else self.whole[index]
        frames = torch.from_numpy(self._frames(number)).movedim(-1, 1).contiguous()
        return item | {self.settings.modality: frames}

    def _frames(self, number: int) -> NDArray[np.uint8]:
        kept, count = self.cache.read(self.films[number]), self.settings.frames
        if not len(kept):
            return kept.copy()
        if self._seed is None or len(kept) < count:
            return kept[uniform_test(len(kept), count)]
        stream = zlib.crc32(f"{KEY}.{number}".encode())
        draw = np.random.default_rng([self._seed % 2**63, stream])
        return kept[uniform_train(len(kept), count, draw)]
