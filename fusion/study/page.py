"""The page, the JSON and the lines of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fusion.files import write_atomically
from fusion.report.layout import arrow
from fusion.report.page import page, render
from fusion.study.effects import Estimate
from fusion.study.pictures import cost_chart, effect_chart, overview
from fusion.study.result import Study
from fusion.study.words import conclusions

LEADS = ("t->va", "t->v")


def write_study(study: Study, folder: Path) -> list[str]:
    """Write ``study.html`` and ``study.json`` into a folder; return lines for the screen."""
    said, ways = conclusions(study), list(study.found)
    lead = next((way for way in LEADS if way in study.found), ways[0])
    table, effects = study.table(), study.effects()
    numbers = {
        "plan": {"terms": study.plan.terms, "seeds": study.plan.seeds, "config": study.plan.config},
        "protocol": study.protocol,
        "chance": study.chance,
        "settings": study.labels(),
        "seconds": [None if s != s else s for s in study.seconds.tolist()],
        "R@1": {w: [e and e._asdict() for e in row] for w, row in table.items()},
        "effects": {
            way: [e._asdict() | {"estimate": e.estimate._asdict()} for e in its]
            for way, its in effects.items()
        },
        "halves": study.halves(),
        "conclusions": said,
    }
    write_atomically(folder / "study.json", json.dumps(numbers, indent=1))
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in said)
    about = (
        f"{study.plan.config}: {len(study.settings)} sets of terms, {len(study.plan.seeds)} seeds."
        f" {study.protocol}. Chance: {study.chance:.1f}. R@1 in per cent, the last epoch of each."
    )
    sections: dict[str, str] = {
        "What to pull together": Markup("<ul>{}</ul>").format(items),
        f"Every set of terms, the best for {arrow(lead)} first": overview(study, lead),
        **(_effect_sections(study, effects) if effects else {}),
        "Cost": cost_chart(study, lead),
        "Table": _table(study, table),
    }
    headline = Markup("<p>{}</p>").format(about)
    write_atomically(folder / "study.html", page("Study of the terms", headline, sections))
    return said


def _write(value: Estimate | None) -> str:
    return "-" if value is None else f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"


def _table(study: Study, table: dict[str, list[Estimate | None]]) -> Markup:
    head = ["terms", *map(arrow, table), "training (s)"]
    rows = [
        [label, *(_write(row[i]) for row in table.values()), f"{study.seconds[i]:.0f}"]
        for i, label in enumerate(study.labels())
    ]
    return render("methods.html", head=head, groups=[("", rows)], notes=[])


def _pairs(study: Study, effects: dict[str, Any]) -> Markup:
    """Write the effects of pairs whose interval excludes 0, the largest first."""
    found = [
        (abs(e.estimate.value), [f"{e.terms[0]} and {e.terms[1]}", arrow(way), _write(e.estimate)])
        for way, its in effects.items()
        for e in its
        if len(e.terms) == 2 and e.estimate.is_clear
    ]
    rows = [row for _, row in sorted(found, key=lambda pair: -pair[0])[:40]]
    note = (
        "What two terms do together beyond what each does alone; those whose interval excludes 0."
        f" {sum(len(e.terms) == 2 for its in effects.values() for e in its)} were estimated, so a"
        " few of them are chance."
    )
    if not rows:
        return Markup("<p>{}</p>").format("No pair has a clear effect.")
    head = ["terms", "direction", "effect in points [95 %]"]
    return render("methods.html", head=head, groups=[("", rows)], notes=[note])


def _effect_sections(study: Study, effects: dict[str, Any]) -> dict[str, Markup]:
    return {
        "Main effects": effect_chart(effects, study.plan.terms)
        + Markup("<p class='note'>{}</p>").format(
            "The mean change of R@1, in points, when a term is added to a set of the others, over"
            " all sets that train the direction. Lines: 95 % interval over clips and seeds; empty"
            " circles: it includes 0. The loss divides by the sum of weights, so a further term"
            " takes weight from the others."
        ),
        "Effects of pairs of terms": _pairs(study, effects),
    }
