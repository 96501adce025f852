"""Features of whole videos: computed once, kept in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from fusion.data.features.format import Field
from fusion.data.features.readers import AUDIO
from fusion.data.media import descriptors
from fusion.data.media.decode import MediaError
from fusion.data.media.log_mel import log_mel
from fusion.data.media.reader import read_audio, read_frames
from fusion.files import cache_folder, write_atomically

SPECTROGRAM_VERSION = 1  # raise it when log_mel or the reading of sound changes
FEW_VIDEOS = 40  # starting a process takes as long as reading so many short videos
_CACHED_AS = {"2d": "features_2d", "3d": "features_3d", "audio": "spectrogram"}  # in a cache file


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Turns the picture of a video into features.

    Raise ``version`` when the computed numbers change. ``compute`` maps a media file to (T2, D2)
    and (T3, D3) float32 features, with no rows if there is no picture.
    """

    version: str
    field_2d: Field
    field_3d: Field
    compute: Callable[[Path], tuple[Tensor, Tensor]]


def _describe(path: Path) -> tuple[Tensor, Tensor]:
    frames = read_frames(
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
    """Features of some videos, in memory; a :class:`fusion.data.features.readers.Reader`.

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


def _compute_to_cache(path: Path, extractor: str) -> None:
    features_2d, features_3d = EXTRACTORS[extractor].compute(path)
    spectrogram = log_mel(torch.from_numpy(read_audio(path))).half()
    content = dict(zip(_CACHED_AS.values(), (features_2d, features_3d, spectrogram), strict=True))
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
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return cache_folder() / "features" / digest[:2] / f"{digest}.safetensors"
