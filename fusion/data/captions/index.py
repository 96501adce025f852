"""The caption store: captions of millions of videos in flat files that processes share.

HowTo100M's captions, 136 million of 1.2 million videos, take tens of gigabytes as Python objects,
in every process that loads data. Here a process maps the files, and all processes of a machine
share the parts that they read. For V videos, in the order written, and C captions, those of a
video side by side, the files are (little-endian):

    names.txt names.i8 hashes.u8 places.i8    the videos: ``names``, ``ends``, ``hashes`` and
                                              ``rows`` of a :class:`.features.name_index.NameIndex`
    captions.i8  (V + 1,) the first caption of each video
    times.f8     (C, 2) start and end in seconds; float32 would round them to milliseconds
    texts.txt    the texts in UTF-8, end to end
    texts.i8     (C + 1,) the byte at which each text begins
    store.json   version, V, C, and the size and SHA-256 of each file

:func:`fusion.data.captions.index_writer.write_caption_store` writes them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions.table import Caption, CaptionError
from fusion.data.features.name_index import NameIndex

VERSION = 1
MANIFEST = "store.json"
NAMES = ("names.txt", "names.i8", "hashes.u8", "places.i8")
FILES = {
    "names.txt": "u1", "names.i8": "<i8", "hashes.u8": "<u8", "places.i8": "<i8",
    "captions.i8": "<i8", "times.f8": "<f8", "texts.txt": "u1", "texts.i8": "<i8",
}  # fmt: skip


class CaptionStore:
    """Reads a caption store.

    It can be pickled, and used in forked and spawned processes; each maps the files for itself.

    Args:
        path: the folder.

    Attributes:
        videos: names of the videos in the order written; not in memory.

    Raises:
        CaptionError: there is no store, it is of another version, or the size of a file is wrong.
            Changes inside of a file are found by :meth:`verify`, and impossible values also by
            :meth:`captions`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # a spawned process may have another working directory
        self._manifest = self._read_manifest()
        self._files = {name: self._map(name) for name in FILES}
        names, ends, hashes, rows = (self._files[name] for name in NAMES)
        error = functools.partial(_damaged, self.path)
        self.videos = NameIndex(names, ends, hashes, rows, error)
        self._check_sizes()

    def __len__(self) -> int:
        return len(self.videos)

    def __contains__(self, video: object) -> bool:
        return video in self.videos

    @property
    def num_captions(self) -> int:
        """How many captions all videos have."""
        return int(self._manifest["captions"])

    def captions(self, video: str) -> list[Caption]:
        """Read the captions of a video, sorted by start.

        Raises:
            KeyError: the store does not have the video.
            CaptionError: the store is damaged.
        """
        row = self.videos.find(video)
        if row < 0:
            raise KeyError(f"{self.path}: no captions of {video!r}; check the name")
        first, last = self._files["captions.i8"][row : row + 2].tolist()
        offsets = self._files["texts.i8"][max(first, 0) : last + 1].tolist()
        if not 0 <= first <= last <= self.num_captions or [0, *offsets] != sorted([0, *offsets]):
            raise _damaged(self.path, f"captions of {video!r} lead nowhere")
        text = self._files["texts.txt"][offsets[0] : offsets[-1]].tobytes()
        pieces = [text[a - offsets[0] : b - offsets[0]] for a, b in itertools.pairwise(offsets)]
        times = self._files["times.f8"][2 * first : 2 * last].reshape(-1, 2).tolist()
        try:
            captions = [
                Caption(video, start, end, piece.decode())
                for (start, end), piece in zip(times, pieces, strict=True)
            ]
            check_captions(captions, video)
        except ValueError as error:
            raise _damaged(self.path, f"captions of {video!r}: {error}") from error
        return captions

    def verify(self) -> None:
        """Read all files and compare them with what was written; takes seconds per gigabyte.

        Raises:
            CaptionError: a file has changed.
        """
        for name in FILES:
            if sha256_of(self.path / name) != self._manifest["files"][name]["sha256"]:
                raise _damaged(self.path, f"{name} has changed")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self._manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
        if self._manifest != state["manifest"]:
            raise CaptionError(f"{self.path}: written again while in use; open it again")

    def _read_manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.path / MANIFEST).read_bytes())
            version = manifest["version"]
            if known := version == VERSION:
                sizes = [manifest["files"][name]["bytes"] for name in FILES]
                numbers = [manifest["videos"], manifest["captions"], *sizes]
        except OSError as error:
            raise CaptionError(
                f"{self.path}: no caption store ({MANIFEST}: {error.strerror}); check the path"
            ) from error
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise _damaged(self.path, f"{MANIFEST} cannot be read") from error
        if not known:
            raise CaptionError(
                f"{self.path}: caption store of version {version!r}, not {VERSION}; write it again"
            )
        if not all(type(number) is int for number in numbers):
            raise _damaged(self.path, f"{MANIFEST} lacks numbers")
        return dict(manifest)

    def _check_sizes(self) -> None:
        files, videos, captions = self._files, self._manifest["videos"], self.num_captions
        sizes = [len(files[name]) for name in ("hashes.u8", "captions.i8", "times.f8", "texts.i8")]
        fit = sizes == [videos, videos + 1, 2 * captions, captions + 1]
        for name, end in {"captions.i8": captions, "texts.i8": len(files["texts.txt"])}.items():
            fit = fit and files[name][0] == 0 and files[name][-1] == end
        if not fit:
            raise _damaged(self.path, "its files do not fit together")

    def _map(self, name: str) -> NDArray[Any]:
        path, expected = self.path / name, self._manifest["files"][name]["bytes"]
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise _damaged(self.path, f"{name} has {size} bytes instead of {expected}")
        if not size:  # cannot be mapped
            return np.empty(0, FILES[name])
        return np.asarray(np.memmap(path, FILES[name], mode="r"))  # a plain array is faster to cut


def check_captions(captions: Iterable[Caption], video: str) -> None:
    """Refuse captions that a store cannot have.

    Raises:
        ValueError: a caption of another video, or with impossible times.
    """
    for caption in captions:
        if caption.video != video:
            raise ValueError(f"one is of {caption.video!r}; put it with its own video")
        if not 0 <= caption.start < caption.end < math.inf:
            raise ValueError(
                f"one is from {caption.start} to {caption.end} s; the end must be after the start"
            )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, what: str) -> CaptionError:
    return CaptionError(f"{path}: damaged caption store, {what}; write it again")
