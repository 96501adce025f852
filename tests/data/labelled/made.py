"""Small films of two classes: bright and dark, or a ramp in time and the same backwards."""

import numpy as np

from fusion.data.media.encode import write_clip


def ramp(backwards=False, frames=12, side=32, seed=0):
    """(T, H, W, 3): frame k is grey of level 20 + 15 k, on a pattern that is drawn."""
    pattern = np.random.default_rng(seed).integers(0, 40, (side, side, 3))
    levels = 20 + 15 * np.arange(frames)[:, None, None, None]
    shown = (levels + pattern).astype(np.uint8)
    return shown[::-1].copy() if backwards else shown


def level(frame):
    """Which frame of a ramp it is."""
    return round((float(np.asarray(frame, np.float64).mean()) - 39.5) / 15)


def write_films(folder, per_class=3, splits=("train", "val"), frames=12):
    """Write ``SPLIT/rises/*.mp4`` and ``SPLIT/falls/*.mp4``."""
    for number, split in enumerate(splits):
        for name in ("rises", "falls"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for n in range(per_class):
                film = ramp(name == "falls", frames, seed=100 * number + n)
                write_clip(folder / split / name / f"{n}.mp4", film, 12, None, crf=10)
    return folder
