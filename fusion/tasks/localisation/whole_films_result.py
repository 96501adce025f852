"""The result of finding whole films, and its layout."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fusion.evaluation.localisation.settings import WholeFilmSettings
from fusion.evaluation.localisation.whole_table import (
    ALL,
    CAPTION,
    CLIPS,
    CUTOFFS,
    KINDS,
    VOTES,
    FilmScores,
    whole_film_table,
)
from fusion.report.layout import FORMAT, Layout, number
from fusion.report.runs import pack_scores
from fusion.words import number_of

RULE = (
    f"as in MCN (arXiv:2104.12671): a film scores its best clip. {CAPTION}: single captions look"
    f" for their film; {CLIPS}: whether one of the best k clips is of that film, as its code"
    f" counts; {ALL}: a film scores the mean over all captions of its best clip for each;"
    f" {VOTES}: each caption votes for its best k films, and the k with most votes win; ties in"
    " expectation"
)
LAYOUT = Layout(
    title="Whole films",
    row="direction",
    rows="directions",
    main="R@1",
    columns={"R@5": "R@5", "R@10": "R@10", "MedR": "Median rank"},
    compared=("R@5", "R@10"),
    counts={"queries": "queries", "gallery": "films"},
    guesses={"chance": "chance"},
    key="R@k: per cent of the queries whose film is among the first k.",
    headline=(f"t->va {ALL}", f"t->v+a {ALL}"),
    headline_title="all captions → video and audio",
    headline_rule="t->va where the method embeds va as one, otherwise the late average",
    bars_title="R@1 in per cent, all captions",
    pictured=(f"t->v {ALL}", f"t->a {ALL}", f"t->v+a {ALL}", f"t->va {CAPTION}"),
    names={},
    groups={},
)


def describe_whole_films(
    source: Any, split: str, scored: FilmScores, settings: WholeFilmSettings
) -> tuple[dict[str, Any], bytes]:
    """Measure, and put the table together with what is needed to read it.

    Returns:
        The result, ready for JSON, and what each query found, for comparisons.
    """
    table, found = whole_film_table(scored)
    films, with_captions = len(scored.films), len(np.unique(scored.captions))
    outside = (
        "clips outside of captions left out"
        if settings.background_seconds is None
        else f"clips of {settings.background_seconds:g} s outside of captions included"
    )
    parts = {"rule": f"{RULE}; {outside}", "data": source.describe(split)}
    unknown = int((~scored.known).sum())
    result = {
        "format": FORMAT,
        "set": split,
        "protocol": "; ".join(parts.values()),
        "protocol_parts": parts,
        "counted": with_captions,
        "gallery": films,
        "clips": {
            "total": len(scored.clips),
            "captions": len(scored.ids),
            **({"without_known_words": unknown} if unknown else {}),
        },
        "directions": table,
        "chance": {f"R@{k}": 100 * min(k, films) / films for k in CUTOFFS},
        "ceiling": None,
    }
    rows, ways = list(table), list(scored.scores)
    lead = next((row for row in LAYOUT.headline if row in rows), rows[-2])
    score = f"{number(table[lead]['R@1'])}\N{NO-BREAK SPACE}%"
    about = f"{number_of(films, 'film')}, {number_of(len(scored.ids), 'caption')}"
    lacking = f" ({unknown:,} without a known word)" if unknown else ""
    layout = dataclasses.replace(
        LAYOUT,
        tested=f"{about}{lacking}, {number_of(len(scored.clips), 'clip')}",
        names={row: row for row in rows},
        groups={kind: [f"{way} {kind}" for way in ways] for kind in KINDS},
        bars=[f"{way} {ALL}" for way in ways],
        rivals={
            f"{way.replace('+', '')} {kind}": [f"{way} {kind}"]
            for way in ways
            for kind in KINDS
            if "+" in way and way.replace("+", "") in ways
        },
        lead=[lead, f"For {score} of the films, all their captions together find them first."],
        asked_by_some=rows,
    )
    # Items are the captions, then the films.
    ids = [*scored.ids, *scored.films]
    owners = np.concatenate([scored.captions, np.arange(films)]).astype(np.int64)
    rows_found = {}
    for name, its in found.items():
        by_caption = name.endswith((CAPTION, CLIPS)) and not name.endswith(ALL)
        places = np.arange(len(scored.ids)) if by_caption else len(scored.ids) + its.films
        rows_found[name] = (its.hits[0], places)
    scores = pack_scores(ids, owners, [*scored.texts, *scored.films], rows_found)
    return result | {"table": layout.as_json()}, scores
