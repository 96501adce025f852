"""MSR-VTT and YouCook2 as the published code expects them on disk, and pickles like theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.data.captions.table import WHOLE, Caption
from fusion.data.datasets.clips import Clips
from fusion.data.datasets.dataset import SPLITS, Source, TextEncoder, check_settings, paths_of
from fusion.data.datasets.pickled import FEATURE_KEYS, PickledClip, PickledFeatures, read_clips
from fusion.data.datasets.protocols import PROTOCOLS, Protocol
from fusion.data.datasets.sampling import STRATEGIES
from fusion.data.features.problems import name_some, tolerate
from fusion.files import missing_folder

EAO_DATA = "data.tar of github.com/ninatu/everything_at_once"
AVLNET_DATA = "AVLnet_release_data.tar.gz of github.com/roudimit/AVLnet"


@dataclasses.dataclass(eq=False)
class PickledVideos(Source):
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
        long_clips: ``clip``, ``nearest`` or ``max_pool``, see :func:`.fit_video_tokens`.
        cut: in evaluation, into how many parts clips are cut, each of ``max_video_tokens`` and
            ``max_audio_frames``; their embeddings are averaged.
        bad: a clip with features that cannot be used goes without them (``missing``), or is left
            out (``leave_out``).
        max_bad: the share of clips of a file that may have such features, and of captions that may
            be bad, see :class:`fusion.data.captions.table.CaptionParser`.

    Raises:
        ValueError: a name is unknown, or ``max_bad`` no share.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    beside: Mapping[str, str] | None = None
    features: str = "resnet"
    protocol: str = "all"
    max_video_tokens: int = 12
    max_audio_frames: int = 768
    long_clips: str = "clip"
    cut: int = 1
    bad: str = "missing"
    max_bad: float = 0.05

    def __post_init__(self) -> None:
        check_settings(
            self.bad,
            self.max_bad,
            features=(self.features, FEATURE_KEYS),
            protocol=(self.protocol, PROTOCOLS),
            long_clips=(self.long_clips, STRATEGIES),
        )
        super().__init__({split: getattr(self, split) for split in SPLITS})
        self.tested_by = PROTOCOLS[self.protocol]
        self.origin = "check the path"  # the way out when a file is missing
        self._read: dict[str, list[PickledClip]] = {}

    def extract(self) -> None:
        """Check that the files of all splits are there; the features are in them."""
        for split in self.files:
            self._pickle(split)

    def texts(self, split: str) -> list[str]:
        """The clips' texts."""
        return [text for clip in self._clips(split) for text in clip.texts]

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> Clips:
        """Read a split."""
        clips, file = self._clips(split), str(self._pickle(split))
        if split == "test":
            self.tested_by.check(len(clips), file, sum(len(clip.texts) for clip in clips))
        reader = PickledFeatures(clips, self.features)
        self._report_empty(split, text_encoder)
        every = self.protocol_of(split).captions is not None
        captions, texts = [], []
        for name, clip in zip(reader.videos, clips, strict=True):
            for text in clip.texts if every else (clip.text,):
                captions.append(Caption(name, *WHOLE, text))
                texts.append(clip.texts)
        features = (reader, text_encoder, self.max_video_tokens, self.max_audio_frames)
        cut = 1 if split == "train" else self.cut
        return Clips(None, captions, *features, texts=texts, long_clips=self.long_clips, cut=cut)

    def protocol_of(self, split: str) -> Protocol:
        """How a table on a split is counted."""
        protocol = super().protocol_of(split)
        # Clips without ``needs_entry`` were left out when they were read.
        return dataclasses.replace(protocol, needs=()) if protocol.needs_entry else protocol

    def describe(self, split: str) -> str:
        """Say what the clips of a split are."""
        return f"{self._pickle(split).name}, {self.features} features"

    def _clips(self, split: str) -> list[PickledClip]:
        if split not in self._read:
            files = self._pickle(split), self.features, paths_of(self.beside).get(split)
            pooled, limits = not self.max_video_tokens, (self.bad, self.max_bad)
            self._read[split] = read_clips(*files, pooled, *limits, self.tested_by.needs_entry)
        return self._read[split]

    def _report_empty(self, split: str, text_encoder: TextEncoder | None) -> None:
        """Name the clips without picture, sound and known words; refuse too many of them."""
        clips = self._clips(split)
        kinds = {name for clip in clips for name in clip.features} - {"audio"}
        enough = all if self.max_video_tokens else any  # pooled, one kind of features is enough
        names = [
            clip.id
            for clip in clips
            if "audio" not in clip.features
            and not enough(kind in clip.features for kind in kinds)
            and not (text_encoder and any(map(len, map(text_encoder, (clip.text, *clip.texts)))))
        ]
        if names:
            said = (
                f"{self._pickle(split)}: {len(names)} of {len(clips)} clips have neither picture"
                f" nor sound nor a word that the text encoder knows ({name_some(names)}); they are"
                " in no ranking and no loss"
            )
            tolerate(said, len(names) / len(clips), "missing", self.max_bad)

    def _pickle(self, split: str) -> Path:
        file = self._file(split, "pickle")
        if not file.exists():
            raise ValueError(f"{file} is missing{missing_folder(file)}; {self.origin}")
        return file


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

    ``root`` is the folder of data sets (``data_root``), with ``msrvtt/resnet/msrvtt_train.pkl`` and
    so on, as the published archives have them. ``train_split`` is ``7k`` (6,783 clips with sound)
    or ``9k``, that of 1k-A. The test file of ``msrvtt-full``, ``msrvtt_full_test.pkl``, is in no
    published archive: make one of the same layout, with all texts under ``caption``. The other
    arguments are those of :class:`PickledVideos`.
    """
    names = {"7k": "msrvtt_train.pkl", "9k": "msrvtt_1k-A_train.pkl"}
    check_settings(bad, max_bad, train_split=(train_split, names))
    full = protocol == "msrvtt-full"
    test = "msrvtt_full_test.pkl" if full else "msrvtt_jsfusion_test.pkl"
    settings = (protocol, max_video_tokens, max_audio_frames, long_clips, cut, bad, max_bad)
    videos = _open(root, "msrvtt", names[train_split], test, features, *settings)
    if full:
        videos.origin += (
            f"; {test} is in neither: make a pickle of the same layout, an entry for each of the"
            " 2,990 test clips with its 20 texts under 'caption'"
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

    ``root`` is the folder of data sets (``data_root``), with ``youcook/resnet/youcook_train.pkl``
    and so on, as the published archives have them. The other arguments are those of
    :class:`PickledVideos`.
    """
    settings = (protocol, max_video_tokens, max_audio_frames, long_clips, cut, bad, max_bad)
    return _open(root, "youcook", "youcook_train.pkl", "youcook_val.pkl", features, *settings)


def _open(
    folder: str | None, name: str, train: str, test: str, features: str, *settings: Any
) -> PickledVideos:
    """Open the files of a data set; they may be missing until they are read."""
    folders = ["resnet"] if features == "resnet" else ["resnet", features]
    wanted = ", ".join(f"{name}/{kind}/{file}" for kind in folders for file in (train, test))
    origin = (
        f"data_root must be a folder with {wanted}; they come with {EAO_DATA} (features of ResNet"
        f" also with {AVLNET_DATA})"
    )
    if folder is None:
        raise ValueError(f"where is the data? add data_root=FOLDER; {origin}")
    root = Path(folder).expanduser()
    found: dict[str, str] = {}
    beside: dict[str, str] = {}
    for split, file in (("train", train), ("test", test)):
        # The places of EAO's archive, of AVLnet's, and AVLnet's name for the files of YouCook2
        places = [root / name / "resnet" / file, root / file, root / f"{file[:-4]}_audio.pkl"]
        found[split] = str(next((place for place in places if place.exists()), places[0]))
        if features != "resnet":
            beside[split] = str(root / name / features / file)
    videos = PickledVideos(found["train"], None, found["test"], beside, features, *settings)
    videos.origin = origin
    return videos
