"""Clips of captioned videos: what a data set gives to a model."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet, TextEncoder
from fusion.data.datasets.sampling import check_finite, field_tokens, video_tokens
from fusion.data.features.problems import Quarantine, name_some, tolerate, warn
from fusion.data.features.readers import AUDIO, VIDEO, Reader, seconds_of
from fusion.data.media.log_mel import NUM_MELS, spectrogram_range
from fusion.words import number_of

CUT = 0.1  # seconds that a clip may lose without a word
OVER = 1.0  # seconds that a caption may last beyond its film without a word
FILLED = 0.7  # share of a part's frames below which it is dropped, as published


@dataclasses.dataclass(eq=False, repr=False)
class Clips(ClipSet):
    """The clips of one split: each has a caption, and the features of its time in the video.

    Args:
        folder: what the names of the videos are relative to; None if there are no media files.
        captions: one for each clip; its text may be empty. An end of infinity becomes that of the
            video's features.
        reader: features of the videos; a clip of one that it lacks has neither video nor audio.
        text_encoder: encodes the texts; None: items have no text.
        max_video_tokens: this and ``max_audio_frames`` as for :class:`.CaptionedVideos`,
            ``long_clips`` and ``cut`` as for :class:`.PickledVideos`. The parts of a cut clip have
            the text of the whole; parts after the first need 0.7 of the frames.
        random_crop_seconds: after :meth:`set_epoch` a clip loses at random up to so much of its
            beginning and of its end, at most a quarter of its length each.
        texts: for each clip the texts to draw from after :meth:`set_epoch`; None: its caption's.
        stream: separates the random numbers that draw a text from others of the same seed and clip.
        max_tokens: for a field that is a modality of its own, its most tokens; no limit if it is
            not there.
        each_alone: count captions of one video and window as clips of their own, see ``shows``.

    An item is a dict of ``id`` and features, float16 if they are stored so: ``text`` (L, D) of L
    known words, ``video`` (L, D) of :func:`.sampling.fit_video_tokens` and ``audio`` (L, 40) of L
    spectrogram frames. L is
    0 for a modality that the clip lacks; a clip that begins after the end of its video has neither
    video nor audio. Each field of ``further`` gives (L, D) of its own rate. Reading
    a clip whose features are not finite or cannot be read raises ValueError, unless
    :meth:`tolerate_unreadable` was called.
    """

    folder: Path | None = dataclasses.field()  # without the default of a ClipSet
    captions: Sequence[Caption] = dataclasses.field()
    reader: Reader
    text_encoder: TextEncoder | None
    max_video_tokens: int
    max_audio_frames: int
    random_crop_seconds: float = 0.0
    texts: Sequence[Sequence[str]] | None = None
    stream: tuple[int, ...] = ()
    each_alone: bool = False
    long_clips: str = "clip"
    cut: int = 1
    max_tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seed: int | None = None
        self._unreadable: Quarantine | None = None
        captions, reader = self.captions, self.reader
        self.ids = unique_names([caption.name for caption in captions])
        self._whole = [caption.is_whole for caption in captions]
        seconds = _seconds(captions, reader)
        self._absent = {video for video, length in seconds.items() if length is None}
        self.captions = [
            dataclasses.replace(c, end=max(c.start, seconds[c.video] or 0.0))
            if math.isinf(c.end)
            else c
            for c in captions
        ]
        if prepare := getattr(self.text_encoder, "prepare", None):
            prepare(itertools.chain((c.text for c in captions), *(self.texts or ())))
        if self.cut > 1:
            self._parts = [
                (number, part)
                for number, caption in enumerate(captions)
                for part in range(self.cut)
                if part == 0 or self._is_filled(caption.video, part)
            ]
            self.whole = [number for number, _ in self._parts]

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip."""
        return range(len(self.captions)) if self.each_alone else super().shows

    def tolerate_unreadable(self, max_bad: float) -> None:
        """From now on, features that cannot be read, or are not finite, are missing.

        They are named; ValueError when they are of more than ``max_bad`` of the clips.
        """
        self._unreadable = Quarantine(len(self.captions), max_bad)

    def set_epoch(self, seed: int) -> None:
        """Crop each clip and choose its text at random from now on."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Cut one clip, or a part of it, out of the features of its video."""
        number, part = self._parts[index] if self.cut > 1 else (index, 0)
        video, (start, end) = self.captions[number].video, self._window(number)

        def read(field: str, first: int, last: int | None) -> Tensor:
            if video not in self._absent:
                try:
                    rows = self.reader.read(video, field, first, last)
                    if self._unreadable is None or rows.isfinite().all():
                        return rows
                    problem = f"{field} of clip {self.ids[number]} is not finite"
                except ValueError as error:
                    if self._unreadable is None:
                        raise
                    problem = str(error)
                self._unreadable.add(number, problem)
            return torch.zeros(0, self.reader.fields[field].width)

        fields, tokens = self.reader.fields, self.max_video_tokens
        features = {}
        if self.text_encoder is not None:
            features["text"] = self.text_encoder(self._text(number))
        if not fields.keys().isdisjoint(VIDEO):
            rows = video_tokens(read, fields, start, end, self.cut * tokens, self.long_clips)
            features["video"] = rows[part * tokens :][:tokens] if self.cut > 1 else rows
        features["audio"] = torch.zeros(0, NUM_MELS)
        if "audio" in fields:
            first, last = (0, math.inf) if math.isinf(end) else spectrogram_range(start, end)
            first += part * self.max_audio_frames
            features["audio"] = read("audio", first, int(min(last, first + self.max_audio_frames)))
        for name in self.further:
            if name in fields:
                most = self.max_tokens.get(name)
                features[name] = field_tokens(read, fields, name, start, end, part, most)
        for modality, values in features.items():
            check_finite(values, f"{modality} of clip {self.ids[number]}")
        return {"id": self.ids[number], **features}

    def caption(self, index: int) -> dict[str, Any]:
        """Read the name and the text of a clip, without its features."""
        number = self._parts[index][0] if self.cut > 1 else index
        item: dict[str, Any] = {"id": self.ids[number]}
        if self.text_encoder is not None:
            item["text"] = self.text_encoder(self._text(number))
            check_finite(item["text"], f"text of clip {self.ids[number]}")
        return item

    def _is_filled(self, video: str, part: int) -> bool:
        frames = 0 if video in self._absent else self.reader.rows(video, "audio")
        return frames - part * self.max_audio_frames > FILLED * self.max_audio_frames

    def _text(self, index: int) -> str:
        if self.texts is None or self._seed is None:
            return self.captions[index].text
        texts = self.texts[index]
        draw = np.random.default_rng([self._seed, index, *self.stream])
        return texts[int(draw.integers(len(texts)))]

    def _window(self, index: int) -> tuple[float, float]:
        """Return from which to which second a clip lasts; infinity: all that there is."""
        caption = self.captions[index]
        if self._seed is None or not self.random_crop_seconds:
            return caption.start, math.inf if self._whole[index] else caption.end
        most = min(self.random_crop_seconds, (caption.end - caption.start) / 4)
        first, last = np.random.default_rng([self._seed, index]).uniform(0, most, 2)
        return caption.start + first, caption.end - last


