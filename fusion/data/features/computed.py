"""Features of a user's own films, computed on the way and kept in the cache.

A film that cannot be read, or lacks picture or sound because it is damaged, ends no run: it is
counted and named, and limited by ``data.max_bad``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from fusion.data.features.format import Field
from fusion.data.features.problems import name_some, tolerate, warn
from fusion.data.features.readers import AUDIO
from fusion.data.media import descriptors
from fusion.data.media.decode import MediaError
from fusion.data.media.film import LOST, PARTIAL, SILENT, VERSION, Film, Piece
from fusion.data.media.log_mel import Spectrogram
from fusion.data.media.pictures import Sampling
from fusion.data.media.streams import BEST, Tracks
from fusion.files import cache_folder, write_atomically
from fusion.signals import leave_stopping_to_parent
from fusion.words import number_of

SPECTROGRAM_VERSION = 1  # raise it when log_mel changes; its own VERSION is that of the reader
BLOCK = 150  # frames described at a time: whole rows, and whole blocks of descriptors
FEW_VIDEOS = 40  # starting a process takes as long as reading so many short videos
_CACHED_AS = {"2d": "features_2d", "3d": "features_3d", "audio": "spectrogram"}  # in a cache file


ReadPieces = Callable[[Path, Mapping[str, Sampling], bool], Iterable[Piece]]


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Turns the pictures of a video into features.

    Raise ``version`` when the computed numbers change. ``compute`` maps (T, H, W, 3) uint8 pictures
    to (T2, D2) and (T3, D3) float32 features, with no rows if there is no picture.
    """

    version: str
    field_2d: Field
    field_3d: Field
    sampling: Sampling
    compute: Callable[[NDArray[np.uint8]], tuple[Tensor, Tensor]]


