"""Which frames of a film its clips have, by the rules of :mod:`.frame_sampling`.

Shapes: n frames of the film, T of a clip, M clips.
"""

from __future__ import annotations

import numpy as np

from fusion.data.labelled.frame_sampling import (
    Numbers,
    dense_test,
    dense_train,
    twice_test,
    uniform_test,
    uniform_train,
)

SAMPLINGS = ("segments", "dense")


def draw_clip(sampling: str, n: int, frames: int, rng: np.random.Generator) -> Numbers:
    """Draw the frames of a training clip: (T,).

    ``segments``: the film is cut into T equal parts, and a frame is drawn of each. ``dense``: T
    frames at equal distance out of 64 in a row, which are drawn. A film of fewer than T frames has
    them in order, some repeated; the published code repeats the first.
    """
    if sampling == "dense":
        return dense_train(n, frames, rng)
    return uniform_train(n, frames, rng) if n >= frames else uniform_test(n, frames)


def place_clips(sampling: str, n: int, frames: int, clips: int) -> Numbers:
    """Place the clips of a test evenly, one after another: (M T,)."""
    if sampling == "dense":
        if clips > 1:
            return dense_test(n, frames, starts=clips)
        return dense_test(n, frames, starts=3)[frames : 2 * frames]  # from the middle
    if clips == 1:
        return uniform_test(n, frames)
    if clips == 2:
        return twice_test(n, frames)
    shifts = (np.arange(clips)[:, None] + 0.5) / clips
    places = (n / frames * (np.arange(frames) + shifts)).astype(np.int64)  # (M, T)
    return places.reshape(-1)
