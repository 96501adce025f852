"""Resample frames of sound to one rate and one channel, each sample at its place in time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar

import av
import numpy as np
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE

_PIECE = 2 * SAMPLE_RATE  # samples yielded at a time
_OFF = 0.1  # seconds; time stamps that are less off are inaccurate, as in FFmpeg's aresample
_SETTLE = 0.5  # seconds that a resampler may need


@dataclasses.dataclass(frozen=True)
class Hearing:
    """The stretches of sound that a network takes: each of ``seconds``, one every ``stride``.

    At the end of the film they are shorter. The network makes a row for each second.
    """

    rate: int  # samples per second
    seconds: int
    stride: int

    per_second: ClassVar[float] = 1.0  # rows


class SoundTrack:
    """Take the frames of one stream and yield its sound, from sample ``first`` up to ``last``.

    Sample i lies at ``i / rate`` seconds; the channels are mixed to one of the same power. Before
    sound that starts late, and in gaps, there is silence; of sound that overlaps, what came first
    is kept. Time stamps that are less than 0.1 s off are not followed.

    Args:
        rate: samples per second.
        first: number of the first sample to yield.
        last: number of the first sample not to yield; None: there is none.
        promised: second at which the file says that the sound ends. Up to 0.1 s beyond it are
            dropped: FFmpeg versions differ in how much of the last block of AAC they keep.
    """

    def __init__(
        self,
        rate: int = SAMPLE_RATE,
        first: int = 0,
        last: int | None = None,
        promised: float | None = None,
    ) -> None:
        self._rate, self._last = rate, last
        self._promised = None if promised is None else round(promised * rate)
        self._slack = round(_OFF * rate)
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._needed = first / rate - _SETTLE  # frames that end before this second are not used
        self._position = 0  # number of the next sample of the frames, until the resampler begins
        self._due = 0.0  # second at which the next frame should begin
        self._place = first  # number of the sample that the resampler gives next
        self._made = first  # number of the sample that is added next
        self._reached = first  # number of the sample after all that the resampler gave
        self._parts: list[NDArray[Any]] = []

    @property
    def _full(self) -> bool:
        return self._last is not None and self._made >= self._last

    @property
    def complete(self) -> bool:
        """Whether the last sample was reached, and whether it is to be dropped is known."""
        if not self._full:
            return False
        promised, last = self._promised, self._last or 0
        return promised is None or last <= promised or self._reached > promised + self._slack

    def push(self, frame: av.AudioFrame, second: float) -> Iterator[NDArray[np.float32]]:
        """Take a frame that begins at ``second``; yield samples, (S,), once there are enough."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._format or abs(second - self._due) > _OFF:
            self._drain()
            self._format, self._due = kind, second
            self._position = round(Fraction(second) * frame.sample_rate)
        self._due += frame.samples / frame.sample_rate
        if self._resampler is None and self._due < self._needed:
            self._position += frame.samples
            return
        if self._resampler is None:
            for _ in self._begin(frame):
                yield from self._ready()
        self._resample(frame)
        yield from self._ready()

    def _ready(self) -> Iterator[NDArray[np.float32]]:
        if sum(map(len, self._parts)) >= _PIECE:
            samples = np.concatenate(self._parts)
            self._parts = [samples[-self._slack :]]  # which may be dropped
            yield samples[: -self._slack]

    def end(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rest."""
        self._drain()
        samples = np.concatenate([np.empty(0, np.float32), *self._parts])
        if self._promised is not None and self._reached <= self._promised + self._slack:
            samples = samples[: max(0, len(samples) - max(0, self._made - self._promised))]
        if len(samples):
            yield samples

    def _begin(self, frame: av.AudioFrame) -> Iterator[None]:
        """Start where samples of both rates meet, so that a window equals that part of a film.

        It stops after each piece of the silence before, so that an hour of it is no array.
        """
        rate = frame.sample_rate
        step = rate // math.gcd(rate, self._rate)
        rest = self._position % step
        self._place = (self._position - rest) * self._rate // rate
        while (silent := min(self._place - self._made, _PIECE)) > 0 and not self._full:
            self._keep(np.zeros(silent, np.float32))
            yield
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate)
        if rest:
            silence = av.AudioFrame(frame.format.name, frame.layout.name, rest)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate, silence.time_base = rate, frame.time_base
            self._resample(silence)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler is not None
        for part in self._resampler.resample(frame):
            samples = part.to_ndarray()[0]
            self._keep(samples[max(0, self._made - self._place) :])
            self._place += len(samples)
            self._reached = max(self._reached, self._place)

    def _drain(self) -> None:
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def _keep(self, samples: NDArray[Any]) -> None:
        samples = samples if self._last is None else samples[: max(0, self._last - self._made)]
        self._made += len(samples)
        if len(samples):
            self._parts.append(samples)
