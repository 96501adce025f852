"""Tables of a result and of a comparison, as text for a terminal and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fusion.report.comparison import (
    NO_DIFFERENCE,
    ceiling_of,
    chance_of,
    list_rows,
    rows_of,
    write_values,
)
from fusion.report.layout import Layout, align, arrow, facts_of, number, size_note
from fusion.report.missing import TITLE, compared_section, format_compared, format_missing
from fusion.report.page import page, render

NOT_COMPARABLE = "rescored: not comparable with the rows above"
BY_COSINE = "the same by cosine: every embedding is scaled to unit length first"
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


def format_table(result: Mapping[str, Any]) -> str:
    """Write a result, with its layout as ``table``, for a terminal."""
    layout = Layout.of(result)
    parts = [f"{name:<10}{text}" for name, text in facts_of(result).items()]
    parts += ["", *_plain_rows(layout, result, result[layout.rows])]
    if ties := result.get("ties"):
        parts += ["", *_tied_rows(layout, ties)]
    if late := result.get("late_fusion"):
        parts += ["", *_tuned_rows(late, layout.rows)]
    if by_cosine := result.get("by_cosine"):
        parts += ["", BY_COSINE, "", *_plain_rows(layout, result, by_cosine)]
    if missing := result.get("missing"):
        parts += ["", *format_missing(missing)]
    if rescored := result.get("rescored"):
        parts += ["", NOT_COMPARABLE, *_rescored_rows(layout, rescored)]
    return "\n".join(parts)


def _plain_rows(
    layout: Layout, result: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    ceiling, main = result.get("ceiling") or {}, layout.main
    head = [layout.row, main, "[95 %]", *layout.columns, *layout.counts.values()]
    lines = [[*head, f"ceiling {main}"] if ceiling else head]
    for name, row in rows.items():
        interval = row.get(layout.interval)
        between = f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "-"
        line = [name, f"{row[main]:.1f}", between, *_numbers(layout, row)]
        if ceiling:
            line.append(f"{ceiling[name][main]:.1f}" if name in ceiling else "-")
        lines.append(line)
    for name, key in layout.guesses.items():
        if guess := result.get(key):
            lines.append([name, f"{guess[main]:.1f}", "", *_numbers(layout, guess)])
    return align(lines)


def _tied_rows(layout: Layout, ties: Mapping[str, Any]) -> list[str]:
    names = list(next(iter(ties["rows"].values())))
    lines = [[layout.row, *names]]
    lines += [[way, *(f"{row[name]:.1f}" for name in names)] for way, row in ties["rows"].items()]
    return [f"{'ties':<10}{ties['rule']}", "", *align(lines)]


def _rescored_rows(layout: Layout, rescored: Mapping[str, Any]) -> list[str]:
    lines = [[layout.row, layout.main, *layout.columns, *layout.counts.values()]]
    for way, part in rescored.items():
        lines += [
            [f"{name} {way}", f"{row[layout.main]:.1f}", *_numbers(layout, row)]
            for name, row in part[layout.rows].items()
        ]
    notes = [f"  {way} ({part['paper']}) {part['assumes']}" for way, part in rescored.items()]
    return [*notes, "", *align(lines)]


def _numbers(layout: Layout, row: Mapping[str, Any]) -> list[str]:
    metrics = [f"{row[name]:.1f}" if name in row else "-" for name in layout.columns]
    return metrics + [str(row.get(name, "")) for name in layout.counts]


def _tuned_rows(late: Mapping[str, Any], rows: str) -> list[str]:
    said = {way: row["said"] for way, row in late[rows].items()}
    wide = max(map(len, said))
    lines = [f"{way:>{wide}}  {text}" for way, text in said.items()]
    return [f"{'tuned':<10}{late['rule']} ({late['clips']:,} clips):", "", *lines]


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
    rivals = _rival_rows(comparison, layout.headline)
    if len(rivals) > 1:
        rule = f"{layout.rivals_rule}; further ones are on the page"
        lines += ["", f"{layout.rivals_title}: {rule}", "", *align(rivals)]
    if len(cosine) > 1:
        lines += ["", COSINE_NOTE, "", *align(cosine)]
    if missing := comparison.get("missing"):
        lines += ["", *format_compared(missing)]
    if _has_cost(comparison):
        lines += ["", *_write_facts({"cost": COST_NOTES}), "", *align(_cost_rows(comparison))]
    return "\n".join(lines)


def comparison_page(comparison: Mapping[str, Any], picture: Markup) -> str:
    """Write a comparison, with ``warnings``, and its picture as one page for a browser."""
    layout, head = Layout.of(comparison), _head(Layout.of(comparison))
    ways, methods = list_rows(comparison), comparison["methods"]
    plain = [(_title(comparison, way), _group(comparison, way)) for way in ways]
    cosine = [(_title(comparison, w), _group(comparison, w, "by_cosine")) for w in ways]
    runs = {
        name: [f"{p} (seed {s})" for p, s in zip(m["runs"], m["seeds"], strict=True)]
        for name, m in methods.items()
    }
    sections = {
        layout.main: render("picture.html", picture=picture, warnings=comparison["warnings"]),
        "How it was measured": render("facts.html", facts=_facts(comparison)),
        f"Every {layout.row}": render("methods.html", head=[*head, *TESTED], groups=plain),
        "By cosine": render("methods.html", head=head, groups=cosine, notes=[COSINE_NOTE]),
    }
    head, *rivals = _rival_rows(comparison)
    if rivals:
        by_method = [(name, [r for r in rivals if r[0] == name]) for name in methods]
        values = {"head": head, "groups": by_method, "notes": [layout.rivals_rule]}
        sections[layout.rivals_title] = render("methods.html", **values)
    sections[TITLE] = compared_section(comparison.get("missing"))
    if _has_cost(comparison):
        head, *costs = _cost_rows(comparison)
        groups = [("", costs)]
        sections["Cost"] = render("methods.html", head=head, groups=groups, notes=COST_NOTES)
    sections["Runs"] = render("facts.html", facts=runs)
    rows = {n: row for n, row in rows_of(comparison, layout.own_way).items() if row}
    highest = max((row[layout.main] for row in rows.values()), default=0.0)
    best = [n for n, row in rows.items() if math.isclose(row[layout.main], highest)]
    small = size_note(comparison)
    headline = render(
        "best.html", layout=layout, rows=rows, best=best, highest=highest, small=small
    )
    return page(f"Comparison: {', '.join(methods)}", headline, sections)


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
    return [
        f"{'' if place else name:<10}{text}"
        for name, texts in facts.items()
        for place, text in enumerate(texts)
    ]


def _head(layout: Layout) -> list[str]:
    return ["method", layout.main, "[95 %]", "+-", *layout.compared]


def _title(comparison: Mapping[str, Any], way: str) -> str:
    layout = Layout.of(comparison)
    words = layout.names.get(way, f"{layout.headline_title}, each method's own way")
    limits = {"chance": chance_of(comparison), "ceiling": ceiling_of(comparison, way)}
    said = ", ".join(f"{name} {number(limit)}" for name, limit in limits.items() if limit)
    return f"{arrow(way)}: {words}; {said}".removesuffix("; ")


def _group(comparison: Mapping[str, Any], way: str, part: str = "") -> list[list[str]]:
    """Write the cells of each method; in a ``part``, such as by cosine, without empty rows."""
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
    if difference is None:
        return ["-", "-", "-"]
    mark = NO_DIFFERENCE if difference["includes_zero"] else ""
    return [
        f"{difference[layout.main]:+.1f}{mark}",
        "[{:+.1f}, {:+.1f}]".format(*difference["interval"]),
        "<0.001" if difference["p"] < 0.001 else f"{difference['p']:.3f}",
    ]


def _rival_rows(
    comparison: Mapping[str, Any], only: Sequence[str] | None = None
) -> list[list[str]]:
    """Write what methods gain over rows of their own: a head, and a line for each pair of rows.

    ``only`` names the rows that are shown; None: all.
    """
    layout, main = Layout.of(comparison), Layout.of(comparison).main
    lines = [["method", layout.row, main, "against", f"its {main}", *TESTED]]
    for name, method in comparison["methods"].items():
        for pair in method.get("rivals", []):
            if only is None or pair[layout.row] in only:
                scores = (f"{pair[key]:.1f}" for key in (main, f"{main}_against"))
                line = [name, pair[layout.row], next(scores), pair["against"], next(scores)]
                lines.append([*line, *_difference_cells(pair["difference"], layout)])
    return lines


def _has_cost(comparison: Mapping[str, Any]) -> bool:
    """Return whether anything is known of what the methods cost; of indexes nothing is."""
    return any(any(method["cost"].values()) for method in comparison["methods"].values())


def _cost_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    head = ["method", "seeds", "parameters", "GFLOP/clip", "training (s)", "peak memory (MiB)"]
    rows = [[*head, "training clips seen", "processes", "threads", "device"]]
    for name, method in comparison["methods"].items():
        cost = method["cost"]
        flop, seconds = cost["gflop_per_clip"], cost["training_seconds"]
        memory = cost["peak_memory_bytes"]
        row = [name, str(len(method["seeds"])), f"{cost['parameters']:,}"]
        row += ["-" if flop is None else f"{flop:.4g}"]
        row += ["-" if seconds is None else f"{seconds:,.0f}"]
        row += [f"{memory / 2**20:,.0f}" if memory else "-"]
        row += [write_values(cost[key]) for key in ("training_clips", "processes", "threads")]
        rows.append([*row, cost["device"] or "-"])
    return rows
