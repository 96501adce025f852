"""Choose the streams of a file as FFmpeg does, and say where they should end.

A track is a stream of one kind: sound track 0 is the first sound of the file. Without a wish, the
track marked as default is taken; of several, or of none, the largest picture and the sound with
the most channels. The cover picture of a song is no track.
"""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

_DEFAULT = 5_000_000  # FFmpeg counts the mark "default" as so many pixels or channels
_KINDS = {"video": "picture", "audio": "sound"}

Stream = VideoStream | AudioStream


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Which tracks to take: their numbers from 0, or languages such as "eng"; None: the best."""

    audio: int | str | None = None
    video: int | str | None = None

    def __post_init__(self) -> None:
        for kind, wish in dataclasses.asdict(self).items():
            is_number = isinstance(wish, int) and not isinstance(wish, bool) and wish >= 0
            is_language = isinstance(wish, str) and bool(re.fullmatch(r"[A-Za-z]{2,8}", wish))
            if not (wish is None or is_number or is_language):
                raise ValueError(
                    f"{kind} track: a number from 0 on, or a language, such as eng; got {wish!r}"
                )

    @classmethod
    def of(cls, audio: int | str | None = None, video: int | str | None = None) -> Tracks:
        """Make it of what a user types: digits are a number."""
        return cls(*(int(w) if isinstance(w, str) and w.isdigit() else w for w in (audio, video)))

    def as_settings(self) -> dict[str, int | str]:
        """Return the wishes there are, ready for JSON."""
        return {k: wish for k, wish in dataclasses.asdict(self).items() if wish is not None}


BEST = Tracks()


def tracks_of(container: InputContainer, kind: str) -> list[Any]:
    """List the streams of a kind, "video" or "audio", that can be decoded."""
    streams: Any = container.streams.video if kind == "video" else container.streams.audio
    return [
        stream
        for stream in streams
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]


def choose(container: InputContainer, kind: str, tracks: Tracks = BEST) -> Any:
    """Choose the stream of a kind, "video" or "audio"; None: there is none, or not the wanted."""
    wish, found = getattr(tracks, kind), tracks_of(container, kind)
    if isinstance(wish, int):
        return found[wish] if wish < len(found) else None
    if wish is not None:
        found = [stream for stream in found if _language(stream) == wish.lower()]
    return max(found, key=_merit, default=None)  # the first of equals


def _merit(stream: Any) -> int:
    size = stream.width * stream.height if stream.type == "video" else stream.codec_context.channels
    return size + _DEFAULT * bool(stream.disposition & Disposition.default)


def _language(stream: Any) -> str:
    return (stream.metadata.get("language") or "").lower()


def describe_choice(container: InputContainer, kind: str, chosen: Any) -> str | None:
    """Say which of several tracks was taken, or what there is instead; None: nothing to say."""
    found, name = tracks_of(container, kind), _KINDS[kind]
    if chosen is None:
        has = ", ".join(f"{i} {_language(s)}".strip() for i, s in enumerate(found))
        return f"no {name} (the wanted track is not among: {has})" if found else None
    if len(found) < 2:
        return None
    number = next(i for i, stream in enumerate(found) if stream.index == chosen.index)
    marks = [_language(chosen), "default" if chosen.disposition & Disposition.default else ""]
    words = ", ".join(filter(None, marks))
    return f"{name} of track {number} (of 0 to {len(found) - 1})" + (f": {words}" if words else "")


def origin_of(container: InputContainer, streams: list[Any]) -> int:
    """Return the time stamp, in microseconds, that is second 0 of a film.

    ``streams`` are those that are taken: in formats whose time stamps may jump, the first of them
    counts; in others the first stream of the file.
    """
    if container.start_time is None:
        return 0
    starts = [s.start_time * s.time_base for s in streams if s.start_time is not None]
    if jumps(container) and starts:
        return min(half_up(start * av.time_base) for start in starts)
    return container.start_time


def half_up(number: Any) -> int:
    """Round, halves up."""
    return math.floor(number + Fraction(1, 2))


def jumps(container: InputContainer) -> bool:
    """Whether the time stamps of a format may jump within a file, such as in MPEG streams."""
    flags = av.format.Flags(container.format.flags)
    return bool(flags & av.format.Flags.ts_discont)


def known_end(container: InputContainer, stream: Stream, origin: int) -> float | None:
    """Return the second at which a stream of mp4 or mov ends; other formats estimate it: None."""
    if "mp4" not in container.format.name.split(",") or stream.duration is None:
        return None
    end = (stream.start_time or 0) + stream.duration
    return float(end * (stream.time_base or 0)) - origin / av.time_base


def promised_end(container: InputContainer, stream: Stream, origin: int) -> float | None:
    """Return the second at which a stream ends, as the file states it; None: it does not.

    mp4, mov, Matroska and WebM state it; AVI states the number of pictures, FLV a duration.
    """
    if end := known_end(container, stream, origin):
        return end
    if match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, rest = map(float, match.groups())
        return 3600 * hours + 60 * minutes + rest - origin / av.time_base
    name = container.format.name
    if name == "avi" and stream.type == "video" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    return container.duration / av.time_base if name == "flv" and container.duration else None
