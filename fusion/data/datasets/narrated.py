"""Clips drawn at random from narrated videos, as published for HowTo100M.

Miech et al., arXiv:1906.03327; the audio shift is EAO's, arXiv:2112.04446.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.data.captions.index import CaptionStore
from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet, TextEncoder
from fusion.data.datasets.sampling import (
    Window,
    audio_window,
    field_tokens,
    random_window,
    video_tokens,
)
from fusion.data.features.problems import Unreadable
from fusion.data.features.readers import Reader
from fusion.data.media.log_mel import NUM_MELS, spectrogram_range, spectrogram_seconds

TRIES = 20  # attempts per clip: two windows in each of ten videos


@dataclasses.dataclass(eq=False, repr=False)
class NarratedClips(ClipSet):
    """Random clips of each video, other ones in each epoch.

    ``reader`` has the features of the ``videos``, ``store`` what is said in them, ``group`` is the
    number of clips of a video in an epoch; the other arguments are those of
    :class:`fusion.data.datasets.howto100m.HowTo100M`.

    An item is a dict of ``id`` and float32 features: ``text`` (L, D), ``video`` (L, D) and
    ``audio`` (L, 40). A modality that is not there, or cannot be read, has length 0; a warning
    names the file, once. A clip that has nothing at all, or is left out, is replaced by another of
    the same or of the next videos, so an epoch has as many steps as planned, on every process.
    """

    reader: Reader
    store: CaptionStore
    videos: Sequence[str]
    text_encoder: TextEncoder | None
    group: int = dataclasses.field()  # without the default of a ClipSet
    min_seconds: float
    max_video_tokens: int
    max_audio_frames: int
    shift_audio: bool
    bad: str
    max_bad: float

    def __post_init__(self) -> None:
        self._seed = 0
        self.unreadable = Unreadable(self.videos, list(self.reader.fields), self.max_bad)

    def __len__(self) -> int:
        """Number of clips in an epoch."""
        return len(self.videos) * self.group

    @functools.cached_property
    def captions(self) -> Sequence[Caption]:  # type: ignore[override]
        """What is said in each clip as it is drawn first."""
        captions = []
        for index in range(len(self)):
            video = self.videos[index // self.group]
            window = self._window(video, index, 0)
            captions.append(Caption(video, window.start, window.end, " ".join(window.words)))
        return captions

    def set_epoch(self, seed: int) -> None:
        """Draw other clips from now on, as the seed and the place in the epoch say."""
        self._seed = seed
        self.__dict__.pop("captions", None)  # those of other clips

    def end_epoch(self) -> None:
        """Report how much this process and its workers could not read so far."""
        self.unreadable.report()

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Draw a clip; ValueError if too many clips cannot be read."""
        problems: list[str] = []
        for attempt in range(TRIES):
            # Try this video twice, then the next ones.
            number = (index // self.group + attempt // 2) % len(self.videos)
            window = self._window(self.videos[number], index, attempt)
            before = len(problems)
            clip = self._clip(number, window, problems)
            left_out = self.bad == "leave_out" and len(problems) > before
            if not left_out and any(len(features) for features in clip.values()):
                self.unreadable.count(problems)
                return {"id": f"{self.videos[number]}@{window.start:.2f}#{index}", **clip}
        raise ValueError(
            f"{TRIES // 2} videos in a row, from {self.videos[index // self.group]!r} on, have"
            " neither text nor picture nor sound, or are left out; look at the warnings above"
        )

    def _window(self, video: str, index: int, attempt: int) -> Window:
        uniform = np.random.default_rng([self._seed, index, attempt]).random()
        said = self.store.captions(video_id(video)) if video_id(video) in self.store else []
        return random_window(said, self._duration(video), self.min_seconds, uniform)

    def _clip(self, number: int, window: Window, problems: list[str]) -> dict[str, Tensor]:
        """Cut a clip out of a video; add to ``problems`` what cannot be read."""

        def read(field: str, first: int, last: int | None) -> Tensor:
            video = self.videos[number]
            try:
                rows = self.reader.read(video, field, first, last)
                if rows.isfinite().all():
                    return rows
                problem = f"{field} of {video}: not finite in rows {first} to {last}"
            except ValueError as error:
                problem = str(error)
            problems.append(problem)
            self.unreadable.name(number, field, problem)
            width = NUM_MELS if field == "audio" else self.reader.fields[field].width
            return torch.zeros(0, width)

        heard = audio_window(window, self.min_seconds, shift=self.shift_audio)
        first, last = spectrogram_range(*heard)
        last = min(last, first + self.max_audio_frames)
        if not window.words:
            last = first + self.max_audio_frames  # as published: all that fits
        clip = {"text": self.text_encoder(" ".join(window.words))} if self.text_encoder else {}
        times, fields = (window.start, window.end), self.reader.fields
        clip["video"] = video_tokens(read, fields, *times, self.max_video_tokens)
        clip["audio"] = read("audio", first, last)
        known = [name for name in self.further if name in fields]
        clip |= {name: field_tokens(read, fields, name, *times) for name in known}
        return clip

    def _duration(self, video: str) -> float:
        """Return how many seconds a video has, by its sound, else by its pictures."""
        for field in ("audio", "3d", "2d"):
            if field not in self.reader.fields:
                continue
            try:
                rows = self.reader.rows(video, field)
            except ValueError:
                continue  # reported when it is read
            if rows and field == "audio":
                return spectrogram_seconds(rows)
            if rows:
                return rows / self.reader.fields[field].per_second
        return 0.0


def video_id(video: str) -> str:
    """Name a video as the captions do: without folders."""
    return video.rsplit("/", 1)[-1]
