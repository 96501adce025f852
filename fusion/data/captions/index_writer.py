"""Writing a caption store."""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fusion.data.captions.index import (
    FILES,
    MANIFEST,
    VERSION,
    CaptionStore,
    check_captions,
    sha256_of,
)
from fusion.data.captions.table import Caption
from fusion.data.features.name_index import hash_name, sort_hashes
from fusion.files import replace_folder


def write_caption_store(path: str | Path, items: Iterable[tuple[str, Sequence[Caption]]]) -> None:
    """Write captions for :class:`fusion.data.captions.index.CaptionStore`.

    Needs memory for the captions of one video, and some 50 bytes per video. The store appears when
    it is complete; until then, an older one stays.

    Args:
        path: the folder to create or to replace.
        items: each video with its captions, in any order; they are sorted by start.

    Raises:
        ValueError: a video that comes twice, a caption of another video, or an impossible value.
    """
    with replace_folder(path) as folder:
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(open(folder / name, "wb")) for name in FILES}
            counts = _write(files, items)
        written = {
            name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
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
            check_captions(captions, video)
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
    ascending, rows = sort_hashes(np.array(hashes, np.uint64))
    write("hashes.u8", ascending)
    write("places.i8", rows)
    return {"videos": len(hashes), "captions": num_captions}
