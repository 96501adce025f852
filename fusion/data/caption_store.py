"""Captions of millions of videos in flat files: opened at once, read in part, shared.

HowTo100M's captions, 136 million of 1.2 million videos, take tens of gigabytes as Python objects,
in every process that loads data. Here a process has views of files, and all processes of a
machine share what they read of them.

Shapes: V videos in the order written, C captions, those of a video side by side. Little-endian.

    names.txt    names of the videos, UTF-8, end to end
    names.i8     (V + 1,) where each name begins, in bytes; the last is the end
    hashes.u8    (V,) of the names, ascending
    places.i8    (V,) the video that each hash is of
    captions.i8  (V + 1,) the first caption of each video
    times.f8     (C, 2) start and end in seconds, as given: 32 bits would move them by milliseconds
    texts.txt    the texts, UTF-8, end to end
    texts.i8     (C + 1,) where each text begins, in bytes
    store.json   version, V, C, and size and SHA-256 of each file
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions import Caption, CaptionError
from fusion.files import replace_folder

VERSION = 1

_MANIFEST = "store.json"
_FILES = {
    "names.txt": "u1", "names.i8": "<i8", "hashes.u8": "<u8", "places.i8": "<i8",
    "captions.i8": "<i8", "times.f8": "<f8", "texts.txt": "u1", "texts.i8": "<i8",
}  # fmt: skip


def write_caption_store(path: str | Path, items: Iterable[tuple[str, Sequence[Caption]]]) -> None:
    """Write captions where :class:`CaptionStore` can read them.

    Needs the memory of one video's captions, and some 50 bytes per video. The store appears when
    it is complete; one that was there stays until then.

    Args:
        path: the folder to make or to replace.
        items: each video with its captions, in any order; they are sorted by start.

    Raises:
        ValueError: a video that comes twice, a caption of another video, or an impossible value.
    """
    with replace_folder(path) as folder:
        writers = {name: _Writer(folder / name, dtype) for name, dtype in _FILES.items()}
        try:
            hashes, num_captions = _write(writers, items)
        finally:
            for writer in writers.values():
                writer.file.close()
        _refuse_repeated(folder, hashes)
        files = {n: {"bytes": w.size, "sha256": w.sha256.hexdigest()} for n, w in writers.items()}
        counts = {"videos": len(hashes), "captions": num_captions}
        manifest = {"version": VERSION, **counts, "files": files}
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


class CaptionStore:
    """Reads what :func:`write_caption_store` wrote.

    May be pickled, and used in forked and spawned processes: each maps the files for itself.

    Args:
        path: the folder.

    Raises:
        CaptionError: no such store, one of another version, or files that are not as long as they
            were. What has changed inside them is found by :meth:`verify`, and where it makes no
            sense also by :meth:`captions`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # a spawned process may be somewhere else
        self._manifest = self._read_manifest()
        self._files = {name: self._map(name) for name in _FILES}
        self._check_lengths()

    def __len__(self) -> int:
        return int(self._manifest["videos"])

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and self._find(video) is not None

    @property
    def num_captions(self) -> int:
        """How many captions all videos have."""
        return int(self._manifest["captions"])

    @property
    def videos(self) -> Sequence[str]:
        """The videos' names in the order written, each read when it is asked for."""
        return _Videos(self)

    def captions(self, video: str) -> list[Caption]:
        """Read the captions of a video, sorted by start.

        Raises:
            KeyError: the store does not have the video.
            CaptionError: the store is damaged.
        """
        place = self._find(video)
        if place is None:
            raise KeyError(f"{self.path}: no captions of {video!r}; check the name")
        first, last = self._files["captions.i8"][place : place + 2].tolist()
        offsets = self._files["texts.i8"][max(first, 0) : last + 1].tolist()
        if not 0 <= first <= last <= self.num_captions or [0, *offsets] != sorted([0, *offsets]):
            raise self._damaged(f"captions of {video!r} lead nowhere")
        text = self._files["texts.txt"][offsets[0] : offsets[-1]].tobytes()
        pieces = [text[a - offsets[0] : b - offsets[0]] for a, b in itertools.pairwise(offsets)]
        times = self._files["times.f8"][2 * first : 2 * last].reshape(-1, 2).tolist()
        try:
            captions = [
                Caption(video, start, end, piece.decode())
                for (start, end), piece in zip(times, pieces, strict=True)
            ]
            _check(captions, video)
        except ValueError as error:
            raise self._damaged(f"captions of {video!r}: {error}") from error
        return captions

    def verify(self) -> None:
        """Read all files and compare them with what was written; takes seconds per gigabyte.

        Raises:
            CaptionError: a file has changed.
        """
        for name in _FILES:
            with open(self.path / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self._manifest["files"][name]["sha256"]:
                raise self._damaged(f"{name} has changed")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self._manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
        if self._manifest != state["manifest"]:
            raise CaptionError(f"{self.path}: written anew while in use; open it again")

    def _find(self, video: str) -> int | None:
        """Find the place of a video by the hash of its name."""
        name = video.encode(errors="surrogatepass")
        wanted = _hash(name)
        hashes, places = self._files["hashes.u8"], self._files["places.i8"]
        for k in range(int(np.searchsorted(hashes, np.uint64(wanted))), len(self)):
            if hashes[k] != wanted:
                break
            place = int(places[k])
            if 0 <= place < len(self) and self._name(place) == name:
                return place
        return None

    def _name(self, place: int) -> bytes:
        begin, end = self._files["names.i8"][place : place + 2].tolist()
        return self._files["names.txt"][max(begin, 0) : max(end, 0)].tobytes()

    def _read_manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.path / _MANIFEST).read_bytes())
            if manifest["version"] != VERSION:
                raise CaptionError(
                    f"{self.path}: a caption store of version {manifest['version']!r}, not "
                    f"{VERSION}; write it again"
                )
            sizes = [manifest["files"][name]["bytes"] for name in _FILES]
            if all(type(n) is int for n in (manifest["videos"], manifest["captions"], *sizes)):
                return dict(manifest)
        except OSError as error:
            raise CaptionError(
                f"{self.path}: no caption store ({_MANIFEST}: {error.strerror}); check the path"
            ) from error
        except CaptionError:
            raise
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise self._damaged(f"{_MANIFEST} cannot be read") from error
        raise self._damaged(f"{_MANIFEST} lacks numbers")

    def _map(self, name: str) -> NDArray[Any]:
        path, expected = self.path / name, self._manifest["files"][name]["bytes"]
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise self._damaged(f"{name} has {size} bytes instead of {expected}")
        if not size:  # cannot be mapped
            return np.empty(0, _FILES[name])
        return np.asarray(np.memmap(path, _FILES[name], mode="r"))  # a plain view is faster to cut

    def _check_lengths(self) -> None:
        files, videos, captions = self._files, len(self), self.num_captions
        names, texts = len(files["names.txt"]), len(files["texts.txt"])
        lengths = [videos + 1, videos, videos, videos + 1, 2 * captions, captions + 1]
        fit = [len(file) for name, file in files.items() if name.endswith("8")] == lengths
        for name, end in {"names.i8": names, "captions.i8": captions, "texts.i8": texts}.items():
            fit = fit and files[name][0] == 0 and files[name][-1] == end
        if not fit:
            raise self._damaged("its files do not fit together")

    def _damaged(self, what: str) -> CaptionError:
        return CaptionError(f"{self.path}: damaged caption store, {what}; write it again")


