"""Read a whole film in one pass: pictures for every backbone, and sound, piece by piece.

A damaged film is read as far as possible, and its problems are listed.

Shapes: N pictures, H x W pixels, S samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE, decode
from fusion.data.media.decode import MediaError
from fusion.data.media.pictures import PictureTrack, Sampling
from fusion.data.media.sound import SoundTrack

VERSION = 1  # raise it when the pictures or the sound change
MOST_SECONDS = 12 * 3600.0  # of a film; the rest is not read
_AHEAD, _BACK = 3600.0, 10.0  # seconds; time stamps that jump farther are damaged


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a film."""

    field: str  # the key of a sampling, or "audio"
    data: NDArray[Any]  # (N, H, W, 3) uint8 RGB, or (S,) float32 samples at 16 kHz
    seconds: float  # of the film that were decoded so far


class Film:
    """A media file that is decoded once, from its beginning to its end.

    Second 0 is the first sound or picture. (In MPEG streams FFmpeg's command line counts from the
    first picture, up to a few hundredths of a second later.)

    Args:
        path: media file.
        samplings: which pictures to return, by field; empty: none.
        audio: whether to return sound.

    Attributes:
        problems: what is wrong with the file, a few words each; "partial: …" where a part of the
            film is missing. Complete once :meth:`pieces` has ended.
    """

    def __init__(self, path: str | Path, samplings: Mapping[str, Sampling], audio: bool) -> None:
        self.path, self.samplings, self.audio = Path(path), dict(samplings), audio
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
        video = decode.largest_video_stream(container) if self.samplings else None
        sound = decode.audio_stream(container) if self.audio else None
        if video is not None:
            # With threads a damaged film is decoded differently every time.
            video.thread_type, aspect = "NONE", video.sample_aspect_ratio
            self._tracks[video.index] = {
                field: PictureTrack(sampling, aspect) for field, sampling in self.samplings.items()
            }
        if sound is not None:
            end = decode.known_end(container, sound)  # FFmpeg versions differ in AAC's last block
            last = None if end is None else round(end * SAMPLE_RATE)
            self._tracks[sound.index] = {"audio": SoundTrack(last=last)}
        self.problems += ["no picture"] if self.samplings and video is None else []
        self.problems += ["no sound"] if self.audio and sound is None else []
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
