"""Read a whole film in one pass, piece by piece, with the pictures for every backbone.

If it is damaged, it is read as far as possible, and its problems are listed.

Shapes: N pictures, H x W pixels, S samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE
from fusion.data.media.crop import crop_of
from fusion.data.media.decode import Decoder, MediaError, open_media
from fusion.data.media.pictures import PictureTrack, Sampling
from fusion.data.media.sound import Hearing, SoundTrack
from fusion.data.media.streams import BEST, Tracks, describe_choice, known_end, promised_end

VERSION = 2  # raise it when the pictures or the sound change
MOST_SECONDS = 12 * 3600.0  # of a film; the rest is not read
PARTIAL = "partial: "  # begins a problem of a film of which a part is missing
LOST = "none that can be decoded"  # is in a problem of a film that lost its picture or sound
SILENT = "its sound is silent throughout"  # such as of opposite channels, mixed to one
SILENCE = 2.0**-15  # the smallest step of samples of 16 bits
MAY_LACK = 1.0  # seconds that may be missing at the end of a stream
_AHEAD, _BACK = 3600.0, 1.0  # seconds; time stamps that jump farther are damaged


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a film."""

    field: str  # the key of a sampling, or "audio"
    data: NDArray[Any]  # (N, H, W, 3) uint8 RGB, or (S,) float32 samples, of "audio" at 16 kHz
    seconds: float  # of the film that were decoded so far


