"""Write captions where :class:`fusion.data.captions.index.CaptionStore` reads them."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions.index_format import FILES, MANIFEST, VERSION, check_captions, hash_name
from fusion.data.captions.table import Caption
from fusion.files import replace_folder


def write_caption_store(path: str | Path, items: Iterable[tuple[str, Sequence[Caption]]]) -> None:
    """Write captions where :class:`fusion.data.captions.index.CaptionStore` can read them.

    Needs the memory of one video's captions, and some 50 bytes per video. The store appears when
    it is complete; one that was there stays until then.

    Args:
        path: the folder to make or to replace.
        items: each video with its captions, in any order; they are sorted by start.

    Raises:
        ValueError: a video that comes twice, a caption of another video, or an impossible value.
    """
    with replace_folder(path) as folder:
        writers = {name: _Writer(folder / name, dtype) for name, dtype in FILES.items()}
        try:
            hashes, num_captions = _write(writers, items)
        finally:
            for writer in writers.values():
                writer.file.close()
        _refuse_repeated(folder, hashes)
        files = {n: {"bytes": w.size, "sha256": w.sha256.hexdigest()} for n, w in writers.items()}
        counts = {"videos": len(hashes), "captions": num_captions}
        manifest = {"version": VERSION, **counts, "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


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
            check_captions(captions, video)
            name = video.encode()
            texts = [caption.text.encode() for caption in captions]
        except ValueError as error:
            raise ValueError(f"captions of {video!r}: {error}") from error
        ends = np.cumsum([writers["texts.txt"].size, *map(len, texts)])[1:]
        times = [time for caption in captions for time in (caption.start, caption.end)]
        num_captions += len(captions)
        hashes.append(hash_name(name))
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