class _Videos(Sequence[str]):
    """The names of a store's videos."""

    def __init__(self, store: CaptionStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, video: object) -> bool:
        return video in self._store

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        try:
            return self._store._name(places).decode()
        except UnicodeDecodeError as error:
            raise self._store._damaged(f"name {places} is not UTF-8") from error


class _Writer:
    """A file that knows its size and its hash."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.file, self.dtype = open(path, "wb"), dtype  # noqa: SIM115
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.size += len(data)

    def write_numbers(self, numbers: Sequence[float] | NDArray[Any]) -> None:
        self.write(np.asarray(numbers, self.dtype).tobytes())


def _write(
    writers: dict[str, _Writer], items: Iterable[tuple[str, Sequence[Caption]]]
) -> tuple[NDArray[np.uint64], int]:
    """Write everything but the manifest; return the hashes in the order written, and C."""
    hashes = array("Q")
    num_captions = 0
    for begins in ("names.i8", "captions.i8", "texts.i8"):
        writers[begins].write_numbers([0])
    for video, given in items:
        captions = sorted(given, key=lambda caption: caption.start)
        try:
            _check(captions, video)
            name = video.encode()
            texts = [caption.text.encode() for caption in captions]
        except ValueError as error:
            raise ValueError(f"captions of {video!r}: {error}") from error
        ends = np.cumsum([writers["texts.txt"].size, *map(len, texts)])[1:]
        times = [time for caption in captions for time in (caption.start, caption.end)]
        num_captions += len(captions)
        hashes.append(_hash(name))
        writers["texts.txt"].write(b"".join(texts))
        writers["texts.i8"].write_numbers(ends)
        writers["times.f8"].write_numbers(times)
        writers["captions.i8"].write_numbers([num_captions])
        writers["names.txt"].write(name)
        writers["names.i8"].write_numbers([writers["names.txt"].size])
    by_video = np.array(hashes, np.uint64)
    order = by_video.argsort(kind="stable")
    writers["hashes.u8"].write_numbers(by_video[order])
    writers["places.i8"].write_numbers(order)
    return by_video, num_captions


def _refuse_repeated(folder: Path, hashes: NDArray[np.uint64]) -> None:
    """Look for videos that came twice: their hashes are equal, though not theirs alone."""
    order = hashes.argsort(kind="stable")
    same = np.diff(hashes[order]) == 0
    suspects = order[np.append(same, False) | np.append(False, same)] if len(order) else order
    names, offsets = (folder / "names.txt").read_bytes(), np.fromfile(folder / "names.i8", "<i8")
    seen = set()
    for place in suspects.tolist():
        name = names[offsets[place] : offsets[place + 1]]
        if name in seen:
            raise ValueError(f"video {name.decode()!r} comes twice; join its captions")
        seen.add(name)


def _hash(name: bytes) -> int:
    """Give 64 bits that are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _check(captions: Iterable[Caption], video: str) -> None:
    for caption in captions:
        if caption.video != video:
            raise ValueError(f"one is of {caption.video!r}; put it with its own video")
        if not 0 <= caption.start < caption.end < math.inf:
            raise ValueError(
                f"one is from {caption.start} to {caption.end} s; the end must be after the start"
            )
