"""YouCook2 and MSR-VTT in the published layout: pickled lists with a dict for each clip.

Read as EAO (arXiv:2112.04446), MCN (arXiv:2104.12671) and AVLnet (arXiv:2006.09199) distribute
them. An entry has ``id``, ``caption`` (a text, or a list of which training takes one at random),
``eval_caption``, ``audio`` (40, T) and features of pictures and of motion, of full length (N, D) or
pooled (D,). S3D and CLIP features are in a file beside the first, entry by entry.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.captions.table import CaptionParser
from fusion.data.datasets.clips import unique_names
from fusion.data.features.format import Field
from fusion.data.features.problems import common_width, find_problem, name_some, tolerate, warn
from fusion.data.features.readers import AUDIO
from fusion.data.media.log_mel import NUM_MELS
from fusion.data.untrusted.pickle import load_pickle

Entry = Mapping[str, Any]


class FeatureKeys(NamedTuple):
    """Keys of an entry's features of pictures and of motion; the first that fits is taken."""

    features_2d: tuple[str, ...]
    features_3d: tuple[str, ...]
    rate_3d: float = 1.0  # rows per second; of 2D features 1


FEATURE_KEYS = {
    "resnet": FeatureKeys(("2d_full", "2d", "2d_pooled"), ("3d_full", "3d", "3d_pooled"), 1.5),
    "s3d": FeatureKeys((), ("s3d",)),
    "clip": FeatureKeys(("clip",), ()),
}


@dataclasses.dataclass
class PickledClip:
    """One entry."""

    id: str
    text: str  # that it is evaluated with; may be empty
    texts: tuple[str, ...]  # that training chooses from
    features: dict[str, NDArray[Any]]  # some of ``2d`` (N, D), ``3d`` (N, D), ``audio`` (T, 40)
    problems: list[str] = dataclasses.field(default_factory=list)  # of features that were removed


class PickledFeatures:
    """A :class:`.Reader` of the features of clips, of a kind of ``FEATURE_KEYS``.

    ``fields`` are those that any of the clips has, and audio; ``videos`` are the names of the
    clips, of which repeated ones are numbered.
    """

    def __init__(self, clips: Sequence[PickledClip], kind: str) -> None:
        self.videos: Sequence[str] = unique_names([clip.id for clip in clips])
        self._clips = dict(zip(self.videos, clips, strict=True))
        widths = {name: rows.shape[1] for clip in clips for name, rows in clip.features.items()}
        rates = {"2d": 1.0, "3d": FEATURE_KEYS[kind].rate_3d}
        self.fields: Mapping[str, Field] = {
            name: Field(widths[name], rate) for name, rate in rates.items() if name in widths
        } | {"audio": AUDIO}

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a clip has of a field."""
        return len(self._clips[video].features.get(field, ()))

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field."""
        features = self._clips[video].features
        if field not in features:
            return torch.zeros(0, self.fields[field].width)
        return torch.from_numpy(features[field][max(first, 0) : last].astype(np.float32))


def read_clips(
    file: Path,
    kind: str = "resnet",
    beside: Path | None = None,
    pooled: bool = False,
    bad: str = "missing",
    max_bad: float = 0.05,
    needs: str | None = None,
) -> list[PickledClip]:
    """Read a pickle.

    Args:
        file: the pickle.
        kind: which features, one of ``FEATURE_KEYS``.
        beside: the pickle that has these features, if it is another one.
        pooled: take pooled features where there are some.
        bad: see :class:`.PickledVideos`.
        max_bad: the share of clips that may have features that cannot be used, and of captions
            that may be bad, see :class:`.CaptionParser`.
        needs: leave out the entries of ``file`` that lack this key.

    Raises:
        ValueError: it is no such list, the two files do not belong together, or too much of it
            cannot be used.
    """
    pairs = _read_pairs(file, beside)
    if needs is not None:
        pairs = _keep_with(pairs, needs, file)
    parser = CaptionParser(max_bad)
    clips = [_make_clip(*pair, FEATURE_KEYS[kind], pooled, file, parser) for pair in pairs]
    parser.check()
    problems = _take_out_problems(clips)
    if names := [clip.id for clip in clips if clip.problems]:
        said = (
            f"{file}: {len(names)} of {len(clips)} clips have features that cannot be used"
            f" ({name_some(names)}): "
        )
        said += "; ".join(f"{count} x {what}" for what, count in problems.most_common(3))
        tolerate(said, len(names) / len(clips), bad, max_bad)
    if bad == "leave_out":
        clips = [clip for clip in clips if not clip.problems]
    if not any("2d" in clip.features or "3d" in clip.features for clip in clips):
        raise _no_video(pairs[0][2], FEATURE_KEYS[kind], beside or file)
    return clips


