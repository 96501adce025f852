"""Read pictures and sound out of media files, with the FFmpeg that PyAV brings along.

Pictures are sampled by FFmpeg's own filters, so they equal, bit by bit, those of the command line
``ffmpeg -i FILE -vf fps=...,scale=...``; "the first frame after t" would choose others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from fusion.data.media.decode import (
    Frame,
    MediaError,
    audio_stream,
    decode_from,
    duration,
    known_end,
    open_media,
    seconds,
    video_stream,
)

__all__ = ["MediaError", "MediaInfo", "probe", "read_audio", "read_frames"]

_PREROLL = 0.5  # seconds that an audio decoder gets to settle after a jump
_TINY = 6  # decimals of a frame number: 0.7 s * 10 fps is frame 7, not 7.000000000000001


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What a media file holds.

    Attributes:
        duration_seconds: length of the longest stream.
        has_video: whether there are moving pictures; the cover of a song is none.
        has_audio: whether there is sound.
    """

    duration_seconds: float
    has_video: bool
    has_audio: bool


def probe(path: str | Path) -> MediaInfo:
    """Look into a media file without decoding it.

    Raises:
        MediaError: no such file, or not a media file.
    """
    with open_media(path) as container:
        return MediaInfo(
            duration_seconds=duration(container, path),
            has_video=video_stream(container) is not None,
            has_audio=audio_stream(container) is not None,
        )


def read_frames(
    path: str | Path,
    fps: float,
    height: int,
    width: int,
    start: float = 0.0,
    end: float | None = None,
) -> NDArray[np.uint8]:
    """Read the pictures of a window, sampled evenly and scaled.

    The grid is that of the whole file, ``k / fps`` seconds: a window holds the pictures
    ``floor(start * fps)`` up to, not including, ``ceil(end * fps)`` of all. Pictures that the file
    marks as rotated are turned upright. What lies outside the window is jumped over.

    Args:
        path: media file.
        fps: pictures per second to return, whatever the file has.
        height: H of the returned pictures; the proportions of the file do not matter.
        width: W.
        start: seconds.
        end: seconds; None: to the end of the file.

    Returns:
        (T, H, W, 3) RGB; T is 0 if the file has no pictures in this window, at least 1 otherwise.

    Raises:
        MediaError: no such file, not a media file, damaged or truncated.
        ValueError: an impossible window, rate or size.
    """
    _check_window(start, end)
    if min(fps, height, width) <= 0:
        raise ValueError(f"fps, height and width must be > 0; got {fps}, {height}, {width}")
    first = math.floor(round(start * fps, _TINY))
    count = None if end is None else max(1, math.ceil(round(end * fps, _TINY)) - first)
    size = (height, width)
    # Like the command line, round the number of pictures; but less than half a step is one, too.
    pictures = _pictures(path, fps, size, first, count, at_end="round")
    pictures = pictures or _pictures(path, fps, size, first, count, at_end="pass")
    return np.stack(pictures) if pictures else np.empty((0, height, width, 3), np.uint8)


def read_audio(
    path: str | Path, rate: int = 16_000, start: float = 0.0, end: float | None = None
) -> NDArray[np.float32]:
    """Read the sound of a window, mixed to one channel of the same power.

    Args:
        path: media file.
        rate: samples per second to return, whatever the file has.
        start: seconds.
        end: seconds; None: to the end of the file.

    Returns:
        (S,) samples, within [-1, 1] unless loud channels add up. Sample i lies at
        ``start + i / rate`` seconds (to half a millisecond in Matroska and WebM, whose time stamps
        are no finer). S is 0 if the file has no sound in this window, and less than asked for if
        the sound ends earlier.

    Raises:
        MediaError: no such file, not a media file, damaged or truncated.
        ValueError: an impossible window or rate.
    """
    _check_window(start, end)
    if rate <= 0:
        raise ValueError(f"rate must be > 0; got {rate}")
    first, last = round(start * rate), None if end is None else round(end * rate)
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return np.empty(0, np.float32)
        known = known_end(container, stream)
        if known is not None:  # FFmpeg versions differ in how much of AAC's last block they keep
            last = round(known * rate) if last is None else min(round(known * rate), last)
        frames = decode_from(container, stream, start - _PREROLL, path)
        return _collect(frames, rate, first, last, path)


