"""Open media files and decode their frames, from any second on; all errors are MediaError.

Time 0 is where the file starts. Files are opened as local files in a container from
``_FORMATS``: a playlist, a link or a text that only poses as a film is refused, not followed.
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet
from av.video.stream import VideoStream

# FFmpeg's names of the containers that hold their own pictures and sound and point nowhere else
_FORMATS = (
    "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,mxf,nut,gif,ivf,"
    "wav,w64,aiff,au,caf,mp3,flac,aac,ac3,eac3,amr"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# A title in another encoding is no reason to refuse a film; PyAV 19 needs not be told
_LENIENT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_MANY_PIXELS = 320 * 240  # with fewer, threads cost more than they save
_TRUNCATED = 1.0  # seconds that may lack at the end of a stream

Frame = av.VideoFrame | av.AudioFrame


class MediaError(ValueError):
    """A media file that cannot be read; one line with the file, the reason and the way out."""


@contextlib.contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a media file; what it contains cannot open anything else."""
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file; check the path")
    try:
        name = f"file:{Path(path).absolute()}"  # a name such as "http:x" is not taken for a link
        container = av.open(name, options=_OPTIONS, **_LENIENT)
    except av.FFmpegError as error:
        refused = error.errno == errno.EINVAL
        reason = "a format that is not read" if refused else "no media file, or truncated"
        reason = "empty" if Path(path).stat().st_size == 0 else reason
        raise MediaError(
            f"{path}: {reason} ({error.strerror}); copy it again, or convert it to mp4"
        ) from error
    with container:
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first stream of moving pictures; the cover of a song is none."""
    streams = (s for s in container.streams.video if s.codec_context is not None)
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the first stream of sound."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def duration(container: InputContainer, path: str | Path) -> float:
    """Seconds of the whole file, from its header, else from its packets."""
    if container.duration is not None:
        return container.duration / av.time_base
    latest = 0.0
    try:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                ends = (packet.pts + (packet.duration or 0)) * packet.time_base
                latest = max(latest, float(ends - _origin(container)))
    except av.FFmpegError as error:
        raise _damaged(path, latest, error) from error
    return latest


def _origin(container: InputContainer) -> Fraction:
    """The time stamp, in seconds, at which the file starts."""
    return Fraction(container.start_time or 0, av.time_base)


def known_end(container: InputContainer, stream: VideoStream | AudioStream) -> float | None:
    """Seconds at which a stream ends; other containers than mp4 and mov only estimate it."""
    if "mp4" not in container.format.name.split(",") or stream.duration is None:
        return None
    end = (stream.start_time or 0) + stream.duration
    return float(end * (stream.time_base or 0) - _origin(container))


def _tagged_end(container: InputContainer, stream: VideoStream | AudioStream) -> float | None:
    """Seconds at which a stream of Matroska or WebM ends, if whoever wrote it noted that."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, rest = map(float, match.groups())
    return 3600 * hours + 60 * minutes + rest - float(_origin(container))


def decode_from(
    container: InputContainer, stream: VideoStream | AudioStream, start: float, path: str | Path
) -> Iterator[Frame]:
    """Decode frames from at least one before ``start`` seconds on; all if the file cannot jump."""
    exact = container.format.name != "avi"  # which counts frames from where it was entered
    if start > 0 and exact:
        if _seek(container, stream, start):
            frames = _decode(container, stream, path, start)
            head = next(frames, None)
            if head is not None and seconds(head) <= start:
                yield head
                yield from frames
                return
        _seek(container, stream, -1.0)  # before 0: sound begins with a block that is not heard
    yield from _decode(container, stream, path, 0.0)


def _seek(container: InputContainer, stream: VideoStream | AudioStream, start: float) -> bool:
    """Jump to a key frame before ``start`` seconds; whether that was possible."""
    target = math.floor((Fraction(start) + _origin(container)) / (stream.time_base or 1))
    try:
        container.seek(target, stream=stream)
    except av.FFmpegError:
        return False
    return True


def _decode(
    container: InputContainer, stream: VideoStream | AudioStream, path: str | Path, latest: float
) -> Iterator[Frame]:
    """Decode frames from where the container stands, ``latest`` seconds, with times from 0 on."""
    if isinstance(stream, VideoStream) and not stream.codec_context.is_open:
        many = stream.width * stream.height >= _MANY_PIXELS
        stream.thread_type = "AUTO" if many else "NONE"
    origin, base, ticks, second = _origin(container), None, 0, 0.0
    try:
        for frame in container.decode(stream):
            if isinstance(frame, SubtitleSet) or frame.pts is None or frame.time_base is None:
                continue  # cannot be placed
            if frame.time_base != base:  # fractions are slow, and this one hardly ever changes
                base = frame.time_base
                ticks, second = round(origin / base), float(base)
            frame.pts -= ticks
            latest = max(latest, (frame.pts + frame.duration) * second)
            yield frame
    except av.FFmpegError as error:
        raise _damaged(path, latest, error) from error
    promised = known_end(container, stream) or _tagged_end(container, stream)
    if promised is not None and latest < promised - _TRUNCATED:
        raise MediaError(
            f"{path}: truncated, its {stream.type} ends after {latest:.2f} of {promised:.2f} s; "
            "copy it again, or convert what there is to mp4"
        )


def _damaged(path: str | Path, seconds: float, error: av.FFmpegError) -> MediaError:
    return MediaError(
        f"{path}: damaged after {seconds:.2f} s ({error.strerror}); copy it again, or convert it "
        "to mp4"
    )


def seconds(frame: Frame) -> float:
    """Return the time stamp of a frame."""
    return float((frame.pts or 0) * (frame.time_base or 0))
