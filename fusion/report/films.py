"""Strips of films in a report: their frames, and below them what a network says over time.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fusion.data.media.encode import encode_jpeg
from fusion.report.page import render

FRAME = 72  # pixels of a frame in the strip, at least
PLOT = 64  # pixels, height of the curves
COLOURS = 8  # of curves, see report.css


@dataclasses.dataclass(frozen=True)
class FilmStrip:
    """A film: (T, H, W, 3) uint8 frames, its class, the chosen one, and probabilities over time.

    ``curves`` has for some classes, the right one first, T' numbers from 0 to 1.
    """

    id: str
    right: str
    chosen: str
    frames: NDArray[np.uint8]
    curves: Mapping[str, Sequence[float]]


def strips_section(films: Sequence[FilmStrip], note: str) -> Markup:
    """Show films as strips of frames with curves below."""
    if not films:
        return Markup()
    cards = [(film, _strip(film.frames), _curves(film)) for film in films]
    return render("films.html", cards=cards, note=note, height=PLOT)


def _strip(frames: NDArray[np.uint8]) -> str:
    """Put frames side by side: a JPEG as an address; empty if there is none."""
    if not len(frames):
        return ""
    times = max(1, -(-FRAME // frames.shape[1]))
    row = np.concatenate(list(frames.repeat(times, axis=1).repeat(times, axis=2)), axis=1)
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(row)).decode()}"


def _curves(film: FilmStrip) -> list[tuple[str, str, float]]:
    """Give of each class its name, the points of its curve in a box of T x 1, and its end."""
    curves = []
    for name, values in film.curves.items():
        if not len(values):
            continue
        step = len(film.frames) / len(values)
        points = " ".join(f"{(i + 0.5) * step:.3f},{1 - v:.3f}" for i, v in enumerate(values))
        curves.append((name, points, values[-1]))
    return curves
