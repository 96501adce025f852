"""Clips drawn at random from narrated videos, as published for HowTo100M.

Miech et al., arXiv:1906.03327; the audio shift is EAO's, arXiv:2112.04446.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fusion.data.caption_store import CaptionStore
from fusion.data.captions import Caption
from fusion.data.readers import Reader
from fusion.data.source import ClipSet
from fusion.data.spectrogram import NUM_MELS
from fusion.data.video_tokens import fit_video_tokens
from fusion.data.windows import (
    Window,
    audio_window,
    feature_range,
    random_window,
    spectrogram_range,
    spectrogram_seconds,
)

logger = logging.getLogger(__name__)

TRIES = 20  # windows, then videos, until one has anything at all


class NarratedClips(ClipSet):
    """Some clips of each video, drawn anew for each epoch.

    Args:
        reader: features of the videos.
        captions: what is said in them.
        videos: those to take.
        text_encoder: maps a sentence to (L, D) features.
        clips_per_video: how many of each; they are neighbours and stay together in a batch.
        min_seconds: the least duration of a clip.
        max_video_tokens: see :func:`fusion.data.video_tokens.fit_video_tokens`.
        max_audio_frames: later ones of a clip are cut off; 100 are a second.
        shift_audio: take the sound half of ``min_seconds`` later than the text, see
            :func:`fusion.data.windows.audio_window`.
        max_bad: the share of videos that may have features that cannot be read.

    Attributes:
        captions: of each clip, made when they are asked for.
        folder: None; there are no media files.
        group: clips that stay together.

    Each item is a dict of ``id``, ``text`` (L, D), ``video`` (L, D) and ``audio`` (L, 40) in
    float32. A modality that cannot be read, or is not there, has length 0; a warning names it. A
    clip that has nothing at all is replaced by another, so an epoch has as many steps as planned.
    """

    def __init__(
        self,
        reader: Reader,
        captions: CaptionStore,
        videos: Sequence[str],
        text_encoder: Callable[[str], Tensor],
        clips_per_video: int = 10,
        min_seconds: float = 8.0,
        max_video_tokens: int = 12,
        max_audio_frames: int = 768,
        shift_audio: bool = True,
        max_bad: float = 0.05,
    ) -> None:
        self.reader, self.store, self.videos = reader, captions, videos
        self.text_encoder, self.group = text_encoder, clips_per_video
        self.min_seconds, self.shift_audio, self.max_bad = min_seconds, shift_audio, max_bad
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.captions, self.folder, self._seed = _Captions(self), None, 0
        # Videos that were asked for and those with a problem, over all processes that load data.
        self._counts = torch.zeros(2, dtype=torch.int64).share_memory_()

    def draw_anew(self, seed: int) -> None:
        """Draw other clips from now on, as the seed and the place in the epoch say."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Draw a clip.

        Raises:
            ValueError: too many videos cannot be read.
        """
        self._counts[0] += 1
        for attempt in range(TRIES):
            # The same video first; then, if it is of no use, its neighbours.
            video = self.videos[(index // self.group + attempt // 2) % len(self.videos)]
            window = self._window(video, index, attempt)
            clip = self._clip(video, window)
            if any(len(clip[name]) for name in ("text", "video", "audio")):
                return {"id": f"{video}@{window.start:.2f}#{index}", **clip}
        raise ValueError(
            f"{TRIES // 2} videos in a row, from {self.videos[index // self.group]!r} on, have"
            " neither text nor picture nor sound; look at the warnings above"
        )

    def _window(self, video: str, index: int, attempt: int) -> Window:
        uniform = np.random.default_rng([self._seed, index, attempt]).random()
        said = self.store.captions(video_id(video)) if video_id(video) in self.store else []
        return random_window(said, self._seconds(video), self.min_seconds, uniform)

    def _clip(self, video: str, window: Window) -> dict[str, Tensor]:
        frames = spectrogram_range(*audio_window(window, self.min_seconds, shift=self.shift_audio))
        last = min(frames[1], frames[0] + self.max_audio_frames)
        if not window.words:
            last = frames[0] + self.max_audio_frames  # as published: all that fits
        return {
            "text": self.text_encoder(" ".join(window.words)),
            "video": self._video(video, window),
            "audio": self._read(video, "audio", frames[0], last),
        }

    def _video(self, video: str, window: Window) -> Tensor:
        kinds = {
            name: self._read(
                video,
                name,
                *feature_range(
                    window.start, window.end, self.reader.fields[name].per_second, accurate=False
                ),
            )
            for name in ("2d", "3d")
            if name in self.reader.fields
        }
        return fit_video_tokens(kinds.get("2d"), kinds.get("3d"), self.max_video_tokens)

    def _read(self, video: str, field: str, first: int, last: int) -> Tensor:
        try:
            rows = self.reader.read(video, field, first, last).float()
            if rows.isfinite().all():
                return rows
            problem = f"{field} of {video}: not finite in rows {first} to {last}"
        except ValueError as error:
            problem = str(error)
        self._note(problem)
        width = NUM_MELS if field == "audio" else self.reader.fields[field].width
        return torch.zeros(0, width)

    def _seconds(self, video: str) -> float:
        """Return how long a video is, by its sound, else by its pictures."""
        for field in ("audio", "3d", "2d"):
            if field not in self.reader.fields:
                continue
            try:
                rows = self.reader.rows(video, field)
            except ValueError:
                continue  # whoever reads it says so
            if rows and field == "audio":
                return spectrogram_seconds(rows)
            if rows:
                return rows / self.reader.fields[field].per_second
        return 0.0

    def _note(self, problem: str) -> None:
        self._counts[1] += 1
        asked, bad = self._counts.tolist()
        if bad <= 20:
            logger.warning("%s; taken as missing", problem)
        if asked >= 1000 and bad > self.max_bad * asked:
            raise ValueError(
                f"{bad} times in {asked} clips features could not be read, the last time {problem};"
                f" that is more than data.max_bad ({self.max_bad:g}) allows"
            )


class _Captions(Sequence[Caption]):
    """What each clip is about, drawn like the clip itself."""

    def __init__(self, clips: NarratedClips) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips.videos) * self.clips.group

    @overload
    def __getitem__(self, index: int) -> Caption: ...
    @overload
    def __getitem__(self, index: slice) -> list[Caption]: ...
    def __getitem__(self, index: int | slice) -> Caption | list[Caption]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        video = self.clips.videos[index // self.clips.group]
        window = self.clips._window(video, index, 0)
        return Caption(video, window.start, window.end, " ".join(window.words))


def video_id(video: str) -> str:
    """Name a video as the captions do: without folders."""
    return video.rsplit("/", 1)[-1]
