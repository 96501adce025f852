"""The times of packets and frames, by the rules of FFmpeg's command line.

Packets: second 0 is the film's beginning, and time stamps that begin anew within an MPEG stream or
Ogg are continued. Frames: the presentation time, or the decoding time where presentation times are
missing or in disorder, or the end of the frame before. (FFmpeg's sources that do the same:
``fftools/ffmpeg_demux.c``, ``fftools/ffmpeg_dec.c``, ``libavcodec/decode.c``.)
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer

from fusion.data.media.streams import half_up, jumps

_MICRO = av.time_base  # ticks per second
_JUMP = 10 * _MICRO  # a decoding time that is farther ahead begins anew
_BACK = _MICRO // 10  # and one that is farther before that of the packet before (FFmpeg 9)
_ABSURD = 30 * 3600  # seconds; where time stamps may not jump, one that is farther off is none
_LONGEST = 3600  # seconds that a picture is shown; more is damage
_NEVER = -(2**63)


class PacketClock:
    """Corrects the time stamps of the packets of a file, of all streams in step.

    It must see the packets of all streams that are taken, in the order of the file.
    """

    def __init__(self, container: InputContainer, streams: list[Any], origin: int) -> None:
        self._jumps = jumps(container)
        self._streams = {stream.index: _StreamClock(stream, origin) for stream in streams}
        self.moved = 0  # microseconds, added to all stamps after a jump
        self._last: int | None = None  # microseconds, of the packet before

    def correct(self, packet: Any) -> None:
        """Correct the time stamps of a packet."""
        clock = self._streams[packet.stream_index]
        clock.begin_at_zero(packet)
        if self._jumps:
            self._continue(clock, packet)
        else:
            clock.drop_absurd(packet)

    def _continue(self, clock: _StreamClock, packet: Any) -> None:
        clock.move(packet, self.moved)
        if packet.dts is not None:
            time = clock.micro(packet.dts)
            if clock.next is not None:
                delta = time - clock.next
                if abs(delta) > _JUMP or time + _BACK < clock.time:
                    self._move(clock, packet, -delta)
            elif self._last is not None and abs(time - self._last) > _JUMP:
                self._move(clock, packet, self._last - time)
            self._last = clock.micro(packet.dts)
        clock.advance(packet)

    def _move(self, clock: _StreamClock, packet: Any, by: int) -> None:
        self.moved += by
        clock.move(packet, by)


class _StreamClock:
    """The decoding time of one stream, in microseconds."""

    def __init__(self, stream: Any, origin: int) -> None:
        base = stream.time_base
        self._num, self._den = base.numerator, base.denominator
        self._begin = self.ticks(origin)
        self._absurd = _ABSURD * self._den // self._num
        self._latest: int | None = None  # ticks, end of the packet before
        self.time = 0
        self.next: int | None = None  # when the next packet is due
        self._stream, self._step, self._delay = stream, 0, 0
        context = stream.codec_context
        if stream.type == "audio" and context.sample_rate:
            self._step = _MICRO * context.frame_size // context.sample_rate
        elif stream.type == "video":
            rate = context.framerate or stream.average_rate
            self._step = half_up(_MICRO / rate) if rate else 0
            if stream.average_rate:
                self._delay = int(context.reorder_depth * _MICRO / stream.average_rate)

    def ticks(self, micro: int) -> int:
        """Convert microseconds to ticks of the stream."""
        return _divide(micro * self._den, _MICRO * self._num)

    def micro(self, ticks: int) -> int:
        """Convert ticks of the stream to microseconds."""
        return _divide(ticks * self._num * _MICRO, self._den)

    def begin_at_zero(self, packet: Any) -> None:
        """Count the time stamps of a packet from the beginning of the film."""
        if self._begin:
            if packet.dts is not None:
                packet.dts -= self._begin
            if packet.pts is not None:
                packet.pts -= self._begin

    def move(self, packet: Any, by: int) -> None:
        """Add microseconds to the time stamps of a packet."""
        if by:
            ticks = self.ticks(by)
            if packet.dts is not None:
                packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks

    def drop_absurd(self, packet: Any) -> None:
        """Remove time stamps that are more than a day from those of the packet before."""
        latest, pts, dts = self._latest, packet.pts, packet.dts
        if latest is not None:
            if dts is not None and abs(dts - latest) > self._absurd:
                packet.dts = dts = None
            if pts is not None and abs(pts - latest) > self._absurd:
                packet.pts = None
        if dts is not None:
            latest = dts
        elif latest is None:
            latest = packet.pts or 0
        self._latest = latest + (packet.duration or 0)

    def advance(self, packet: Any) -> None:
        """Note when the next packet is due."""
        if self.next is None:
            self.time = -self._delay + (0 if packet.pts is None else self.micro(packet.pts))
            self.next = self.time
        if packet.dts is not None:
            self.next = self.micro(packet.dts)
        self.time = self.next
        if self._stream.type == "video" and packet.duration:
            self.next += self.micro(packet.duration)
        else:
            self.next += self._step


class PictureClock:
    """Gives each picture of a stream its time."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._base = stream, Fraction(stream.time_base)
        self._faulty_pts = self._faulty_dts = 0
        self._last_pts = self._last_dts = _NEVER
        self._before: int | None = None  # ticks, of the picture before
        self._length = 0  # ticks, that it is shown for, as far as known
        self._estimates: int | None = None
        self._longest = half_up(_LONGEST / self._base)

    def place(self, frame: Any) -> float:
        """Set the time and the duration of a picture; return the time in seconds."""
        pts = self._guess(frame.pts, frame.dts)
        if pts is None:
            pts = 0 if self._before is None else self._before + self._length
        self._length = frame.duration = min(self._duration(frame, pts), self._longest)
        frame.pts = self._before = pts
        frame.time_base = self._base
        return pts * self._base.numerator / self._base.denominator

    def _guess(self, pts: int | None, dts: int | None) -> int | None:
        """Take presentation times, unless more of them than of decoding times were in disorder."""
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        trusted = self._faulty_pts <= self._faulty_dts or dts is None
        return pts if trusted and pts is not None else dts

    def _duration(self, frame: Any, pts: int) -> int:
        step = -1 if self._before is None else pts - self._before
        given = frame.duration or 0
        if given > 0 and not (given == 1 and step > 2):  # 1 is a guess of the demuxer
            return given
        if step > 0:
            return step
        if given > 0:
            return given
        if self._estimates is None:
            rates = (self._stream.codec_context.framerate, self._stream.average_rate)
            steps = (half_up(1 / (rate * self._base)) for rate in rates if rate)
            self._estimates = next((s for s in steps if s > 0), 0)
        return self._estimates or max(self._length, 1)


class SoundClock:
    """Gives each frame of sound its time."""

    def __init__(self, stream: Any) -> None:
        self._base = base = stream.time_base
        self._num, self._den = base.numerator, base.denominator
        self._end = 0.0  # seconds, of the frame before

    def place(self, frame: Any) -> float:
        """Return the second at which a frame of sound begins."""
        pts, frame.time_base = frame.pts, frame.time_base or self._base
        second = self._end if pts is None else pts * self._num / self._den
        self._end = second + frame.samples / frame.sample_rate
        return second


def _divide(dividend: int, divisor: int) -> int:
    """Divide and round half away from zero, as FFmpeg does; the divisor is positive."""
    quotient = (2 * abs(dividend) + divisor) // (2 * divisor)
    return quotient if dividend >= 0 else -quotient
