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
from fusion.data.features import EXTRACTORS, VideoFeatures, extract_all
from fusion.data.protocols import Protocol, choose_protocol
from fusion.data.source import ClipSet
from fusion.data.video_tokens import check_finite, fit_video_tokens
from fusion.data.windows import feature_range, spectrogram_range, spectrogram_seconds

TextEncoder = Callable[[str], Tensor]


class Clips(ClipSet):
    """The captions of one split and what is seen and heard while they last.

    Args:
        folder: what the names of the videos are relative to.
        captions: one for each clip; an empty text means that there is no narration.
        text_encoder: maps a sentence to (L, D) features.
        extractor: one of :data:`fusion.data.features.EXTRACTORS`.
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
        folder: Path,
        captions: Sequence[Caption],
        text_encoder: TextEncoder,
        extractor: str,
        max_video_tokens: int,
        max_audio_frames: int,
        random_crop_seconds: float = 0.0,
    ) -> None:
        self.random_crop_seconds = random_crop_seconds
        self._seed: int | None = None
        self.folder, self.captions = folder, list(captions)
        self.text_encoder, self.extractor = text_encoder, EXTRACTORS[extractor]
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.videos = extract_all(folder, (c.video for c in captions), extractor)
        self.ids = _unique_ids(self.captions)
        for caption, name in zip(self.captions, self.ids, strict=True):
            seconds = self._seconds(self.videos[caption.video])
            if seconds and caption.start >= seconds:
                raise ValueError(
                    f"clip {name} of {folder} begins after the end of its video ({seconds:.2f} s);"
                    " mend its times in the caption file"
                )

    def _seconds(self, video: VideoFeatures) -> float:
        sound = spectrogram_seconds(len(video.spectrogram)) if len(video.spectrogram) else 0.0
        return max(len(video.features_2d) / self.extractor.per_second_2d, sound)

    def draw_anew(self, seed: int) -> None:
        """Crop each clip at random from now on, as the seed and the clip say."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Cut one clip out of the features of its video."""
        caption, name = self.captions[index], self.ids[index]
        video, window = self.videos[caption.video], self._window(index)
        features = {
            "text": self.text_encoder(caption.text),
            "video": self._video(video, *window),
            "audio": self._audio(video, *window),
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

    def _video(self, video: VideoFeatures, start: float, end: float) -> Tensor:
        def cut(features: Tensor, per_second: float) -> Tensor:
            rows = feature_range(start, end, per_second, accurate=False)
            return features[slice(*rows)]

        return fit_video_tokens(
            cut(video.features_2d, self.extractor.per_second_2d),
            cut(video.features_3d, self.extractor.per_second_3d),
            self.max_video_tokens,
        )

    def _audio(self, video: VideoFeatures, start: float, end: float) -> Tensor:
        frames = video.spectrogram[slice(*spectrogram_range(start, end))]
        return frames[: self.max_audio_frames].float()


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

    @property
    def splits(self) -> list[str]:
        """Names of the splits that there are."""
        return list(self.files)

    def extract(self) -> None:
        """Compute the features of all splits in one go; without it each does when it is read."""
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
        return Clips(
            file.parent,
            read_captions(file),
            text_encoder,
            self.video_features,
            self.max_video_tokens,
            self.max_audio_frames,
            self.random_crop_seconds,
        )

    def protocol(self, split: str) -> Protocol:
        """How a table on this split is counted."""
        return choose_protocol("all")

    def describe(self, split: str) -> str:
        """Say what the clips of this split are."""
        file = self._file(split)
        return f"{file.parent.name}/{file.name}, video features: {self.video_features}"

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
