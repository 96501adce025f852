"""One pass over a media file: pictures for every backbone, and sound, piece by piece.

What a damaged file still holds is kept, and what is wrong with it is said.

Shapes: N pictures, H x W pixels, S samples.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fusion.data.media.decode import MediaError, audio_stream, known_end, open_media
from fusion.extract.pictures import PictureTrack
from fusion.extract.sampling import Sampling
from fusion.extract.soundtrack import SoundTrack

VERSION = 1  # raise it when other pictures or other sound come out
MOST_SECONDS = 12 * 3600.0  # of a film; the rest is left out

_DEFAULT_STREAM = 5_000_000  # pixels that FFmpeg's choice takes the mark "default" for
_LACKING = 1.0  # seconds that may be missing at the end of a stream
_AHEAD, _BACK = 3600.0, 10.0  # seconds from a frame to the next: no time stamps of a film


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a film.

    Attributes:
        field: the key of a sampling, or ``audio``.
        data: (N, H, W, 3) uint8 RGB, or (S,) float32 samples at 16 kHz.
        seconds: how much of the film was decoded so far.
    """

    field: str
    data: NDArray[Any]
    seconds: float


class Film:
    """A media file that is decoded once, from its beginning to its end.

    Time 0 is where the file starts, by its first sound or its first picture. (FFmpeg's command line
    counts from the first picture in MPEG streams, up to a few hundredths of a second later.)

    Args:
        path: media file.
        samplings: which pictures are wanted, by field; none: no pictures.
        audio: whether sound is wanted.

    Attributes:
        problems: what is wrong with the file, a few words each; "partial: …" where a part of
            what should be there is missing. Complete once :meth:`pieces` has ended.
    """

    def __init__(self, path: str | Path, samplings: Mapping[str, Sampling], audio: bool) -> None:
        self.path, self.samplings, self.audio = Path(path), dict(samplings), audio
        self.problems: list[str] = []
        self._origin = Fraction(0)
        self._tracks: dict[int, PictureTrack | SoundTrack] = {}  # by the number of the stream
        self._ends: dict[int, float] = {}  # seconds decoded of each stream
        self._stopped: set[int] = set()
        self._undecoded: list[float] = []  # seconds at which packets could not be decoded

    @property
    def seconds(self) -> float:
        """How much of the file was decoded so far, of the stream that lasts longest."""
        return max(self._ends.values(), default=0.0)

    def pieces(self) -> Iterator[Piece]:
        """Decode the file.

        Raises:
            MediaError: it cannot be opened, or holds nothing of what is wanted.
        """
        with open_media(self.path) as container:
            self._origin = Fraction(container.start_time or 0, av.time_base)
            streams = self._choose(container)
            for packet in self._packets(container, streams):
                yield from self._decode(packet.stream, packet)
            for stream in streams:
                yield from self._decode(stream, None)
            for track in self._tracks.values():
                yield from self._wrapped(track.end())
            self._say_what_is_missing(container, streams)

    def _choose(self, container: InputContainer) -> list[Any]:
        video = best_video(container) if self.samplings else None
        sound = audio_stream(container) if self.audio else None
        if video is not None:
            # Threads decode a damaged film differently every time; there are processes instead.
            video.thread_type = "NONE"
            self._tracks[video.index] = PictureTrack(self.samplings, video)
        if sound is not None:  # FFmpeg versions differ in how much of AAC's last block they keep
            self._tracks[sound.index] = SoundTrack(known_end(container, sound))
        self.problems += ["no picture"] if self.samplings and video is None else []
        self.problems += ["no sound"] if self.audio and sound is None else []
        return [stream for stream in (video, sound) if stream is not None]

    def _packets(self, container: InputContainer, streams: list[Any]) -> Iterator[av.Packet]:
        try:
            for packet in container.demux(streams) if streams else ():
                if packet.size and packet.stream.index not in self._stopped:
                    yield packet
                if len(self._stopped) == len(streams):
                    break
        except av.FFmpegError as error:
            self.problems.append(f"partial: damaged after {self.seconds:.1f} s ({error.strerror})")

    def _decode(self, stream: Any, packet: av.Packet | None) -> Iterator[Piece]:
        """Decode a packet; None: what the decoder still holds. A bad packet is passed over."""
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            self._undecoded.append(self._ends.get(stream.index, 0.0))
            return
        for frame in frames:
            yield from self._take(stream, frame)

    def _take(self, stream: Any, frame: Any) -> Iterator[Piece]:
        """Give a frame to its track, with a time that counts from the beginning of the file."""
        if frame.pts is None or stream.index in self._stopped:
            return  # cannot be placed
        base = frame.time_base = frame.time_base or stream.time_base  # what comes last has none
        frame.pts -= round(self._origin / base)
        second, before = float(frame.pts * base), self._ends.get(stream.index)
        if before is not None and not -_BACK <= second - before <= _AHEAD:
            self._stop(stream, f"its time stamps jump from {before:.1f} to {second:.1f} s")
        elif second > MOST_SECONDS:
            self._stop(stream, f"of its {second / 3600:.0f} hours only the first are read")
        else:
            end = second + float((frame.duration or 0) * base)
            self._ends[stream.index] = max(end, before or 0.0)
            try:
                yield from self._wrapped(self._tracks[stream.index].push(frame, second))
            except av.FFmpegError as error:
                self._stop(stream, f"not convertible at {second:.1f} s ({error.strerror})")

    def _stop(self, stream: Any, why: str) -> None:
        self._stopped.add(stream.index)
        self.problems.append(f"partial: {why}")

    def _wrapped(self, parts: Iterator[tuple[str, NDArray[Any]]]) -> Iterator[Piece]:
        for field, data in parts:
            yield Piece(field, data, self.seconds)

    def _say_what_is_missing(self, container: InputContainer, streams: list[Any]) -> None:
        if self._undecoded:
            count, first = len(self._undecoded), self._undecoded[0]
            packets = "a packet" if count == 1 else f"{count} packets"
            self.problems.append(f"partial: {packets} not decodable, from {first:.1f} s on")
        for stream in streams:
            kind = "picture" if stream.type == "video" else "sound"
            end, promised = self._ends.get(stream.index), promised_end(container, stream)
            if end is None:
                self.problems.append(f"no {kind} (none that can be decoded)")
            elif promised and end < promised - _LACKING and stream.index not in self._stopped:
                self.problems.append(
                    f"partial: truncated, its {kind} ends after {end:.1f} of {promised:.1f} s"
                )
        if not self._ends:
            reason = "; ".join(self.problems)
            raise MediaError(f"{self.path}: nothing to extract: {reason}; check the file")


def best_video(container: InputContainer) -> VideoStream | None:
    """Choose the moving pictures as FFmpeg does: marked as default, or large; not a cover."""

    def merit(stream: VideoStream) -> int:
        default = bool(stream.disposition & Disposition.default)
        return stream.width * stream.height + _DEFAULT_STREAM * default

    streams = [s for s in container.streams.video if s.codec_context is not None]
    moving = [s for s in streams if not s.disposition & Disposition.attached_pic]
    return max(moving, key=merit, default=None)


def promised_end(container: InputContainer, stream: Any) -> float | None:
    """Seconds at which a stream ends by what the file says of itself; None: it does not say."""
    name = container.format.name
    if (known := known_end(container, stream)) is not None:  # mp4, mov
        return known
    # Matroska, WebM
    if match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, match.groups())
        end = 3600 * hours + 60 * minutes + seconds
        return end - (container.start_time or 0) / av.time_base
    if name == "avi" and stream.type == "video" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    if name == "flv" and container.duration:
        return container.duration / av.time_base
    return None
