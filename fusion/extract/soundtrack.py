"""Frames of sound in, samples at 16 kHz out, at their place from second 0 on.

What comes out is what :func:`fusion.data.media.reader.read_audio` reads of the whole file; there it
is pulled out of a file of its own, here it is pushed, as the pictures come along with it.

Shapes: S samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # samples per second; that of fusion.data.media.log_mel, which would import torch
_PIECE = 2 * RATE  # samples given at a time
_GAP = 0.25  # seconds between frames from which on they are a gap and not inaccurate


class SoundTrack:
    """Takes the frames of one stream.

    Args:
        end: seconds at which the stream is known to end; None: where its last frame does.
    """

    def __init__(self, end: float | None) -> None:
        self._last = None if end is None else round(end * RATE)
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._place = 0  # number of the sample that comes next out of the resampler
        self._made = 0  # samples from second 0 on
        self._parts: list[NDArray[Any]] = []

    def push(self, frame: av.AudioFrame, second: float) -> Iterator[tuple[str, NDArray[Any]]]:
        """Take a frame that begins at ``second``; give (S,) float32 samples once there are many."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind or second * RATE > self._place + _GAP * RATE:
            self._drain()
            self._begin(frame, second)
            self._kind = kind
        self._resample(frame)
        if sum(map(len, self._parts)) >= _PIECE:
            yield "audio", self._joined()

    def end(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Give what is left."""
        self._drain()
        if self._parts:
            yield "audio", self._joined()

    def _begin(self, frame: av.AudioFrame, second: float) -> None:
        """Start where samples of both rates coincide, after silence up to there."""
        rate = frame.sample_rate
        step = rate // math.gcd(rate, RATE)
        position = round(Fraction(second) * rate)
        rest = position % step
        self._place = (position - rest) * RATE // rate
        self._keep(np.zeros(max(0, self._place - self._made), np.float32))
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        if rest:
            self._resample(_silence(frame, rest))

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler is not None
        for part in self._resampler.resample(frame):
            samples = part.to_ndarray()[0]
            self._keep(samples[max(0, self._made - self._place) :])
            self._place += len(samples)

    def _drain(self) -> None:
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def _keep(self, samples: NDArray[Any]) -> None:
        samples = samples if self._last is None else samples[: max(0, self._last - self._made)]
        self._made += len(samples)
        if len(samples):
            self._parts.append(samples)

    def _joined(self) -> NDArray[Any]:
        samples, self._parts = np.concatenate(self._parts), []
        return samples


def _silence(like: av.AudioFrame, samples: int) -> av.AudioFrame:
    frame = av.AudioFrame(like.format.name, like.layout.name, samples)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.time_base = like.sample_rate, like.time_base
    return frame
