"""MSR-VTT and YouCook2 as the published code expects them on disk, and pickles like theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fusion.data.datasets.pickled import KINDS, PickledClip, read_clips
from fusion.data.datasets.pickled_clips import PickledClips, report_empty
from fusion.data.datasets.protocols import Protocol, choose_protocol
from fusion.data.datasets.video_tokens import STRATEGIES
from fusion.data.features.problems import POLICIES, check_max_bad
from fusion.files import missing_folder

EAO_DATA = "data.tar of github.com/ninatu/everything_at_once"
AVLNET_DATA = "AVLnet_release_data.tar.gz of github.com/roudimit/AVLnet"
MSRVTT_FULL_TEST = "msrvtt_full_test.pkl"


class PickledVideos:
    """Clips with features in pickles of the published layout, see :mod:`.pickled`.

    Args:
        train: the pickle of the training clips. Training needs it.
        validation: the same, for choosing the best checkpoint; without it the last one is taken.
        test: the same, for the table.
        beside: for any of the splits the pickle that has its S3D or CLIP features.
        features: ``resnet`` (2D and 3D), ``s3d`` or ``clip``.
        protocol: how the test is counted, one of :data:`fusion.data.datasets.protocols.PROTOCOLS`.
        max_video_tokens: the most tokens of a clip; 0: one token, the maximum over time.
        max_audio_frames: spectrogram frames of a clip, 100 per second; later ones are cut off.
        long_clips: what becomes of clips with more video tokens: ``clip``, their end is cut off,
            or ``nearest`` or ``max_pool``, see :func:`.fit_video_tokens`.
        cut: into how many parts clips are cut, each of ``max_video_tokens`` and
            ``max_audio_frames``; their embeddings are averaged. For evaluation.
        bad: what becomes of features that cannot be used: ``missing``, their clip goes without, or
            ``leave_out``, their clip is left out.
        max_bad: the share of clips of a file that may have such features.

    Raises:
        ValueError: a name is unknown, or ``max_bad`` no share.
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        beside: Mapping[str, str] | None = None,
        features: str = "resnet",
        protocol: str = "all",
        max_video_tokens: int = 12,
        max_audio_frames: int = 768,
        long_clips: str = "clip",
        cut: int = 1,
        bad: str = "missing",
        max_bad: float = 0.05,
    ) -> None:
        for name, value, known in [
            ("features", features, KINDS),
            ("long_clips", long_clips, STRATEGIES),
            ("bad", bad, POLICIES),
        ]:
            if value not in known:
                raise ValueError(f"data.{name}: unknown {value!r}; choose from {', '.join(known)}")
        check_max_bad(max_bad)
        files = {"train": train, "validation": validation, "test": test}
        self.files = {name: Path(file).expanduser() for name, file in files.items() if file}
        self.beside = {name: Path(file).expanduser() for name, file in (beside or {}).items()}
        self.features, self.bad, self.max_bad = features, bad, max_bad
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self.long_clips, self.cut = long_clips, cut
        self._protocol = choose_protocol(protocol)
        self.origin = "check the path"  # the way out when a file is missing
        self._read: dict[str, list[PickledClip]] = {}

    @property
    def splits(self) -> list[str]:
        """Names of the splits that there are."""
        return list(self.files)

    def extract(self) -> None:
        """Look whether the files of all splits are there; the features are in them."""
        for split in self.files:
            self._file(split)

    def texts(self, split: str) -> list[str]:
        """The clips' texts, to learn words from."""
        return [text for clip in self._clips(split) for text in clip.texts]

    def clips(self, split: str, text_encoder: Callable[[str], Tensor]) -> PickledClips:
        """Read a split.

        Raises:
            ValueError: there is no such split, or its file cannot be used.
        """
        clips = self._clips(split)
        every_caption = self.protocol(split).captions is not None
        if split == "test":
            num_captions = sum(len(clip.texts) for clip in clips)
            self._protocol.check(len(clips), str(self._file(split)), num_captions)
        opened = PickledClips(
            clips,
            text_encoder,
            self.max_video_tokens,
            self.max_audio_frames,
            self.long_clips,
            1 if split == "train" else self.cut,
            every_caption,
        )
        report_empty(opened, str(self._file(split)), self.max_bad)
        return opened

    def protocol(self, split: str) -> Protocol:
        """How a split is counted."""
        if split != "test":
            return choose_protocol("all")
        if self._protocol.needs_entry:  # which has chosen the clips when they were read
            return dataclasses.replace(self._protocol, needs=())
        return self._protocol

    def describe(self, split: str) -> str:
        """Say what the clips of a split are."""
        return f"{self._file(split).name}, {self.features} features"

    def ceiling(self, split: str) -> Mapping[str, Any] | None:
        """What can be reached at best; nobody knows."""
        return None

    def _clips(self, split: str) -> list[PickledClip]:
        if split not in self._read:
            self._read[split] = read_clips(
                self._file(split),
                self.features,
                self.beside.get(split),
                pooled=self.max_video_tokens == 0,
                bad=self.bad,
                max_bad=self.max_bad,
                needs=self._protocol.needs_entry,
            )
        return self._read[split]

    def _file(self, split: str) -> Path:
        if split not in self.files:
            known = ", ".join(self.files) or "none"
            raise ValueError(
                f"the data has no split {split!r} (it has: {known}); choose one of them, or name a"
                f" pickle under data.{split} of the config"
            )
        if not self.files[split].exists():
            where = missing_folder(self.files[split])
            raise ValueError(f"{self.files[split]} is missing{where}; {self.origin}")
        return self.files[split]


