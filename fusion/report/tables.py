"""The table of a result for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.report.layout import Layout, facts_of

NOT_COMPARABLE = "rescored: not comparable with the rows above"
BY_COSINE = "the same by cosine: every embedding is scaled to unit length first"


def format_table(result: Mapping[str, Any]) -> str:
    """Write a result for a terminal.

    Args:
        result: with its layout as ``table``, see :class:`fusion.report.layout.Layout`.
    """
    layout = Layout.of(result)
    parts = [f"{name:<10}{text}" for name, text in facts_of(result).items()]
    parts += ["", *_plain_rows(layout, result, result[layout.rows])]
    if by_cosine := result.get("by_cosine"):
        parts += ["", BY_COSINE, "", *_plain_rows(layout, result, by_cosine)]
    if rescored := result.get("rescored"):
        parts += ["", NOT_COMPARABLE, *_rescored_rows(layout, rescored)]
    return "\n".join(parts)


def _plain_rows(
    layout: Layout, result: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    ceiling, main = result.get("ceiling") or {}, layout.main
    lines = [[layout.row, main, "[95 %]", *layout.columns, *layout.counts.values()]]
    lines[0] += [f"ceiling {main}"] if ceiling else []
    for name, row in rows.items():
        low, high = row[layout.interval]
        line = [name, f"{row[main]:.1f}", f"[{low:.1f}, {high:.1f}]", *_numbers(layout, row)]
        if ceiling:
            line.append(f"{ceiling[name][main]:.1f}" if name in ceiling else "-")
        lines.append(line)
    for name, key in layout.guesses.items():
        if guess := result.get(key):
            lines.append([name, f"{guess[main]:.1f}", "", *_numbers(layout, guess)])
    return align(lines)


def _rescored_rows(layout: Layout, rescored: Mapping[str, Any]) -> list[str]:
    """Write what each way of rescoring assumes, then its rows."""
    lines = [[layout.row, layout.main, *layout.columns, *layout.counts.values()]]
    for way, part in rescored.items():
        for name, row in part[layout.rows].items():
            numbers = _numbers(layout, row)
            lines.append([f"{name} {way}", f"{row[layout.main]:.1f}", *numbers])
    notes = [f"  {way} ({part['paper']}) {part['assumes']}" for way, part in rescored.items()]
    return [*notes, "", *align(lines)]


def _numbers(layout: Layout, row: Mapping[str, Any]) -> list[str]:
    metrics = [f"{row[name]:.1f}" if name in row else "-" for name in layout.columns]
    return metrics + [str(row.get(name, "")) for name in layout.counts]


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of cells as lines, every column as wide as its widest cell."""
    width = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    return [
        "  ".join(cell.rjust(w) for cell, w in zip(line, width, strict=False)) for line in lines
    ]
