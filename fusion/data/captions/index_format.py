"""What the files of a caption store are, for those who write and who read them.

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
import math
from collections.abc import Iterable

from fusion.data.captions.table import Caption

VERSION = 1
MANIFEST = "store.json"
FILES = {
    "names.txt": "u1", "names.i8": "<i8", "hashes.u8": "<u8", "places.i8": "<i8",
    "captions.i8": "<i8", "times.f8": "<f8", "texts.txt": "u1", "texts.i8": "<i8",
}  # fmt: skip


def hash_name(name: bytes) -> int:
    """Give 64 bits that are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def check_captions(captions: Iterable[Caption], video: str) -> None:
    """Refuse what no store has.

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