def msrvtt(
    root: str | None = None,
    train_split: str = "7k",
    features: str = "resnet",
    protocol: str = "msrvtt-968-of-1000",
    max_video_tokens: int = 48,
    max_audio_frames: int = 3072,
    long_clips: str = "clip",
    cut: int = 1,
    bad: str = "missing",
    max_bad: float = 0.05,
) -> PickledVideos:
    """Open MSR-VTT: the published features of AVLnet, MCN and EAO.

    Args:
        root: folder of data sets (``data_root``), with ``msrvtt/resnet/msrvtt_train.pkl`` and so
            on, as the published archives have them.
        train_split: ``7k`` (6,783 clips with sound) or ``9k``, that of 1k-A.
        features: see :class:`PickledVideos`, and so are the others.
        protocol: see there. The test file of ``msrvtt-full``, ``msrvtt_full_test.pkl``, is in no
            published archive: make one of the same layout, with all texts under ``caption``.
        max_video_tokens: see there.
        max_audio_frames: see there.
        long_clips: see there.
        cut: see there.
        bad: see there.
        max_bad: see there.

    Raises:
        ValueError: a name is unknown.
    """
    names = {"7k": "msrvtt_train.pkl", "9k": "msrvtt_1k-A_train.pkl"}
    if train_split not in names:
        raise ValueError(f"data.train_split: unknown {train_split!r}; choose from 7k, 9k")
    full = protocol == "msrvtt-full"
    test = MSRVTT_FULL_TEST if full else "msrvtt_jsfusion_test.pkl"
    files = {"train": names[train_split], "test": test}
    videos = PickledVideos(
        **_locate(root, "msrvtt", files, features),
        features=features,
        protocol=protocol,
        max_video_tokens=max_video_tokens,
        max_audio_frames=max_audio_frames,
        long_clips=long_clips,
        cut=cut,
        bad=bad,
        max_bad=max_bad,
    )
    videos.origin = _origin("msrvtt", files, features)
    if full:
        videos.origin += (
            f"; {MSRVTT_FULL_TEST} is in neither: make a pickle of the same layout, an entry for"
            " each of the 2,990 test clips with its 20 texts under 'caption'"
        )
    return videos


def youcook2(
    root: str | None = None,
    features: str = "resnet",
    protocol: str = "youcook2-3339-of-3350",
    max_video_tokens: int = 72,
    max_audio_frames: int = 4608,
    long_clips: str = "clip",
    cut: int = 1,
    bad: str = "missing",
    max_bad: float = 0.05,
) -> PickledVideos:
    """Open YouCook2: the published features of AVLnet, MCN and EAO.

    Args:
        root: folder of data sets (``data_root``), with ``youcook/resnet/youcook_train.pkl`` and so
            on, as the published archives have them.
        features: see :class:`PickledVideos`, and so are the others.
        protocol: see there.
        max_video_tokens: see there.
        max_audio_frames: see there.
        long_clips: see there.
        cut: see there.
        bad: see there.
        max_bad: see there.

    Raises:
        ValueError: a name is unknown.
    """
    files = {"train": "youcook_train.pkl", "test": "youcook_val.pkl"}
    videos = PickledVideos(
        **_locate(root, "youcook", files, features),
        features=features,
        protocol=protocol,
        max_video_tokens=max_video_tokens,
        max_audio_frames=max_audio_frames,
        long_clips=long_clips,
        cut=cut,
        bad=bad,
        max_bad=max_bad,
    )
    videos.origin = _origin("youcook", files, features)
    return videos


def _origin(name: str, files: Mapping[str, str], features: str) -> str:
    folders = ["resnet"] if features == "resnet" else ["resnet", features]
    expected = ", ".join(f"{name}/{folder}/{file}" for folder in folders for file in files.values())
    return (
        f"data_root must be a folder with {expected}; they come with {EAO_DATA} (features of ResNet"
        f" also with {AVLNET_DATA})"
    )


def _locate(
    folder: str | None, name: str, files: Mapping[str, str], features: str
) -> dict[str, Any]:
    """Name the files of a data set; that of each split may be missing until it is asked for."""
    if folder is None:
        raise ValueError(
            f"where is the data? add data_root=FOLDER; {_origin(name, files, features)}"
        )
    root = Path(folder).expanduser()
    found: dict[str, Any] = {
        split: str(_first(_places(root, name, file))) for split, file in files.items()
    }
    if features != "resnet":
        found["beside"] = {
            split: str(root / name / features / file) for split, file in files.items()
        }
    return found


def _places(root: Path, name: str, file: str) -> list[Path]:
    """List where EAO's and AVLnet's archives have a file, the first of them first."""
    stem = Path(file).stem
    with_sound = f"{stem}_audio.pkl"  # AVLnet's name for YouCook2's
    return [root / name / "resnet" / file, root / file, root / with_sound]


def _first(places: Sequence[Path]) -> Path:
    return next((place for place in places if place.exists()), places[0])
