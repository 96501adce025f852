"""Clips of captioned videos: what a data set gives to a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fusion.data.captions import Caption, read_captions
from fusion.data.demo import demo_corpus
from fusion.data.features import EXTRACTORS, VideosInMemory, extract_all
from fusion.data.problems import Problem, report
from fusion.data.protocols import Protocol, choose_protocol
from fusion.data.readers import Reader
from fusion.data.source import ClipSet
from fusion.data.store import FeatureStore
from fusion.data.video_tokens import check_finite, fit_video_tokens
from fusion.data.windows import feature_range, spectrogram_range, spectrogram_seconds

TextEncoder = Callable[[str], Tensor]


class Clips(ClipSet):
    """The captions of one split and what is seen and heard while they last.

    Args:
        folder: what the names of the videos are relative to; None if there are no media files.
        captions: one for each clip; an empty text means that there is no narration.
        reader: features of the videos.
        text_encoder: maps a sentence to (L, D) features.
        max_video_tokens: later ones of a clip are cut off.
        max_audio_frames: later ones of a clip are cut off; 100 frames are a second.
        random_crop_seconds: once :meth:`draw_anew` was called, a clip loses at random up to so much
            of its beginning and of its end, at most a quarter of its length each.

    Each item is a dict of ``id`` and float32 features; a modality that the clip lacks has length 0:
        ``text``: (L, D), one row per known word.
        ``video``: (L, D), one row per 3D feature, see :func:`fit_video_tokens`.
        ``audio``: (L, 40), one row per spectrogram frame.

    Raises:
        ValueError: a clip begins after the end of its video. Features that are not finite are
            refused when the clip is asked for.
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
    ) -> None:
        self.random_crop_seconds = random_crop_seconds
        self._seed: int | None = None
        self.folder, self.captions, self.reader = folder, list(captions), reader
        self.text_encoder = text_encoder
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.ids = _unique_ids(self.captions)
        for caption, name in zip(self.captions, self.ids, strict=True):
            seconds = self._seconds(caption.video)
            if seconds and caption.start >= seconds:
                raise ValueError(
                    f"clip {name}{f' of {folder}' if folder else ''} begins after the end of its"
                    f" video ({seconds:.2f} s); mend its times in the caption file"
                )

    def _seconds(self, video: str) -> float:
        frames = self.reader.rows(video, "audio") if "audio" in self.reader.fields else 0
        rows = [
            self.reader.rows(video, name) / self.reader.fields[name].per_second
            for name in ("2d", "3d")
            if name in self.reader.fields
        ]
        return max([spectrogram_seconds(frames) if frames else 0.0, *rows[:1]])

    def draw_anew(self, seed: int) -> None:
        """Crop each clip at random from now on, as the seed and the clip say."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Cut one clip out of the features of its video."""
        caption, name = self.captions[index], self.ids[index]
        window = self._window(index)
        features = {
            "text": self.text_encoder(caption.text),
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

    def _window(self, index: int) -> tuple[float, float]:
        caption = self.captions[index]
        if self._seed is None or not self.random_crop_seconds:
            return caption.start, caption.end
        most = min(self.random_crop_seconds, (caption.end - caption.start) / 4)
        first, last = np.random.default_rng([self._seed, index]).uniform(0, most, 2)
        return caption.start + first, caption.end - last

    def _rows(self, video: str, field: str, start: float, end: float) -> Tensor | None:
        if field not in self.reader.fields:
            return None
        rows = feature_range(start, end, self.reader.fields[field].per_second, accurate=False)
        return self.reader.read(video, field, *rows).float()

    def _audio(self, video: str, start: float, end: float) -> Tensor:
        first, last = spectrogram_range(start, end)
        last = min(last, first + self.max_audio_frames)
        return self.reader.read(video, "audio", first, last).float()


class CaptionedVideos:
    """Videos with caption files: a user's own, or the built-in corpus.

    Args:
        train: csv file with the columns ``video, start, end, text``; see :func:`read_captions`.
            The names of the videos are relative to the file. Training needs it.
        validation: the same, for choosing the best checkpoint. Training needs it.
        test: the same, for the table at the end of a run; none if not given.
        video_features: one of :data:`fusion.data.features.EXTRACTORS`.
        max_video_tokens: video tokens of a clip; later ones are cut off.
        max_audio_frames: spectrogram frames of a clip, 100 per second; later ones are cut off.
        random_crop_seconds: what a training clip loses at random, see :class:`Clips`.
        ceilings: JSON file of what can be reached at best, by split and direction.
        store: a feature store, see :mod:`fusion.data.store`, that has the features of the videos
            under the names in the caption files, such as ``tools/extract.py`` makes; in place of
            ``video_features``.
        max_bad: the share of clips whose video may be missing from the store; they are left out.

    Raises:
        ValueError: the name of the features is unknown.
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        video_features: str = "descriptors",
        max_video_tokens: int = 12,
        max_audio_frames: int = 768,
        random_crop_seconds: float = 0.0,
        ceilings: str | None = None,
        store: str | None = None,
        max_bad: float = 0.05,
    ) -> None:
        if video_features not in EXTRACTORS:
            raise ValueError(
                f"data.video_features: unknown {video_features!r}; choose from {list(EXTRACTORS)}"
            )
        files = {"train": train, "validation": validation, "test": test}
        self.files = {name: Path(file).expanduser() for name, file in files.items() if file}
        self.video_features = video_features
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.random_crop_seconds, self.ceilings = random_crop_seconds, ceilings
        self.store, self.max_bad = store, max_bad

    @property
    def splits(self) -> list[str]:
        """Names of the splits that there are."""
        return list(self.files)

    def extract(self) -> None:
        """Compute the features of all splits in one go; without it each does when it is read."""
        if self.store is not None:
            return
        for folder in {file.parent for file in self.files.values()}:
            files = [file for file in self.files.values() if file.parent == folder]
            videos = [caption.video for file in files for caption in read_captions(file)]
            extract_all(folder, videos, self.video_features)

    def texts(self, split: str) -> list[str]:
        """The captions' texts, to learn words from."""
        return [caption.text for caption in read_captions(self._file(split))]

    def clips(self, split: str, text_encoder: TextEncoder) -> Clips:
        """Read a split.

        Raises:
            ValueError: there is no such split, or a file of it cannot be read.
        """
        file = self._file(split)
        captions, reader = read_captions(file), self._reader(file)
        return Clips(
            file.parent,
            self._there(captions, reader, file),
            reader,
            text_encoder,
            self.max_video_tokens,
            self.max_audio_frames,
            self.random_crop_seconds,
        )

    def _reader(self, file: Path) -> Reader:
        if self.store is not None:
            return FeatureStore(self.store)
        videos = (caption.video for caption in read_captions(file))
        return VideosInMemory(
            extract_all(file.parent, videos, self.video_features), EXTRACTORS[self.video_features]
        )

    def _there(self, captions: list[Caption], reader: Reader, file: Path) -> list[Caption]:
        """Leave out the clips whose video the store lacks, and say so."""
        known = {caption.video: caption.video in reader.videos for caption in captions}
        ids = _unique_ids(captions)
        problems = [
            Problem(name, "video", "not in the store")
            for caption, name in zip(captions, ids, strict=True)
            if not known[caption.video]
        ]
        report(problems, len(captions), str(file), "leave_out", self.max_bad)
        return [caption for caption in captions if known[caption.video]]

    def protocol(self, split: str) -> Protocol:
        """How a table on this split is counted."""
        return choose_protocol("all")

    def describe(self, split: str) -> str:
        """Say what the clips of this split are."""
        file = self._file(split)
        features = f"of {Path(self.store).name}" if self.store else self.video_features
        return f"{file.parent.name}/{file.name}, video features: {features}"

    def ceiling(self, split: str) -> Mapping[str, Any] | None:
        """What can be reached at best in each direction, None if nobody knows."""
        if self.ceilings is None:
            return None
        return json.loads(Path(self.ceilings).read_text()).get(split)

    def _file(self, split: str) -> Path:
        if split not in self.files:
            known = ", ".join(self.files) or "none"
            raise ValueError(
                f"the data has no split {split!r} (it has: {known}); choose one of"
                f" them, or name a caption file under data.{split} of the config"
            )
        return self.files[split]


def demo(
    video_features: str = "descriptors",
    max_video_tokens: int = 12,
    max_audio_frames: int = 256,
    random_crop_seconds: float = 0.0,
    films: int | None = None,
) -> CaptionedVideos:
    """Open the built-in corpus; render it if this is its first use.

    Args:
        video_features: see :class:`CaptionedVideos`.
        max_video_tokens: see :class:`CaptionedVideos`.
        max_audio_frames: see :class:`CaptionedVideos`.
        random_crop_seconds: see :class:`CaptionedVideos`.
        films: films for training, and in each other split as far as it has so many: few for quick
            tries, up to 725 for large batches; 320, 36 and 72 if not given.
    """
    folder = demo_corpus(size=films)
    return CaptionedVideos(
        train=str(folder / "train.csv"),
        validation=str(folder / "validation.csv"),
        test=str(folder / "test.csv"),
        video_features=video_features,
        max_video_tokens=max_video_tokens,
        max_audio_frames=max_audio_frames,
        random_crop_seconds=random_crop_seconds,
        ceilings=str(folder / "ceilings.json"),
    )


def _unique_ids(captions: Sequence[Caption]) -> list[str]:
    ids = [f"{c.video}@{c.start:g}-{c.end:g}" for c in captions]
    seen: Counter[str] = Counter()
    for i, name in enumerate(ids):
        if seen[name]:  # several captions of one window
            ids[i] = f"{name}#{seen[name] + 1}"
        seen[name] += 1
    return ids