def without_lost(
    captions: Sequence[Caption], reader: Reader, place: str, file: Path, bad: str, max_bad: float
) -> list[Caption]:
    """Name the clips without features, of missing videos or after a video's end; leave them out.

    ``place`` and ``file`` are where the features and the captions are. With ``bad`` "missing" lost
    clips that have a text stay. ValueError: more than ``max_bad`` of the clips are lost, or all.
    """
    seconds = _seconds(captions, reader)
    gone = [video for video, length in seconds.items() if length is None]
    absent = [c for c in captions if seconds[c.video] is None]
    late = [c for c in captions if 0 < (seconds[c.video] or 0) <= c.start]
    _name_overlong(captions, seconds, file)
    if not absent and not late:
        return list(captions)
    parts = []
    if absent and (reasons := unreadable_in(reader)):
        named = [f"{name}: {reasons[name]}" for name in gone if name in reasons]
        parts.append(
            f"{len(absent)} of {len(captions)} clips are of {number_of(len(gone), 'film')} that"
            f" cannot be read ({name_some(named, '; ')})"
        )
    elif absent:
        parts.append(
            f"{len(absent)} of {len(captions)} clips are of {number_of(len(gone), 'video')} that"
            f" {place} does not have ({name_some(gone)})"
        )
    if late:
        names = [f"{c.name}, features end at {seconds[c.video]:.2f} s" for c in late]
        parts.append(
            f"{len(late)} of {len(captions)} clips begin after the features of {place} end"
            f" ({name_some(names, '; ')}): a film was cut off, or their times are wrong"
        )
    said, lost = f"{file}: {'; '.join(parts)}", {*absent, *late}
    few = None if absent else len(late)  # wrong times of a few captions end no run
    tolerate(said, (len(absent) + len(late)) / len(captions), bad, max_bad, few)
    kept = [c for c in captions if c not in lost or (bad == "missing" and c.text)]
    if not kept:
        raise ValueError(f"{said}; no clip is left: name the store of these videos")
    return kept


