"""Clips of pickles of the published layout as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet, TextEncoder
from fusion.data.datasets.pickled import PickledClip
from fusion.data.datasets.sampling import fit_video_tokens
from fusion.data.features.problems import name_some, tolerate
from fusion.data.media.log_mel import NUM_MELS

FILLED = 0.7  # share of a part's frames below which it is dropped, as published


class PickledClips(ClipSet):
    """Clips as a model takes them.

    Args:
        clips: see :func:`fusion.data.datasets.pickled.read_clips`.
        text_encoder: encodes the texts; None: items have no text.
        max_video_tokens, max_audio_frames, long_clips: see
            :class:`fusion.data.datasets.msrvtt_youcook2.PickledVideos`.
        cut: into how many parts clips are cut, each of so many tokens and frames, with the text of
            the whole. Parts after the first need 0.7 of the frames.
        every_caption: take each of a clip's ``texts`` in turn, not the one it is evaluated with.

    Each item is a dict of ``id``, ``text`` (L, D), ``video`` (L, D) and ``audio`` (L, 40) in
    float32; a modality that the clip lacks has length 0.
    """

    def __init__(
        self,
        clips: Sequence[PickledClip],
        text_encoder: TextEncoder | None,
        max_video_tokens: int = 12,
        max_audio_frames: int = 768,
        long_clips: str = "clip",
        cut: int = 1,
        every_caption: bool = False,
    ) -> None:
        self.clips, self.text_encoder, self.long_clips = list(clips), text_encoder, long_clips
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.cut = cut
        self._seed: int | None = None
        shown = [
            (number, text)
            for number, clip in enumerate(clips)
            for text in (clip.texts if every_caption else (clip.text,))
        ]
        self._shows = [number for number, _ in shown]
        self.captions = [Caption(clips[number].id, 0.0, 0.0, text) for number, text in shown]
        self._parts = [
            (place, part)
            for place, number in enumerate(self._shows)
            for part in range(cut)
            if part == 0 or self._is_filled(clips[number], part)
        ]
        if cut > 1:
            self.whole = [place for place, _ in self._parts]
        # A clip without features still says how wide they would be.
        self._widths = {"audio": NUM_MELS} | {
            name: clip.features[name].shape[1] for clip in clips for name in clip.features
        }

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip."""
        return self._shows

    def set_epoch(self, seed: int) -> None:
        """Take one of each clip's texts at random from now on, as the seed and the clip say."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the features of one clip, or of a part."""
        place, part = self._parts[index]
        clip = self.clips[self._shows[place]]
        tokens, frames = self.max_video_tokens, self.max_audio_frames
        kinds, sound = (self._rows(clip, "2d"), self._rows(clip, "3d")), self._rows(clip, "audio")
        video = fit_video_tokens(*kinds, self.cut * tokens, self.long_clips)
        assert sound is not None
        item: dict[str, Any] = {"id": clip.id}
        if self.text_encoder is not None:
            item["text"] = self.text_encoder(self._text(place))
        item["video"] = video[part * tokens : (part + 1) * tokens] if self.cut > 1 else video
        item["audio"] = sound[part * frames : (part + 1) * frames]
        return item

    def is_empty(self, clip: PickledClip) -> bool:
        """Whether a clip has neither video nor audio nor a text with a known word."""
        kinds = [name in clip.features for name in ("2d", "3d") if name in self._widths]
        has_video = any(kinds) if self.max_video_tokens == 0 else all(kinds)
        if has_video or "audio" in clip.features:
            return False
        encode = self.text_encoder
        return encode is None or not any(len(encode(text)) for text in (clip.text, *clip.texts))

    def _is_filled(self, clip: PickledClip, part: int) -> bool:
        frames = len(clip.features.get("audio", ())) - part * self.max_audio_frames
        return frames > FILLED * self.max_audio_frames

    def _text(self, place: int) -> str:
        if self._seed is None:
            return self.captions[place].text
        texts = self.clips[self._shows[place]].texts
        return texts[np.random.default_rng([self._seed, place]).integers(len(texts))]

    def _rows(self, clip: PickledClip, name: str) -> Tensor | None:
        if name not in self._widths:
            return None
        if name not in clip.features:
            return torch.zeros(0, self._widths[name])
        return torch.from_numpy(clip.features[name].astype(np.float32))


def report_empty(clips: PickledClips, file: str, max_bad: float) -> None:
    """Name the clips without picture, sound and known words: nothing can be learnt from them.

    Args:
        clips: with the text encoder that says which words are known.
        file: where they come from.
        max_bad: the share of them that may be so.

    Raises:
        ValueError: more are.
    """
    if names := [clip.id for clip in clips.clips if clips.is_empty(clip)]:
        number = len(clips.clips)
        said = (
            f"{file}: {len(names)} of {number} clips have neither picture nor sound nor a word that"
            f" the text encoder knows ({name_some(names)}), so they count nowhere"
        )
        tolerate(said, len(names) / number, "missing", max_bad)
