"""Videos with caption files: a user's own, published annotations, or the built-in corpus."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fusion.data.captions.films import Media, look_below, ways_below
from fusion.data.captions.lists import keep_listed
from fusion.data.captions.match import Ways, read_all
from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import (
    Clips,
    clip_seconds,
    describe_cut,
    draw_films,
    join_captions,
    seconds_uncut,
    split_long,
    token_rate,
    without_lost,
)
from fusion.data.datasets.dataset import SPLITS, Source, TextEncoder, check_settings, paths_of
from fusion.data.datasets.protocols import PROTOCOLS
from fusion.data.features import computed
from fusion.data.features.problems import warn
from fusion.data.features.readers import AUDIO, JoinedFeatures, Reader
from fusion.data.features.store import FeatureStore, open_fields, open_store
from fusion.data.media.streams import Tracks
from fusion.words import number_of


@dataclasses.dataclass(eq=False)
class CaptionedVideos(Source):
    """Videos with captions in files, and features in a store or computed on the way.

    Args:
        train: a caption file, see :mod:`fusion.data.captions.formats`, or a folder of files named
            like their videos, see :func:`fusion.data.captions.match.find_captions`. Names of videos
            are relative to the file or folder and need no ending. Training needs it.
        validation: the same, for choosing the best checkpoint. Training needs it.
        test: the same, for the table at the end of a run.
        video_features: one of :data:`fusion.data.features.computed.EXTRACTORS`.
        max_video_tokens: video tokens of a clip; later ones are cut off. None: as many as the
            longest clip has, up to ``max_seconds``.
        max_audio_frames: the same for spectrogram frames, 100 per second.
        audio_track: of several, see :class:`.streams.Tracks`; as ``video_track``, for own films.
        max_tokens: the same for fields of the store that are modalities of their own, by name: a
            store may have any, and ``model.modalities.NAME`` reads field NAME. Others are not cut.
        fields: stores of such fields, by field, if they are not in ``store``; they name the videos
            as that one does.
        max_seconds: where lengths are None, the longest clip that is not cut.
        split_long: split longer training clips into windows that are not cut.
        held_out: without ``validation``, the share of the training films that are its clips
            instead; films are drawn by their names.
        random_crop_seconds: what a training clip loses at random, see :class:`.clips.Clips`.
        ceilings: JSON file of the best results possible, by split and direction.
        store: a feature store, such as ``fusion extract`` makes, in place of ``video_features``.
            A caption file may name its videos without folder and ending.
        root: folder of the videos that are not beside their caption file.
        only: for any of the splits a file that lists which videos of the caption file to take, see
            :func:`fusion.data.captions.lists.read_video_list`.
        group_captions: make one training clip of all captions of the same video and window, and
            draw one of them by seed, epoch and clip; otherwise each caption is a clip.
        neighbours: so many training clips that follow one another in the caption file are in the
            same batch, so that clips of one film are each other's negatives.
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
    max_video_tokens: int | None = 12
    max_audio_frames: int | None = 768
    random_crop_seconds: float = 0.0
    ceilings: str | None = None
    store: str | None = None
    only: Mapping[str, str] | None = None
    group_captions: bool = False
    neighbours: int = 1
    protocol: str = "all"
    bad: str = "leave_out"
    max_bad: float = 0.05
    root: str | None = None
    max_seconds: float = 20.48
    split_long: bool = False
    held_out: float = 0.0
    max_tokens: Mapping[str, int] | None = None
    fields: Mapping[str, str] | None = None
    audio_track: int | str | None = None
    video_track: int | str | None = None
    _read_all: ClassVar[Callable[..., list[Caption]]] = staticmethod(read_all)  # of questions: own

    def __post_init__(self) -> None:
        self._is_built_in = self.ceilings is not None  # the demo corpus alone has some
        self._draws = bool(self.held_out and self.train and not self.validation)
        files = {split: getattr(self, split) for split in SPLITS}
        super().__init__(files | ({"validation": self.train} if self._draws else {}))
        self._lists = paths_of(self.only)
        check_settings(
            self.bad,
            self.max_bad,
            video_features=(self.video_features, computed.EXTRACTORS),
            protocol=(self.protocol, PROTOCOLS),
            **{f"only.{split}": (split, SPLITS) for split in self._lists},
        )
        if self.neighbours < 1:
            raise ValueError(f"data.neighbours must be at least 1; got {self.neighbours}")
        if not 0 <= self.held_out < 1 or not self.max_seconds > 0:
            raise ValueError(
                f"data.held_out ({self.held_out}) is a share, such as 0.15, and data.max_seconds"
                f" ({self.max_seconds}) more than 0"
            )
        self._tracks = Tracks.of(self.audio_track, self.video_track)
        self.tested_by = PROTOCOLS[self.protocol]
        self._read: dict[str, list[Caption]] = {}
        self._kept: dict[str, list[Caption]] = {}
        self._files: dict[Path, tuple[list[Caption], Path]] = {}  # captions, and their folder
        self._said: set[str] = set()  # what was said once

    def extract(self) -> None:
        """Compute the features of all splits; with a store, only check the captions."""
        captions = {split: self._captions(split) for split in self.files}
        if self.store is None:
            for folder in dict.fromkeys(map(self._folder, self.files)):
                splits = [split for split in self.files if self._folder(split) == folder]
                videos = [caption.video for split in splits for caption in captions[split]]
                self._compute(folder, videos)

    def texts(self, split: str) -> list[str]:
        """The captions' texts."""
        return [caption.text for caption in self._captions(split)]

    def fit(self) -> dict[str, Any]:
        """Set the lengths that are None to those of the longest clip, up to ``max_seconds``."""
        if self.max_video_tokens is not None and self.max_audio_frames is not None:
            return {}
        longest = rate = 0.0
        for split in self.files:
            reader = self._reader(split)
            rate = max(rate, token_rate(reader))
            longest = max([longest, *clip_seconds(self._captions(split), reader)])
        seconds = min(longest, self.max_seconds)
        found = {
            "max_video_tokens": int(seconds * rate) + 2,
            "max_audio_frames": 64 * math.ceil(seconds * AUDIO.per_second / 64),
        }
        found = {name: value for name, value in found.items() if getattr(self, name) is None}
        vars(self).update(found)
        return found

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> Clips:
        """Read a split; ValueError also if it is of another test set than the protocol."""
        self.fit()
        captions, reader = self._captions(split), self._reader(split)
        folder = self._folder(split)
        if split not in self._kept:  # what is left out is named once
            limits = (self.store or str(folder), self._place(split), self.bad, self.max_bad)
            self._kept[split] = without_lost(captions, reader, *limits)
        kept, texts = self._kept[split], None
        out = len(captions) - len(kept)
        tokens, frames = self.max_video_tokens, self.max_audio_frames
        assert tokens is not None and frames is not None
        most = seconds_uncut(reader, tokens, frames)
        if self.split_long and split == "train":
            kept = split_long(kept, reader, most)
        if self.group_captions and split == "train":
            kept, texts = join_captions(kept)
        protocol = self.protocol_of(split)
        # A protocol of so many clips with one caption each: YouCook2 has a window twice.
        alone = protocol.clips is not None and protocol.captions is None
        features = (reader, text_encoder, tokens, frames)
        crop, stream = self.random_crop_seconds, (1,)  # draw texts independently of crops
        clips = Clips(folder, kept, *features, crop, texts, stream=stream, each_alone=alone)
        clips.max_tokens = self.max_tokens or {}
        clips.tolerate_unreadable(self.max_bad)
        if split == "train":
            clips.group = self.neighbours
        hint = f" ({out} left out; data.bad=missing counts them as misses)" if out else ""
        protocol.check(len(set(clips.shows)), f"{self._place(split)}{hint}", len(clips))
        cut = describe_cut(clips.captions, reader, most)
        if cut and split not in self._said and not self._is_built_in:  # that one is cut on purpose
            self._said.add(split)
            warn(f"{split}: {cut}")
        return clips

    def _reader(self, split: str) -> Reader:
        reader: Reader | None = self._stored
        if reader is None:
            videos = [caption.video for caption in self._captions(split)]
            reader = self._compute(self._folder(split), videos)
        return JoinedFeatures(reader, self._further) if self._further else reader

    def _compute(self, folder: Path, videos: Sequence[str]) -> Reader:
        settings = (self.video_features, self._tracks, self.max_bad, self._said)
        return computed.open_computed(folder, videos, *settings)

    def describe(self, split: str) -> str:
        """Say what the clips of a split are."""
        file, store = self._place(split), self._stored
        only = f", the videos of {self._lists[split].name}" if split in self._lists else ""
        if self._draws and split == "validation":
            only += f", {len({c.video for c in self._captions(split)})} films held out"
        computed = f"video features: {self.video_features}"
        features = computed if store is None else store.describe()
        return f"{'/'.join(file.parts[-2:])}{only}, {features}"

    def recipe(self) -> dict[str, Any] | None:
        """Say how a clip's input is made; None if the store does not say it."""
        store = self._stored
        own = computed.recipe_of(self.video_features, self._tracks)
        features = own if store is None else store.recipe()
        if features is None:
            return None
        self.fit()
        for name, further in self._further.items():
            known = {} if "extractor" in features else further.recipe() or {}
            features = {**features, name: known.get(name)}
        limits = {name: getattr(self, name) for name in ("max_video_tokens", "max_audio_frames")}
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
            is_drawn = self._draws and split in ("train", "validation")
            captions = self._drawn[split] if is_drawn else self._listed(split)
            if self.max_clips is not None:
                windows = dict.fromkeys((c.video, c.start, c.end) for c in captions)
                first = {*itertools.islice(windows, self.max_clips)}
                captions = [c for c in captions if (c.video, c.start, c.end) in first]
            self._read[split] = captions
        return self._read[split]

    @functools.cached_property
    def _drawn(self) -> dict[str, list[Caption]]:
        """Draw the films of the validation out of those of the training."""
        drawn, rest = draw_films(self._listed("train"), self.held_out, self._place("train"))
        held, left = (len({caption.video for caption in part}) for part in (drawn, rest))
        warn(
            f"{held} of {held + left} films, with {number_of(len(drawn), 'caption')}, are held"
            " out for validation, drawn by name; data.validation=FILE names others"
        )
        return {"train": rest, "validation": drawn}

    def _listed(self, split: str) -> list[Caption]:
        captions = self._read_captions(split)
        if split not in self._lists:
            return captions
        return keep_listed(captions, self._lists[split], self._place(split), self.max_bad)

    def _read_captions(self, split: str) -> list[Caption]:
        place, store = self._place(split), self._stored
        if place not in self._files:
            folder = place if place.is_dir() else place.parent
            if store is not None:
                captions = self._read_all(place, store.videos, self.max_bad, self._ways(split))
            else:
                captions = self._read_all(place, Media(folder), self.max_bad)
                captions, folder = look_below(captions, place, folder, self._root)
            self._files[place] = captions, folder
        return self._files[place][0]

    @functools.cached_property
    def _stored(self) -> FeatureStore | None:
        return None if self.store is None else open_store(self.store)

    @functools.cached_property
    def _further(self) -> dict[str, FeatureStore]:
        return open_fields(self.fields or {})

    def _place(self, split: str) -> Path:
        return self._file(split, "caption file")

    def _ways(self, split: str) -> Ways:
        """Say what the names in a caption file may be called in the store."""
        root = None if self._stored is None else self._stored.root() or self._root
        return ways_below(root, self._place(split).parent, self._root)

    @property
    def _root(self) -> Path | None:
        return Path(self.root).expanduser() if self.root else None

    def _folder(self, split: str) -> Path:
        """Return what the names of the videos of a split are relative to."""
        self._read_captions(split)
        return self._files[self._place(split)][1]
