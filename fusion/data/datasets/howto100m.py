"""HowTo100M (arXiv:1906.03327): features in published folders or in a store, and captions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusion.data.captions.index import CaptionStore, open_captions
from fusion.data.datasets.dataset import Source, TextEncoder, check_settings
from fusion.data.datasets.narrated import NarratedClips, video_id
from fusion.data.features.format import Field
from fusion.data.features.problems import name_some, tolerate
from fusion.data.features.readers import AUDIO, PublishedFolders, Reader, read_paths
from fusion.data.features.store import FeatureStore, open_store


class PublishedFeatures(NamedTuple):
    """Features of one kind below ``DATA_ROOT/howto``: list of videos, folder, and fields."""

    videos: str
    folder: str
    fields: Mapping[str, Field]


PUBLISHED = {
    "resnet": PublishedFeatures(
        "HowTo100M_1166_videopaths.txt",
        "features",
        {"2d": Field(2048, 1.0), "3d": Field(2048, 1.5), "audio": AUDIO},
    ),
    "s3d": PublishedFeatures(
        "HowTo100M_1166_videopaths_s3d.txt",
        "new_s3d_features",
        {"3d": Field(1024, 1.0), "audio": AUDIO},
    ),
    "clip": PublishedFeatures(
        "HowTo100M_1166_videopaths_CLIP.txt",
        "clip_features",
        {"2d": Field(512, 1.0), "audio": AUDIO},
    ),
}


def expected(features: str) -> str:
    """Name the files of HowTo100M in a folder of data sets, and where they come from."""
    kind = PUBLISHED[features]
    return (
        f"howto/caption.pickle, howto/{kind.videos}, howto/{kind.folder} and howto/audio_features,"
        " made as AVLnet's training.md (github.com/roudimit/AVLnet) says"
    )


@dataclasses.dataclass(eq=False)
class HowTo100M(Source):
    """Random clips of narrated videos, see :class:`fusion.data.datasets.narrated.NarratedClips`.

    Args:
        root: folder of data sets (``data_root``); the files are in ``howto`` below it.
        features: ``resnet`` (2D and 3D), ``s3d`` or ``clip``.
        store: a feature store, in place of the published folders; ``fusion pack`` makes one. Its
            videos are those of the list, in the order of the list; without a list all by name.
        captions: ``caption.pickle`` (or the same as JSON), which is converted into the cache when
            it is first used, or a caption store.
        videos: the list: a csv file with a column ``path``.
        validation_videos: the last so many videos of the list are for choosing the best checkpoint,
            one clip of each, always the same.
        clips_per_video: clips of a video in an epoch; they keep together in a batch.
        min_seconds: the least duration of a clip.
        max_video_tokens: later ones of a clip are cut off.
        max_audio_frames: spectrogram frames of a clip, 100 per second; later ones are cut off.
        shift_audio: take the sound half of ``min_seconds`` later than the text.
        bad: a clip with features that cannot be read goes without them (``missing``), or another
            clip is drawn in its place (``leave_out``).
        max_bad: the share of such clips, of bad captions (see
            :class:`fusion.data.captions.table.CaptionParser`), and of listed videos without
            features in the store that is accepted.

    Raises:
        ValueError: a name is unknown, ``max_bad`` is no share, or the files are not there.
    """

    root: str | None = None
    features: str = "resnet"
    store: str | None = None
    captions: str | None = None
    videos: str | None = None
    validation_videos: int = 0
    clips_per_video: int = 10
    min_seconds: float = 8.0
    max_video_tokens: int = 12
    max_audio_frames: int = 768
    shift_audio: bool = True
    bad: str = "missing"
    max_bad: float = 0.05

    def __post_init__(self) -> None:
        check_settings(self.bad, self.max_bad, features=(self.features, PUBLISHED))
        no_features = self.store is None and self.videos is None
        if self.root is None and (self.captions is None or no_features):
            raise ValueError(
                f"where is the data? add data_root=FOLDER with {expected(self.features)}; or"
                " data.store and data.captions"
            )
        kind, folder = PUBLISHED[self.features], Path(self.root or ".").expanduser() / "howto"
        self._videos_file = Path(self.videos or folder / kind.videos).expanduser()
        # Beside a store the published list is read where there is one.
        listed = self.root is not None and self._videos_file.exists()
        self._is_listed = self.videos is not None or listed
        self._captions_file = Path(self.captions or folder / "caption.pickle").expanduser()
        self._folders = folder / kind.folder, folder / "audio_features"

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return ["train", "validation"] if self.validation_videos else ["train"]

    def extract(self) -> None:
        """Convert the captions, if that has not been done."""
        _ = self._captions

    def texts(self, split: str) -> list[str]:
        """The captions' texts."""
        captions = self._captions
        return [
            caption.text
            for video in self._videos(split)
            if video_id(video) in captions
            for caption in captions.captions(video_id(video))
        ]

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> NarratedClips:
        """Open a split."""
        captions, (reader, _), videos = self._captions, self._opened, self._videos(split)
        per_video = self.clips_per_video if split == "train" else 1
        lengths = self.min_seconds, self.max_video_tokens, self.max_audio_frames
        settings = (per_video, *lengths, self.shift_audio, self.bad, self.max_bad)
        return NarratedClips(reader, captions, videos, text_encoder, *settings)

    def describe(self, split: str) -> str:
        """Say what the clips of a split are."""
        reader, _ = self._opened
        made = f"features of {self.features}"
        if isinstance(reader, FeatureStore):
            made = reader.describe()
        return f"a clip of each of {len(self._videos(split))} videos of HowTo100M, {made}"

    @functools.cached_property
    def _captions(self) -> CaptionStore:
        return open_captions(self._captions_file, self.max_bad)

    @functools.cached_property
    def _opened(self) -> tuple[Reader, dict[str, Sequence[str]]]:
        """Open the features; list the videos of each split."""
        if self.store is None:
            fields = PUBLISHED[self.features].fields
            reader = PublishedFolders(self._videos_file, *self._folders, fields)
            return reader, self._divide(reader.videos)
        store = open_store(self.store)
        _check_fields(store, self.features)
        videos = self._divide(read_paths(self._videos_file) if self._is_listed else store.videos)
        return store, {split: self._keep_stored(videos[split], store) for split in videos}

    def _divide(self, videos: Sequence[str]) -> dict[str, Sequence[str]]:
        """Hold the last videos out, before those that a store lacks are left out."""
        first = len(videos) - self.validation_videos
        if not 0 < first <= len(videos):
            raise ValueError(
                f"data.validation_videos ({self.validation_videos}) must be less than the"
                f" number of videos ({len(videos)})"
            )
        return {"train": videos[:first], "validation": videos[first:]}

    def _keep_stored(self, videos: Sequence[str], store: FeatureStore) -> Sequence[str]:
        """Leave out the videos that the store lacks, and name them."""
        if not (lacking := [video for video in videos if video not in store]):
            return videos
        said = (
            f"{self._videos_file}: {self.store} lacks {len(lacking)} of {len(videos)}"
            f" videos ({name_some(lacking)})"
        )
        if len(lacking) == len(videos):
            raise ValueError(f"{said}; name the list of its own videos under data.videos")
        tolerate(said, len(lacking) / len(videos), "leave_out", self.max_bad)
        return [video for video in videos if video in store]

    def _videos(self, split: str) -> Sequence[str]:
        if split not in self.splits:
            raise ValueError(
                f"HowTo100M has no split {split!r}; for one to choose the best checkpoint by set"
                " data.validation_videos, for a test evaluate by configs/msrvtt or configs/youcook2"
            )
        return self._opened[1][split]


def _check_fields(store: FeatureStore, features: str) -> None:
    """Refuse a store of another published kind; features of one's own networks may be any."""
    found, wanted = _widths(store.fields), _widths(PUBLISHED[features].fields)
    for kind, published in PUBLISHED.items():
        if found == _widths(published.fields) and kind != features:
            raise ValueError(
                f"{store.location} has features {found} (name: width), but data.features={features}"
                f" are {wanted}; set data.features={kind}, or name another store"
            )


def _widths(fields: Mapping[str, Field]) -> dict[str, int]:
    return {name: field.width for name, field in fields.items()}