def _describe(frames: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    appearance, motion = descriptors.appearance(frames), descriptors.motion(frames)
    return torch.from_numpy(appearance), torch.from_numpy(motion)


EXTRACTORS = {
    "descriptors": Extractor(  # small and hand-made, without weights
        version="1",
        field_2d=Field(
            descriptors.APPEARANCE_DIM,
            descriptors.FRAMES_PER_SECOND / descriptors.APPEARANCE_FRAMES,
        ),
        field_3d=Field(
            descriptors.MOTION_DIM, descriptors.FRAMES_PER_SECOND / descriptors.MOTION_FRAMES
        ),
        sampling=Sampling(
            descriptors.FRAMES_PER_SECOND, (descriptors.FRAME_HEIGHT, descriptors.FRAME_WIDTH)
        ),
        compute=_describe,
    ),
}


def fields_of(extractor: str) -> dict[str, Field]:
    """Describe the features that an extractor makes, and the spectrogram."""
    made = EXTRACTORS[extractor]
    return {"2d": made.field_2d, "3d": made.field_3d, "audio": AUDIO}


def recipe_of(extractor: str, tracks: Tracks = BEST) -> dict[str, Any]:
    """Say how features are made, ready for JSON; the same for equal features of a film."""
    version = EXTRACTORS[extractor].version
    recipe: dict[str, Any] = {"extractor": extractor, "version": version}
    recipe["log_mel"] = SPECTROGRAM_VERSION
    return recipe | ({"tracks": wishes} if (wishes := tracks.as_settings()) else {})


class Computed(NamedTuple):
    """What was computed of a film."""

    features: dict[str, Tensor]  # no rows of what it lacks
    problems: list[str]  # see :class:`.film.Film`
    notes: list[str]
    unreadable: str  # why nothing of it can be read; empty: it can


def compute_features(path: Path, extractor: str, tracks: Tracks = BEST) -> dict[str, Tensor]:
    """Compute the features of one media file, or read them from the cache.

    MediaError: nothing of the file can be read.
    """
    found = _read(path, extractor, tracks)
    if found is None:
        _compute_to_cache(path, extractor, tracks)
        found = _read(path, extractor, tracks)
    assert found is not None
    if found.unreadable:
        raise MediaError(f"{path}: {found.unreadable}")
    return found.features


class ComputedFeatures:
    """Features of some videos, in memory; a :class:`.readers.Reader`.

    ``2d`` (T2, D2) and ``3d`` (T3, D3) float32, ``audio`` (F, 40) float16 log-mel in dB; no rows
    where the video has no picture or no sound. They are read from the cache. Missing features are
    computed first; each video is kept there even if the work is interrupted later.

    Args:
        folder: what the names of the videos are relative to.
        videos: names of media files.
        extractor: one of ``EXTRACTORS``.
        tracks: which of several tracks to take.

    Attributes:
        videos: those that can be read.
        unreadable: why others cannot, by name.

    Raises:
        MediaError: there is no file of a name.
    """

    def __init__(
        self, folder: Path, videos: Iterable[str], extractor: str, tracks: Tracks = BEST
    ) -> None:
        found = {name: _read(folder / name, extractor, tracks) for name in sorted(set(videos))}
        if missing := [name for name, features in found.items() if features is None]:
            _fill_cache([folder / name for name in missing], extractor, tracks)
            found |= {name: _read(folder / name, extractor, tracks) for name in missing}
        self._found = {name: made for name, made in found.items() if made}
        self.unreadable = {n: made.unreadable for n, made in self._found.items() if made.unreadable}
        self.videos: Sequence[str] = [name for name in self._found if name not in self.unreadable]
        self.fields: Mapping[str, Field] = fields_of(extractor)

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field."""
        return len(self._found[video].features[field])

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field; a copy, as the file that is mapped may be made again."""
        return self._found[video].features[field][max(first, 0) : last].clone()

    def report(self, max_bad: float, said_before: set[str]) -> None:
        """Name the films that are damaged, and those of which one of several tracks was taken.

        ``said_before`` is what is not said again; it is added to. ValueError: more than ``max_bad``
        of the films lack picture or sound because of damage.
        """
        if (names := " ".join(sorted(self._found))) in said_before:
            return
        said_before.add(names)
        said = {
            name: [p for p in made.problems if p.startswith(PARTIAL) or LOST in p]
            for name, made in self._found.items()
        }
        damaged = [f"{name}: {'; '.join(words)}" for name, words in said.items() if words]
        lack = sum(any(LOST in word for word in words) for words in said.values())
        if damaged:
            words = f"{number_of(len(damaged), 'film')} of {len(self._found)} damaged"
            words = f"{words}, of which {lack} without picture or sound" if lack else words
            words = f"{words} ({name_some(damaged, '; ')})"
            if lack:
                tolerate(words, lack / len(self._found), "missing", max_bad)
            else:
                warn(f"{words}; what can be read of them is used")
        if silent := [name for name, made in self._found.items() if SILENT in made.problems]:
            warn(f"the sound of {number_of(len(silent), 'film')} is silent ({name_some(silent)})")
        if chosen := [f"{n}: {'; '.join(m.notes)}" for n, m in self._found.items() if m.notes]:
            warn(
                f"{number_of(len(chosen), 'film')} with several tracks ({name_some(chosen, '; ')});"
                " data.audio_track and data.video_track choose others"
            )


def open_computed(
    folder: Path,
    videos: Iterable[str],
    extractor: str,
    tracks: Tracks,
    max_bad: float,
    said: set[str],
) -> ComputedFeatures:
    """Compute features, and report once what is wrong with the films."""
    made = ComputedFeatures(folder, videos, extractor, tracks)
    made.report(max_bad, said)
    return made


def _fill_cache(paths: list[Path], extractor: str, tracks: Tracks) -> None:
    work = partial(_compute_to_cache, extractor=extractor, tracks=tracks)
    with tqdm(desc="extracting features", total=len(paths), unit="video") as bar:
        if len(paths) >= FEW_VIDEOS:
            # Not forked: the threads of torch would not survive it.
            pool = ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_begin_worker)
            try:
                for _ in pool.map(work, paths):
                    bar.update()
                return
            except BrokenProcessPool:
                pass  # a script without `if __name__ == "__main__"`: go on in this process
            finally:
                pool.shutdown(cancel_futures=True)
        for path in paths[bar.n :]:
            work(path)
            bar.update()


def _begin_worker() -> None:
    torch.set_num_threads(1)
    leave_stopping_to_parent()  # it must not outlive this process, as it has 680 MB


def _compute_to_cache(path: Path, extractor: str, tracks: Tracks) -> None:
    made = _compute(path, EXTRACTORS[extractor], tracks)
    content = {_CACHED_AS[field]: rows.contiguous() for field, rows in made.features.items()}
    said = {"problems": made.problems, "notes": made.notes, "unreadable": made.unreadable}
    text = json.dumps(said)
    data = safetensors.torch.save(content, {"said": text, "digest": _digest(content, text)})
    write_atomically(_cache_file(path, extractor, tracks), data)


def _compute(path: Path, extractor: Extractor, tracks: Tracks) -> Computed:
    """Decode a film once, and compute the features of what can be read of it."""
    unreadable, film = "", Film(path, {"pictures": extractor.sampling}, True, tracks)
    parts = _Parts(extractor)
    try:
        for piece in film.pieces():
            parts.push(piece)
    except MediaError as error:
        unreadable = str(error).removeprefix(f"{path}: ")
    return Computed(parts.features(), film.problems, film.notes, unreadable)


