"""Which frames of a clip a network sees, by the rules of the published TSM code.

github.com/mit-han-lab/temporal-shift-module, arXiv:1811.08383; segments as in TSN,
arXiv:1608.00859.

Frames are counted from 0, where the published code counts from 1. All functions give (n,) int64
numbers of frames, from 0 to ``num_frames`` - 1, of which some may repeat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

DENSE_SPAN = 64  # frames over which dense sampling spreads the segments
DENSE_STARTS = 10  # of dense sampling in a test


def uniform_train(num_frames: int, segments: int, draw: np.random.Generator) -> Numbers:
    """Cut a clip into segments of equal length, and draw a frame of each.

    As published: a length is rounded down, so the last frames may never be drawn; a clip of
    fewer frames than segments gives its first frame every time.

    ValueError: there is no frame, or no segment.
    """
    _check(num_frames, segments)
    length = num_frames // segments
    if length:
        return np.arange(segments) * length + draw.integers(length, size=segments)
    return np.zeros(segments, np.int64)


def uniform_validation(num_frames: int, segments: int) -> Numbers:
    """Take the middle of each segment; of a clip of too few frames the first, as published.

    A clip with as many frames as segments, or fewer, is too short. ValueError: as above.
    """
    _check(num_frames, segments)
    if num_frames > segments:
        return _middles(num_frames, segments)
    return np.zeros(segments, np.int64)


def uniform_test(num_frames: int, segments: int) -> Numbers:
    """Take the middle of each segment, also of short clips. ValueError: as above."""
    _check(num_frames, segments)
    return _middles(num_frames, segments)


def twice_test(num_frames: int, segments: int) -> Numbers:
    """Take two clips: the middle of each segment, then the beginning of each: (2 segments,).

    ValueError: as above.
    """
    _check(num_frames, segments)
    begins = (np.arange(segments) * (num_frames / segments)).astype(np.int64)
    return np.concatenate([_middles(num_frames, segments), begins])


def dense_train(num_frames: int, segments: int, draw: np.random.Generator) -> Numbers:
    """Spread the segments over 64 frames from a start that is drawn; a short clip is repeated.

    ValueError: as above.
    """
    _check(num_frames, segments)
    last = max(1, 1 + num_frames - DENSE_SPAN)
    start = 0 if last == 1 else int(draw.integers(last - 1))
    return _spread(num_frames, segments, start)


def dense_test(
    num_frames: int, segments: int, span: int = DENSE_SPAN, starts: int = DENSE_STARTS
) -> Numbers:
    """Take clips of ``span`` frames from evenly spaced starts: (starts * segments,).

    ValueError: as above.
    """
    _check(num_frames, segments)
    last = max(1, 1 + num_frames - span)
    begins = np.linspace(0, last - 1, num=starts).astype(np.int64)
    return np.concatenate([_spread(num_frames, segments, int(b), span) for b in begins])


def _check(num_frames: int, segments: int) -> None:
    if num_frames < 1 or segments < 1:
        raise ValueError(
            f"{segments} frames cannot be taken out of {num_frames}; both must be at least 1"
        )


def _middles(num_frames: int, segments: int) -> Numbers:
    length = num_frames / segments
    return (length / 2 + length * np.arange(segments)).astype(np.int64)


def _spread(num_frames: int, segments: int, start: int, span: int = DENSE_SPAN) -> Numbers:
    """Take every (span / segments)th frame from a start; after the last frame comes the first."""
    step = span // segments
    return (start + step * np.arange(segments)) % num_frames
