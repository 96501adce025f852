"""Clips drawn at random from narrated videos, as published for HowTo100M.

Miech et al., arXiv:1906.03327; the audio shift is EAO's, arXiv:2112.04446.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fusion.data.captions.index import CaptionStore
from fusion.data.captions.table import Caption
from fusion.data.datasets.source import ClipSet
from fusion.data.datasets.unreadable import Unreadable
from fusion.data.datasets.video_tokens import fit_video_tokens
from fusion.data.datasets.windows import Window, audio_window, feature_range, random_window
from fusion.data.features.readers import Reader
from fusion.data.media.log_mel import NUM_MELS, spectrogram_range, spectrogram_seconds

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
        max_video_tokens: see :func:`fusion.data.datasets.video_tokens.fit_video_tokens`.
        max_audio_frames: later ones of a clip are cut off; 100 are a second.
        shift_audio: take the sound half of ``min_seconds`` later than the text, see
            :func:`fusion.data.datasets.windows.audio_window`.
        bad: what becomes of a clip with features that cannot be read: ``missing``, it goes without
            them, or ``leave_out``, another one is drawn in its place.
        max_bad: the share of clips that may have such features.

    Attributes:
        captions: of each clip as it is drawn first, made when they are asked for.
        folder: None; there are no media files.
        group: clips that stay together.

    Each item is a dict of ``id``, ``text`` (L, D), ``video`` (L, D) and ``audio`` (L, 40) in
    float32. A modality that cannot be read, or is not there, has length 0; a warning names the
    file, once. A clip that has nothing at all, or is left out, is replaced by another of the same
    or of the next videos, so an epoch has as many steps as planned, on every process.
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
        bad: str = "missing",
        max_bad: float = 0.05,
    ) -> None:
        self.reader, self.store, self.videos = reader, captions, videos
        self.text_encoder, self.group = text_encoder, clips_per_video
        self.min_seconds, self.shift_audio, self.bad = min_seconds, shift_audio, bad
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.captions, self.folder, self._seed = _Captions(self), None, 0
        self.unreadable = Unreadable(videos, list(reader.fields), max_bad)

    def draw_anew(self, seed: int) -> None:
        """Draw other clips from now on, as the seed and the place in the epoch say."""
        self._seed = seed

    def end_epoch(self) -> None:
        """Say how much could not be read so far, by this process and its workers."""
        self.unreadable.report()

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Draw a clip.

        Raises:
            ValueError: too many clips cannot be read.
        """
        problems: list[str] = []
        for attempt in range(TRIES):
            # The same video first; then, if it is of no use, its neighbours.
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
        return random_window(said, self._seconds(video), self.min_seconds, uniform)

    def _clip(self, number: int, window: Window, problems: list[str]) -> dict[str, Tensor]:
        """Cut a clip out of a video; add to ``problems`` what cannot be read."""
        frames = spectrogram_range(*audio_window(window, self.min_seconds, shift=self.shift_audio))
        last = min(frames[1], frames[0] + self.max_audio_frames)
        if not window.words:
            last = frames[0] + self.max_audio_frames  # as published: all that fits
        return {
            "text": self.text_encoder(" ".join(window.words)),
            "video": self._video(number, window, problems),
            "audio": self._read(number, "audio", frames[0], last, problems),
        }

    def _video(self, number: int, window: Window, problems: list[str]) -> Tensor:
        kinds = {
            name: self._read(
                number,
                name,
                *feature_range(
                    window.start, window.end, self.reader.fields[name].per_second, accurate=False
                ),
                problems,
            )
            for name in ("2d", "3d")
            if name in self.reader.fields
        }
        return fit_video_tokens(kinds.get("2d"), kinds.get("3d"), self.max_video_tokens)

    def _read(self, number: int, field: str, first: int, last: int, problems: list[str]) -> Tensor:
        video = self.videos[number]
        try:
            rows = self.reader.read(video, field, first, last).float()
            if rows.isfinite().all():
                return rows
            problem = f"{field} of {video}: not finite in rows {first} to {last}"
        except ValueError as error:
            problem = str(error)
        problems.append(problem)
        self.unreadable.name(number, field, problem)
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