def compute_elsewhere(path: Path, extractor: str, read: ReadPieces) -> dict[str, Tensor]:
    """Compute features with the caller's function for :meth:`.Film.pieces`; no cache."""
    parts = _Parts(EXTRACTORS[extractor])
    for piece in read(path, {"pictures": EXTRACTORS[extractor].sampling}, True):
        parts.push(piece)
    return parts.features()


class _Parts:
    """Computes the features of a film piece by piece: the same numbers as of the whole film."""

    def __init__(self, extractor: Extractor) -> None:
        self._pictures, self._sound = DescriptorRows(extractor), Spectrogram()

    def push(self, piece: Piece) -> None:
        if piece.field == "audio":
            self._sound.push(piece.data)
        else:
            self._pictures.push(piece)

    def features(self) -> dict[str, Tensor]:
        return {**self._pictures.end(), "audio": self._sound.end()}


class DescriptorRows:
    """Computes descriptors of frames piece by piece: the same numbers as of the whole film."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        height, width = extractor.sampling.resize  # type: ignore[misc]
        self._frames: NDArray[np.uint8] = np.empty((0, height, width, 3), np.uint8)
        self._made: dict[str, list[Tensor]] = {"2d": [], "3d": []}
        self._any = False

    def push(self, piece: Piece) -> None:
        """Take frames."""
        frames = np.concatenate([self._frames, piece.data])
        while len(frames) > BLOCK:  # the change to the next frame belongs to a block
            self._add(frames[: BLOCK + 1], BLOCK)
            frames = frames[BLOCK:]
        self._frames = frames.copy()

    def take(self) -> dict[str, Tensor]:
        """Return the finished rows, and forget them."""
        made = {field: torch.cat(rows) for field, rows in self._made.items() if rows}
        self._made = {"2d": [], "3d": []}
        return made

    def end(self) -> dict[str, Tensor]:
        """Return the last rows; of no frames at all, matrices without rows."""
        if len(self._frames) or not self._any:
            self._add(self._frames, len(self._frames))
        self._frames = self._frames[:0]
        return self.take()

    def _add(self, frames: NDArray[np.uint8], count: int) -> None:
        """Describe ``count`` frames, and the changes to each of ``frames`` after the first."""
        features_2d, features_3d = self._extractor.compute(frames)
        if count < len(frames):
            rate = self._extractor.field_2d.per_second / self._extractor.sampling.frames_per_second
            features_2d = features_2d[: round(count * rate)]
        self._made["2d"].append(features_2d)
        if len(frames) > 1 or not self._any:  # a single frame at the end has no change of its own
            self._made["3d"].append(features_3d)
        self._any = True


def _read(path: Path, extractor: str, tracks: Tracks) -> Computed | None:
    """Read the features of a video from the cache; None: not there, or damaged."""
    try:
        with safe_open(_cache_file(path, extractor, tracks), "pt") as file:
            content = {name: file.get_tensor(name) for name in _CACHED_AS.values()}
            said = file.metadata()
            if said.get("digest", "") not in ("", _digest(content, said["said"])):
                return None  # a bit has changed
            features = {field: content[name] for field, name in _CACHED_AS.items()}
            return Computed(features, **json.loads(said["said"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _digest(content: Mapping[str, Tensor], said: str) -> str:
    digest = hashlib.blake2b(said.encode(), digest_size=16)
    for name, rows in sorted(content.items()):
        digest.update(f"{name} {tuple(rows.shape)} {rows.dtype}".encode())
        digest.update(rows.numpy().data.cast("B") if rows.numel() else b"")
    return digest.hexdigest()


def _cache_file(path: Path, extractor: str, tracks: Tracks) -> Path:
    try:
        state = path.stat()
    except OSError:
        raise MediaError(f"{path}: no such file; name it relative to the caption file") from None
    version = f"{extractor} {EXTRACTORS[extractor].version} {SPECTROGRAM_VERSION} {VERSION}"
    wishes = json.dumps(tracks.as_settings(), sort_keys=True)
    identity = f"{version} {wishes} {path.resolve()} {state.st_size} {state.st_mtime_ns}"
    named = identity.encode("utf-8", "surrogateescape")  # names of files need not be UTF-8
    digest = hashlib.sha256(named).hexdigest()[:32]
    return cache_folder() / "features" / digest[:2] / f"{digest}.safetensors"