def _check_window(start: float, end: float | None) -> None:
    if not 0 <= start < (math.inf if end is None else end) or end == math.inf:
        raise ValueError(f"a window needs 0 <= start < end, in seconds; got {start} to {end}")


def _pictures(
    path: str | Path,
    fps: float,
    size: tuple[int, int],
    first: int,
    count: int | None,
    at_end: str,
) -> list[NDArray[Any]]:
    """Read up to ``count`` pictures from number ``first`` on; ``at_end``: see the fps filter."""
    with open_media(path) as container:
        stream = video_stream(container)
        if stream is None:
            return []
        frames = decode_from(container, stream, (first - 1) / fps, path)
        sampled = _sample(frames, fps, size, first, at_end)
        return [frame.to_ndarray() for frame in itertools.islice(sampled, count)]


def _sample(
    frames: Iterator[Frame],
    fps: float,
    size: tuple[int, int],
    first: int,
    at_end: str,
) -> Iterator[av.VideoFrame]:
    """Yield the pictures number ``first``, ``first + 1``, ... of the grid ``k / fps`` seconds."""
    graph = None
    for frame in itertools.chain(frames, [None]):
        if graph is None:
            if not isinstance(frame, av.VideoFrame):
                return  # not a single frame
            graph = _graph(frame, fps, size, first, at_end)
        graph.push(frame)
        # At its end a graph says EOF, before that "again".
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield graph.vpull()


def _graph(
    frame: av.VideoFrame, fps: float, size: tuple[int, int], first: int, at_end: str
) -> Graph:
    """Build the filters for frames like ``frame``."""
    rate = Fraction(fps).limit_denominator(1001)
    height, width = size
    upright = {
        90: [("transpose", "cclock")],
        180: [("hflip", ""), ("vflip", "")],
        270: [("transpose", "clock")],
    }
    filters = [
        *upright.get(round(frame.rotation) % 360, []),  # degrees counterclockwise
        ("fps", f"fps={rate}:start_time=0:eof_action={at_end}"),
        ("trim", f"start_frame={first}"),  # only a start_time of 0 is free of rounding
        ("scale", f"{width}:{height}"),
        ("format", "rgb24"),
        ("buffersink", ""),
    ]
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(source, *(graph.add(name, args or None) for name, args in filters))
    graph.configure()
    return graph


def _collect(
    frames: Iterator[Frame],
    rate: int,
    first: int,
    last: int | None,
    path: str | Path,
) -> NDArray[np.float32]:
    """Resample audio frames and cut out the samples ``first`` up to, not including, ``last``."""
    head = next(frames, None)
    if not isinstance(head, av.AudioFrame) or (last is not None and last <= first):
        return np.empty(0, np.float32)
    # Begin where samples of both rates coincide, so that a window equals that part of the whole.
    common = math.gcd(head.sample_rate, rate)
    position = round(Fraction(seconds(head)) * head.sample_rate)
    gap = position % (head.sample_rate // common)
    begin = (position - gap) * rate // head.sample_rate  # number of the first sample made below
    parts = [np.zeros(max(0, begin - first), np.float32)]  # sound that starts late
    end = begin
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    for frame in itertools.chain(_silence(head, gap), [head], frames, [None]):
        for part in _resample(resampler, frame, path):
            parts.append(part[max(0, first - end) :])
            end += len(part)
        if last is not None and end >= last:
            break
    wave = np.concatenate(parts)
    return wave if last is None else wave[: last - first]


def _resample(
    resampler: av.AudioResampler, frame: Frame | None, path: str | Path
) -> Iterator[NDArray[np.float32]]:
    """Yield the (S,) samples that a frame adds; None: what is left."""
    try:
        for part in resampler.resample(frame if isinstance(frame, av.AudioFrame) else None):
            yield part.to_ndarray()[0]
    except ValueError as error:  # FFmpeg's errors are among them
        raise MediaError(
            f"{path}: its sound changes format midway ({error}); convert it to mp4"
        ) from error


def _silence(like: av.AudioFrame, samples: int) -> list[av.AudioFrame]:
    """Make a silent frame of the format of another one; none for no samples."""
    if samples == 0:
        return []
    frame = av.AudioFrame(like.format.name, like.layout.name, samples)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.time_base = like.sample_rate, like.time_base
    return [frame]