def _read_entries(file: Path) -> list[Entry]:
    entries = load_pickle(file)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file} is not a list of clips; take a pickle of the published layout")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{file}: entry {number} is a {type(entry).__name__}, not a dict")
    return entries


def _read_pairs(file: Path, beside: Path | None) -> list[tuple[str, Entry, Entry]]:
    """Read for each entry its name, itself, and the one with its video features."""
    entries = _read_entries(file)
    others = _read_entries(beside) if beside else entries
    if len(others) != len(entries):
        raise ValueError(
            f"{beside} has {len(others)} entries, but {file} has {len(entries)}; take two files of"
            " one split"
        )
    pairs = []
    for number, (entry, other) in enumerate(zip(entries, others, strict=True)):
        name = entry.get("id", number)
        if other.get("id", name) != name:
            raise ValueError(
                f"entry {number} of {beside} is {other['id']!r}, but that of {file} is {name!r};"
                " take two files of one split"
            )
        pairs.append((str(name), entry, other))
    return pairs


def _keep_with(
    pairs: list[tuple[str, Entry, Entry]], key: str, file: Path
) -> list[tuple[str, Entry, Entry]]:
    """Leave out the entries that lack a key, and name them."""
    lacking = [name for name, entry, _ in pairs if entry.get(key) is None]
    if len(lacking) == len(pairs):
        raise ValueError(
            f"{file}: no entry has {key!r}, by which the protocol chooses its clips; take EAO's"
            " file or another data.protocol"
        )
    if lacking:
        warn(
            f"{file}: {len(lacking)} of {len(pairs)} entries have no {key!r}"
            f" ({name_some(lacking)}); left out, as the protocol says"
        )
    return [pair for pair in pairs if pair[1].get(key) is not None]


def _no_video(entry: Entry, kind: FeatureKeys, file: Path) -> ValueError:
    names = [*kind.features_2d, *kind.features_3d]
    pooled = [name for name in names if np.ndim(entry.get(name, 0)) == 1]
    hint = f"; {pooled[0]} is pooled over time: set data.max_video_tokens=0" if pooled else ""
    return ValueError(
        f"{file} has no video features that can be used: none under {', '.join(names)};"
        f" its entries have {', '.join(sorted(map(str, entry)))}{hint}"
    )


def _make_clip(
    name: str,
    entry: Entry,
    other: Entry,
    kind: FeatureKeys,
    pooled: bool,
    file: Path,
    parser: CaptionParser,
) -> PickledClip:
    def texts_of(key: str) -> tuple[str, ...]:
        given, where = entry.get(key, ()), f"{file}, clip {name}, {key}"
        given = given.tolist() if isinstance(given, np.ndarray) else given
        given = given if isinstance(given, list | tuple) else [given]
        parsed = [parser.parse(where, i, name, None, None, text) for i, text in enumerate(given, 1)]
        return tuple(caption.text for caption in parsed if caption)

    texts = texts_of("caption")
    text = (*texts_of("eval_caption"), *texts, "")[0]
    features = {}
    for what, keys in zip(("2d", "3d"), kind[:2], strict=True):
        if (rows := _choose(other, keys, pooled)) is not None:
            features[what] = rows
    if entry.get("audio") is not None:
        sound = np.asarray(entry["audio"])
        features["audio"] = sound.T if sound.ndim == 2 else sound
    return PickledClip(name, text, texts or (text,), features)


def _choose(entry: Entry, names: Sequence[str], pooled: bool) -> NDArray[Any] | None:
    """Return pooled features if they are wanted and there, else those of full length."""
    there = [np.asarray(entry[name]) for name in names if entry.get(name) is not None]
    flat = [values for values in there if values.ndim == 1]
    full = [values for values in there if values.ndim != 1]
    if pooled and flat:
        return flat[-1][None]
    return full[0] if full else None


def _take_out_problems(clips: Sequence[PickledClip]) -> Counter[str]:
    """Take features that cannot be used out of their clips, note it there, and count the kinds."""
    kinds: Counter[str] = Counter()
    for name in ("2d", "3d", "audio"):
        there = [clip for clip in clips if name in clip.features]
        width = common_width(clip.features[name].shape for clip in there)
        for clip in there:
            expected = NUM_MELS if name == "audio" else width
            if why := find_problem(clip.features[name], expected):
                kinds[f"{name}: {why}"] += 1
                clip.problems.append(f"{name} of {clip.id}: {why}")
                del clip.features[name]
    return kinds
