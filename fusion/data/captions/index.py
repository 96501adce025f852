"""The caption store: captions of millions of videos in flat files that processes share.

As Python objects, HowTo100M's captions (136 million of 1.2 million videos) take tens of gigabytes
in each process that loads data. All processes of a machine share the parts of mapped files that
they read. For V videos, in the order written, and C captions, those of a video side by side, the
files are (little-endian):

    names.txt names.i8 hashes.u8 places.i8    the videos: ``names``, ``ends``, ``hashes`` and
                                              ``rows`` of a :class:`.features.name_index.NameIndex`
    captions.i8  (V + 1,) the first caption of each video
    times.f8     (C, 2) start and end in seconds; float32 would round them to milliseconds
    texts.txt    the texts in UTF-8, end to end
    texts.i8     (C + 1,) the byte at which each text begins
    store.json   version, V, C, and the size and SHA-256 of each file
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import tempfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions.formats import read_by_video
from fusion.data.captions.table import Caption, CaptionError, CaptionParser
from fusion.data.features.name_index import NameIndex, hash_name, sort_hashes
from fusion.data.features.problems import MAX_BAD
from fusion.files import cache_folder, missing_folder, replace_folder

logger = logging.getLogger(__name__)

VERSION = 1
MANIFEST = "store.json"
BAD = "bad.json"  # beside the files of a converted store: how many captions were left out
FILES = {
    "names.txt": "u1", "names.i8": "<i8", "hashes.u8": "<u8", "places.i8": "<i8",
    "captions.i8": "<i8", "times.f8": "<f8", "texts.txt": "u1", "texts.i8": "<i8",
}  # fmt: skip


class CaptionStore:
    """Reads a caption store.

    It can be pickled, and used in forked and spawned processes; each maps the files for itself.

    ``videos`` are the names in the order written; not in memory. CaptionError: there is no store,
    it is of another version, or the size of a file is wrong. :meth:`verify` finds all other
    changes, :meth:`captions` those to impossible values.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # a spawned process may have another working directory
        self._manifest = self._read_manifest()
        self._files = {name: self._map(name) for name in FILES}
        files, videos, captions = self._files, self._manifest["videos"], self.num_captions
        names, ends = files["names.txt"], files["names.i8"]
        error = functools.partial(_damaged, self.path)
        self.videos = NameIndex(names, ends, files["hashes.u8"], files["places.i8"], error)
        sizes = [len(files[name]) for name in ("hashes.u8", "captions.i8", "times.f8", "texts.i8")]
        fit = sizes == [videos, videos + 1, 2 * captions, captions + 1]
        for name, end in {"captions.i8": captions, "texts.i8": len(files["texts.txt"])}.items():
            fit = fit and files[name][0] == 0 and files[name][-1] == end
        if not fit:
            raise _damaged(self.path, "its files do not fit together")

    def __len__(self) -> int:
        return len(self.videos)

    def __contains__(self, video: object) -> bool:
        return video in self.videos

    @property
    def num_captions(self) -> int:
        """How many captions all videos have."""
        return int(self._manifest["captions"])

    def captions(self, video: str) -> list[Caption]:
        """Read the captions of a video, sorted by start; KeyError: there is no such video."""
        row = self.videos.find(video)
        if row < 0:
            raise KeyError(f"{self.path}: no captions of {video!r}; check the name")
        first, last = self._files["captions.i8"][row : row + 2].tolist()
        offsets = self._files["texts.i8"][max(first, 0) : last + 1].tolist()
        if not 0 <= first <= last <= self.num_captions or [0, *offsets] != sorted([0, *offsets]):
            raise _damaged(self.path, f"captions of {video!r} have places out of range")
        text = self._files["texts.txt"][offsets[0] : offsets[-1]].tobytes()
        pieces = [text[a - offsets[0] : b - offsets[0]] for a, b in itertools.pairwise(offsets)]
        times = self._files["times.f8"][2 * first : 2 * last].reshape(-1, 2).tolist()
        try:
            captions = [
                Caption(video, start, end, piece.decode())
                for (start, end), piece in zip(times, pieces, strict=True)
            ]
            _check_captions(captions, video)
        except ValueError as error:
            raise _damaged(self.path, f"captions of {video!r}: {error}") from error
        return captions

    def verify(self) -> None:
        """Read all files and compare them with what was written; CaptionError: one has changed."""
        for name in FILES:
            if _sha256_of(self.path / name) != self._manifest["files"][name]["sha256"]:
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

    def _map(self, name: str) -> NDArray[Any]:
        path, expected = self.path / name, self._manifest["files"][name]["bytes"]
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise _damaged(self.path, f"{name} has {size} bytes instead of {expected}")
        if not size:  # cannot be mapped
            return np.empty(0, FILES[name])
        return np.asarray(np.memmap(path, FILES[name], mode="r"))  # a plain array is faster to cut


