"""Which seconds of a video make a clip: time windows, and tokens of the features in them.

Windows around captions are those published for HowTo100M (arXiv:1906.03327, arXiv:2112.04446). A
narrated caption is short and often off by seconds, so a training clip is a caption with as many of
its neighbours as make it long enough.

Video has features of single pictures (2D) and of motion (3D) at different rates; a token is one of
each, side by side. Shapes: L tokens of a clip, N features of a clip, D width.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.features.format import Field
from fusion.words import uncut_words

STRATEGIES = ("clip", "nearest", "max_pool")


class Window(NamedTuple):
    """A stretch of a video and what is said in it."""

    start: float  # seconds
    end: float
    words: tuple[str, ...]  # in the order in which their captions were added, not of their times


def caption_window(captions: Sequence[Caption], index: int, min_seconds: float) -> Window:
    """Extend caption ``index`` of a video by its neighbours until it lasts ``min_seconds``.

    Each step adds the neighbour that lengthens the window least, the previous one if both are
    equal. If the video is too short, the window is the whole video.
    """
    before, after = index - 1, index + 1
    start, end = captions[index].start, captions[index].end
    words = uncut_words(captions[index].text)
    while end - start < min_seconds and (before >= 0 or after < len(captions)):
        with_previous = end - captions[before].start if before >= 0 else math.inf
        with_next = captions[after].end - start if after < len(captions) else math.inf
        if with_next < with_previous:
            added, after = captions[after], after + 1
            end = added.end
        else:
            added, before = captions[before], before - 1
            start = added.start
        words.extend(uncut_words(added.text))
    return Window(start, end, tuple(words))


def random_window(
    captions: Sequence[Caption], duration: float, min_seconds: float, uniform: float
) -> Window:
    """Draw a window of ``min_seconds`` anywhere in a video; ``uniform``, in [0, 1), decides where.

    The latest caption that begins before the drawn window decides, see :func:`caption_window`. If
    it is over by then, the latest one that begins before the end of the drawn window decides; if
    that is over too, the drawn window is returned, without words.
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
    """Return from which to which second the sound of a window of text is taken.

    ``shift`` is the pre-training setting: ``min_seconds`` of sound, half of that later than the
    text, so that speech does not simply repeat the text. A window without words is not shifted.
    """
    if not shift or not window.words:
        return window.start, window.end
    start = window.start + min_seconds / 2
    return start, start + min_seconds


def feature_range(start: float, end: float, per_second: float) -> tuple[int, int]:
    """Return the first feature of a window in seconds and the one after its last.

    As published: a window that ends where a feature begins takes that one too.
    """
    return int(start * per_second), int(end * per_second) + 1


def video_tokens(
    read: Callable[[str, int, int | None], Tensor],
    fields: Mapping[str, Field],
    start: float,
    end: float,
    num_tokens: int,
    strategy: str = "clip",
) -> Tensor:
    """Read the 2D and 3D features of a window and make tokens, see :func:`fit_video_tokens`.

    ``read`` returns rows of a field from one to before another; ``end`` infinity: the whole video.
    """

    def rows(name: str) -> Tensor | None:
        if name not in fields:
            return None
        if math.isinf(end):
            return read(name, 0, None)
        return read(name, *feature_range(start, end, fields[name].per_second))

    return fit_video_tokens(rows("2d"), rows("3d"), num_tokens, strategy)


def field_tokens(
    read: Callable[[str, int, int | None], Tensor],
    fields: Mapping[str, Field],
    name: str,
    start: float,
    end: float,
    part: int = 0,
    most: int | None = None,
) -> Tensor:
    """Read the rows of one field in a window, each a token: (L, D); arguments as above.

    With ``most`` only so many, of the ``part``-th so many.
    """
    first, last = 0, None
    if math.isfinite(end):
        first, last = feature_range(start, end, fields[name].per_second)
    if most is not None:
        first += part * most
        last = first + most if last is None else min(last, first + most)
    return read(name, first, last)