def _name_overlong(
    captions: Sequence[Caption], seconds: Mapping[str, float | None], file: Path
) -> None:
    """Warn of captions that end more than a second after their film."""
    lengths = ((c, seconds[c.video] or math.inf) for c in captions)
    over = [c for c, length in lengths if c.start < length and length + OVER < c.end < math.inf]
    if over:
        names = name_some([f"{c.name}, its film at {seconds[c.video]:.2f} s" for c in over], "; ")
        said = f"{len(over)} of {len(captions)} clips end after their film"
        warn(f"{file}: {said}, and are taken up to its end ({names})")


def unreadable_in(reader: Reader) -> Mapping[str, str]:
    """Return why films of a reader that computes features cannot be read, by name."""
    return getattr(getattr(reader, "main", reader), "unreadable", {})


def clip_seconds(captions: Sequence[Caption], reader: Reader) -> list[float]:
    """Return for how many seconds of each clip there are features."""
    lengths = _seconds(captions, reader)
    return [max(0.0, min(c.end, lengths[c.video] or 0.0) - c.start) for c in captions]


def seconds_uncut(reader: Reader, video_tokens: int, audio_frames: int) -> float:
    """Return how long a clip may be that is not cut; infinity without video and audio features."""
    rate = token_rate(reader)
    limits = [video_tokens / rate] if rate else []
    if "audio" in reader.fields:
        limits.append(audio_frames / AUDIO.per_second)
    return min(limits, default=math.inf)


def describe_cut(captions: Sequence[Caption], reader: Reader, most: float) -> str:
    """Say how many clips are longer than ``most`` seconds; empty if none is."""
    long = sum(seconds > most + CUT for seconds in clip_seconds(captions, reader))
    if not long:
        return ""
    return (
        f"{long} of {len(captions)} clips are longer than {most:.1f} s and are cut; raise"
        " data.max_seconds (with data.max_video_tokens and max_audio_frames null), or split"
        " training clips by data.split_long=true"
    )


def split_long(captions: Sequence[Caption], reader: Reader, most: float) -> list[Caption]:
    """Split captions of more than ``most`` seconds into equal windows, all with the same text."""
    parts = []
    for caption, seconds in zip(captions, clip_seconds(captions, reader), strict=True):
        count = math.ceil(seconds / most - 1e-6)
        if count <= 1:
            parts.append(caption)
            continue
        bounds = [caption.start + seconds * part / count for part in range(count + 1)]
        parts += [dataclasses.replace(caption, start=a, end=b) for a, b in pairwise(bounds)]
    return parts


def draw_films(
    captions: Sequence[Caption], share: float, file: Path
) -> tuple[list[Caption], list[Caption]]:
    """Draw a share of the films, at least one: the same whenever their names are.

    Returns the captions of the drawn films, and those of the rest. ValueError: there is one film.
    """
    names = dict.fromkeys(caption.video for caption in captions)
    films = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(films) < 2:
        raise ValueError(
            f"{file} is about one film, so none can be held out; name data.validation, or set"
            " data.held_out=0 and trainer.best=last"
        )
    drawn = set(films[: min(max(1, round(share * len(films))), len(films) - 1)])
    rest = [c for c in captions if c.video not in drawn]
    return [c for c in captions if c.video in drawn], rest


def join_captions(captions: Sequence[Caption]) -> tuple[list[Caption], list[list[str]]]:
    """Join captions of one video and window: the first of each, and the texts of all."""
    joined: dict[tuple[str, float, float], list[Caption]] = {}
    for c in captions:
        joined.setdefault((c.video, c.start, c.end), []).append(c)
    return [its[0] for its in joined.values()], [[c.text for c in its] for its in joined.values()]


def unique_names(names: Iterable[str]) -> list[str]:
    """Number repeated names: ``x``, ``x#2``, ``x#3``."""
    unique: dict[str, None] = {}
    seen: Counter[str] = Counter()
    for plain in names:
        name = plain
        while name in unique:
            seen[plain] += 1
            name = f"{plain}#{seen[plain] + 1}"
        unique[name] = None
    return list(unique)


def _seconds(captions: Sequence[Caption], reader: Reader) -> dict[str, float | None]:
    """Return for how long each video of the captions has features; None: it is not there."""
    videos = dict.fromkeys(caption.video for caption in captions)
    known: Collection[str] = reader.videos
    if len(known) < 10 * len(videos):
        known = set(known)  # where `in` is quick
    return {video: seconds_of(reader, video) if video in known else None for video in videos}


def token_rate(reader: Reader) -> float:
    """Return the video tokens of a second."""
    field = reader.fields.get("3d") or reader.fields.get("2d")
    return field.per_second if field else 0.0
