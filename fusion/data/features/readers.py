"""Read rows of the features of videos: from a reader of any kind, published or computed here."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from fusion.data.features.format import Field
from fusion.data.features.problems import find_problem
from fusion.data.media import descriptors
from fusion.data.media.decode import MediaError
from fusion.data.media.film import read_audio, read_frames
from fusion.data.media.log_mel import NUM_MELS, log_mel, spectrogram_seconds
from fusion.data.untrusted.npz import read_npz
from fusion.files import cache_folder, missing_folder, write_atomically

AUDIO = Field(NUM_MELS, 100.0)
VIDEO = ("2d", "3d")  # the fields of the modality video
KEPT = 3  # videos in memory, as clips of one video are often read one after the other
SPECTROGRAM_VERSION = 1  # raise it when log_mel or the reading of sound changes
FEW_VIDEOS = 40  # starting a process takes as long as reading so many short videos
_CACHED_AS = {"2d": "features_2d", "3d": "features_3d", "audio": "spectrogram"}  # in a cache file


class Reader(Protocol):
    """Reads features; ``fields`` are the kinds there are.

    ``2d`` and ``3d`` make video, ``audio`` is a spectrogram, any other is a modality of its own.
    """

    fields: Mapping[str, Field]
    videos: Sequence[str]

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field."""

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows: (last - first, width), fewer at the end of the video."""


def seconds_of(reader: Reader, video: str) -> float:
    """Return the seconds that the features of a video cover; 3D counts only without 2D."""
    frames = reader.rows(video, "audio") if "audio" in reader.fields else 0
    covered = [spectrogram_seconds(frames) if frames else 0.0]
    for name, field in reader.fields.items():
        if name != "audio" and not (name == "3d" and "2d" in reader.fields):
            covered.append(reader.rows(video, name) / field.per_second)
    return max(covered)


class JoinedFeatures:
    """Features of a reader, and some fields of the same videos from other readers, by field."""

    def __init__(self, main: Reader, others: Mapping[str, Reader]) -> None:
        self.main, self.others = main, others
        self.videos: Sequence[str] = main.videos
        further = {name: reader.fields[name] for name, reader in others.items()}
        self.fields: Mapping[str, Field] = {**main.fields, **further}

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field; 0 if its reader lacks the video."""
        reader = self.others.get(field, self.main)
        return reader.rows(video, field) if reader is self.main or video in reader.videos else 0

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field."""
        if not self.rows(video, field):
            return torch.zeros(0, self.fields[field].width)
        return self.others.get(field, self.main).read(video, field, first, last)


class PublishedFolders:
    """HowTo100M's features in a file for each video and kind, as published.

    ``FEATURES/PATH/ID_2d.npz`` or ``FEATURES/PATH_2d.npz``, ``FEATURES/PATH/ID_3d.npz`` or
    ``ID.npz`` (``features``, (rows, width)), ``AUDIO/PATH/ID_spec.npz`` (``arr_0``, (40, frames)).
    A file is read as a whole even for a few rows; ``fusion pack`` makes a store of them.

    ``videos`` is a csv file with a column ``path``; a damaged file of any kind is a ValueError.
    """

    def __init__(
        self, videos: Path, features: Path, audio: Path, fields: Mapping[str, Field]
    ) -> None:
        self.fields, self.features, self.audio = fields, features, audio
        self.videos: Sequence[str] = read_paths(videos)
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field; raises as :meth:`read` does."""
        return len(self._whole(video, field))

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field; ValueError: the file is missing or damaged."""
        return self._whole(video, field)[max(first, 0) : last]

    def path(self, video: str, field: str) -> Path:
        """Find the file of a video; if there is none, return the first place where it may be."""
        name = video.rsplit("/", 1)[-1]
        folder = (self.audio if field == "audio" else self.features) / video
        places = {
            "2d": [folder / f"{name}_2d.npz", folder.parent / f"{name}_2d.npz"],
            "3d": [folder / f"{name}_3d.npz", folder / f"{name}.npz"],
            "audio": [folder / f"{name}_spec.npz"],
        }[field]
        return next((place for place in places if place.exists()), places[0])

    def _whole(self, video: str, field: str) -> Tensor:
        if (video, field) not in self._kept:
            path = self.path(video, field)
            values = read_npz(path, "arr_0" if field == "audio" else "features")
            values = values.T if field == "audio" and values.ndim == 2 else values
            if why := find_problem(values, self.fields[field].width, finite=False):
                raise ValueError(f"{path}: {why}")
            with np.errstate(over="ignore"):  # infinite values are reported where they are used
                floats = np.array(values, np.float16 if values.dtype == np.float16 else np.float32)
            self._kept[video, field] = torch.from_numpy(floats)
            while len(self._kept) > KEPT * len(self.fields):
                self._kept.popitem(last=False)
        self._kept.move_to_end((video, field))
        return self._kept[video, field]


def read_paths(file: Path) -> list[str]:
    """Read the column ``path`` of a csv file, without the ``None/`` that some begin with."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except FileNotFoundError:
        raise ValueError(
            f"{file} is missing{missing_folder(file)}; it lists the videos in a column 'path'"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read ({error}); it lists the videos") from None
    if not rows or "path" not in rows[0]:
        raise ValueError(f"{file} has no column 'path', which names the videos")
    return [row["path"].replace("None/", "") for row in rows]


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Turns the picture of a video into features.

    Raise ``version`` when the computed numbers change. ``compute`` maps a media file to (T2, D2)
    and (T3, D3) float32 features, with no rows if there is no picture; it may be given a function
    that reads the pictures instead of :func:`.film.read_frames`.
    """

    version: str
    field_2d: Field
    field_3d: Field
    compute: Callable[..., tuple[Tensor, Tensor]]


def _describe(path: Path, read: Any = read_frames) -> tuple[Tensor, Tensor]:
    frames = read(
        path, descriptors.FRAMES_PER_SECOND, descriptors.FRAME_HEIGHT, descriptors.FRAME_WIDTH
    )
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
        compute=_describe,
    ),
}


def fields_of(extractor: str) -> dict[str, Field]:
    """Describe the features that an extractor makes, and the spectrogram."""
    made = EXTRACTORS[extractor]
    return {"2d": made.field_2d, "3d": made.field_3d, "audio": AUDIO}


def recipe_of(extractor: str) -> dict[str, Any]:
    """Say how features are made, ready for JSON; the same for equal features of a film."""
    version = EXTRACTORS[extractor].version
    return {"extractor": extractor, "version": version, "log_mel": SPECTROGRAM_VERSION}


def compute_features(path: Path, extractor: str) -> dict[str, Tensor]:
    """Compute the features of one media file, or read them from the cache; MediaError: damaged."""
    found = _read(path, extractor)
    if found is None:
        _compute_to_cache(path, extractor)
        found = _read(path, extractor)
    assert found is not None
    return found


class ComputedFeatures:
    """Features of some videos, in memory; a :class:`Reader`.

    ``2d`` (T2, D2) and ``3d`` (T3, D3) float32, ``audio`` (F, 40) float16 log-mel in dB; no rows
    where the video has no picture or no sound. They are read from the cache. Missing features are
    computed first; each video is kept there even if the work is interrupted later. ``videos`` are
    media files in ``folder``; MediaError: one cannot be read.
    """

    def __init__(self, folder: Path, videos: Iterable[str], extractor: str) -> None:
        found = {name: _read(folder / name, extractor) for name in sorted(set(videos))}
        if missing := [name for name, features in found.items() if features is None]:
            _fill_cache([folder / name for name in missing], extractor)
            found |= {name: _read(folder / name, extractor) for name in missing}
        self._features = {name: features for name, features in found.items() if features}
        self.videos: Sequence[str] = list(self._features)
        self.fields: Mapping[str, Field] = fields_of(extractor)

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field."""
        return len(self._features[video][field])

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field."""
        return self._features[video][field][max(first, 0) : last]


def _fill_cache(paths: list[Path], extractor: str) -> None:
    work = partial(_compute_to_cache, extractor=extractor)
    with tqdm(desc="extracting features", total=len(paths), unit="video") as bar:
        if len(paths) >= FEW_VIDEOS:
            # Not forked: the threads of torch would not survive it.
            pool = ProcessPoolExecutor(
                mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
            )
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


def compute_elsewhere(path: Path, extractor: str, frames: Any, sound: Any) -> dict[str, Tensor]:
    """Compute features with the caller's functions for read_frames and read_audio; no cache."""
    features_2d, features_3d = EXTRACTORS[extractor].compute(path, frames)
    return {"2d": features_2d, "3d": features_3d, "audio": _spectrogram(sound(path))}


def _spectrogram(samples: Any) -> Tensor:
    return log_mel(torch.from_numpy(samples)).half()


def _compute_to_cache(path: Path, extractor: str) -> None:
    features_2d, features_3d = EXTRACTORS[extractor].compute(path)
    features = features_2d, features_3d, _spectrogram(read_audio(path))
    content = dict(zip(_CACHED_AS.values(), features, strict=True))
    write_atomically(_cache_file(path, extractor), safetensors.torch.save(content))


def _read(path: Path, extractor: str) -> dict[str, Tensor] | None:
    """Read the features of a video from the cache; None: not there, or damaged."""
    try:
        found = safetensors.torch.load_file(_cache_file(path, extractor))
        return {field: found[name] for field, name in _CACHED_AS.items()}
    except (OSError, SafetensorError, KeyError):
        return None


def _cache_file(path: Path, extractor: str) -> Path:
    try:
        state = path.stat()
    except OSError:
        raise MediaError(f"{path}: no such file; name it relative to the caption file") from None
    version = f"{extractor} {EXTRACTORS[extractor].version} {SPECTROGRAM_VERSION}"
    identity = f"{version} {path.resolve()} {state.st_size} {state.st_mtime_ns}"
    named = identity.encode("utf-8", "surrogateescape")  # names of files need not be UTF-8
    digest = hashlib.sha256(named).hexdigest()[:32]
    return cache_folder() / "features" / digest[:2] / f"{digest}.safetensors"
