"""Read the pictures or the sound of a window of a film."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE, decode
from fusion.data.media.decode import MediaError
from fusion.data.media.pictures import PictureFilter, Sampling, every
from fusion.data.media.sound import SoundTrack

_PREROLL = 0.5  # seconds for an audio decoder to settle after a seek
_TINY = 6  # decimals of a frame number: 0.7 s * 10 fps is frame 7, not 7.000000000000001


def read_frames(
    path: str | Path,
    fps: float,
    height: int,
    width: int,
    start: float = 0.0,
    end: float | None = None,
) -> NDArray[np.uint8]:
    """Read the pictures of a window, sampled evenly and scaled.

    Picture k of the whole file lies at ``k / fps`` seconds; a window has the pictures from
    ``floor(start * fps)`` up to, not including, ``ceil(end * fps)``. Pictures that the file marks
    as rotated are turned upright.

    Args:
        path: media file.
        fps: pictures per second to return, independent of the file's.
        height: H of the returned pictures, independent of the file's proportions.
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
    sampling = Sampling(fps, (height, width))
    # The fps filter rounds the number of pictures; "pass" keeps one of less than half a step.
    pictures = _pictures(path, sampling, first, count, at_end="round")
    pictures = pictures or _pictures(path, sampling, first, count, at_end="pass")
    return np.stack(pictures) if pictures else np.empty((0, height, width, 3), np.uint8)


def read_audio(
    path: str | Path, rate: int = SAMPLE_RATE, start: float = 0.0, end: float | None = None
) -> NDArray[np.float32]:
    """Read the sound of a window, mixed to one channel of the same power.

    Args:
        path: media file.
        rate: samples per second to return, independent of the file's.
        start: seconds.
        end: seconds; None: to the end of the file.

    Returns:
        (S,) samples, within [-1, 1] unless loud channels add up. Sample i lies at
        ``start + i / rate`` seconds (to half a millisecond in Matroska and WebM, whose time stamps
        are no finer). S is smaller, down to 0, if the sound ends before the window does.

    Raises:
        MediaError: no such file, not a media file, damaged or truncated.
        ValueError: an impossible window or rate.
    """
    _check_window(start, end)
    if rate <= 0:
        raise ValueError(f"rate must be > 0; got {rate}")
    first, last = round(start * rate), None if end is None else round(end * rate)
    parts: list[NDArray[np.float32]] = []
    with decode.open_media(path) as container:
        stream = decode.audio_stream(container)
        if stream is None:
            return np.empty(0, np.float32)
        known = decode.known_end(container, stream)
        if known is not None:  # FFmpeg versions differ in how much of AAC's last block they keep
            last = round(known * rate) if last is None else min(round(known * rate), last)
        track = SoundTrack(rate, first, last, restart=False)
        try:
            for frame in decode.decode_from(container, stream, start - _PREROLL, path):
                if isinstance(frame, av.AudioFrame):
                    parts += track.push(frame, decode.seconds(frame))
                if track.complete:
                    break
            parts += track.end()
        except MediaError:
            raise
        except ValueError as error:  # FFmpeg's errors are among them
            raise MediaError(
                f"{path}: its sound changes format midway ({error}); convert it to mp4"
            ) from error
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _check_window(start: float, end: float | None) -> None:
    if not 0 <= start < (math.inf if end is None else end) or end == math.inf:
        raise ValueError(f"a window needs 0 <= start < end, in seconds; got {start} to {end}")


def _pictures(
    path: str | Path, sampling: Sampling, first: int, count: int | None, at_end: str
) -> list[NDArray[Any]]:
    """Read up to ``count`` pictures from number ``first`` on; ``at_end``: see the fps filter."""
    fps = sampling.frames_per_second
    with decode.open_media(path) as container:
        stream = decode.video_stream(container)
        if stream is None:
            return []
        # Only a start_time of 0 has no rounding, so pictures before the window are trimmed.
        evenly = every(fps, f":start_time=0:eof_action={at_end}")
        sampled = PictureFilter(sampling, [evenly, ("trim", f"start_frame={first}")])
        frames = itertools.chain(
            decode.decode_from(container, stream, (first - 1) / fps, path), [None]
        )
        pictures = (
            picture.to_ndarray()
            for frame in frames
            if frame is None or isinstance(frame, av.VideoFrame)
            for picture in sampled.push(frame)
        )
        return list(itertools.islice(pictures, count))
