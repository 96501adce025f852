"""The plots of pages, as SVG in the colours of ``templates/report.css``, light and dark."""

from __future__ import annotations

import importlib.resources
import io
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fusion.report.comparison import NO_DIFFERENCE, ceiling_of, chance_of, rows_of
from fusion.report.layout import Layout, arrow, is_number, number

if TYPE_CHECKING:  # matplotlib takes a third of a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

MAX_POINTS = 300  # of a curve; longer ones are averaged
DOTS = 40  # points up to which each is marked
WIDTH = 860  # of the picture of a comparison, in pixels
NAMES, VALUES = 140, 58  # widths of the columns beside the bars of a panel
LETTER = 7  # width of a letter of the name of a row, between them where methods have their own
HEAD, AXIS = 54, 24  # heights above and below them
NAME_LENGTH = 20  # letters of a method that fit there
CSS = importlib.resources.files("fusion.report").joinpath("templates/report.css").read_text("utf-8")
THEME = CSS.partition("* {")[0]  # the colours of both modes
COLOURS = dict(re.findall(r"(--\w+): (#\w{6})", THEME.partition("@media")[0]))  # of the light mode
INK, QUIET, LINE, PAPER, FILL, ROOM = (
    COLOURS[f"--{name}"] for name in ("ink", "quiet", "line", "paper", "accent", "room")
)
CYCLE = [colour for name, colour in COLOURS.items() if re.fullmatch(r"--c\d", name)]
FONT = "DejaVu Sans"  # measured by matplotlib; wider than the fonts that browsers show instead
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fusion",  # the same file for the same numbers
    "text.parse_math": False,  # names may hold dollars
    "font.family": FONT,
    "font.size": 11,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "legend.frameon": False,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), LINE),
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), QUIET),
}


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """Make a figure of a size in pixels; use it within ``STYLE``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), facecolor="none", **options)


def to_svg(figure: Figure, label: str, *, alone: bool = False) -> Markup:
    """Write a figure, drawn in ``COLOURS``, as an SVG element in the colours of the page around it.

    ``label`` is for screen readers; ``alone`` adds the colours, for a file of its own.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(f"'{FONT}'", "system-ui, Roboto, Arial, sans-serif")
    # A page may hold several, so ids of groups are not unique; and nothing here needs clipping.
    svg = re.sub(r'(?<=<g) id="[^"]*"| clip-path="[^"]*"', "", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var({name})")
    head, _, body = svg.partition(">")
    head = re.sub(r' (width|height|xmlns:xlink|version)="[^"]*"', "", head)
    if alone:
        head = head.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"')
        body = f"<style>{THEME}</style>{body}"
    else:
        head = re.sub(r' xmlns="[^"]*"', "", head)
    return Markup('{} role="img" aria-label="{}">{}').format(Markup(head), label, Markup(body))


def learning_curves(
    metrics: Sequence[Mapping[str, Any]], layout: Layout | None = None
) -> list[tuple[str, Markup]]:
    """Draw the rows of a ``metrics.jsonl``: loss and terms, validation, learning rate.

    Rows that a resumed run wrote again replace those before; NaN and infinity are left out. The
    layout says which metrics of validation are drawn together. Returns titles and plots.
    """
    train = _curves(row for row in metrics if row.get("event") == "train")
    validation = _curves(row for row in metrics if row.get("event") == "validation")
    losses = {n.removeprefix("loss/"): c for n, c in train.items() if n.split("/")[0] == "loss"}
    charts = {"Loss and its terms": losses}
    groups, main = (layout.groups, layout.main) if layout else ({}, "")
    for group, rows in groups.items():
        curves = {row: validation.get(f"{row} {main}", []) for row in rows}
        charts[f"Validation {main} (%): {group.lower()}"] = {r: c for r, c in curves.items() if c}
    if rate := train.get("learning_rate"):
        charts["Learning rate"] = {"learning rate": rate}
    return [(t, _line_chart(t, c, from_zero=c is not losses)) for t, c in charts.items() if c]


def thin_out(curve: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Average neighbouring points until there are at most ``most``; keep the last one exactly."""
    if len(curve) <= most:
        return list(curve)
    size = math.ceil(len(curve) / (most - 1))
    groups = [curve[i : i + size] for i in range(0, len(curve) - 1, size)]
    means = [(sum(x) / len(x), sum(y) / len(y)) for x, y in (zip(*g, strict=True) for g in groups)]
    return [*means, curve[-1]]


def _curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Point]]:
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        step = row.get("step", row.get("epoch"))
        for name, value in row.items():
            if name not in ("step", "epoch") and is_number(step) and is_number(value):
                curves.setdefault(name, {})[float(step)] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _line_chart(title: str, curves: Mapping[str, Sequence[Point]], *, from_zero: bool) -> Markup:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        lines = math.ceil(len(curves) / 2)
        figure = new_figure(400, 250 + 17 * lines, layout="constrained")
        axes = figure.subplots()
        looks = itertools.product(("-", "--", ":"), CYCLE)
        for (name, curve), (dashes, colour) in zip(curves.items(), itertools.cycle(looks)):
            label = f"{arrow(name)}  {curve[-1][1]:.4g}"
            marker = "o" if len(curve) <= DOTS else ""
            look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 3}
            axes.plot(*zip(*thin_out(curve), strict=True), label=label, **look)
        if from_zero:
            axes.set_ylim(bottom=min(0.0, *(y for curve in curves.values() for _, y in curve)))
        axes.grid(axis="y")
        axes.set_xlabel("step", loc="right")
        figure.legend(loc="outside lower left", ncols=2)
        return to_svg(figure, f"{title} over steps")


def bar_chart(result: Mapping[str, Any]) -> Markup:
    """Draw the main metric of the rows ``bars`` of the layout, with ceiling and interval."""
    import matplotlib

    layout, ceilings = Layout.of(result), result.get("ceiling") or {}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(820, 30 + 42 * len(layout.bars), layout="constrained")
        axes = _bar_axes(figure.subplots(), len(layout.bars))
        axes.set_xlim(0, 100)
        for place, name in enumerate(layout.bars):
            row, limit = result[layout.rows][name], ceilings.get(name, {}).get(layout.main)
            score, value = row.get(layout.main), number(row.get(layout.main))
            if is_number(limit):
                axes.barh(place, limit, 0.55, color=ROOM)
                axes.plot([limit] * 2, [place - 0.275, place + 0.275], color=QUIET)
                value += f" of {number(limit)}"
            if is_number(score):
                axes.barh(place, score, 0.55, color=FILL)
                _draw_interval(axes, score, row.get(layout.interval), place)
            beside = axes.get_yaxis_transform()
            axes.text(1.02, place, value, va="center", weight="bold", transform=beside)
        names = [f"{arrow(name)}\n{layout.names.get(name, '')}" for name in layout.bars]
        axes.set_yticks(range(len(names)), names, color=INK)
        return to_svg(figure, layout.bars_title)


def comparison_picture(comparison: Mapping[str, Any]) -> Markup:
    """Draw what :func:`fusion.report.comparison.compare_methods` gives, as an SVG file."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, main = comparison_figure(comparison), Layout.of(comparison).main
        return to_svg(figure, f"{main} of {', '.join(comparison['methods'])}", alone=True)


def comparison_figure(comparison: Mapping[str, Any]) -> Figure:
    """Draw the main rows, the headline over the whole width; call it within ``STYLE``."""
    layout = Layout.of(comparison)
    ways = [w for w in (layout.own_way, *layout.pictured) if any(rows_of(comparison, w).values())]
    has_headline = layout.own_way in ways
    headlines = filter(None, rows_of(comparison, layout.own_way).values())
    own = LETTER * max((2 + len(row.get(layout.row, "")) for row in headlines), default=0)
    bars = 25 * len(comparison["methods"])
    panel = HEAD + bars + AXIS
    height = panel * math.ceil((len(ways) + has_headline) / 2) + 44
    figure = new_figure(WIDTH, height)
    figure.set_facecolor(PAPER)
    for place, way in enumerate(ways):
        is_wide = way == layout.own_way
        row, column = (0, 0) if is_wide else divmod(place + has_headline, 2)
        left = column * WIDTH / 2 + NAMES + own * is_wide
        right = WIDTH / (1 if is_wide else 2 - column) - VALUES
        bottom = height - row * panel - HEAD - bars
        box = (left / WIDTH, bottom / height, (right - left) / WIDTH, bars / height)
        _draw_panel(figure.add_axes(box), comparison, way)
    notes = (
        f"Bars: {layout.main} in per cent, the mean over seeds; circles: single seeds. Each panel"
        " has its own scale.\n"
        f"Lines: 95 % interval over clips and seeds; dashed: chance. {NO_DIFFERENCE} beside a"
        f" number: the interval of its difference to {comparison['baseline']} includes 0."
    )
    figure.text(20 / WIDTH, 14 / height, notes, size=10, color=QUIET)
    return figure


def _draw_panel(axes: Axes, comparison: Mapping[str, Any], way: str) -> None:
    """Draw a bar for each method; a method that lacks the row has none."""
    layout, rows = Layout.of(comparison), rows_of(comparison, way)
    main, names = layout.main, []
    _bar_axes(axes, len(rows))
    beside = axes.get_yaxis_transform()
    for place, (name, row) in enumerate(rows.items()):
        short = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1].rstrip()}…"
        names.append(short)
        if row is None:
            axes.text(1.02, place, "none", va="center", color=QUIET, transform=beside)
            continue
        if layout.row in row:
            names[-1] += f"  {arrow(row[layout.row])}"
        colour = CYCLE[place % len(CYCLE)]
        axes.barh(place, row[main], 0.62, color=colour)
        _draw_interval(axes, row[main], row[layout.interval], place)
        if len(seeds := row[f"{main}_of_seeds"]) > 1:
            dots = {"facecolor": PAPER, "edgecolor": INK, "zorder": 3}
            axes.scatter(seeds, [place] * len(seeds), 18, linewidth=1, **dots)
        is_open = row.get("difference", {}).get("includes_zero", False)
        value = f"{row[main]:.1f}{f' {NO_DIFFERENCE}' if is_open else ''}"
        axes.text(1.02, place, value, va="center", transform=beside)
    guess, limit = chance_of(comparison), ceiling_of(comparison, way)
    said = [f"{n} {v:.1f}" for n, v in (("chance", guess), ("ceiling", limit)) if v is not None]
    if guess is not None:
        axes.axvline(guess, color=INK, linestyle=(0, (3, 3)), linewidth=1)
    axes.set_xlim(0, 1.02 * max(1.0, axes.dataLim.x1, guess or 0.0))  # less would enlarge noise
    axes.set_yticks(range(len(names)), names, color=INK)
    title, below = arrow(way), layout.names.get(way, "")
    if way == layout.own_way:
        title, below = layout.headline_title, "each method's own way"
    axes.set_title(title, loc="left", weight="bold", size=12, pad=20)
    corner = {"xycoords": "axes fraction", "textcoords": "offset points", "color": QUIET}
    axes.annotate(below, (0, 1), (0, 5), size=10, **corner)
    axes.annotate(", ".join(said), (1, 1), (0, 21), size=10, ha="right", **corner)


def _bar_axes(axes: Axes, rows: int) -> Axes:
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def _draw_interval(
    axes: Axes, score: float, interval: Sequence[float] | None, place: float
) -> None:
    if interval:
        errors = [[max(0.0, score - interval[0])], [max(0.0, interval[1] - score)]]
        look = {"ecolor": INK, "elinewidth": 1.4, "capsize": 2.5}
        axes.errorbar(score, place, xerr=errors, fmt="none", **look)
