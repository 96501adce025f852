"""What a data set offers to a task, and how its clips become a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fusion.data.captions.table import Caption
from fusion.data.datasets.protocols import PROTOCOLS, Protocol
from fusion.data.features.problems import POLICIES
from fusion.interfaces import TextEncoder
from fusion.tokens import Batch, Tokens

SPLITS = ("train", "validation", "test")
NOT_MODALITIES = ("id", "targets")  # of the keys of an item
OF_CAPTIONS = ("id", "text")  # of the keys of an item


class ClipSet(Dataset[dict[str, Any]]):
    """The clips of one split.

    An item is a dict of ``id``, for each modality (L, D) float32 features, L = 0 where the clip
    lacks it, and perhaps ``targets``, see :func:`collate`. A clip with several captions is as many
    items, which ``shows`` puts together. A data set without texts has no ``captions`` and its own
    ``__len__``.

    Attributes:
        captions: for each caption its clip, a stretch of a video.
        folder: what the names of the videos are relative to; None if there are no media files.
        whole: where clips are cut, for each item its caption: embeddings of parts are averaged.
        group: so many neighbours follow one another in training; a list: so many of each group.
        further: fields of the features that are modalities of their own, beside text, video and
            audio; the task sets it to what the model reads.
    """

    captions: Sequence[Caption] = ()
    folder: Path | None = None
    whole: Sequence[int] | None = None
    group: int | Sequence[int] = 1
    further: Sequence[str] = ()

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip: those of one window of a video share it."""
        numbers: dict[tuple[str, float, float], int] = {}
        return [numbers.setdefault((c.video, c.start, c.end), len(numbers)) for c in self.captions]

    def __len__(self) -> int:
        """Number of items."""
        return len(self.captions if self.whole is None else self.whole)

    def caption(self, index: int) -> dict[str, Any]:
        """Read what an item does not share with other captions of its clip: ``id``, ``text``."""
        return {name: value for name, value in self[index].items() if name in OF_CAPTIONS}

    def set_epoch(self, seed: int) -> None:
        """Set the seed of the random draws, before each training epoch. Here nothing is drawn."""

    def begin_epoch(self, number: int) -> None:
        """Before each training epoch, the first of which is 0. The default does nothing."""

    def end_epoch(self) -> None:
        """After each epoch of training: report on it. The default does nothing."""


class ChangedClips(ClipSet):
    """Another set of clips, of which something is changed."""

    def __init__(self, clips: ClipSet) -> None:
        self.clips, self.folder = clips, clips.folder
        self.whole, self.group, self.further = clips.whole, clips.group, clips.further

    @property
    def captions(self) -> Sequence[Caption]:  # type: ignore[override]
        """The captions of the clips, read when they are asked for."""
        return self.clips.captions

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip."""
        return self.clips.shows

    def __len__(self) -> int:
        """Number of items."""
        return len(self.clips)

    def caption(self, index: int) -> dict[str, Any]:
        """Read what an item does not share with other captions of its clip."""
        return self.clips.caption(index)

    def set_epoch(self, seed: int) -> None:
        """Set the seed of the random draws."""
        self.clips.set_epoch(seed)

    def begin_epoch(self, number: int) -> None:
        """Before each training epoch."""
        self.clips.begin_epoch(number)

    def end_epoch(self) -> None:
        """After each epoch of training: report on it."""
        self.clips.end_epoch()


class FirstClips(ChangedClips):
    """The first ``number`` clips of a set, or all if it has fewer."""

    def __init__(self, clips: ClipSet, number: int) -> None:
        super().__init__(clips)
        self.number = number
        if clips.whole is not None:
            self.whole = [caption for caption in clips.whole if caption < number]

    @property
    def captions(self) -> Sequence[Caption]:  # type: ignore[override]
        """The captions of these clips, read when they are asked for."""
        return self.clips.captions[: self.number]

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip."""
        return self.clips.shows[: self.number]

    def __len__(self) -> int:
        """Number of items."""
        return min(self.number, len(self.clips)) if self.whole is None else len(self.whole)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an item."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.clips[index]


