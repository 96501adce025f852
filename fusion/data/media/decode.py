"""Open media files, choose streams, decode frames; second 0 is the first sound or picture.

All films are read through this file. It opens only local files in a container from ``_FORMATS``; it
refuses playlists, links and text files that are named like a film.
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
from collections.abc import Callable, Container, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

# FFmpeg's names of the containers that hold pictures and sound and refer to no other file
_FORMATS = (
    "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,mxf,nut,gif,ivf,"
    "wav,w64,aiff,au,caf,mp3,flac,aac,ac3,eac3,amr"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
if int(av.__version__.split(".")[0]) < 19:
    _LENIENT: dict[str, Any] = {"metadata_errors": "replace"}  # accept titles in any encoding
else:
    _LENIENT = {}
_MANY_PIXELS = 320 * 240  # smaller pictures are decoded faster without threads
_DEFAULT_STREAM = 5_000_000  # FFmpeg counts the mark "default" as this many pixels
MAY_LACK = 1.0  # seconds that may be missing at the end of a stream

Frame = av.VideoFrame | av.AudioFrame
Stream = VideoStream | AudioStream


class MediaError(ValueError):
    """A media file cannot be read; one line with the file, the reason and the way out."""


@contextlib.contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a local media file; nothing in it can make FFmpeg open another file or address."""
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file; check the path")
    try:
        name = f"file:{Path(path).absolute()}"  # a file named "http:x" is not taken for a link
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
    """Return the first video stream; the cover picture of a song does not count."""
    return next(iter(_video_streams(container)), None)


def largest_video_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream that FFmpeg would choose: marked as default, or the largest."""

    def merit(stream: VideoStream) -> int:
        default = bool(stream.disposition & Disposition.default)
        return stream.width * stream.height + _DEFAULT_STREAM * default

    return max(_video_streams(container), key=merit, default=None)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the first audio stream."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _video_streams(container: InputContainer) -> list[VideoStream]:
    streams = (s for s in container.streams.video if s.codec_context is not None)
    return [s for s in streams if not s.disposition & Disposition.attached_pic]


def known_end(container: InputContainer, stream: Stream) -> float | None:
    """Return the second at which a stream of mp4 or mov ends; other formats estimate it: None."""
    if "mp4" not in container.format.name.split(",") or stream.duration is None:
        return None
    end = (stream.start_time or 0) + stream.duration
    return float(end * (stream.time_base or 0) - _origin(container))


def promised_end(
    container: InputContainer, stream: Stream, estimated: bool = False
) -> float | None:
    """Return the second at which a stream ends, as an mp4, mov, Matroska or WebM file states it.

    ``estimated``: also use the number of pictures in AVI and the duration in FLV.
    """
    if end := known_end(container, stream):
        return end
    if match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, rest = map(float, match.groups())
        return 3600 * hours + 60 * minutes + rest - float(_origin(container))
    if not estimated:
        return None
    name = container.format.name
    if name == "avi" and stream.type == "video" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    return container.duration / av.time_base if name == "flv" and container.duration else None


def _origin(container: InputContainer) -> Fraction:
    return Fraction(container.start_time or 0, av.time_base)


def seconds(frame: Frame) -> float:
    """Return the time stamp of a frame."""
    return float((frame.pts or 0) * (frame.time_base or 0))


def decode(
    container: InputContainer,
    streams: Sequence[Any],
    failed: Callable[[Any, av.FFmpegError], None],
    stopped: Container[int] = frozenset(),
) -> Iterator[tuple[Any, Any]]:
    """Yield streams and their frames from the container's position; time starts at second 0.

    Frames without a time stamp are dropped. ``failed`` is called with the stream of a packet that
    cannot be decoded, or with None when the file cannot be read further; if it returns, decoding
    continues. ``stopped`` has the indices of streams to skip; the caller may add to it.
    """
    origin = _origin(container)

    def frames_of(stream: Any, packet: av.Packet | None) -> Iterator[tuple[Any, Any]]:
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            failed(stream, error)
            return
        for frame in frames:
            base = frame.time_base = frame.time_base or stream.time_base  # the last ones have none
            if frame.pts is not None and base is not None:
                frame.pts -= round(origin / base)
                yield stream, frame

    try:
        for packet in container.demux(*streams):
            if packet.size and packet.stream.index not in stopped:
                yield from frames_of(packet.stream, packet)
            if all(stream.index in stopped for stream in streams):
                break
    except av.FFmpegError as error:
        failed(None, error)
    for stream in streams:
        yield from frames_of(stream, None)


def decode_from(
    container: InputContainer, stream: Stream, start: float, path: str | Path
) -> Iterator[Frame]:
    """Decode a stream from at least one frame before ``start`` seconds on.

    A file in which FFmpeg cannot seek is decoded from its beginning. A stream that is damaged, or
    ends more than a second too early, is a MediaError.
    """
    if start > 0 and container.format.name != "avi":  # AVI counts frames from the seek position
        if _seek(container, stream, start):
            frames = _decode_strictly(container, stream, path, start)
            head = next(frames, None)
            if head is not None and seconds(head) <= start:
                yield head
                yield from frames
                return
        _seek(container, stream, -1.0)  # before 0: AAC begins with a block of no sound
    yield from _decode_strictly(container, stream, path, 0.0)


def _seek(container: InputContainer, stream: Stream, start: float) -> bool:
    """Seek to a key frame before ``start`` seconds; return whether that was possible."""
    target = math.floor((Fraction(start) + _origin(container)) / (stream.time_base or 1))
    with contextlib.suppress(av.FFmpegError):
        container.seek(target, stream=stream)
        return True
    return False


def _decode_strictly(
    container: InputContainer, stream: Stream, path: str | Path, latest: float
) -> Iterator[Frame]:
    """Decode a stream from the container's position, ``latest`` seconds; raise at damage."""
    if isinstance(stream, VideoStream) and not stream.codec_context.is_open:
        many = stream.width * stream.height >= _MANY_PIXELS
        stream.thread_type = "AUTO" if many else "NONE"

    def refuse(_: Any, error: av.FFmpegError) -> NoReturn:
        raise MediaError(
            f"{path}: damaged after {latest:.2f} s ({error.strerror}); copy it again, or convert it"
            " to mp4"
        ) from error

    for _, frame in decode(container, [stream], refuse):
        latest = max(latest, float((frame.pts + (frame.duration or 0)) * frame.time_base))
        yield frame
    promised = promised_end(container, stream)
    if promised is not None and latest < promised - MAY_LACK:
        raise MediaError(
            f"{path}: truncated, its {stream.type} ends after {latest:.2f} of {promised:.2f} s; "
            "copy it again, or convert what there is to mp4"
        )
