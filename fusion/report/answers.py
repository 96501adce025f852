"""Sections of a report on questions: examples with where the answer looked, and confusions.

Shapes: H x W pixels of an image, S side of a square one, h x w attention map.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fusion.data.media.encode import encode_jpeg
from fusion.report.page import render
from fusion.report.plots import FILL, INK, STYLE, new_figure, to_svg

SIDE = 160  # pixels of a picture in the page, at least
DIM = 0.25  # brightness of what the answer did not look at
WIDE = 760  # of the picture of confusions


@dataclasses.dataclass(frozen=True)
class Example:
    """A question with its image (S, S, 3) uint8, or None; ``look`` is (h, w), the largest is 1."""

    text: str
    answers: Sequence[str]  # as people gave them
    best: Sequence[tuple[str, float]]  # the best answers with their probabilities
    accuracy: float  # of the best one, 0 to 1
    image: NDArray[np.uint8] | None = None
    look: NDArray[np.float32] | None = None


def examples_section(examples: Sequence[Example], note: str) -> Markup:
    """Show questions with image, answers, probabilities and where the answer looked."""
    if not examples:
        return Markup()
    cards = [(example, *(_uri(p) for p in _pictures(example))) for example in examples]
    return render("answers.html", cards=cards, note=note)


def shade(image: NDArray[np.uint8], look: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Darken an image (H, W, 3) where the attention (h, w) is low."""
    sides = zip(image.shape[:2], look.shape, strict=True)
    places = [np.arange(side) * size // side for side, size in sides]
    light = DIM + (1 - DIM) * look[np.ix_(*places)] / max(float(look.max()), 1e-9)
    shaded: NDArray[np.uint8] = (image * light[..., None]).round().astype(np.uint8)
    return shaded


def _pictures(example: Example) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    if example.image is None:
        return None, None
    times = max(1, -(-SIDE // len(example.image)))
    large = example.image.repeat(times, axis=0).repeat(times, axis=1)
    return large, None if example.look is None else shade(large, example.look)


def _uri(picture: NDArray[np.uint8] | None) -> str:
    if picture is None:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(picture)).decode()}"


def confusion_chart(
    asked: Sequence[str],
    given: Sequence[str],
    counts: NDArray[np.int64],
    *,
    asked_as: str = "right answer",
    given_as: str = "given answer",
) -> Markup:
    """Draw which answers were given (columns) where which were right (rows), in per cent of a row.

    ``counts`` is (rows, columns); ``asked_as`` and ``given_as`` are the names of the axes.
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if len(asked) < 2:
        return Markup()
    share = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    height = 90 + 24 * len(asked)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(WIDE, height, layout="constrained")
        axes = figure.subplots()
        shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", FILL])
        axes.imshow(share, aspect="auto", cmap=shades, vmin=0, vmax=100)
        for row, column in np.argwhere(share >= 1):
            value = share[row, column]
            colour = "#ffffff" if value > 55 else "#1a1a1a"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", size=9, color=colour)
        axes.set_xticks(range(len(given)), given, rotation=50, ha="right", color=INK)
        axes.set_yticks(range(len(asked)), asked, color=INK)
        axes.set_ylabel(asked_as)
        axes.set_xlabel(given_as)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return to_svg(figure, f"{given_as} by {asked_as}, per cent of a row")
