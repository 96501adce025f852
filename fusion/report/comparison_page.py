"""The page of a comparison: the picture, every direction, what each method cost."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.report.bars import comparison_picture
from fusion.report.comparison import OWN_WAY
from fusion.report.comparison_table import (
    COST_NOTE,
    MARK,
    SPREAD,
    UNTESTED,
    ceiling_of,
    chance_of,
    cost_rows,
    difference_cells,
    list_rows,
    rows_of,
)
from fusion.report.page import NOTHING, arrow, fact_list, number, page, side_in_words
from fusion.report.tables import BY_COSINE

METRICS = ("R@5", "R@10", "MedR")
HEAD = ("Method", "R@1, %", "95 % interval", "± seeds", "R@5", "R@10", "Median")
TESTED = ("Difference", "95 % interval", "p")


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """Write a comparison as one page that needs nothing but a browser.

    Args:
        comparison: what :func:`fusion.report.comparison.compare_methods` gives, and
            ``warnings``, a list of sentences.
    """
    names, clips = list(comparison["methods"]), comparison["clips"]
    facts = {
        "Protocol": comparison["protocol"],
        "Clips": f"{comparison['set']}: {comparison['gallery']:,} in the gallery,"
        f" {comparison['counted']:,} counted",
        "Counted": clips["rule"],
        "Tested": comparison["test"],
        "Marks": f"{MARK}; {SPREAD.replace('+-', '±')}",
    }
    ways = list_rows(comparison)
    if OWN_WAY in ways:
        facts["Headline"] = comparison["headline"]
    by_cosine = [_group(comparison, way, "by_cosine") for way in comparison["directions"]]
    cosine = _table(by_cosine, HEAD)
    picture = f'<figure class="wide">{comparison_picture(comparison)}</figure>'
    warnings = "".join(f"<p><b>Warning:</b> {html.escape(w)}</p>" for w in comparison["warnings"])
    sections = [
        ("R@1", warnings + picture),
        ("How it was measured", fact_list(facts)),
        ("Every direction", _table([_group(comparison, w) for w in ways], (*HEAD, *TESTED))),
        ("By cosine", cosine and f"<p>{html.escape(f'{BY_COSINE}; {UNTESTED}')}</p>{cosine}"),
        ("Cost", _cost_table(comparison)),
        ("Runs", fact_list({n: _say_runs(comparison["methods"][n]) for n in names})),
    ]
    return page(f"Comparison: {', '.join(names)}", _headline(comparison), sections)


def _headline(comparison: Mapping[str, Any]) -> str:
    rows = {name: row for name, row in rows_of(comparison, OWN_WAY).items() if row}
    if not rows:
        return "<h1>Methods beside one another</h1>"
    highest = max(row["R@1"] for row in rows.values())
    best = [name for name, row in rows.items() if math.isclose(row["R@1"], highest)]
    has = "have" if len(best) > 1 else "has"
    each = ", ".join(f"{html.escape(name)} {number(row['R@1'])}" for name, row in rows.items())
    return (
        f"<h1>{html.escape(' and '.join(best))} <span>{number(highest)} %</span></h1>"
        f'<p class="lead">{has} the highest R@1 from text to video and audio: {each}. Which'
        " differences other test clips could turn round is in the table.</p>"
    )


def _table(groups: Sequence[str], head: Sequence[str]) -> str:
    if not any(groups):
        return ""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        '<div class="scroll methods" role="region" tabindex="0" aria-label="results"><table>'
        f"<thead><tr>{cells}</tr></thead>{''.join(groups)}</table></div>"
    )


def _group(comparison: Mapping[str, Any], way: str, part: str = "directions") -> str:
    """Write the rows of a direction under a line that names it, with chance and ceiling."""
    rows, tested = rows_of(comparison, way, part), part == "directions"
    if not tested:
        rows = {f"{name} (cos)": row for name, row in rows.items() if row}
    if not any(rows.values()):
        return ""
    limit = ceiling_of(comparison, way)
    name = f"{arrow(way)}: {html.escape(_in_words(way))}; chance {number(chance_of(comparison))}"
    name += "" if limit is None else f", ceiling {number(limit)}"
    width = len(HEAD) + (len(TESTED) if tested else 0)
    body = "".join(_row(method, row, tested) for method, row in rows.items())
    head = f'<tr class="group"><th colspan="{width}" scope="rowgroup">{name}</th></tr>'
    return f"<tbody>{head}{body}</tbody>"


def _row(method: str, row: Mapping[str, Any] | None, tested: bool) -> str:
    if row is None:
        cells = [NOTHING] * (len(HEAD) - 1 + (len(TESTED) if tested else 0))
        return f'<tr><th scope="row">{html.escape(method)}</th>{_cells(cells)}</tr>'
    interval = row["R@1_interval"]
    cells = [
        f"<b>{number(row['R@1'])}</b>",
        f"{number(interval[0])} &ndash; {number(interval[1])}" if interval else NOTHING,
        number(row["R@1_deviation"]),
        *(number(row[name]) for name in METRICS),
    ]
    if tested:
        cells += [html.escape(cell).replace("-", "&minus;") for cell in difference_cells(row)]
    way = f" <small>{arrow(row['direction'])}</small>" if "direction" in row else ""
    return f'<tr><th scope="row">{html.escape(method)}{way}</th>{_cells(cells)}</tr>'


def _in_words(way: str) -> str:
    if way == OWN_WAY:
        return "text → video and audio, each method's own way"
    asked, _, found = way.partition("->")
    return f"{side_in_words(asked)} → {side_in_words(found)}"


def _cost_table(comparison: Mapping[str, Any]) -> str:
    head, *rows = cost_rows(comparison)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>{_cells([html.escape(c) for c in row[1:]])}'
        "</tr>"
        for row in rows
    )
    return _table([f"<tbody>{body}</tbody>"], [name.capitalize() for name in head]) + (
        f'<p class="note">{html.escape(COST_NOTE)}</p>'
    )


def _say_runs(method: Mapping[str, Any]) -> str:
    runs = zip(method["runs"], method["seeds"], strict=True)
    return ", ".join(f"{path} (seed {seed})" for path, seed in runs)


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells)
