"""Videos with caption files: a user's own, published annotations, or the built-in corpus."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion.data.captions.match import ENDINGS, keep_listed, read_all
from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips, join_captions, without_lost
from fusion.data.datasets.dataset import SPLITS, Source, TextEncoder, check_settings, paths_of
from fusion.data.datasets.protocols import PROTOCOLS
from fusion.data.demo import demo_corpus
from fusion.data.features.readers import (
    EXTRACTORS,
    ComputedFeatures,
    JoinedFeatures,
    Reader,
    recipe_of,
)
from fusion.data.features.store import FeatureStore, open_store


@dataclasses.dataclass(eq=False)
class CaptionedVideos(Source):
    """Videos with captions in files, and features in a store or computed on the way.

    Args:
        train: a caption file, see :mod:`fusion.data.captions.formats`, or a folder of files named
            like their videos, see :func:`fusion.data.captions.match.find_captions`. Names of videos
            are relative to the file or folder and need no ending. Training needs it.
        validation: the same, for choosing the best checkpoint. Training needs it.
        test: the same, for the table at the end of a run.
        video_features: one of :data:`fusion.data.features.readers.EXTRACTORS`.
        max_video_tokens: video tokens of a clip; later ones are cut off.
        max_audio_frames: spectrogram frames of a clip, 100 per second; later ones are cut off.
        max_tokens: the same for fields of the store that are modalities of their own, by name: a
            store may have any, and ``model.modalities.NAME`` reads field NAME. Others are not cut.
        fields: stores of such fields, by field, if they are not in ``store``; they name the videos
            as that one does.
        random_crop_seconds: what a training clip loses at random, see :class:`.clips.Clips`.
        ceilings: JSON file of the best results possible, by split and direction.
        store: a feature store, such as ``tools/extract.py`` makes, in place of ``video_features``.
            A caption file may name its videos without folder and ending.
        only: for any of the splits a file that lists which videos of the caption file to take, see
            :func:`fusion.data.captions.match.read_video_list`.
        group_captions: make one training clip of all captions of the same video and window, and
            draw one of them by seed, epoch and clip; otherwise each caption is a clip.
        protocol: how the test is counted, one of :data:`fusion.data.datasets.protocols.PROTOCOLS`.
        bad: ``leave_out`` clips whose video is not in the store, or ends before they begin; or
            ``missing``: they have text alone, and count as misses in a table.
        max_bad: the share of such clips, of bad captions (see
            :class:`fusion.data.captions.table.CaptionParser`), and of listed videos without
            captions that is accepted.

    Raises:
        ValueError: a name is unknown, or ``max_bad`` no share.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    video_features: str = "descriptors"
    max_video_tokens: int = 12
    max_audio_frames: int = 768
    random_crop_seconds: float = 0.0
    ceilings: str | None = None
    store: str | None = None
    only: Mapping[str, str] | None = None
    group_captions: bool = False
    protocol: str = "all"
    bad: str = "leave_out"
    max_bad: float = 0.05
    max_tokens: Mapping[str, int] | None = None
    fields: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__init__({split: getattr(self, split) for split in SPLITS})
        self._lists = paths_of(self.only)
        check_settings(
            self.bad,
            self.max_bad,
            video_features=(self.video_features, EXTRACTORS),
            protocol=(self.protocol, PROTOCOLS),
            **{f"only.{split}": (split, SPLITS) for split in self._lists},
        )
        self.tested_by = PROTOCOLS[self.protocol]
        self._read: dict[str, list[Caption]] = {}
        self._kept: dict[str, list[Caption]] = {}

    def extract(self) -> None:
        """Compute the features of all splits; with a store, only check the captions."""
        captions = {split: self._captions(split) for split in self.files}
        if self.store is None:
            for folder in dict.fromkeys(map(self._folder, self.files)):
                splits = [split for split in self.files if self._folder(split) == folder]
                videos = [caption.video for split in splits for caption in captions[split]]
                ComputedFeatures(folder, videos, self.video_features)

    def texts(self, split: str) -> list[str]:
        """The captions' texts."""
        return [caption.text for caption in self._captions(split)]

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> Clips:
        """Read a split; ValueError also if it is of another test set than the protocol."""
        captions, folder = self._captions(split), self._folder(split)
        reader: Reader | None = self._stored
        if reader is None:
            reader = ComputedFeatures(folder, (c.video for c in captions), self.video_features)
        if self._further:
            reader = JoinedFeatures(reader, self._further)
        if split not in self._kept:  # what is left out is named once
            limits = (self.store or str(folder), self._place(split), self.bad, self.max_bad)
            self._kept[split] = without_lost(captions, reader, *limits)
        kept, texts = self._kept[split], None
        if self.group_captions and split == "train":
            kept, texts = join_captions(kept)
        protocol = self.protocol_of(split)
        # A protocol of so many clips with one caption each: YouCook2 has a window twice.
        alone = protocol.clips is not None and protocol.captions is None
        features = (reader, text_encoder, self.max_video_tokens, self.max_audio_frames)
        crop, stream = self.random_crop_seconds, (1,)  # draw texts independently of crops
        clips = Clips(folder, kept, *features, crop, texts, stream=stream, each_alone=alone)
        clips.max_tokens = self.max_tokens or {}
        out = len(captions) - len(self._kept[split])
        hint = f" ({out} left out; data.bad=missing counts them as misses)" if out else ""
        protocol.check(len(set(clips.shows)), f"{self._place(split)}{hint}", len(clips))
        return clips

    def describe(self, split: str) -> str:
        """Say what the clips of a split are."""
        file, store = self._place(split), self._stored
        only = f", the videos of {self._lists[split].name}" if split in self._lists else ""
        features = f"video features: {self.video_features}"
        if store is not None:
            features = store.describe()
        return f"{file.parent.name}/{file.name}{only}, {features}"

    def recipe(self) -> dict[str, Any] | None:
        """Say how a clip's input is made; None if the store does not say it."""
        store = self._stored
        features = recipe_of(self.video_features) if store is None else store.recipe()
        if features is None:
            return None
        for name, further in self._further.items():
            known = {} if "extractor" in features else further.recipe() or {}
            features = {**features, name: known.get(name)}
        limits: dict[str, Any] = {"max_video_tokens": self.max_video_tokens}
        limits["max_audio_frames"] = self.max_audio_frames
        if self.max_tokens:
            limits["max_tokens"] = dict(self.max_tokens)
        return {"features": features, **limits, "long_clips": "clip"}

    def ceiling(self, split: str) -> Mapping[str, Any] | None:
        """The best results possible, by direction; None if they are not known."""
        if self.ceilings is None:
            return None
        return json.loads(Path(self.ceilings).read_text()).get(split)

    def _captions(self, split: str) -> list[Caption]:
        """Read the captions of a split once, under the full names of their videos."""
        if split not in self._read:
            place, store = self._place(split), self._stored
            known = store.videos if store is not None else _Media(self._folder(split))
            captions = read_all(place, known, self.max_bad)
            if split in self._lists:
                captions = keep_listed(captions, self._lists[split], place, self.max_bad)
            self._read[split] = captions
        return self._read[split]

    @functools.cached_property
    def _stored(self) -> FeatureStore | None:
        return None if self.store is None else open_store(self.store)

    @functools.cached_property
    def _further(self) -> dict[str, FeatureStore]:
        stores = {name: open_store(place) for name, place in (self.fields or {}).items()}
        for name, store in stores.items():
            if name not in store.fields:
                raise ValueError(
                    f"data.fields.{name}: {store.location} has no such field, but"
                    f" {', '.join(store.fields)}"
                )
        return stores

    def _place(self, split: str) -> Path:
        return self._file(split, "caption file")

    def _folder(self, split: str) -> Path:
        place = self._place(split)
        return place if place.is_dir() else place.parent


class _Media(Collection[str]):
    """Names of the media files in a folder and below; the folder is listed only when needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self.folder / name).is_file()

    def __iter__(self) -> Iterator[str]:
        for file in sorted(self.folder.rglob("*")):
            if file.suffix.lower() in ENDINGS and file.is_file():
                yield file.relative_to(self.folder).as_posix()

    def __len__(self) -> int:
        return sum(1 for _ in self)


def demo(
    video_features: str = "descriptors",
    max_video_tokens: int = 12,
    max_audio_frames: int = 256,
    random_crop_seconds: float = 0.0,
    films: int | None = None,
) -> CaptionedVideos:
    """Open the built-in corpus; render it on first use.

    ``films`` is the number of training films, up to 725, and of the films in each other split, as
    far as it has so many; 320, 36 and 72 if not given. The other arguments are those of
    :class:`CaptionedVideos`.
    """
    folder = demo_corpus(size=films)
    train, validation, test = (str(folder / f"{split}.csv") for split in SPLITS)
    lengths = max_video_tokens, max_audio_frames, random_crop_seconds
    ceilings = str(folder / "ceilings.json")
    return CaptionedVideos(train, validation, test, video_features, *lengths, ceilings)