class Source:
    """A data set: some of the splits ``train``, ``validation`` and ``test``, each with its file.

    Attributes:
        files: the file of each split.
        tested_by: how a table on the test split is counted.
        max_clips: the most clips of a split whose features are computed; None: all.
    """

    tested_by = PROTOCOLS["all"]
    max_clips: int | None = None

    def __init__(self, files: Mapping[str, str | None]) -> None:
        self.files = paths_of(files)

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.files)

    def extract(self) -> None:
        """Do slow work once, such as computing features. The default does nothing."""

    def fit(self) -> dict[str, Any]:
        """Return settings that the config leaves to the data, such as lengths; none by default."""
        return {}

    def texts(self, split: str) -> list[str]:
        """The texts of a split, for a text encoder that learns its words; none by default."""
        return []

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> ClipSet:
        """Read a split; without a text encoder its items have no text.

        ValueError: there is no such split, or its files cannot be used.
        """
        raise NotImplementedError

    def protocol_of(self, split: str) -> Protocol:
        """How a table on a split is counted; except for the test, every clip is."""
        return self.tested_by if split == "test" else PROTOCOLS["all"]

    def describe(self, split: str) -> str:
        """Say in a few words what the clips of a split are."""
        return split

    def recipe(self) -> dict[str, Any] | None:
        """Say how a clip's input is made, ready for JSON, so that it can be made of other films.

        It has ``features`` (how those of a film are computed), ``max_video_tokens``,
        ``max_audio_frames`` and ``long_clips``. None: it is not known, so it cannot be repeated.
        """
        return None

    def ceiling(self, split: str) -> Mapping[str, Any] | None:
        """The best results possible, by direction; None if they are not known."""
        return None

    def _file(self, split: str, what: str) -> Path:
        if split not in self.files:
            known = ", ".join(self.files) or "none"
            raise ValueError(
                f"the data has no split {split!r} (it has: {known}); choose one of them, or name a"
                f" {what} under data.{split} of the config"
            )
        return self.files[split]


def check_settings(bad: str, max_bad: float, **choices: tuple[str, Iterable[str]]) -> None:
    """Check settings of the section ``data``: by name, a value and what it is chosen from.

    ValueError: a value is not among its choices, or ``max_bad`` is no share, such as 50 for 50 %.
    """
    for name, (value, known) in (choices | {"bad": (bad, POLICIES)}).items():
        if value not in known:
            raise ValueError(f"data.{name}: unknown {value!r}; choose from {', '.join(known)}")
    if not 0 <= max_bad <= 1:
        raise ValueError(
            f"data.max_bad is {max_bad:g}; it is a share and must be between 0 and 1, such as 0.05"
            " for 5 %"
        )


def paths_of(files: Mapping[str, str | None] | None) -> dict[str, Path]:
    """Make paths of the files that are given."""
    return {name: Path(file).expanduser() for name, file in (files or {}).items() if file}


def collate(clips: Sequence[Mapping[str, Any]]) -> Batch:
    """Put clips end to end, without padding.

    Args:
        clips: items of a :class:`ClipSet`. A clip may lack every modality; it counts in no term of
            a loss and in no direction. ``targets`` maps the names of labels, answers and the like
            to values.

    Returns:
        A batch of the modalities in the order of the first clip. Targets that are numbers or
        tensors of one shape become a (B, …) tensor, others a list.

    Raises:
        ValueError: the features of a clip are not as wide as those of the first.
    """
    first = clips[0]
    modalities = [name for name in first if name not in NOT_MODALITIES]
    for clip in clips:
        for name in modalities:
            expected, got = first[name].shape[1:], clip[name].shape[1:]
            if got != expected:
                raise ValueError(
                    f"clip {clip['id']!r} has {name} features of width {list(got)},"
                    f" but {first['id']!r} has {list(expected)}"
                )
    inputs = {name: Tokens.pack([clip[name] for clip in clips]) for name in modalities}
    names = first.get("targets", ())
    targets = {name: _stack([clip["targets"][name] for clip in clips]) for name in names}
    return Batch(tuple(clip["id"] for clip in clips), inputs, targets=targets)


def _stack(values: Sequence[Any]) -> Tensor | list[Any]:
    if all(isinstance(value, Tensor | int | float) for value in values):
        tensors = [torch.as_tensor(value) for value in values]
        if len({tensor.shape for tensor in tensors}) == 1:
            return torch.stack(tensors)
    return list(values)
