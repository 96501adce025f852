"""Features of whole videos: computed once, kept in the cache.

Shapes: T2 rows of appearance ("2D"), T3 rows of motion ("3D"), F spectrogram frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from fusion.data.features.format import Field
from fusion.data.media import descriptors
from fusion.data.media.decode import MediaError
from fusion.data.media.log_mel import log_mel
from fusion.data.media.reader import read_audio, read_frames
from fusion.files import cache_folder, write_atomically

SPECTROGRAM_VERSION = 1  # raise it when log_mel or the reading of sound changes
FEW_VIDEOS = 40  # starting a process takes as long as reading so many short videos


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A way to turn the picture of a video into features.

    Attributes:
        version: names the numbers that come out; raise it when they change.
        per_second_2d: rows of 2D features per second.
        per_second_3d: rows of 3D features per second.
        compute: maps a media file to (T2, D2) and (T3, D3) float32 features; no rows without
            picture.
    """

    version: str
    per_second_2d: float
    per_second_3d: float
    compute: Callable[[Path], tuple[Tensor, Tensor]]


def _describe(path: Path) -> tuple[Tensor, Tensor]:
    frames = read_frames(
        path, descriptors.FRAMES_PER_SECOND, descriptors.FRAME_HEIGHT, descriptors.FRAME_WIDTH
    )
    appearance, motion = descriptors.appearance(frames), descriptors.motion(frames)
    return torch.from_numpy(appearance), torch.from_numpy(motion)


EXTRACTORS = {
    # Small hand-made descriptors, no weights: see fusion.data.media.descriptors.
    "descriptors": Extractor(
        version="1",
        per_second_2d=descriptors.FRAMES_PER_SECOND / descriptors.APPEARANCE_FRAMES,
        per_second_3d=descriptors.FRAMES_PER_SECOND / descriptors.MOTION_FRAMES,
        compute=_describe,
    ),
}


@dataclasses.dataclass(frozen=True)
class VideoFeatures:
    """Features of one video; no rows where it has no picture or no sound.

    Attributes:
        features_2d: (T2, D2) float32.
        features_3d: (T3, D3) float32.
        spectrogram: (F, 40) float16, log-mel in dB, 100 frames per second.
    """

    features_2d: Tensor
    features_3d: Tensor
    spectrogram: Tensor


class VideosInMemory:
    """Features of a few videos, read as from a store, see :mod:`fusion.data.features.readers`.

    Args:
        features: of each video.
        extractor: that they were computed by.
    """

    def __init__(self, features: Mapping[str, VideoFeatures], extractor: Extractor) -> None:
        self.features = features
        self.videos: Sequence[str] = list(features)
        some = next(iter(features.values()))
        self.fields: Mapping[str, Field] = {
            "2d": Field(some.features_2d.shape[1], extractor.per_second_2d),
            "3d": Field(some.features_3d.shape[1], extractor.per_second_3d),
            "audio": Field(some.spectrogram.shape[1], 100.0),
        }

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field."""
        return len(self._all(video, field))

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field."""
        return self._all(video, field)[max(first, 0) : last]

    def _all(self, video: str, field: str) -> Tensor:
        features = self.features[video]
        kinds = {"2d": features.features_2d, "3d": features.features_3d}
        return kinds.get(field, features.spectrogram)


def extract(path: Path, extractor: Extractor) -> VideoFeatures:
    """Compute the features of one video.

    Raises:
        MediaError: the file cannot be read.
    """
    features_2d, features_3d = extractor.compute(path)
    spectrogram = log_mel(torch.from_numpy(read_audio(path))).half()
    return VideoFeatures(features_2d, features_3d, spectrogram)


def extract_all(folder: Path, videos: Iterable[str], extractor: str) -> dict[str, VideoFeatures]:
    """Get the features of some videos from the cache; compute those that are not there.

    A file that changes is read again. What is done stays done when the work is interrupted.

    Args:
        folder: what the names are relative to.
        videos: names of media files.
        extractor: one of ``EXTRACTORS``.

    Raises:
        MediaError: a file cannot be read.
    """
    names = sorted(set(videos))
    found = {name: _read(_cache_file(folder / name, extractor)) for name in names}
    missing = [name for name, features in found.items() if features is None]
    if missing:
        _fill_cache([folder / name for name in missing], extractor)
        found |= {name: _read(_cache_file(folder / name, extractor)) for name in missing}
    return {name: features for name, features in found.items() if features is not None}


def _fill_cache(paths: list[Path], extractor: str) -> None:
    work = partial(_extract_to_cache, extractor=extractor)
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


def _extract_to_cache(path: Path, extractor: str) -> None:
    features = extract(path, EXTRACTORS[extractor])
    write_atomically(_cache_file(path, extractor), safetensors.torch.save(vars(features)))


def _cache_file(path: Path, extractor: str) -> Path:
    """Name the place in the cache of a file as it is now."""
    try:
        state = path.stat()
    except OSError:
        raise MediaError(f"{path}: no such file; name it relative to the caption file") from None
    version = f"{extractor} {EXTRACTORS[extractor].version} {SPECTROGRAM_VERSION}"
    identity = f"{version} {path.resolve()} {state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return cache_folder() / "features" / digest[:2] / f"{digest}.safetensors"


def _read(cache: Path) -> VideoFeatures | None:
    try:
        return VideoFeatures(**safetensors.torch.load_file(cache))
    except (OSError, SafetensorError, TypeError):
        return None  # not there, or damaged
