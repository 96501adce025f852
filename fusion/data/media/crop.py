"""Read the border that a container says is to be cut off: ``clap`` of mov and mp4, and Matroska's.

(What a codec cuts off, its decoder does not return.) FFmpeg's command line cuts it off since 7.1,
but its libraries do not, and PyAV does not return it. So the few boxes around it are parsed here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_PATH = (b"mdia", b"minf", b"stbl", b"stsd")  # from a track to what describes its pictures
_TRACKS, _ENTRY, _KIND, _VIDEO = 0x1654AE6B, 0xAE, 0x83, 0xE0
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_CROPS = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
_MOST = 10_000  # boxes of a file that are looked at

Part = tuple[Any, int, int]  # kind of a box or element, where its content begins and ends


class Crop(NamedTuple):
    """Pixels to cut off, before turning."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def filter(self) -> list[tuple[str, str]]:
        """Return FFmpeg's filter that does it."""
        size = f"w=iw-{self.left}-{self.right}:h=ih-{self.top}-{self.bottom}"
        return [("crop", f"{size}:x={self.left}:y={self.top}")] if any(self) else []


NONE = Crop()


def crop_of(path: str | Path, container: Any, stream: Any) -> Crop:
    """Return the border of a stream of pictures; none where it is impossible or not stated."""
    name = container.format.name.split(",")
    try:
        with open(path, "rb") as file:
            if "mp4" in name:
                found = _of_mov(file, stream)
            elif "matroska" in name:
                found = _of_matroska(file, container, stream)
            else:
                return NONE
    except (OSError, ValueError, struct.error, OverflowError):
        return NONE
    fits = found.left + found.right < stream.width and found.top + found.bottom < stream.height
    return found if min(found) >= 0 and fits else NONE


def _of_mov(file: BinaryIO, stream: Any) -> Crop:
    end = os.fstat(file.fileno()).st_size
    for moov in _find(file, 0, end, b"moov"):
        for track in _find(file, *moov, b"trak"):
            (header, _) = next(_find(file, *track, b"tkhd"), (None, None))
            if header is None or _track_number(file, header) != stream.id:
                continue
            place = track
            for kind in _PATH:
                place = next(_find(file, *place, kind), (0, 0))
            for _, begin, end in _boxes(file, place[0] + 8, place[1]):  # after version and count
                for clap, _ in _find(file, begin + 78, end, b"clap"):
                    return _aperture(_read(file, clap, 32), stream.width, stream.height)
    return NONE


def _track_number(file: BinaryIO, header: int) -> int:
    version = _read(file, header, 1)[0]
    return struct.unpack(">I", _read(file, header + (20 if version == 1 else 12), 4))[0]


def _aperture(data: bytes, width: int, height: int) -> Crop:
    """Make it of the size of what is shown, and of how far its middle is from that of all."""
    numbers = struct.unpack(">IIIIiIiI", data)
    if 0 in numbers[1::2]:
        return NONE
    shown_width, shown_height, across, down = (
        Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True)
    )
    left = Fraction(width - 1, 2) + across - (shown_width - 1) / 2
    top = Fraction(height - 1, 2) + down - (shown_height - 1) / 2
    right, bottom = width - left - shown_width, height - top - shown_height
    if min(left, top, right, bottom) < 0:
        return NONE
    return Crop(int(top), int(bottom), int(left), int(right))


def _find(file: BinaryIO, begin: int, end: int, kind: bytes) -> Iterator[tuple[int, int]]:
    return ((first, last) for found, first, last in _boxes(file, begin, end) if found == kind)


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[Part]:
    for _ in range(_MOST):
        if begin + 8 > end:
            return
        size, kind = struct.unpack(">I4s", _read(file, begin, 8))
        content = begin + 8
        if size == 1:
            (size,) = struct.unpack(">Q", _read(file, content, 8))
            content += 8
        following = end if size == 0 else begin + size
        if following < content or following > end:
            return
        yield kind, content, following
        begin = following


def _of_matroska(file: BinaryIO, container: Any, stream: Any) -> Crop:
    number = [s.index for s in container.streams.video].index(stream.index)
    end = os.fstat(file.fileno()).st_size
    for kind, begin, last in _elements(file, 0, end):
        if kind != _SEGMENT:
            continue
        for inner, first, after in _elements(file, begin, last):
            if inner == _CLUSTER:
                return NONE
            if inner == _TRACKS:
                videos = list(_videos(file, first, after))
                return videos[number] if number < len(videos) else NONE
    return NONE


def _videos(file: BinaryIO, begin: int, end: int) -> Iterator[Crop]:
    for kind, first, last in _elements(file, begin, end):
        if kind != _ENTRY:
            continue
        parts = list(_elements(file, first, last))
        if any(k == _KIND and _number(file, b, e) == 1 for k, b, e in parts):
            inner = [part for k, b, e in parts if k == _VIDEO for part in _elements(file, b, e)]
            yield Crop(**{_CROPS[k]: _number(file, b, e) for k, b, e in inner if k in _CROPS})


def _number(file: BinaryIO, begin: int, end: int) -> int:
    return int.from_bytes(_read(file, begin, min(end - begin, 8)), "big")


def _elements(file: BinaryIO, begin: int, end: int) -> Iterator[Part]:
    for _ in range(_MOST):
        if begin >= end:
            return
        kind, begin = _variable(file, begin, keep_mark=True)
        size, begin = _variable(file, begin, keep_mark=False)
        following = end if size is None else begin + size
        if kind is None or following > end:
            following = end
        yield kind, begin, following
        begin = following


def _variable(file: BinaryIO, begin: int, keep_mark: bool) -> tuple[int | None, int]:
    """Read a number of variable length; None: unknown, all its bits are 1."""
    first = _read(file, begin, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise ValueError("no such number")
    value = int.from_bytes(_read(file, begin, length), "big")
    bits = (1 << 7 * length) - 1
    if not keep_mark:
        value &= bits
        return (None if value == bits else value), begin + length
    return value, begin + length


def _read(file: BinaryIO, begin: int, count: int) -> bytes:
    file.seek(begin)
    data = file.read(count)
    if len(data) < count:
        raise ValueError("the file ends")
    return data
