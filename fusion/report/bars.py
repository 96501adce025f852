"""The picture of a comparison: R@1 of every method in the main directions, as one SVG.

It is a file of its own, readable on light and dark pages, and can stand within an HTML page.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from fusion.report.comparison import OWN_WAY
from fusion.report.comparison_table import (
    NO_DIFFERENCE,
    ceiling_of,
    chance_of,
    rows_of,
)
from fusion.report.curves import Ticks, colour_class, short_number, ticks
from fusion.report.page import read, side_in_words

PANELS = (OWN_WAY, "t->v+a", "t->v", "t->a", "va->t", "v->t", "a->t")  # those that any method has
WIDTH, MARGIN, GAP = 860, 20, 36  # in the units of the drawing; two panels stand in a row
NAMES, WAYS, VALUES = 146, 66, 52  # width of the columns beside the bars
TITLE, BAR, ROW, AXIS = 48, 14, 22, 30  # heights: of a panel's head, a bar, its row, the scale
STYLE = """
.comparison { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
.comparison .paper { fill: var(--paper); }
.comparison text { fill: var(--ink); }
.comparison .head { font-weight: 600; font-size: 14px; }
.comparison .quiet { fill: var(--quiet); font-size: 11.5px; }
.comparison .grid { stroke: var(--line); }
.comparison .chance { stroke: var(--ink); stroke-dasharray: 3 3; }
.comparison .whisker { stroke: var(--ink); stroke-width: 1.6; fill: none; }
.comparison .seed { fill: var(--paper); stroke: var(--ink); }
"""


class Panel(NamedTuple):
    """Where the bars of a direction stand: from ``x`` over ``length``, with their scale."""

    x: float
    length: float
    scale: Ticks

    def at(self, value: float) -> float:
        """Place a value in per cent."""
        return self.x + self.length * value / self.scale.high


def comparison_picture(comparison: Mapping[str, Any]) -> str:
    """Draw the main directions; the headline, where there is one, over the whole width.

    Args:
        comparison: see :func:`fusion.report.comparison.compare_methods`.
    """
    ways = [way for way in PANELS if any(rows_of(comparison, way).values())]
    height = TITLE + ROW * len(comparison["methods"]) + AXIS  # of a panel
    half, top, left, parts = (WIDTH - 2 * MARGIN - GAP) / 2, MARGIN, True, []
    for way in ways:
        if way == OWN_WAY:
            parts.append(_panel(comparison, way, MARGIN, top, WIDTH - 2 * MARGIN))
            top += height
            continue
        parts.append(_panel(comparison, way, MARGIN if left else MARGIN + half + GAP, top, half))
        left = not left
        top += height if left else 0
    top += 0 if left else height
    lines = [
        "Bars: R@1 in per cent, the mean over seeds; circles: single seeds. Each panel has its own"
        " scale.",
        f"Lines: 95 % interval over clips; dashed: chance. {NO_DIFFERENCE} beside a figure: the"
        f" interval of its difference to {comparison['baseline']} includes 0.",
    ]
    for line in lines:
        parts.append(_text(MARGIN, top + 14, line, "quiet"))
        top += 18
    label = html.escape(f"R@1 of {', '.join(comparison['methods'])}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="comparison" role="img"'
        f' aria-label="{label}" viewBox="0 0 {WIDTH} {top + MARGIN}">'
        f"<style>{_colours()}{STYLE}</style>"
        f'<rect class="paper" width="{WIDTH}" height="{top + MARGIN}"/>{"".join(parts)}</svg>\n'
    )


def _panel(comparison: Mapping[str, Any], way: str, x: float, top: float, width: float) -> str:
    rows = rows_of(comparison, way)
    guess, limit = chance_of(comparison), ceiling_of(comparison, way)
    names = NAMES + (WAYS if way == OWN_WAY else 0)
    panel = Panel(x + names, width - names - VALUES, ticks(0, _highest(rows, guess)))
    beside = f"chance {guess:.1f}" + ("" if limit is None else f", ceiling {limit:.1f}")
    bars, bottom = top + TITLE, top + TITLE + ROW * len(rows)
    parts = [
        _text(x, top + 14, _title(way), "head"),
        _text(x, top + 32, _subtitle(way), "quiet"),
        _text(x + width, top + 14, beside, "quiet", "end"),
    ]
    for value in panel.scale.values:
        place = panel.at(value)
        parts.append(_line("grid", place, bars, place, bottom))
        parts.append(_text(place, bottom + 14, short_number(value), "quiet", "middle"))
    for number, (name, row) in enumerate(rows.items()):
        parts.append(_bar(panel, number, name, row, x, bars + ROW * number))
    parts.append(_line("chance", panel.at(guess), bars, panel.at(guess), bottom))
    return f"<g>{''.join(parts)}</g>"


def _bar(
    panel: Panel, number: int, name: str, row: Mapping[str, Any] | None, x: float, top: float
) -> str:
    middle = top + ROW / 2
    shown = _cut(name, NAMES - 8)
    if row is None:
        return _text(x, middle + 4, shown, title=name) + _text(panel.x + 5, middle + 4, "none")
    score, mark = row["R@1"], ""
    if (difference := row.get("difference")) and difference["includes_zero"]:
        mark = f" {NO_DIFFERENCE}"
    parts = [
        _text(x, middle + 4, shown, title=name),
        f'<rect fill="var(--c{colour_class(number)[1]})" x="{panel.x:.1f}" y="{middle - BAR / 2}"'
        f' width="{panel.at(score) - panel.x:.1f}" height="{BAR}"/>',
    ]
    if "direction" in row:
        parts.append(_text(panel.x - 10, middle + 4, _arrow(row["direction"]), "quiet", "end"))
    if row["R@1_interval"]:
        low, high = (panel.at(value) for value in row["R@1_interval"])
        parts.append(_line("whisker", low, middle, high, middle))
        parts += [_line("whisker", end, middle - 3, end, middle + 3) for end in (low, high)]
    if len(row["R@1_of_seeds"]) > 1:
        parts += [
            f'<circle class="seed" cx="{panel.at(value):.1f}" cy="{middle}" r="2.4"/>'
            for value in row["R@1_of_seeds"]
        ]
    end = panel.x + panel.length + 10
    return "".join([*parts, _text(end, middle + 4, f"{score:.1f}{mark}")])


def _highest(rows: Mapping[str, Mapping[str, Any] | None], guess: float) -> float:
    values = [guess, 1.0]  # a scale of less than 1 % would make much of nothing
    for row in rows.values():
        if row is not None:
            values += [row["R@1"], *(row["R@1_interval"] or ()), *row["R@1_of_seeds"]]
    return max(values)


def _title(way: str) -> str:
    return "text → video and audio" if way == OWN_WAY else _arrow(way)


def _subtitle(way: str) -> str:
    if way == OWN_WAY:
        fused, _, late = way.partition(" or ")
        return f"each method's own way: {_arrow(fused)} where it embeds va, else {_arrow(late)}"
    asked, _, found = way.partition("->")
    return f"{side_in_words(asked)} → {side_in_words(found)}"


def _cut(name: str, width: float) -> str:
    """Shorten a name that would reach into the bars; the whole one shows under the pointer."""
    used = list(itertools.accumulate(10.5 if letter.isupper() else 7.5 for letter in name))
    if not used or used[-1] <= width:
        return name
    return name[: sum(end <= width - 12 for end in used)].rstrip() + "…"


def _arrow(way: str) -> str:
    return way.replace("->", " → ")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "", title: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    style = f' class="{kind}"' if kind else ""
    more = f"<title>{html.escape(title)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{where}>{more}{html.escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _colours() -> str:
    """Take the colours of the report, light and dark: all that stands before its other rules."""
    return read("report.css").partition("* {")[0]
