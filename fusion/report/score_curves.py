"""Score curves of a film over time, with the second of each step: as SVG, PNG and page.

Shapes: T seconds, H x W pixels.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fusion.report.page import page, render
from fusion.report.plots import CYCLE, INK, LINE, PAPER, QUIET, STYLE, new_figure, to_svg
from fusion.words import clock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, PANEL, MARGIN = 820, 62, 34  # pixels: of the picture, of a step, of its axis
TEXT = 100  # letters of a step
PICTURE = 84  # pixels of the height of a thumbnail
MOST_POINTS = 1500  # of a curve; more are averaged


class CurveStep(NamedTuple):
    """A step to draw."""

    text: str
    scores: NDArray[np.floating]  # (T,); not finite where nothing is known
    second: float | None = None  # that it got, in seconds
    intervals: Sequence[tuple[float, float]] = ()  # when it happens, where that is known
    picture: bytes | None = None  # JPEG of its second


def draw_curves(steps: Sequence[CurveStep], grid: float = 1.0) -> Figure:
    """Draw a panel for each step, below one another; call it within ``STYLE``.

    ``grid`` is the distance of scores in seconds.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    height = MARGIN + PANEL * len(steps)
    has_pictures = any(step.picture for step in steps)
    figure = new_figure(WIDE, height, layout="constrained")
    widths = [WIDE, 1.6 * PICTURE] if has_pictures else [WIDE]
    axes = figure.subplots(
        len(steps), len(widths), squeeze=False, width_ratios=widths, sharex="col"
    )
    known = [scores[np.isfinite(scores)] for scores in (np.asarray(s.scores) for s in steps)]
    scores = np.concatenate([*known, np.zeros(0)])  # one scale, so that steps can be compared
    bounds = (float(scores.min()), float(scores.max())) if scores.size else (0.0, 1.0)
    end = grid * max((len(step.scores) for step in steps), default=1)
    for number, (step, row) in enumerate(zip(steps, axes, strict=True)):
        _draw_step(row[0], step, CYCLE[number % len(CYCLE)], grid, bounds)
        row[0].set_xlim(0, end)
        if has_pictures:
            _draw_picture(row[1], step.picture)
    last = axes[-1, 0] if len(steps) else None
    if last is not None:
        last.tick_params(bottom=True, labelbottom=True)
        last.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
    return figure


def _draw_step(
    axes: Any, step: CurveStep, colour: str, grid: float, bounds: tuple[float, float]
) -> None:
    times, values = thin(np.asarray(step.scores, np.float64), grid)
    low, high = bounds
    room = max(high - low, 1e-6)
    axes.plot(times, np.where(np.isfinite(values), values, np.nan), color=colour, linewidth=1.3)
    for start, end in step.intervals:
        axes.plot([start, end], [low - 0.12 * room] * 2, color=INK, linewidth=4, alpha=0.55)
    title = step.text if len(step.text) <= TEXT else step.text[: TEXT - 1] + "…"
    if step.second is not None:
        place = min(int(step.second / grid), len(step.scores) - 1)
        score = float(step.scores[place])
        axes.axvline(step.second, color=LINE, linewidth=1)
        axes.plot(step.second, score, "o", color=colour, markersize=7)
        title = f"{clock(math.floor(step.second))}  {title}"
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=2)
    axes.set_ylim(low - 0.25 * room, high + 0.2 * room)
    axes.set_yticks([low, high], [f"{low:.2f}", f"{high:.2f}"])
    axes.spines[["left"]].set_visible(False)
    axes.tick_params(bottom=False, left=False, labelbottom=False, labelcolor=QUIET)


def _draw_picture(axes: Any, picture: bytes | None) -> None:
    from PIL import Image

    axes.set_axis_off()
    if picture:
        with Image.open(io.BytesIO(picture)) as image:
            axes.imshow(np.asarray(image.convert("RGB")), interpolation="bilinear")


def thin(
    scores: NDArray[np.float64], grid: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times and values of at most ``MOST_POINTS`` points; more are averaged in groups."""
    size = -(-len(scores) // MOST_POINTS) or 1
    starts = np.arange(0, len(scores), size)
    times = (starts + np.minimum(size, len(scores) - starts) / 2) * grid
    if size == 1:
        return times, scores
    known = np.isfinite(scores)
    sums = np.add.reduceat(np.where(known, scores, 0), starts)
    counts = np.add.reduceat(known.astype(np.float64), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return times, np.where(counts > 0, sums / counts, np.nan)


def curves_png(steps: Sequence[CurveStep], grid: float = 1.0) -> bytes:
    """Draw the curves, with pictures where there are any, as a PNG file."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, file = draw_curves(steps, grid), io.BytesIO()
        figure.set_facecolor(PAPER)
        figure.savefig(file, format="png", dpi=144, metadata={"Software": None})
        return file.getvalue()


def curves_svg(steps: Sequence[CurveStep], grid: float, label: str) -> Markup:
    """Draw the curves without pictures, as an SVG element of a page."""
    import matplotlib

    bare = [step._replace(picture=None) for step in steps]
    with matplotlib.rc_context(STYLE):
        return to_svg(draw_curves(bare, grid), label)


def curves_section(films: Sequence[tuple[str, Sequence[CurveStep], float]], note: str) -> Markup:
    """Draw several films, each with its title, steps and distance of scores."""
    if not films:
        return Markup()
    drawn = [(title, curves_svg(steps, grid, title)) for title, steps, grid in films]
    return render("curves.html", films=drawn, note=note)


def curves_page(title: str, steps: Sequence[CurveStep], grid: float = 1.0) -> str:
    """Write a page with the times, the pictures and the curves of one film."""
    cards = [
        (
            "\N{EN DASH}" if step.second is None else clock(math.floor(step.second)),
            step.text,
            f"data:image/jpeg;base64,{base64.b64encode(step.picture).decode()}"
            if step.picture
            else "",
        )
        for step in steps
    ]
    found = sum(step.second is not None for step in steps)
    headline = Markup("<h1>{} <span>{} of {} steps</span></h1>").format(title, found, len(steps))
    sections = {
        "Times": render("times.html", cards=cards),
        "Scores over time": Markup('<div class="wide">{}</div>').format(
            curves_svg(steps, grid, f"scores of {title} over time")
        ),
    }
    return page(title, headline, sections)