def fit_video_tokens(
    features_2d: Tensor | None, features_3d: Tensor | None, num_tokens: int, strategy: str = "clip"
) -> Tensor:
    """Make at most ``num_tokens`` tokens of the video features of a clip.

    Features of each kind are scaled to unit length after resampling. With both kinds, the 2D
    features are first resampled to the number of the 3D features. Features in float16 make tokens
    in float16, computed in float32: half the bytes on the way to the device.

    Args:
        features_2d: (N2, D2); None: this kind is not used.
        features_3d: (N3, D3); None: this kind is not used.
        num_tokens: the most tokens; 0: one token, the maximum over time.
        strategy: what is done to a clip that is too long. "clip": its end is cut off. "nearest":
            it is sampled evenly. "max_pool": the maximum of each ``N // num_tokens`` features
            before that, unless one kind has too few for it.

    Returns:
        (L, D2 + D3) without padding; L is 0 if a kind that is used is empty. With ``num_tokens``
        0 an empty kind is zeros beside the other, and L is 0 only if all are empty.

    Raises:
        ValueError: no kind at all, or an unknown strategy.
    """
    kinds = [features for features in (features_2d, features_3d) if features is not None]
    if not kinds or strategy not in STRATEGIES or num_tokens < 0:
        raise ValueError(
            "video tokens need 2D or 3D features, num_tokens >= 0 and a strategy of "
            f"{', '.join(STRATEGIES)}; got {len(kinds)} kinds, {num_tokens} and {strategy!r}"
        )
    width = sum(features.shape[1] for features in kinds)
    lengths = [len(features) for features in kinds]
    if not any(lengths) or (num_tokens > 0 and not all(lengths)):
        return kinds[0].new_zeros(0, width)
    stored = torch.promote_types(kinds[0].dtype, kinds[-1].dtype)
    kinds = [features.float() for features in kinds]
    kinds = _resampled(kinds, num_tokens, strategy) if num_tokens else list(map(_pooled, kinds))
    return torch.cat([F.normalize(features, dim=1) for features in kinds], dim=1).to(stored)


def check_finite(features: Tensor, name: str) -> None:
    """Raise ValueError unless features are (N, D) and all finite."""
    if features.ndim != 2:
        raise ValueError(
            f"{name}: features must have the shape (time, width); got {tuple(features.shape)}; "
            "extract them again"
        )
    # Not finite if there is NaN or infinity, or the sum is too large.
    if features.sum(dtype=torch.float32).isfinite():
        return
    bad = (~features.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"{name}: {len(bad)} of {features.numel()} values are not finite, the first "
            f"({features[row, column].item()}) at time step {row}, column {column}; extract the "
            "features again or leave the clip out"
        )


def _pooled(features: Tensor) -> Tensor:
    """Take the maximum over time: (N, D) -> (1, D); zeros of nothing."""
    if len(features) == 0:
        return features.new_zeros(1, features.shape[1])
    return features.amax(dim=0, keepdim=True)


def _resampled(kinds: list[Tensor], num_tokens: int, strategy: str) -> list[Tensor]:
    """Bring all kinds to one length of at most ``num_tokens``."""
    kernels = [len(features) // num_tokens for features in kinds]
    if strategy == "max_pool" and min(kernels) > 1:  # rows that are left over are dropped
        kinds = [F.max_pool1d(f.T, kernel).T for f, kernel in zip(kinds, kernels, strict=True)]
    length = len(kinds[-1])
    if strategy != "clip":
        length = min(length, num_tokens)
    return [_nearest(features, length)[:num_tokens] for features in kinds]


def _nearest(features: Tensor, length: int) -> Tensor:
    """Resample rows as torch does it: (N, D) -> (length, D)."""
    if len(features) == length:
        return features
    return F.interpolate(features.T[None], size=length, mode="nearest")[0].T
