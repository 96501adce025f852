"""The picture of a learning rate range test, in the style of :mod:`fusion.report.plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fusion.report.plots import CYCLE, FILL, INK, PAPER, QUIET, STYLE, new_figure, to_svg

if TYPE_CHECKING:  # matplotlib takes a third of a second to import
    from matplotlib.axes import Axes

PANEL = (430, 300)  # width and height of the curve of a part, in pixels
ROOM = 1.3  # times the largest gain are drawn above and below 0


def rates_picture(result: Mapping[str, Any]) -> Markup:
    """Draw the result of :func:`fusion.commands.find_lr.find_lr` as an SVG, a panel for each part.

    A thin line is one repetition, the thick one their mean.
    """
    import matplotlib

    rows = result["parts"]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(PANEL[0] * len(rows), PANEL[1] + 30, layout="constrained")
        figure.set_facecolor(PAPER)
        panels = figure.subplots(1, len(rows), squeeze=False)[0]
        for axes, row in zip(panels, rows, strict=True):
            _draw(axes, result["rates"], row)
        panels[0].set_ylabel("loss, less that of the control")
        figure.supxlabel("learning rate", size=11, color=QUIET)
        return to_svg(figure, "Loss by learning rate", alone=True)


def _draw(axes: Axes, rates: Sequence[float], row: Mapping[str, Any]) -> None:
    changes = [[-value for value in gain] for gain in row["gains"]]
    for change in changes:
        axes.plot(rates[: len(change)], change, color=CYCLE[0], linewidth=0.8, alpha=0.5)
    mean = [sum(values) / len(values) for values in zip(*changes, strict=False)]
    axes.plot(rates[: len(mean)], mean, color=FILL, linewidth=2)
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(rates[0], rates[-1])
    first, last = (round(math.log10(rate)) for rate in (rates[0], rates[-1]))
    decades = range(first, last + 1, 2)
    axes.set_xticks([10.0**power for power in decades], [f"1e{power}" for power in decades])
    axes.minorticks_off()
    if largest := max((-value for value in mean), default=0.0):
        axes.set_ylim(-ROOM * abs(largest), ROOM * abs(largest))
    axes.grid(axis="y")
    axes.set_title(row["name"], loc="left", weight="bold", size=12, pad=20)
    said = []
    for key, dashes in (("recommended", "-"), ("diverges", (0, (3, 3)))):
        if row[key] is not None:
            axes.axvline(row[key], color=INK, linestyle=dashes, linewidth=1)
            said.append(f"{key} {row[key]:.1e}")
    corner = {"xycoords": "axes fraction", "textcoords": "offset points", "color": QUIET}
    axes.annotate(", ".join(said), (0, 1), (0, 5), size=10, **corner)
