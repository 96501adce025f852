"""YouCook2 and MSR-VTT in the published layout: pickled lists with a dict for each clip.

Read as EAO (arXiv:2112.04446), MCN (arXiv:2104.12671) and AVLnet (arXiv:2006.09199) distribute
them. An entry has ``id``, ``caption`` (a text, or a list of which training takes one at random),
``eval_caption``, ``audio`` (40, T) and features of pictures and of motion, of full length (N, D) or
pooled (D,). S3D and CLIP features are in a file beside the first, entry by entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.captions import Caption
from fusion.data.problems import Problem, common_width, find_problem, report
from fusion.data.safe_pickle import load_pickle
from fusion.data.source import ClipSet
from fusion.data.spectrogram import NUM_MELS
from fusion.data.video_tokens import fit_video_tokens

TextEncoder = Callable[[str], Tensor]
Entry = Mapping[str, Any]


FILLED = 0.7  # share of a part's frames below which it is dropped, as published


class Kind(NamedTuple):
    """Where an entry has its features of pictures and of motion; the first that fits is taken."""

    features_2d: tuple[str, ...]
    features_3d: tuple[str, ...]


KINDS = {
    "resnet": Kind(("2d_full", "2d", "2d_pooled"), ("3d_full", "3d", "3d_pooled")),
    "s3d": Kind((), ("s3d",)),
    "clip": Kind(("clip",), ()),
}


@dataclasses.dataclass
class PickledClip:
    """One entry.

    Attributes:
        id: name of the clip.
        text: the text that it is evaluated with; may be empty.
        texts: those that training chooses from.
        features: ``2d`` (N, D), ``3d`` (N, D) and ``audio`` (T, 40), as far as they are there.
        problems: what is wrong with features that were there and cannot be used.
    """

    id: str
    text: str
    texts: tuple[str, ...]
    features: dict[str, NDArray[Any]]
    problems: list[str] = dataclasses.field(default_factory=list)


def read_clips(
    file: Path,
    kind: str = "resnet",
    beside: Path | None = None,
    pooled: bool = False,
    bad: str = "missing",
    max_bad: float = 0.05,
) -> list[PickledClip]:
    """Read a file.

    Args:
        file: the pickle.
        kind: which features, one of ``KINDS``.
        beside: the pickle that has these features, if it is another one.
        pooled: take pooled features where there are some.
        bad: what becomes of features that cannot be used: ``missing``, their clip goes without, or
            ``leave_out``, their clip is left out.
        max_bad: the share of clips that may have such features.

    Raises:
        ValueError: it is no such list, the two files do not belong together, or too much of it
            cannot be used.
    """
    entries = _read_entries(file)
    others = _read_entries(beside) if beside else entries
    if len(others) != len(entries):
        raise ValueError(
            f"{beside} has {len(others)} entries, but {file} has {len(entries)}; take two files of"
            " one split"
        )
    clips = []
    for number, (entry, other) in enumerate(zip(entries, others, strict=True)):
        name = entry.get("id", number)
        if other.get("id", name) != name:
            raise ValueError(
                f"entry {number} of {beside} is {other['id']!r}, but that of {file} is {name!r};"
                " take two files of one split"
            )
        clips.append(_make_clip(str(name), entry, other, KINDS[kind], pooled))
    problems = _take_out_problems(clips)
    report(problems, len(clips), str(file), bad, max_bad)
    if bad == "leave_out":
        named = {problem.clip for problem in problems}
        clips = [clip for clip in clips if clip.id not in named]
    if not any("2d" in clip.features or "3d" in clip.features for clip in clips):
        names = ", ".join(name for names in KINDS[kind] for name in names)
        raise ValueError(
            f"{beside or file} has no video features that can be used: none under {names};"
            f" its entries have {', '.join(sorted(map(str, others[0])))}"
        )
    return clips


class PickledClips(ClipSet):
    """Clips as a model takes them.

    Args:
        clips: see :func:`read_clips`.
        text_encoder: maps a sentence to (L, D) features.
        max_video_tokens: the most tokens of a clip; 0: one token, the maximum over time.
        max_audio_frames: later ones of a clip are cut off; 100 are a second.
        long_clips: see :func:`fusion.data.video_tokens.fit_video_tokens`.
        cut: into how many parts clips are cut, each of so many tokens and frames as above, with the
            text of the whole. Parts after the first need 0.7 of the frames.
        every_caption: take each of a clip's ``texts`` in turn, not the one it is evaluated with.

    Attributes:
        captions: for each clip its name and the text it is evaluated with, or each of its texts.
        folder: None; there are no media files.

    Each item is a dict of ``id``, ``text`` (L, D), ``video`` (L, D) and ``audio`` (L, 40) in
    float32; a modality that the clip lacks has length 0.
    """

    def __init__(
        self,
        clips: Sequence[PickledClip],
        text_encoder: TextEncoder,
        max_video_tokens: int = 12,
        max_audio_frames: int = 768,
        long_clips: str = "clip",
        cut: int = 1,
        every_caption: bool = False,
    ) -> None:
        self.clips, self.text_encoder, self.long_clips = list(clips), text_encoder, long_clips
        self.max_video_tokens, self.max_audio_frames = max_video_tokens, max_audio_frames
        self._seed: int | None = None
        self._shows = [
            number
            for number, clip in enumerate(clips)
            for _ in range(len(clip.texts) if every_caption else 1)
        ]
        texts = [t for c in clips for t in (c.texts if every_caption else (c.text,))]
        self.captions = [
            Caption(clips[number].id, 0.0, 0.0, text)
            for number, text in zip(self._shows, texts, strict=True)
        ]
        self.folder = None
        self._parts = [
            (place, part)
            for place, number in enumerate(self._shows)
            for part in range(cut)
            if part == 0 or self._is_filled(clips[number], part)
        ]
        self.cut = cut
        if cut > 1:
            self.whole = [place for place, _ in self._parts]
        # A clip without features still says how wide they would be.
        self._widths = {
            name: next(c.features[name].shape[1] for c in clips if name in c.features)
            for name in ("2d", "3d", "audio")
            if any(name in clip.features for clip in clips)
        }
        self._widths.setdefault("audio", NUM_MELS)

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip."""
        return self._shows

    def draw_anew(self, seed: int) -> None:
        """Take one of each clip's texts at random from now on, as the seed and the clip say."""
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give the features of one clip, or of a part."""
        place, part = self._parts[index]
        clip = self.clips[self._shows[place]]
        tokens, frames = self.max_video_tokens, self.max_audio_frames
        video = fit_video_tokens(
            self._rows(clip, "2d"), self._rows(clip, "3d"), self.cut * tokens, self.long_clips
        )
        sound = self._rows(clip, "audio")
        assert sound is not None
        return {
            "id": clip.id,
            "text": self.text_encoder(self._text(place)),
            "video": video[part * tokens : (part + 1) * tokens] if self.cut > 1 else video,
            "audio": sound[part * frames : (part + 1) * frames],
        }

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


def _read_entries(file: Path) -> list[Entry]:
    entries = load_pickle(file)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file} is not a list of clips; take a pickle of the published layout")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{file}: entry {number} is a {type(entry).__name__}, not a dict")
    return entries


def _make_clip(name: str, entry: Entry, other: Entry, kind: Kind, pooled: bool) -> PickledClip:
    captions = entry.get("caption", ())
    texts = (captions,) if isinstance(captions, str) else tuple(map(str, captions))
    text = str(entry.get("eval_caption", texts[0] if texts else ""))
    features = {}
    for what, keys in zip(("2d", "3d"), kind, strict=True):
        if (rows := _choose(other, keys, pooled)) is not None:
            features[what] = rows
    if entry.get("audio") is not None:
        sound = np.asarray(entry["audio"])
        features["audio"] = sound.T if sound.ndim == 2 else sound
    return PickledClip(name, text, texts or (text,), features)


def _choose(entry: Entry, names: Sequence[str], pooled: bool) -> NDArray[Any] | None:
    """Take the features of full length, or if they are to be pooled those that are."""
    there = [np.asarray(entry[name]) for name in names if entry.get(name) is not None]
    flat = [values for values in there if values.ndim == 1]
    full = [values for values in there if values.ndim != 1]
    if pooled and flat:
        return flat[-1][None]
    return full[0] if full else None


def _take_out_problems(clips: Sequence[PickledClip]) -> list[Problem]:
    """Take features that cannot be used out of their clips, and name them."""
    problems = []
    for name in ("2d", "3d", "audio"):
        there = [clip for clip in clips if name in clip.features]
        width = common_width(clip.features[name].shape for clip in there)
        if name == "audio":
            width = NUM_MELS
        for clip in there:
            if why := find_problem(clip.features[name], width):
                problems.append(Problem(clip.id, name, why))
                clip.problems.append(f"{name} of {clip.id}: {why}")
                del clip.features[name]
    return problems
