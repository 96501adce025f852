"""A fixed budget of tokens from features of any number, as published.

Video has features of two kinds, of single pictures (2D) and of motion (3D), with rates of their
own; a token is one of each side by side. Sound has spectrogram frames.

Shapes: L tokens of a clip, N features of a clip, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRATEGIES = ("clip", "nearest", "max_pool")


def fit_video_tokens(
    features_2d: Tensor | None, features_3d: Tensor | None, num_tokens: int, strategy: str = "clip"
) -> Tensor:
    """Make at most ``num_tokens`` tokens of the video features of a clip.

    Features of each kind are scaled to unit length after resampling. With both kinds, the 2D
    features are first resampled to the number of the 3D features.

    Args:
        features_2d: (N2, D2); None: this kind is not used.
        features_3d: (N3, D3); None: this kind is not used.
        num_tokens: the most tokens; 0: one token, the maximum over time.
        strategy: what becomes of a clip that is too long. "clip": its end is cut off. "nearest":
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
    if num_tokens == 0:
        kinds = [_pooled(features) for features in kinds]
    else:
        kinds = _resampled(kinds, num_tokens, strategy)
    return torch.cat([F.normalize(features, dim=1) for features in kinds], dim=1)


def fit_frames(spectrogram: Tensor, num_frames: int) -> Tensor:
    """Cut a spectrogram (T, 40) after ``num_frames`` frames: (min(T, num_frames), 40)."""
    return spectrogram[:num_frames]


def pad_frames(spectrogram: Tensor, num_frames: int) -> Tensor:
    """Cut or pad a spectrogram (T, 40) to (num_frames, 40).

    Padding is 0 dB, as loud as the loudest moment; whoever uses the result needs the length.
    """
    spectrogram = fit_frames(spectrogram, num_frames)
    return F.pad(spectrogram, (0, 0, 0, num_frames - len(spectrogram)))


def check_finite(features: Tensor, name: str) -> None:
    """Refuse features that would spoil the whole batch.

    Args:
        features: (N, D), one row per time step.
        name: what they are and of which clip, for the message.

    Raises:
        ValueError: not a matrix, or NaN or infinity in it.
    """
    if features.ndim != 2:
        raise ValueError(
            f"{name}: features must have the shape (time, width); got {tuple(features.shape)}; "
            "extract them again"
        )
    if features.sum().isfinite():
        return  # the quick way; only NaN, infinity or a sum too large for float32 gets past it
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
    if strategy == "max_pool" and min(kernels) > 1:
        kinds = [
            _max_pool(features, kernel) for features, kernel in zip(kinds, kernels, strict=True)
        ]
    length = len(kinds[-1])
    if strategy != "clip":
        length = min(length, num_tokens)
    return [_nearest(features, length)[:num_tokens] for features in kinds]


def _max_pool(features: Tensor, kernel: int) -> Tensor:
    """Take the maximum of each ``kernel`` rows in turn; a rest is dropped."""
    return F.max_pool1d(features.T, kernel).T


def _nearest(features: Tensor, length: int) -> Tensor:
    """Resample rows as torch does it: (N, D) -> (length, D)."""
    if len(features) == length:
        return features
    return F.interpolate(features.T[None], size=length, mode="nearest")[0].T
