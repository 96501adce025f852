"""Time windows around captions, as published for HowTo100M (arXiv:1906.03327, arXiv:2112.04446).

A narrated caption is short and often off by seconds, so a training clip is a caption with as many
of its neighbours as make it long enough.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Sequence

from fusion.data.captions.table import Caption
from fusion.words import words_of


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a video and what is said in it.

    Attributes:
        start: seconds.
        end: seconds.
        words: in the order in which their captions were added, not of their times; none if nothing
            is said.
    """

    start: float
    end: float
    words: tuple[str, ...]


def caption_window(captions: Sequence[Caption], index: int, min_seconds: float) -> Window:
    """Extend a caption by its nearest neighbours until it is long enough.

    Each time the neighbour is taken that makes the window less long; the previous one if both are
    equal. A video too short for ``min_seconds`` is taken whole.

    Args:
        captions: those of one video, by time.
        index: the caption to begin with.
        min_seconds: the least duration of the window.
    """
    before, after = index - 1, index + 1
    start, end = captions[index].start, captions[index].end
    words = [*words_of(captions[index].text)]
    while end - start < min_seconds and (before >= 0 or after < len(captions)):
        with_previous = end - captions[before].start if before >= 0 else math.inf
        with_next = captions[after].end - start if after < len(captions) else math.inf
        if with_next < with_previous:
            end = captions[after].end
            words.extend(words_of(captions[after].text))
            after += 1
        else:
            start = captions[before].start
            words.extend(words_of(captions[before].text))
            before -= 1
    return Window(start, end, tuple(words))


def random_window(
    captions: Sequence[Caption], duration: float, min_seconds: float, uniform: float
) -> Window:
    """Choose a window anywhere in a video, whether or not something is said there.

    Args:
        captions: those of the video, by time.
        duration: seconds of the video.
        min_seconds: the duration of the window; the video may be shorter.
        uniform: a random number within [0, 1) that decides where.

    Returns:
        The window of the newest caption when the drawn window starts, if that still lasts, else of
        the newest when it ends, see :func:`caption_window`; else the drawn window, without words.
    """
    start = uniform * max(0.0, int(duration) - min_seconds)
    end = start + min_seconds
    for time in (start, end):
        # The newest caption, though an older one may still last where captions overlap.
        index = max(0, bisect_left(captions, time, key=lambda caption: caption.start) - 1)
        if captions and captions[index].start <= time <= captions[index].end:
            return caption_window(captions, index, min_seconds)
    return Window(start, end, ())


def audio_window(window: Window, min_seconds: float, *, shift: bool) -> tuple[float, float]:
    """Return from which to which second the sound of a window is taken.

    Args:
        window: that of the text.
        min_seconds: see :func:`caption_window`.
        shift: the pre-training setting: ``min_seconds`` of sound, half of that later than the
            text, so that speech does not simply repeat the text. A window without words has no
            text to be apart from.
    """
    if not shift or not window.words:
        return window.start, window.end
    start = window.start + min_seconds / 2
    return start, start + min_seconds


def feature_range(start: float, end: float, fps: float, *, accurate: bool) -> tuple[int, int]:
    """Return the first feature of a window and the one after its last.

    Args:
        start: seconds.
        end: seconds.
        fps: features per second.
        accurate: just the features that overlap the window; else as published, one more if the
            window ends on the border of two features.
    """
    if accurate:
        return math.floor(start * fps), math.ceil(end * fps)
    return int(start * fps), int(end * fps) + 1
