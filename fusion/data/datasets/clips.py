"""Clips of captioned videos: what a data set gives to a model."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.datasets.source import ClipSet
from fusion.data.datasets.video_tokens import check_finite, fit_video_tokens
from fusion.data.datasets.windows import feature_range
from fusion.data.features.readers import Reader, seconds_of
from fusion.data.media.log_mel import NUM_MELS, spectrogram_range

TextEncoder = Callable[[str], Tensor]


class Clips(ClipSet):
    """The captions of one split and what is seen and heard while they last.

    Args:
        folder: what the names of the videos are relative to; None if there are no media files.
        captions: one for each clip; an empty text means that there is no narration. One about a
            whole video ends, in ``self.captions``, where the features of the video end.
        reader: features of the videos; a clip of one that it lacks has neither video nor audio.
        text_encoder: maps a sentence to (L, D) features.
        max_video_tokens: later ones of a clip are cut off.
        max_audio_frames: later ones of a clip are cut off; 100 frames are a second.
        random_crop_seconds: once :meth:`draw_anew` was called, a clip loses at random up to so much
            of its beginning and of its end, at most a quarter of its length each.
        group_captions: make one clip of the captions of one video and window, with the first text;
            once :meth:`draw_anew` was called, with one of them at random.
        each_alone: count captions of one video and window as clips of their own, see ``shows``.

    Each item is a dict of ``id`` and float32 features; a modality that the clip lacks has length 0:
        ``text``: (L, D), one row per known word.
        ``video``: (L, D), one row per 3D feature, see :func:`fit_video_tokens`.
        ``audio``: (L, 40), one row per spectrogram frame.

    A clip that begins after the end of its video has neither video nor audio. Features that are not
    finite are refused when the clip is asked for.
    """

    def __init__(
        self,
        folder: Path | None,
        captions: Sequence[Caption],
        reader: Reader,
        text_encoder: TextEncoder,
        max_video_tokens: int,
        max_audio_frames: int,
        random_crop_seconds: float = 0.0,
        group_captions: bool = False,
        each_alone: bool = False,
    ) -> None:
        self.each_alone = each_alone
        self.random_crop_seconds = random_crop_seconds
        self._seed: int | None = None
        self.folder, self.reader, self.text_encoder = folder, reader, text_encoder
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self._texts: list[list[str]] | None = None
        if group_captions:
            captions, self._texts = _group(captions)
        self.ids = _unique_ids(captions)
        self._whole = [caption.is_whole for caption in captions]
        videos = dict.fromkeys(caption.video for caption in captions)
        self._absent = {video for video in videos if video not in reader.videos}
        seconds = {v: 0.0 if v in self._absent else seconds_of(reader, v) for v in videos}
        self.captions = [
            dataclasses.replace(c, end=seconds[c.video]) if c.is_whole else c for c in captions
        ]

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip."""
        return range(len(self.captions)) if self.each_alone else super().shows

    def draw_anew(self, seed: int) -> None:
        """Crop each clip at random from now on, as the seed and the clip say."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Cut one clip out of the features of its video."""
        caption, name = self.captions[index], self.ids[index]
        window = self._window(index)
        features = {
            "text": self.text_encoder(self._text(index)),
            "video": fit_video_tokens(
                self._rows(caption.video, "2d", *window),
                self._rows(caption.video, "3d", *window),
                self.max_video_tokens,
            ),
            "audio": self._audio(caption.video, *window),
        }
        for modality, values in features.items():
            check_finite(values, f"{modality} of clip {name}")
        return {"id": name, **features}

    def _text(self, index: int) -> str:
        if self._texts is None or self._seed is None:
            return self.captions[index].text
        texts = self._texts[index]
        # Another stream than that of the crops, so that text and window do not go together.
        return texts[np.random.default_rng([self._seed, index, 1]).integers(len(texts))]

    def _window(self, index: int) -> tuple[float, float]:
        """Return from which to which second a clip lasts; infinity: all that there is."""
        caption = self.captions[index]
        if self._seed is None or not self.random_crop_seconds:
            return caption.start, math.inf if self._whole[index] else caption.end
        most = min(self.random_crop_seconds, (caption.end - caption.start) / 4)
        first, last = np.random.default_rng([self._seed, index]).uniform(0, most, 2)
        return caption.start + first, caption.end - last

    def _rows(self, video: str, field: str, start: float, end: float) -> Tensor | None:
        if field not in self.reader.fields:
            return None
        if math.isinf(end):
            return self._read(video, field, 0, None)
        rows = feature_range(start, end, self.reader.fields[field].per_second, accurate=False)
        return self._read(video, field, *rows)

    def _audio(self, video: str, start: float, end: float) -> Tensor:
        if "audio" not in self.reader.fields:
            return torch.zeros(0, NUM_MELS)
        first, last = (0, math.inf) if math.isinf(end) else spectrogram_range(start, end)
        return self._read(video, "audio", first, int(min(last, first + self.max_audio_frames)))

    def _read(self, video: str, field: str, first: int, last: int | None) -> Tensor:
        if video in self._absent:
            return torch.zeros(0, self.reader.fields[field].width)
        return self.reader.read(video, field, first, last).float()


def _group(captions: Sequence[Caption]) -> tuple[list[Caption], list[list[str]]]:
    """Join captions of one video and window: the first of each, and the texts of all."""
    first: dict[tuple[str, float, float], Caption] = {}
    texts: dict[tuple[str, float, float], list[str]] = defaultdict(list)
    for caption in captions:
        window = caption.video, caption.start, caption.end
        first.setdefault(window, caption)
        texts[window].append(caption.text)
    return list(first.values()), [texts[window] for window in first]


def _unique_ids(captions: Sequence[Caption]) -> list[str]:
    """Name clips by video and window; several captions of one window are numbered."""
    ids: dict[str, None] = {}
    seen: Counter[str] = Counter()
    for c in captions:
        plain = name = c.name
        while name in ids:
            seen[plain] += 1
            name = f"{plain}#{seen[plain] + 1}"
        ids[name] = None
    return list(ids)
