"""Pictures of a study: settings as rows of dots beside their recalls, and cost against recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from fusion.report.layout import arrow
from fusion.report.plots import CYCLE, FILL, INK, LINE, QUIET, STYLE, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fusion.study.effects import Effect
    from fusion.study.result import Study

ROW = 17  # height of a setting in pixels
WIDTH = 900
DARK = 60  # per cent of the largest number above which a cell is written in white


def overview(study: Study, lead: str) -> Markup:
    """Draw an UpSet plot: a row for each setting, dots for its terms, a cell for each direction.

    The best for the direction ``lead`` come first; empty cells are directions that a setting does
    not train.
    """
    import matplotlib

    score = study.found[lead].mean(axis=(1, 2)) * np.where(study.valid[lead], 1, -1)
    order = np.argsort(-score, kind="stable")
    ways = list(study.found)
    height = 96 + ROW * len(order)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(WIDTH, height)
        top, bottom = 1 - 74 / height, 22 / height
        dots = figure.add_axes((0.02, bottom, 0.24, top - bottom))
        cells = figure.add_axes((0.28, bottom, 0.71, top - bottom))
        _draw_dots(dots, study, order)
        _draw_cells(cells, study, order, ways)
        return to_svg(figure, f"R@1 of every set of terms, best for {lead} first")


def _draw_dots(axes: Axes, study: Study, order: np.ndarray) -> None:
    terms, present = study.plan.terms, study.present
    for place, setting in enumerate(order):
        on = np.flatnonzero(present[setting])
        off = np.flatnonzero(~present[setting])
        axes.scatter(off, [place] * len(off), 26, color=LINE)
        axes.plot(on, [place] * len(on), color=INK, linewidth=1.4)
        axes.scatter(on, [place] * len(on), 34, color=INK, zorder=3)
    axes.set_xlim(-0.6, len(terms) - 0.4)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xticks(range(len(terms)), terms, rotation=90, color=INK)
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_cells(axes: Axes, study: Study, order: np.ndarray, ways: Sequence[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    values = np.full((len(order), len(ways)), np.nan)
    for column, way in enumerate(ways):
        means = 100 * study.found[way].mean(axis=(1, 2))
        values[:, column] = np.where(study.valid[way], means, np.nan)[order]
    most = np.nanmax(values, axis=0)
    shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", FILL])
    axes.imshow(values / np.maximum(most, 1e-9), aspect="auto", cmap=shades, vmin=0, vmax=1)
    for row, column in np.argwhere(np.isfinite(values)):
        share = 100 * values[row, column] / max(most[column], 1e-9)
        colour = "#ffffff" if share > DARK else "#1a1a1a"
        text = f"{values[row, column]:.1f}"
        axes.text(column, row, text, ha="center", va="center", size=8, color=colour)
    axes.set_xticks(
        range(len(ways)), [arrow(way) for way in ways], rotation=60, ha="left", color=INK
    )
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def effect_chart(effects: dict[str, list[Effect]], terms: Sequence[str]) -> Markup:
    """Draw the main effect of each term on each direction as a point with its interval."""
    import matplotlib

    ways = list(effects)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(WIDTH, 60 + 17 * len(ways) * 1.6, layout="constrained")
        panels = figure.subplots(1, len(terms), sharey=True)
        for axes, term, colour in zip(panels, terms, CYCLE * 3, strict=False):
            for place, way in enumerate(ways):
                for effect in effects[way]:
                    if effect.terms == (term,):
                        value, low, high = effect.estimate
                        axes.plot([low, high], [place, place], color=colour, linewidth=2)
                        is_clear = effect.estimate.is_clear
                        face = colour if is_clear else "none"
                        axes.scatter(
                            [value], [place], 26, facecolor=face, edgecolor=colour, zorder=3
                        )
            axes.axvline(0, color=QUIET, linewidth=1)
            axes.set_title(term, size=11, color=INK)
            axes.grid(axis="x")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        panels[0].set_yticks(range(len(ways)), [arrow(way) for way in ways], color=INK)
        panels[0].set_ylim(len(ways) - 0.5, -0.5)
        return to_svg(figure, "main effect of each term on R@1 of each direction, in points")


def cost_chart(study: Study, direction: str) -> Markup:
    """Draw training time against R@1 of a direction; the best for their cost are joined."""
    import matplotlib

    able = np.flatnonzero(study.valid[direction] & np.isfinite(study.seconds))
    score = 100 * study.found[direction].mean(axis=(1, 2))
    front, labels = study.front(direction), study.labels()
    with matplotlib.rc_context(STYLE):
        figure = new_figure(620, 380, layout="constrained")
        axes = figure.subplots()
        axes.scatter(study.seconds[able], score[able], 22, color=LINE)
        axes.plot(study.seconds[front], score[front], color=FILL, marker="o")
        for place in front:
            at = (study.seconds[place], score[place])
            axes.annotate(labels[place], at, (5, -11), textcoords="offset points", size=9)
        axes.set_xlabel("training (s)", loc="right")
        axes.set_ylabel(f"R@1 of {arrow(direction)} (%)")
        axes.grid()
        return to_svg(figure, f"training time against R@1 of {direction}")