class Film:
    """A media file that is decoded once, from its beginning to its end.

    Second 0 is the first sound or picture, for both. (Of an MPEG stream FFmpeg's command line
    counts from the first picture, if it is told to read the pictures alone.)

    Args:
        path: media file.
        samplings: which pictures, and sound of which rate, to return by field; empty: none.
        audio: whether to return sound for spectrograms, as the field "audio".
        tracks: which of several tracks to take.

    Attributes:
        problems: what is wrong with the file, a few words each; "partial: …" where a part of the
            film is missing. Complete once :meth:`pieces` has ended.
        notes: which of several tracks were taken, a few words each.
    """

    def __init__(
        self,
        path: str | Path,
        samplings: Mapping[str, Sampling | Hearing],
        audio: bool,
        tracks: Tracks = BEST,
    ) -> None:
        self.path, self.samplings, self.tracks = Path(path), samplings, tracks
        self._pictures = {f: s for f, s in samplings.items() if isinstance(s, Sampling)}
        self._rates = {f: s.rate for f, s in samplings.items() if isinstance(s, Hearing)}
        self._rates |= {"audio": SAMPLE_RATE} if audio else {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._tracks: dict[int, dict[str, Any]] = {}  # by stream and field
        self._ends: dict[int, float] = {}  # seconds decoded of each stream
        self._went_back: set[int] = set()  # streams
        self._loudest: float | None = None  # of all samples; None: there are none

    @property
    def seconds(self) -> float:
        """Seconds decoded so far, of the stream that lasts longest."""
        return max(self._ends.values(), default=0.0)

    def pieces(self) -> Iterator[Piece]:
        """Decode the file.

        Raises:
            MediaError: it cannot be opened, or has neither the pictures nor the sound wanted.
        """
        wanted = ["video"] * bool(self._pictures) + ["audio"] * bool(self._rates)
        with open_media(self.path) as container:
            decoder = Decoder(container, wanted, self.tracks)
            self._prepare(container, decoder, wanted)
            for stream, frame, second in decoder.frames():
                yield from self._take(decoder, stream, frame, second)
            for index in [index for index in self._tracks if index in self._ends]:
                yield from self._end(decoder, index)
            self._note_what_is_missing(container, decoder)

    def _prepare(self, container: InputContainer, decoder: Decoder, wanted: list[str]) -> None:
        for kind in wanted:
            stream = decoder.chosen[kind]
            said = describe_choice(container, kind, stream)
            if stream is None:
                self.problems.append(said or ("no picture" if kind == "video" else "no sound"))
            elif said:
                self.notes.append(said)
        for stream in decoder.streams:
            if stream.type == "video":
                aspect, border = stream.sample_aspect_ratio, crop_of(self.path, container, stream)
                self._tracks[stream.index] = {
                    field: PictureTrack(s, aspect, border=border)
                    for field, s in self._pictures.items()
                }
                continue
            end = known_end(container, stream, decoder.origin)
            self._tracks[stream.index] = {
                field: SoundTrack(rate, promised=end) for field, rate in self._rates.items()
            }

    def _take(self, decoder: Decoder, stream: Any, frame: Any, second: float) -> Iterator[Piece]:
        index = stream.index
        if index in decoder.stopped:
            return
        before = self._ends.get(index)
        if second - (before or 0.0) > _AHEAD:
            jump = f"from {before or 0.0:.1f} to {second:.1f} s"
            self._stop(decoder, index, f"its time stamps jump {jump}")
            return
        if second > MOST_SECONDS:
            self._stop(decoder, index, f"of its {second / 3600:.0f} hours only the first are read")
            return
        if before is not None and second < before - _BACK and index not in self._went_back:
            self._went_back.add(index)
            what = "pictures are" if stream.type == "video" else "sound is"
            self.problems.append(
                f"{PARTIAL}its time stamps go back from {before:.1f} to {second:.1f} s, and its"
                f" {what} left out up to {before:.1f} s"
            )
        lasts = frame.samples / frame.sample_rate if stream.type == "audio" else _lasts(frame)
        self._ends[index] = max(second + lasts, before or 0.0)
        given = (frame, second) if stream.type == "audio" else (frame,)
        with self._converting(decoder, index):
            for field, track in self._tracks[index].items():
                for data in track.push(*given):
                    yield self._piece(field, data)

    def _end(self, decoder: Decoder, index: int) -> Iterator[Piece]:
        for field, track in self._tracks[index].items():
            with self._converting(decoder, index):
                for data in track.end():
                    yield self._piece(field, data)

    def _piece(self, field: str, data: NDArray[Any]) -> Piece:
        if field in self._rates and data.size:
            self._loudest = max(self._loudest or 0.0, float(np.abs(data).max()))
        return Piece(field, data, self.seconds)

    @contextlib.contextmanager
    def _converting(self, decoder: Decoder, index: int) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            self._stop(decoder, index, f"not convertible at {self._ends[index]:.1f} s ({why})")

    def _stop(self, decoder: Decoder, index: int, why: str) -> None:
        decoder.stopped.add(index)
        if (problem := f"{PARTIAL}{why}") not in self.problems:
            self.problems.append(problem)

    def _note_what_is_missing(self, container: InputContainer, decoder: Decoder) -> None:
        if decoder.broken:
            self.problems.append(f"{PARTIAL}damaged after {self.seconds:.1f} s ({decoder.broken})")
        if decoder.failures:
            count, first = len(decoder.failures), decoder.failures[0][1]
            packets = "a packet" if count == 1 else f"{count} packets"
            self.problems.append(f"{PARTIAL}{packets} not decodable, from {first:.1f} s on")
        for stream in decoder.streams:
            kind = "picture" if stream.type == "video" else "sound"
            end = self._ends.get(stream.index)
            promised = promised_end(container, stream, decoder.origin)
            if end is None:
                self.problems.append(f"no {kind} ({LOST})")
            elif promised and end < promised - MAY_LACK and stream.index not in decoder.stopped:
                self.problems.append(
                    f"{PARTIAL}truncated, its {kind} ends after {end:.1f} of {promised:.1f} s"
                )
        if self._loudest is not None and self._loudest < SILENCE:
            self.problems.append(SILENT)
        if not self._ends:
            reason = "; ".join(self.problems)
            raise MediaError(f"{self.path}: nothing to extract: {reason}; check the file")


def _lasts(frame: Any) -> float:
    base = frame.time_base
    return (frame.duration or 0) * base.numerator / base.denominator
