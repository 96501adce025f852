"""A comparison of methods as text for a terminal and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fusion.report.comparison import NO_DIFFERENCE, ceiling_of, chance_of, list_rows, rows_of
from fusion.report.layout import Layout, arrow, facts_of, number
from fusion.report.page import page, render
from fusion.report.tables import BY_COSINE, align

TESTED = ("difference", "[95 %]", "p")
COSINE_NOTE = f"{BY_COSINE}; marked (cos); intervals are of single runs, and there is no test"
COST_NOTES = (
    "GFLOP/clip: to embed one clip of the test in every combination that the method has.",
    "training (s): with the validation and the checkpoints of each epoch; the mean over the seeds"
    " that were not interrupted.",
    "peak memory: of tensors on a GPU; without one, of the process in its whole life, with the"
    " preparation of the data; the highest of processes and seeds.",
    "threads: of each process on the CPU.",
)


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Write what :func:`fusion.report.comparison.compare_methods` gives for a terminal."""
    layout = Layout.of(comparison)
    head = [layout.row, *_head(layout)]
    rows, cosine = [[*head, *TESTED, "chance", "ceiling"]], [head]
    for way in list_rows(comparison):
        limits = chance_of(comparison), ceiling_of(comparison, way)
        ends = [way, *("-" if limit is None else f"{limit:.1f}" for limit in limits)]
        for cells in _group(comparison, way):
            rows.append([ends[0], *cells, *ends[1:]])
            ends = ["", "", ""]  # said once for all methods
    for way in comparison[layout.rows]:
        cosine += [[way, *cells] for cells in _group(comparison, way, "by_cosine")]
    lines = [*_write_facts(_facts(comparison)), "", *align(rows)]
    if len(cosine) > 1:
        lines += ["", COSINE_NOTE, "", *align(cosine)]
    cost = _write_facts({"cost": COST_NOTES})
    return "\n".join([*lines, "", *cost, "", *align(_cost_rows(comparison))])


def comparison_page(comparison: Mapping[str, Any], picture: Markup) -> str:
    """Write a comparison as one page that needs nothing but a browser.

    Args:
        comparison: what :func:`fusion.report.comparison.compare_methods` gives, and
            ``warnings``, a list of sentences.
        picture: see :func:`fusion.report.plots.comparison_picture`.
    """
    layout, head = Layout.of(comparison), _head(Layout.of(comparison))
    ways, methods = list_rows(comparison), comparison["methods"]
    plain = [(_title(comparison, way), _group(comparison, way)) for way in ways]
    cosine = [(_title(comparison, w), _group(comparison, w, "by_cosine")) for w in ways]
    cost_head, *costs = _cost_rows(comparison)
    runs = {
        name: [f"{p} (seed {s})" for p, s in zip(m["runs"], m["seeds"], strict=True)]
        for name, m in methods.items()
    }
    sections = {
        layout.main: render("picture.html", picture=picture, warnings=comparison["warnings"]),
        "How it was measured": render("facts.html", facts=_facts(comparison)),
        f"Every {layout.row}": render("methods.html", head=[*head, *TESTED], groups=plain),
        "By cosine": render("methods.html", head=head, groups=cosine, notes=[COSINE_NOTE]),
        "Cost": render("methods.html", head=cost_head, groups=[("", costs)], notes=COST_NOTES),
        "Runs": render("facts.html", facts=runs),
    }
    rows = {n: row for n, row in rows_of(comparison, layout.own_way).items() if row}
    highest = max((row[layout.main] for row in rows.values()), default=0.0)
    best = [n for n, row in rows.items() if math.isclose(row[layout.main], highest)]
    headline = render("best.html", layout=layout, rows=rows, best=best, highest=highest)
    return page(f"Comparison: {', '.join(methods)}", headline, sections)


def write_values(values: Sequence[Any]) -> str:
    """Write values beside one another; a dash if there is none."""
    return ", ".join(f"{v:,}" if isinstance(v, int) else v for v in values) or "-"


