"""Read films: a whole one in one pass, or the pictures or the sound of a window.

A whole film is read piece by piece, with the pictures for every backbone; if it is damaged, as far
as possible, and its problems are listed. A window of a damaged film is an error.

Shapes: N or T pictures, H x W pixels, S samples.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE, decode
from fusion.data.media.decode import MediaError
from fusion.data.media.pictures import PictureFilter, PictureTrack, Sampling, every
from fusion.data.media.sound import Hearing, SoundTrack

VERSION = 1  # raise it when the pictures or the sound change
MOST_SECONDS = 12 * 3600.0  # of a film; the rest is not read
_AHEAD, _BACK = 3600.0, 10.0  # seconds; time stamps that jump farther are damaged
_PREROLL = 0.5  # seconds for an audio decoder to settle after a seek
_TINY = 6  # decimals of a frame number: 0.7 s * 10 fps is frame 7, not 7.000000000000001


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a film."""

    field: str  # the key of a sampling, or "audio"
    data: NDArray[Any]  # (N, H, W, 3) uint8 RGB, or (S,) float32 samples, of "audio" at 16 kHz
    seconds: float  # of the film that were decoded so far


class Film:
    """A media file that is decoded once, from its beginning to its end.

    Second 0 is the first sound or picture. (In MPEG streams FFmpeg's command line counts from the
    first picture, up to a few hundredths of a second later.)

    Args:
        path: media file.
        samplings: which pictures, and sound of which rate, to return by field; empty: none.
        audio: whether to return sound for spectrograms, as the field "audio".

    Attributes:
        problems: what is wrong with the file, a few words each; "partial: …" where a part of the
            film is missing. Complete once :meth:`pieces` has ended.
    """

    def __init__(
        self, path: str | Path, samplings: Mapping[str, Sampling | Hearing], audio: bool
    ) -> None:
        self.path, self.samplings = Path(path), samplings
        self._pictures = {f: s for f, s in samplings.items() if isinstance(s, Sampling)}
        self._rates = {f: s.rate for f, s in samplings.items() if isinstance(s, Hearing)}
        self._rates |= {"audio": SAMPLE_RATE} if audio else {}
        self.problems: list[str] = []
        self._tracks: dict[int, dict[str, PictureTrack | SoundTrack]] = {}  # by stream and field
        self._ends: dict[int, float] = {}  # seconds decoded of each stream
        self._stopped: set[int] = set()
        self._undecoded: list[float] = []  # seconds at which packets could not be decoded

    @property
    def seconds(self) -> float:
        """Seconds decoded so far, of the stream that lasts longest."""
        return max(self._ends.values(), default=0.0)

    def pieces(self) -> Iterator[Piece]:
        """Decode the file.

        Raises:
            MediaError: it cannot be opened, or has neither the pictures nor the sound wanted.
        """
        with decode.open_media(self.path) as container:
            streams = self._choose(container)
            if streams:
                for stream, frame in decode.decode(
                    container, streams, self._note_damage, self._stopped
                ):
                    yield from self._take(stream, frame)
            for tracks in self._tracks.values():
                for field, track in tracks.items():
                    yield from (Piece(field, data, self.seconds) for data in track.end())
            self._note_what_is_missing(container, streams)

    def _choose(self, container: InputContainer) -> list[Any]:
        video = decode.largest_video_stream(container) if self._pictures else None
        sound = decode.audio_stream(container) if self._rates else None
        if video is not None:
            # With threads a damaged film is decoded differently every time.
            video.thread_type, aspect = "NONE", video.sample_aspect_ratio
            self._tracks[video.index] = {
                field: PictureTrack(sampling, aspect) for field, sampling in self._pictures.items()
            }
        if sound is not None:
            end = decode.known_end(container, sound)  # FFmpeg versions differ in AAC's last block
            self._tracks[sound.index] = {
                field: SoundTrack(rate, last=None if end is None else round(end * rate))
                for field, rate in self._rates.items()
            }
        self.problems += ["no picture"] if self._pictures and video is None else []
        self.problems += ["no sound"] if self._rates and sound is None else []
        return [stream for stream in (video, sound) if stream is not None]

    def _note_damage(self, stream: Any, error: av.FFmpegError) -> None:
        if stream is None:
            self.problems.append(f"partial: damaged after {self.seconds:.1f} s ({error.strerror})")
        else:
            self._undecoded.append(self._ends.get(stream.index, 0.0))

    def _take(self, stream: Any, frame: Any) -> Iterator[Piece]:
        if stream.index in self._stopped:
            return
        second, before = decode.seconds(frame), self._ends.get(stream.index)
        if before is not None and not -_BACK <= second - before <= _AHEAD:
            self._stop(stream, f"its time stamps jump from {before:.1f} to {second:.1f} s")
        elif second > MOST_SECONDS:
            self._stop(stream, f"of its {second / 3600:.0f} hours only the first are read")
        else:
            end = second + float((frame.duration or 0) * frame.time_base)
            self._ends[stream.index] = max(end, before or 0.0)
            try:
                for field, track in self._tracks[stream.index].items():
                    for data in track.push(frame, second):
                        yield Piece(field, data, self.seconds)
            except av.FFmpegError as error:
                self._stop(stream, f"not convertible at {second:.1f} s ({error.strerror})")

    def _stop(self, stream: Any, why: str) -> None:
        self._stopped.add(stream.index)
        self.problems.append(f"partial: {why}")

    def _note_what_is_missing(self, container: InputContainer, streams: list[Any]) -> None:
        if self._undecoded:
            count, first = len(self._undecoded), self._undecoded[0]
            packets = "a packet" if count == 1 else f"{count} packets"
            self.problems.append(f"partial: {packets} not decodable, from {first:.1f} s on")
        for stream in streams:
            kind = "picture" if stream.type == "video" else "sound"
            end = self._ends.get(stream.index)
            promised = decode.promised_end(container, stream, estimated=True)
            if end is None:
                self.problems.append(f"no {kind} (none that can be decoded)")
            elif (
                promised and end < promised - decode.MAY_LACK and stream.index not in self._stopped
            ):
                self.problems.append(
                    f"partial: truncated, its {kind} ends after {end:.1f} of {promised:.1f} s"
                )
        if not self._ends:
            reason = "; ".join(self.problems)
            raise MediaError(f"{self.path}: nothing to extract: {reason}; check the file")


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