def write_caption_store(path: str | Path, items: Iterable[tuple[str, Sequence[Caption]]]) -> None:
    """Write captions for :class:`fusion.data.captions.index.CaptionStore`.

    ``items`` is each video with its captions, in any order; they are sorted by start. Memory is
    needed for the captions of one video, and some 50 bytes per video. The store appears when it is
    complete; until then, an older one stays. ValueError: a video comes twice, a caption is of
    another video, or a value is impossible.
    """
    with replace_folder(path) as folder:
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(open(folder / name, "wb")) for name in FILES}
            counts = _write(files, items)
        written = {
            name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256_of(folder / name)}
            for name in FILES
        }
        manifest = {"version": VERSION, **counts, "files": written}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        repeated = CaptionStore(folder).videos.first_repeated()
        if repeated is not None:
            raise ValueError(f"video {repeated!r} comes twice; join its captions")


def _write(
    files: Mapping[str, BinaryIO], items: Iterable[tuple[str, Sequence[Caption]]]
) -> dict[str, int]:
    """Write all files but the manifest; return the number of videos and of captions."""

    def write(name: str, numbers: Any) -> None:
        files[name].write(np.asarray(numbers, FILES[name]).tobytes())

    hashes = array("Q")
    num_captions = 0
    for begins in ("names.i8", "captions.i8", "texts.i8"):
        write(begins, 0)
    for video, given in items:
        captions = sorted(given, key=lambda caption: caption.start)
        try:
            _check_captions(captions, video)
            name = video.encode()
            texts = [caption.text.encode() for caption in captions]
        except ValueError as error:
            raise ValueError(f"captions of {video!r}: {error}") from error
        num_captions += len(captions)
        hashes.append(hash_name(name))
        write("texts.i8", np.cumsum([files["texts.txt"].tell(), *map(len, texts)])[1:])
        files["texts.txt"].write(b"".join(texts))
        write("times.f8", [(caption.start, caption.end) for caption in captions])
        write("captions.i8", num_captions)
        files["names.txt"].write(name)
        write("names.i8", files["names.txt"].tell())
    ascending, rows = sort_hashes(hashes)
    write("hashes.u8", ascending)
    write("places.i8", rows)
    return {"videos": len(hashes), "captions": num_captions}


def open_captions(path: Path, max_bad: float = MAX_BAD) -> CaptionStore:
    """Open captions; convert them into the cache if they are not in the form that is mapped.

    ``path`` is a caption store, ``caption.pickle``, or the same as JSON. Bad captions are counted
    when they are converted, and limited to ``max_bad`` whenever they are opened.
    """
    if path.is_dir():
        return CaptionStore(path)
    try:
        state = path.stat()
    except OSError:
        raise ValueError(
            f"{path} is missing{missing_folder(path)}; it is among the files of HowTo100M"
            " (www.di.ens.fr/willow/research/howto100m)"
        ) from None
    # Caches of version 1 did not count bad captions, those of version 2 had texts such as "nan".
    identity = f"3 {path.resolve()} {state.st_size} {state.st_mtime_ns}"
    place = cache_folder() / "captions" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if not place.exists():
        logger.warning("converting %s, once; it is read from %s from now on", path, place)
        _convert(path, place)
    parser = CaptionParser(max_bad)
    vars(parser).update(json.loads((place / BAD).read_text()))
    parser.check()
    return CaptionStore(place)


def _convert(path: Path, place: Path) -> None:
    """Convert captions; if another machine was faster, keep what it made and others have mapped."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{place.name}.new-", dir=place.parent, ignore_cleanup_errors=True
    ) as own:
        parser, store = CaptionParser(timed=True), Path(own) / "store"
        write_caption_store(store, read_by_video(path, parser))
        found = {"total": parser.total, "bad": parser.bad, "problems": parser.problems}
        (store / BAD).write_text(json.dumps(found))
        try:
            store.rename(place)  # which replaces no folder that has files
        except OSError:
            if not place.exists():
                raise


def _check_captions(captions: Iterable[Caption], video: str) -> None:
    """Refuse captions of another video, or with impossible times."""
    for caption in captions:
        if caption.video != video:
            raise ValueError(f"one is of {caption.video!r}; put it with its own video")
        if not 0 <= caption.start < caption.end < math.inf:
            raise ValueError(
                f"one is from {caption.start} to {caption.end} s; the end must be after the start"
            )


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, what: str) -> CaptionError:
    return CaptionError(f"{path}: damaged caption store, {what}; write it again")
