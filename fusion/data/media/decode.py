"""Open media files and decode them: every frame with its time, from second 0 of the film.

All films are read through this file. It opens only local files in a container from ``_FORMATS``; it
refuses playlists, links and text files that are named like a film.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from fusion.data.media.clock import PacketClock, PictureClock, SoundClock
from fusion.data.media.device import CPU, open_on
from fusion.data.media.streams import BEST, Tracks, choose, jumps, origin_of

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

_MADE_UP_TIMES = av.container.Flags.gen_pts.value  # wrong ones in AVI; PyAV asks for them

Frame = av.VideoFrame | av.AudioFrame


class MediaError(ValueError):
    """A media file cannot be read; one line with the file, the reason and the way out."""


@contextlib.contextmanager
def open_media(path: str | Path, device: str = CPU) -> Iterator[InputContainer]:
    """Open a local media file; nothing in it can make FFmpeg open another file or address.

    ``device``: which decodes its pictures, see :func:`.device.open_on`.
    """
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file; check the path")
    try:
        name = f"file:{Path(path).absolute()}"  # a file named "http:x" is not taken for a link
        container = open_on(device, name, options=_OPTIONS, **_LENIENT)
    except av.FFmpegError as error:
        refused = error.errno == errno.EINVAL
        reason = "a format that is not read" if refused else "no media file, or truncated"
        reason = "empty" if Path(path).stat().st_size == 0 else reason
        raise MediaError(
            f"{path}: {reason} ({error.strerror}); copy it again, or convert it to mp4"
        ) from error
    with container:
        container.flags &= ~_MADE_UP_TIMES
        yield container


class Decoder:
    """Decodes streams of an open file from its beginning; each frame comes with its time.

    Args:
        container: an open file.
        kinds: "video", "audio" or both: what is wanted.
        tracks: which of several tracks.

    Attributes:
        chosen: the stream of each kind, also of those that are not wanted; None: there is none.
        streams: those that are decoded.
        origin: the time stamp that is second 0, in microseconds.
        stopped: indices of streams that are not decoded further; the caller may add to it.
        failures: of each packet that could not be decoded, its stream and the second reached.
        broken: why the file could not be read to its end; None: it could.
    """

    def __init__(
        self, container: InputContainer, kinds: Sequence[str], tracks: Tracks = BEST
    ) -> None:
        self._container = container
        self.chosen = {kind: choose(container, kind, tracks) for kind in ("video", "audio")}
        found = {kind: stream for kind, stream in self.chosen.items() if stream is not None}
        self.streams = [found[kind] for kind in kinds if kind in found]
        self.origin = origin_of(container, list(found.values()))
        # Where time stamps may begin anew, both streams together say when
        self._followed = list(found.values()) if jumps(container) else self.streams
        self.stopped: set[int] = set()
        self.failures: list[tuple[Any, float]] = []
        self.broken: str | None = None
        self._ends: dict[int, float] = {}
        for stream in self.streams:
            if isinstance(stream, VideoStream) and not stream.codec_context.is_open:
                # With threads a damaged film is decoded differently every time
                stream.thread_type = "NONE"

        self._clock: PacketClock | None = None
        self._clocks: dict[int, Any] = {
            s.index: PictureClock(s) if s.type == "video" else SoundClock(s) for s in self.streams
        }

    @property
    def moved(self) -> bool:
        """Whether time stamps that begin anew were continued so far."""
        return self._clock is not None and self._clock.moved != 0

    def packets(self) -> Iterator[Any]:
        """Yield the packets of the wanted streams, with corrected times, to the end of the file."""
        if not self.streams:
            return
        clock = self._clock = PacketClock(self._container, self._followed, self.origin)
        wanted = {stream.index for stream in self.streams}
        try:
            for packet in self._demux():
                if not packet.size:
                    continue
                clock.correct(packet)
                if packet.stream_index in wanted and packet.stream_index not in self.stopped:
                    yield packet
                if wanted <= self.stopped:
                    break
        except av.FFmpegError as error:
            self.broken = error.strerror

    def _demux(self) -> Iterator[Any]:
        """Yield the packets; a stream that appears midway ends PyAV's iteration, not the file."""
        while True:
            try:
                yield from self._container.demux(*self._followed)
                return
            except IndexError:
                continue

    def decode(self, packet: Any) -> Iterator[tuple[Any, Any, float]]:
        """Yield the stream, the frames and their seconds of a packet.

        A packet that cannot be decoded gives none, and is noted in ``failures``.
        """
        return self._decode(packet.stream, packet)

    def drain(self) -> Iterator[tuple[Any, Any, float]]:
        """Yield the frames that the decoders still have after the last packet."""
        for stream in self.streams:
            if stream.index not in self.stopped:
                yield from self._decode(stream, None)

    def frames(self) -> Iterator[tuple[Any, Any, float]]:
        """Yield all frames of the streams."""
        for packet in self.packets():
            yield from self.decode(packet)
        yield from self.drain()

    def _decode(self, stream: Any, packet: Any) -> Iterator[tuple[Any, Any, float]]:
        clock = self._clocks[stream.index]
        try:
            frames = stream.decode(packet)
        except (av.FFmpegError, ValueError):  # ValueError: a kind of data that PyAV does not know
            self.failures.append((stream, self._ends.get(stream.index, 0.0)))
            return
        for frame in frames:
            second = clock.place(frame)
            self._ends[stream.index] = second
            yield stream, frame, second
