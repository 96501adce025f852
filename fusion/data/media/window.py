"""Read the pictures or the sound of a window of a film: they equal that part of the whole film.

Pictures are decoded from a key frame before the window on. Sound is decoded from the beginning, as
decoders of sound remember all that they decoded. What is damaged is passed over.

Shapes: T pictures, H x W pixels, S samples.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE
from fusion.data.media.crop import crop_of
from fusion.data.media.decode import Decoder, open_media
from fusion.data.media.pictures import PictureTrack, Sampling
from fusion.data.media.sound import SoundTrack
from fusion.data.media.streams import BEST, Tracks, known_end

_TINY = 6  # decimals of a frame number: 0.7 s * 10 fps is frame 7, not 7.000000000000001
INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # a seek finds the key frame before
_SETTLE = 1.0  # seconds that a decoder of pictures may need
_MOST_HELD = 2**26  # bytes of packets


def read_frames(
    path: str | Path,
    fps: float,
    height: int,
    width: int,
    start: float = 0.0,
    end: float | None = None,
    tracks: Tracks = BEST,
) -> NDArray[np.uint8]:
    """Read the pictures of a window, sampled evenly and scaled.

    Picture k of the whole film lies at ``k / fps`` seconds; a window has the pictures from
    ``floor(start * fps)`` up to, not including, ``ceil(end * fps)``. Pictures that the file marks
    as turned or mirrored are shown as they are meant.

    Args:
        path: media file.
        fps: pictures per second to return, independent of the file's.
        height: H of the returned pictures, independent of the file's proportions.
        width: W.
        start: seconds.
        end: seconds; None: to the end of the file.
        tracks: which of several tracks to take.

    Returns:
        (T, H, W, 3) RGB; T is 0 if the file has no pictures in this window, at least 1 otherwise.

    Raises:
        MediaError: no such file, or not a media file.
        ValueError: an impossible window, rate or size.
    """
    _check_window(start, end)
    if min(fps, height, width) <= 0:
        raise ValueError(f"fps, height and width must be > 0; got {fps}, {height}, {width}")
    first = math.floor(round(start * fps, _TINY))
    count = None if end is None else max(1, math.ceil(round(end * fps, _TINY)) - first)
    sampling = Sampling(fps, (height, width))
    pictures = None
    if first:
        pictures = _pictures(path, sampling, first, count, tracks, after=(first - 1) / fps)
    if pictures is None:
        pictures = _pictures(path, sampling, first, count, tracks)
    return np.concatenate(pictures) if pictures else np.empty((0, height, width, 3), np.uint8)


def read_audio(
    path: str | Path,
    rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
    tracks: Tracks = BEST,
) -> NDArray[np.float32]:
    """Read the sound of a window, mixed to one channel of the same power.

    Args:
        path: media file.
        rate: samples per second to return, independent of the file's.
        start: seconds.
        end: seconds; None: to the end of the file.
        tracks: which of several tracks to take.

    Returns:
        (S,) samples, within [-1, 1] unless loud channels add up. Sample i lies at
        ``start + i / rate`` seconds. S is smaller, down to 0, if the sound ends before the window.

    Raises:
        MediaError: no such file, or not a media file.
        ValueError: an impossible window or rate.
    """
    _check_window(start, end)
    if rate <= 0:
        raise ValueError(f"rate must be > 0; got {rate}")
    first, last = round(start * rate), None if end is None else round(end * rate)
    parts: list[NDArray[np.float32]] = []
    with open_media(path) as container:
        decoder = Decoder(container, ["audio"], tracks)
        ends = [known_end(container, stream, decoder.origin) for stream in decoder.streams]
        track = SoundTrack(rate, first, last, promised=next(iter(ends), None))
        with contextlib.suppress(av.FFmpegError, ValueError):  # not convertible from there on
            for _, frame, second in decoder.frames():
                parts += track.push(frame, second)
                if track.complete:
                    break
        with contextlib.suppress(av.FFmpegError, ValueError):
            parts += track.end()
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _check_window(start: float, end: float | None) -> None:
    if not 0 <= start < (math.inf if end is None else end) or end == math.inf:
        raise ValueError(f"a window needs 0 <= start < end, in seconds; got {start} to {end}")


def _pictures(
    path: str | Path,
    sampling: Sampling,
    first: int,
    count: int | None,
    tracks: Tracks,
    after: float | None = None,
) -> list[NDArray[Any]] | None:
    """Read up to ``count`` pictures from number ``first`` on, in blocks.

    ``after``: decode from a key frame before this second; None is returned if that is impossible.
    """
    blocks: list[NDArray[Any]] = []
    with open_media(path) as container:
        decoder = Decoder(container, ["video"], tracks)
        borders = [crop_of(path, container, stream) for stream in decoder.streams]
        track = PictureTrack(sampling, None, first, count, *borders)
        frames = decoder.frames() if after is None else frames_after(container, decoder, after)
        with contextlib.suppress(av.FFmpegError):  # not convertible from there on
            for _, frame, second in frames:
                if after is not None:
                    if not second <= after:
                        return None
                    after = math.inf
                blocks += track.push(frame)
                if track.complete:
                    break
        if decoder.streams and after not in (None, math.inf):
            return None
        with contextlib.suppress(av.FFmpegError):
            blocks += track.end()
    return blocks


def frames_after(
    container: InputContainer, decoder: Decoder, second: float
) -> Iterator[tuple[Any, Any, float]]:
    """Yield the frames from a key frame before a second on, or later ones if there is none.

    Where FFmpeg has no index, the packets before are read for their times but not decoded.
    """
    until = second - _SETTLE
    if container.format.name in INDEXED and decoder.streams:
        base = decoder.streams[0].time_base
        target = math.floor((max(until, -1.0) + decoder.origin / av.time_base) / base)
        with contextlib.suppress(av.FFmpegError):
            container.seek(target, stream=decoder.streams[0])
    packets, settled = _packets_after(decoder, until), False
    for frames in itertools.chain(map(decoder.decode, packets), [decoder.drain()]):
        for stream, frame, time in frames:
            settled = settled or (frame.key_frame and not frame.is_corrupt)
            if settled:
                yield stream, frame, time


def _packets_after(decoder: Decoder, second: float) -> Iterator[Any]:
    """Yield the packets from the last key frame before a second on."""
    held: list[Any] = []
    size, done = 0, False
    for packet in decoder.packets():
        if done:
            yield packet
            continue
        time = packet.dts if packet.dts is not None else packet.pts
        early = time is not None and time * packet.time_base <= second
        if packet.is_keyframe and early:
            held, size = [], 0
        held.append(packet)
        size += packet.size
        if not early or size > _MOST_HELD:
            yield from held
            held, done = [], True
    yield from held
