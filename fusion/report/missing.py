"""Curves of missing modalities as a table for the terminal, and as plots for pages.

They are of the section ``missing`` of a result, or of a comparison, see
:mod:`fusion.evaluation.missing_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fusion.evaluation.missing import FUSED, LEFT_OUT, MASKED
from fusion.report.comparison import NO_DIFFERENCE
from fusion.report.layout import align, arrow
from fusion.report.page import render
from fusion.report.plots import CYCLE, STYLE, new_figure, to_svg

SHOWN = (0, 30, 60, 90, 100)  # per cent of the clips, in a table; pages and JSON have all
MAIN = "R@1"
TITLE = "Missing modalities"
Line = tuple[str, Sequence[float], dict[str, Any], Sequence[Sequence[float]] | None]


def format_missing(section: Mapping[str, Any]) -> list[str]:
    """Write the section of a result for a terminal."""
    lines = [f"{'curves':<10}{section['rule']}"]
    for name, curves in section["modalities"].items():
        places = [curves["shares"].index(share) for share in SHOWN if share in curves["shares"]]
        head = [f"{curves['shares'][place]} %" for place in places]
        lines += ["", _title(name, curves), ""]
        rows = [["way", *head]]
        rows += [[way, *(f"{row[MAIN][p]:.1f}" for p in places)] for way, row in _ways(curves)]
        tests = [["difference [95 %]", *head]]
        for way, row in curves["differences"].items():
            tests.append([way, *(_with_interval(row, place) for place in places)])
        lines += (
            [*align(rows, left=1), "", *align(tests, left=1)]
            if len(tests) > 1
            else align(rows, left=1)
        )
    return lines


def missing_section(section: Mapping[str, Any] | None) -> Markup:
    """Write the section of a result as plots and tables for a page; empty if there is none."""
    if not section:
        return Markup("")
    charts, tables = [], []
    for name, curves in section["modalities"].items():
        lines = [_line_of_way(way, row) for way, row in _ways(curves)]
        charts.append((_title(name, curves), _chart(_title(name, curves), curves, lines)))
        tables.append((_title(name, curves), _table(curves)))
    first = next(iter(section["modalities"].values()))
    head = ["way", *(f"{share} %" for share in first["shares"])]
    notes = [_sentence(section["rule"]), "Bands: 95 % interval over clips, by bootstrap."]
    notes.append(
        f"{NO_DIFFERENCE} beside a difference: its interval, from the same draws, includes 0."
    )
    shown = render("charts.html", charts=charts)
    return shown + render("methods.html", head=head, groups=tables, notes=notes)


def compared_section(section: Mapping[str, Any] | None) -> Markup:
    """Write the section of a comparison as plots and tables for a page; empty if there is none."""
    if not section:
        return Markup("")
    charts, tables = [], []
    for name, curves in section["modalities"].items():
        for treatment in (MASKED, LEFT_OUT):
            title = f"{_title(name, curves)}; {treatment}"
            lines = _lines_of_methods(curves, treatment)
            charts.append((title, _chart(title, curves, lines)))
        tables += [
            (f"{_title(name, curves)}: {method}", _table(of_method | {"shares": curves["shares"]}))
            for method, of_method in curves["methods"].items()
        ]
    first = next(iter(section["modalities"].values()))
    head = ["way", *(f"{share} %" for share in first["shares"])]
    notes = [_sentence(section["rule"]), section["test"]]
    shown = render("charts.html", charts=charts)
    return shown + render("methods.html", head=head, groups=tables, notes=notes)


def format_compared(section: Mapping[str, Any]) -> list[str]:
    """Write the section of a comparison for a terminal."""
    lines = [f"{'curves':<10}{section['rule']}", f"{'':<10}{section['test']}"]
    for name, curves in section["modalities"].items():
        places = [curves["shares"].index(share) for share in SHOWN if share in curves["shares"]]
        rows = [["method", "way", *(f"{curves['shares'][place]} %" for place in places)]]
        for method, found in curves["methods"].items():
            for way, row in found["ways"].items():
                rows.append([method, way, *(f"{row[MAIN][place]:.1f}" for place in places)])
            for way, row in found["differences"].items():
                rows.append([method, way, *(_with_interval(row, place) for place in places)])
        lines += ["", _title(name, curves), "", *align(rows, left=2)]
    return lines


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _ways(curves: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(curves["ways"].items())


def _title(name: str, curves: Mapping[str, Any]) -> str:
    return (
        f"{arrow(curves['direction'])} {MAIN} by the share of the {curves['has']:,} clips with"
        f" {name} that lose it"
    )


def _with_interval(row: Mapping[str, Any], place: int) -> str:
    low, high = row["interval"][place]
    return f"{row[MAIN][place]:+.1f} [{low:+.1f}, {high:+.1f}]"


def _table(curves: Mapping[str, Any]) -> list[list[str]]:
    rows = [[way, *(f"{value:.1f}" for value in row[MAIN])] for way, row in curves["ways"].items()]
    for way, row in curves["differences"].items():
        marks = (f" {NO_DIFFERENCE}" if open_ else "" for open_ in row["includes_zero"])
        rows.append([way, *(f"{v:+.1f}{m}" for v, m in zip(row[MAIN], marks, strict=True))])
    return rows


def _line_of_way(way: str, row: Mapping[str, Any]) -> Line:
    colour = CYCLE[0] if way.startswith(FUSED) else CYCLE[1]
    dashes = "-" if way.endswith(MASKED) else "--"
    return way, row[MAIN], {"color": colour, "linestyle": dashes}, row[f"{MAIN}_interval"]


def _lines_of_methods(curves: Mapping[str, Any], treatment: str) -> list[Line]:
    lines: list[Line] = []
    for place, (method, found) in enumerate(curves["methods"].items()):
        for way, row in found["ways"].items():
            if way.endswith(treatment):
                kind = way.partition(",")[0]
                dashes = "-" if kind == FUSED else "--"
                look = {"color": CYCLE[place % len(CYCLE)], "linestyle": dashes}
                lines.append((f"{method}, {kind}", row[MAIN], look, None))
    return lines


def _chart(title: str, curves: Mapping[str, Any], lines: Sequence[Line]) -> Markup:
    import matplotlib

    shares = curves["shares"]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(400, 260 + 17 * len(lines), layout="constrained")
        axes = figure.subplots()
        for name, values, look, intervals in lines:
            if intervals:
                low, high = zip(*intervals, strict=True)
                axes.fill_between(shares, low, high, color=look["color"], alpha=0.1, linewidth=0)
            axes.plot(shares, values, label=name, marker="o", markersize=3, **look)
        axes.set_ylim(bottom=0)
        axes.set_xticks(shares[::2])
        axes.grid(axis="y")
        axes.set_xlabel("clips without it, %", loc="right")
        figure.legend(loc="outside lower left")
        return to_svg(figure, title)