def _facts(comparison: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    several = " where there are several seeds, metrics are means over them"
    facts: dict[str, Sequence[str]] = {name: [text] for name, text in facts_of(comparison).items()}
    layout = Layout.of(comparison)
    if layout.own_way in list_rows(comparison):
        facts["headline"] = [f"{layout.own_way}: {layout.headline_rule}"]
    facts["tested"] = comparison["test"].splitlines()
    facts["marks"] = [
        f"{NO_DIFFERENCE} beside a difference: its 95 % interval includes 0.",
        f"+-: the standard deviation of {layout.main} over seeds (divided by n - 1);{several}.",
    ]
    return facts


def _write_facts(facts: Mapping[str, Sequence[str]]) -> list[str]:
    """Write facts for a terminal, a line for each text."""
    return [
        f"{'' if place else name:<10}{text}"
        for name, texts in facts.items()
        for place, text in enumerate(texts)
    ]


def _head(layout: Layout) -> list[str]:
    return ["method", layout.main, "[95 %]", "+-", *layout.compared]


def _title(comparison: Mapping[str, Any], way: str) -> str:
    """Name a row in words, with chance and ceiling."""
    layout = Layout.of(comparison)
    words = layout.names.get(way, f"{layout.headline_title}, each method's own way")
    limits = {"chance": chance_of(comparison), "ceiling": ceiling_of(comparison, way)}
    said = ", ".join(f"{name} {number(limit)}" for name, limit in limits.items() if limit)
    return f"{arrow(way)}: {words}; {said}".removesuffix("; ")


def _group(comparison: Mapping[str, Any], way: str, part: str = "") -> list[list[str]]:
    """Write the cells of each method; in a part, such as by cosine, of those that have the row."""
    layout, lines = Layout.of(comparison), []
    for name, row in rows_of(comparison, way, part).items():
        if row is None:
            lines += [] if part else [[name, *["-"] * (len(_head(layout)) - 1 + len(TESTED))]]
            continue
        shown = f"{name} ({row[layout.row]})" if layout.row in row else name
        interval, spread = row[layout.interval], row[f"{layout.main}_deviation"]
        lines.append(
            [
                f"{name} (cos)" if part else shown,
                f"{row[layout.main]:.1f}",
                "[{:.1f}, {:.1f}]".format(*interval) if interval else "-",
                "-" if spread is None else f"{spread:.1f}",
                *(f"{row[name]:.1f}" if name in row else "-" for name in layout.compared),
                *([] if part else _difference_cells(row.get("difference"), layout)),
            ]
        )
    return lines


def _difference_cells(difference: Mapping[str, Any] | None, layout: Layout) -> list[str]:
    """Write the difference to the baseline, its interval and p; dashes where there is none."""
    if difference is None:
        return ["-", "-", "-"]
    mark = NO_DIFFERENCE if difference["includes_zero"] else ""
    return [
        f"{difference[layout.main]:+.1f}{mark}",
        "[{:+.1f}, {:+.1f}]".format(*difference["interval"]),
        "<0.001" if difference["p"] < 0.001 else f"{difference['p']:.3f}",
    ]


def _cost_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Write what each method cost, after a row of headings."""
    head = ["method", "seeds", "parameters", "GFLOP/clip", "training (s)", "peak memory (MiB)"]
    rows = [[*head, "training clips seen", "processes", "threads", "device"]]
    for name, method in comparison["methods"].items():
        cost = method["cost"]
        seconds, memory = cost["training_seconds"], cost["peak_memory_bytes"]
        row = [name, str(len(method["seeds"])), f"{cost['parameters']:,}"]
        row += [f"{cost['gflop_per_clip']:.4g}", "-" if seconds is None else f"{seconds:,.0f}"]
        row += [f"{memory / 2**20:,.0f}" if memory else "-"]
        row += [write_values(cost[key]) for key in ("training_clips", "processes", "threads")]
        rows.append([*row, cost["device"]])
    return rows
