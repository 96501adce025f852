"""Learning curves as inline SVG: lines, axes and legend without a plotting library or a script."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 220  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 34  # of the frame, in which the axes are labelled
NUM_COLOURS = 8  # classes c0 ... c7 of report.css; further lines repeat them with other dashes
MAX_POINTS = 300  # per line; longer ones are averaged


class Ticks(NamedTuple):
    """Where an axis begins and ends, and the round numbers on it."""

    low: float
    high: float
    values: list[float]


def learning_curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Draw the rows of a ``metrics.jsonl``: loss and terms, validation recalls, learning rate.

    Args:
        metrics: rows with ``event`` (``train`` or ``validation``), ``step`` and numbers by name.
            Rows that a resumed run wrote again replace those before; NaN and infinity are left out.

    Returns:
        HTML of one figure per chart that has anything to show; empty if none has.
    """
    train = _curves(row for row in metrics if row.get("event") == "train")
    validation = _curves(row for row in metrics if row.get("event") == "validation")
    recalls = {n.removesuffix(" R@1"): c for n, c in validation.items() if n.endswith(" R@1")}
    from_text = {n: c for n, c in recalls.items() if n.startswith("t->")}
    others = {n: c for n, c in recalls.items() if n not in from_text}
    losses = {n.removeprefix("loss/"): c for n, c in train.items() if n.split("/")[0] == "loss"}
    rate = {"learning rate": train["learning_rate"]} if "learning_rate" in train else {}
    figures = [
        line_chart("Loss and its terms", losses),
        line_chart("Validation R@1, text asks (%)", from_text, from_zero=True),
        line_chart("Validation R@1, other directions (%)", others, from_zero=True),
        line_chart("Learning rate", rate, from_zero=True),
    ]
    return "\n".join(figure for figure in figures if figure)


def line_chart(
    title: str, curves: Mapping[str, Sequence[Point]], *, from_zero: bool = False
) -> str:
    """Draw lines over training steps as an SVG with a legend that gives their last values.

    Args:
        title: what is drawn, with its unit.
        curves: (step, value) points by name, in ascending order of steps.
        from_zero: the vertical axis begins at 0 even if no value is near it.

    Returns:
        A ``<figure>``; empty if there is no point.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    x_axis = ticks(min(x for x, _ in points), max(x for x, _ in points), tight=True)
    y_axis = ticks(*_value_range([y for _, y in points], from_zero))
    lines = [
        _line(number, name, thin_out(curve), x_axis, y_axis)
        for number, (name, curve) in enumerate(curves.items())
    ]
    title = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} over steps">'
        f"{_axes(x_axis, y_axis)}{''.join(lines)}</svg>{_legend(curves)}</figure>"
    )


def ticks(low: float, high: float, *, tight: bool = False, number: int = 5) -> Ticks:
    """Choose about ``number`` round values between two ends.

    Args:
        low: the smallest value.
        high: the largest value; may equal ``low``.
        tight: keep the ends as they are instead of rounding them to a tick.
        number: ticks wished for.
    """
    if high <= low:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [i * step for i in range(first, last + 1)]
    if tight:
        return Ticks(low, high, [v for v in values if low <= v <= high])
    return Ticks(values[0], values[-1], values)


def thin_out(curve: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Average neighbouring points until there are at most ``most``; keep the last one exactly."""
    if len(curve) <= most:
        return list(curve)
    size = math.ceil(len(curve) / (most - 1))
    groups = [curve[i : i + size] for i in range(0, len(curve) - 1, size)]
    return [_mean(group) for group in groups] + [curve[-1]]


def colour_class(number: int) -> str:
    """Name the CSS classes of a line: a colour, and dashes once the colours are used up."""
    return f"c{number % NUM_COLOURS} d{number // NUM_COLOURS % 3}"


def short_number(value: float) -> str:
    """Write a number for an axis or a legend in a few characters: ``0.001`` -> ``1e-3``."""
    if value and (abs(value) < 1e-2 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3g}"


def _curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Point]]:
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        step = row.get("step", row.get("epoch"))
        if not _is_finite(step):
            continue
        for name, value in row.items():
            if name not in ("step", "epoch") and _is_finite(value):
                curves.setdefault(name, {})[float(step)] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _mean(points: Sequence[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _value_range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (min(low, 0.0), max(high, 0.0)) if from_zero else (low, high)


def _x(value: float, axis: Ticks) -> float:
    return LEFT + (value - axis.low) / (axis.high - axis.low) * (WIDTH - LEFT - RIGHT)


def _y(value: float, axis: Ticks) -> float:
    return HEIGHT - BOTTOM - (value - axis.low) / (axis.high - axis.low) * (HEIGHT - TOP - BOTTOM)


def _line(number: int, name: str, curve: Sequence[Point], x_axis: Ticks, y_axis: Ticks) -> str:
    places = [(f"{_x(x, x_axis):.1f}", f"{_y(y, y_axis):.1f}") for x, y in curve]
    classes = colour_class(number)
    path = f'<polyline class="line {classes}" points="{" ".join(",".join(p) for p in places)}"/>'
    dots = [
        f'<circle class="dot {classes}" cx="{x}" cy="{y}" r="2.5">'
        f"<title>{_label(name)}, step {step:g}: {short_number(value)}</title></circle>"
        for (x, y), (step, value) in zip(places, curve, strict=True)
    ]
    return path + ("".join(dots) if len(dots) <= 40 else "")


def _axes(x_axis: Ticks, y_axis: Ticks) -> str:
    parts = []
    for value in y_axis.values:
        y = _y(value, y_axis)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short_number(value)}</text>'
        )
    bottom = HEIGHT - BOTTOM
    for value in x_axis.values:
        x = _x(value, x_axis)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        )
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{short_number(value)}</text>'
        )
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    )
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">step</text>')
    return "".join(parts)


def _legend(curves: Mapping[str, Sequence[Point]]) -> str:
    items = [
        f'<li><svg class="key" viewBox="0 0 20 8" aria-hidden="true">'
        f'<line class="line {colour_class(number)}" x1="1" x2="19" y1="4" y2="4"/></svg>'
        f"<span>{_label(name)}</span> <b>{short_number(curve[-1][1])}</b></li>"
        for number, (name, curve) in enumerate(curves.items())
        if curve
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _label(name: str) -> str:
    return html.escape(name.replace("->", " → "))
