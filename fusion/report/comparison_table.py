"""A comparison of methods as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.report.comparison import OWN_WAY
from fusion.report.tables import BY_COSINE, align

HEAD = ("direction", "method", "R@1", "[95 %]", "+-", "R@5", "R@10", "MedR")
TESTED = ("difference", "[95 %]", "p")
SPREAD = (
    "where there are several seeds, metrics are means over them and +- is the standard deviation of"
    " R@1 over them (divided by n - 1)"
)
NO_DIFFERENCE = "~"  # beside a difference whose interval includes 0
MARK = f"{NO_DIFFERENCE} beside a difference: its 95 % interval includes 0"
COST_NOTE = (
    "GFLOP/clip: embedding one clip of the test in every combination that the method has; training"
    " (s): with the validation and the checkpoints of each epoch, a mean over the seeds that were"
    " not interrupted; peak memory: of tensors on a GPU, without one of the process in its whole"
    " life, so with what preparing the data took; the highest of processes and seeds; threads: of"
    " each process on the CPU"
)
UNTESTED = "marked (cos); intervals are of single runs, and there is no test"


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Write what :func:`fusion.report.comparison.compare_methods` gives."""
    clips, rows = comparison["clips"], [[*HEAD, *TESTED, "chance", "ceiling"]]
    captions = f" with {clips['captions']:,} captions" if "captions" in clips else ""
    ways = list_rows(comparison)
    for way in ways:
        rows += _group(comparison, way)
    facts = [
        f"set       {comparison['set']}: {comparison['gallery']:,} clips{captions} in the gallery,"
        f" {comparison['counted']:,} counted",
        f"protocol  {comparison['protocol']}",
        f"missing   {clips['rule']}",
        *([f"headline  {OWN_WAY}: {comparison['headline']}"] if OWN_WAY in ways else []),
        f"tested    {comparison['test']}",
        f"marks     {MARK}; {SPREAD}",
    ]
    parts = [*facts, "", *align(rows)]
    if cosine := _cosine_rows(comparison):
        parts += ["", f"{BY_COSINE}; {UNTESTED}", "", *align([list(HEAD), *cosine])]
    return "\n".join([*parts, "", f"cost      {COST_NOTE}", "", *align(cost_rows(comparison))])


def list_rows(comparison: Mapping[str, Any]) -> list[str]:
    """List the headline, if any method has it, and the directions."""
    headline = [OWN_WAY] if any(rows_of(comparison, OWN_WAY).values()) else []
    return [*headline, *comparison["directions"]]


def rows_of(
    comparison: Mapping[str, Any], way: str, part: str = "directions"
) -> dict[str, dict[str, Any] | None]:
    """Give the row of each method in a direction, or of the headline; None where it has none."""
    methods = comparison["methods"].items()
    if way == OWN_WAY:
        return {name: method["headline"] for name, method in methods}
    return {name: method[part].get(way) for name, method in methods}


def chance_of(comparison: Mapping[str, Any]) -> float:
    """Say what R@1 guessing reaches in per cent, in every direction.

    Among captions it is the same as among clips: of N clips the mean share of the captions is 1/N.
    """
    return float(comparison["chance"]["R@1"])


def ceiling_of(comparison: Mapping[str, Any], way: str) -> float | None:
    """Say what R@1 can be reached at best in a direction, in per cent; None if nobody knows."""
    ways = [way]
    if way == OWN_WAY:  # a perceiver knows the same in both
        ways = [row["direction"] for row in rows_of(comparison, way).values() if row]
    found = {(comparison["ceiling"] or {}).get(name, {}).get("R@1") for name in ways}
    return found.pop() if len(found) == 1 else None


def cost_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Write what each method cost, after a row of headings."""
    head = ["method", "seeds", "parameters", "GFLOP/clip", "training (s)", "peak memory (MiB)"]
    rows = [[*head, "training clips seen", "processes", "threads", "device"]]
    for name, method in comparison["methods"].items():
        cost, seconds = method["cost"], method["cost"]["training_seconds"]
        memory = cost["peak_memory_bytes"]
        rows.append(
            [
                name,
                str(len(method["seeds"])),
                f"{cost['parameters']:,}",
                f"{cost['gflop_per_clip']:.4g}",
                "-" if seconds is None else f"{seconds:,.0f}",
                f"{memory / 2**20:,.0f}" if memory else "-",
                *(write_values(cost[key]) for key in ("training_clips", "processes", "threads")),
                cost["device"],
            ]
        )
    return rows


def write_values(values: Sequence[Any]) -> str:
    """Write values beside one another; a dash if there is none."""
    return ", ".join(f"{v:,}" if isinstance(v, int) else v for v in values) or "-"


def difference_cells(row: Mapping[str, Any]) -> list[str]:
    """Write the difference to the baseline, its interval and p; dashes where there is none."""
    difference = row.get("difference")
    if difference is None:
        return ["-", "-", "-"]
    low, high = difference["interval"]
    mark = NO_DIFFERENCE if difference["includes_zero"] else ""
    p = difference["p"]
    return [
        f"{difference['R@1']:+.1f}{mark}",
        f"[{low:+.1f}, {high:+.1f}]",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    ]


def _group(comparison: Mapping[str, Any], way: str) -> list[list[str]]:
    """Write a row for each method; the first one names the direction, chance and ceiling."""
    limit = ceiling_of(comparison, way)
    lines = []
    for name, row in rows_of(comparison, way).items():
        if row is None:
            lines.append(["", name, *["-"] * (len(HEAD) - 2 + len(TESTED)), "", ""])
            continue
        shown = f"{name} ({row['direction']})" if "direction" in row else name
        lines.append(["", shown, *_numbers(row), *difference_cells(row), "", ""])
    lines[0][0] = way
    lines[0][-2:] = f"{chance_of(comparison):.1f}", "-" if limit is None else f"{limit:.1f}"
    return lines


def _cosine_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for way in comparison["directions"]:
        rows = rows_of(comparison, way, "by_cosine")
        lines += [[way, f"{name} (cos)", *_numbers(row)] for name, row in rows.items() if row]
    return lines


def _numbers(row: Mapping[str, Any]) -> Sequence[str]:
    interval, spread = row["R@1_interval"], row["R@1_deviation"]
    return [
        f"{row['R@1']:.1f}",
        f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "-",
        "-" if spread is None else f"{spread:.1f}",
        *(f"{row[name]:.1f}" for name in HEAD[5:]),
    ]
