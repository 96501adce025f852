"""What a study found, in a few lines: which terms to pull together for which use."""

from __future__ import annotations

import numpy as np

from fusion.report.layout import arrow
from fusion.study.effects import Effect, Estimate
from fusion.study.result import Study

USES = {  # what people search, and the directions that do it
    "films by words": "t->va",
    "pictures by words": "t->v",
    "a sound by its picture": "v->a",
}


def conclusions(study: Study) -> list[str]:
    """Write a line for each use and each term, and one on the halves of the seeds."""
    table, effects = study.table(), study.effects()
    lines = [
        line
        for use, direction in USES.items()
        if direction in table and (line := _about_use(study, use, direction, table[direction]))
    ]
    lines += _about_terms(study, effects)
    if (halves := study.halves()) is not None:
        correlation, same, count = halves
        lines.append(
            f"Two halves of the seeds agree on the sign of {same} of {count} main effects"
            f" (correlation {correlation:.2f})."
        )
    return lines


def _about_use(
    study: Study, use: str, direction: str, estimates: list[Estimate | None]
) -> str | None:
    labels = study.labels()
    known = {i: e for i, e in enumerate(estimates) if e is not None}
    if not known:
        return None
    best = max(known, key=lambda i: known[i].value)
    sizes = study.present.sum(axis=1)
    hits = study.found[direction]
    near = [i for i in known if not _is_worse(hits[i], hits[best])]
    small = min(near, key=lambda i: (sizes[i], -known[i].value))
    text = f"To find {use} ({arrow(direction)}), {labels[best]} is best: {known[best].value:.1f}."
    if small != best and sizes[small] < sizes[best]:
        text += (
            f" {labels[small]} is enough: {known[small].value:.1f}, and the interval of the"
            " difference includes 0."
        )
    return text


def _is_worse(hits: np.ndarray, best: np.ndarray) -> bool:
    """Return whether R@1 of a setting is clearly below that of the best; arrays (Z, C).

    By a paired bootstrap over clips; the best of many is favoured by chance, so this is cautious in
    calling others as good.
    """
    rng = np.random.default_rng(0)
    difference = hits.mean(axis=0) - best.mean(axis=0)
    clips = len(difference)
    counts = rng.multinomial(clips, np.full(clips, 1 / clips), size=1000)
    return bool(np.percentile(counts @ difference / clips, 97.5) < 0)


def _about_terms(study: Study, effects: dict[str, list[Effect]]) -> list[str]:
    """Name for each term the directions that it clearly helps and harms."""
    lines = []
    for term in study.plan.terms:
        own = {
            direction: effect.estimate
            for direction, its in effects.items()
            for effect in its
            if effect.terms == (term,) and effect.estimate.is_clear
        }
        helps = sorted((d for d in own if own[d].value > 0), key=lambda d: -own[d].value)[:3]
        harms = sorted((d for d in own if own[d].value < 0), key=lambda d: own[d].value)[:3]
        said = [
            f"{verb} {', '.join(f'{arrow(d)} ({own[d].value:+.1f})' for d in ways)}"
            for verb, ways in (("helps", helps), ("harms", harms))
            if ways
        ]
        lines.append(f"{term} {' and '.join(said)}." if said else f"{term} has no clear effect.")
    return lines
