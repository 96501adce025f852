"""The result of a localisation and its layout."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusion.data.steps.annotation import Notes
from fusion.evaluation.localisation.assignment import assign_best, assign_in_order
from fusion.evaluation.localisation.ceiling import perceiver_recall
from fusion.evaluation.localisation.settings import FRAMES, RECALL, Settings
from fusion.evaluation.localisation.table import (
    ARGMAX,
    ORDERED,
    ScoredFilm,
    directions_of,
    guesses,
    localisation_table,
)
from fusion.modalities import parse_direction
from fusion.report.layout import FORMAT, Layout, number
from fusion.report.runs import pack_scores
from fusion.words import number_of

KEY = (
    "recall: per cent of the steps that occur in a film whose second is within an annotated"
    " interval; mean over the films of a task, then over tasks. pooled: over the steps of all films"
    " of a task together, then over tasks, as in CrossTask's code. AP: average precision of the"
    " seconds of a step, mean over steps, then over tasks. any: each second has its best step, and"
    " a step is found if any of its seconds is right, as in MCN's code. MoF: per cent of all"
    " seconds with the right label, if the true sequence of steps and background is aligned."
    " IoU, IoD: of the segments of that alignment."
)
COLUMNS = {"pooled": "Pooled", "AP": "AP", "any": "Any", "MoF": "MoF", "IoU": "IoU", "IoD": "IoD"}
LAYOUT = Layout(
    title="Localisation",
    row="direction",
    rows="directions",
    main=RECALL,
    columns=COLUMNS,
    compared=("AP", "IoU"),
    counts={"films": "films"},
    guesses={"chance, ordered": "chance_ordered", "chance, argmax": "chance"},
    key=KEY,
    ceiling_note="the recall of a perfect perceiver of the same modalities, which knows the cuts"
    " between scenes",
    bars_title="Recall of steps in per cent",
    headline=("t->va ordered", "t->v+a ordered"),
    headline_title="text → video and audio, steps in order",
    headline_rule="t->va where the method embeds va as one, otherwise the late average",
    pictured=("t->v ordered", "t->a ordered", "t->v+a ordered"),
    rivals_title="Fused against late average",
    rivals_rule="within a method: one embedding of several modalities against the late average of"
    " its own single embeddings",
    names={},
    groups={},
    counted_as="films",
)


def describe_localisation(
    source: Any, split: str, films: Sequence[ScoredFilm], settings: Settings, notes: Notes
) -> tuple[dict[str, Any], bytes]:
    """Measure films, and put the table together with what is needed to read it.

    Returns:
        The result, ready for JSON, and the values of each film, for comparisons.
    """
    table, values = localisation_table(films, settings)
    parts = {"rule": str(settings.rules), "data": source.describe(split)}
    tasks = {film.task for film in films}
    result = {
        "format": FORMAT,
        "set": split,
        "protocol": "; ".join(parts.values()),
        "protocol_parts": parts,
        "counted": len(films),
        "clips": {"total": len(films), "tasks": len(tasks), "seconds": _seconds(films)},
        "problems": {"counts": notes.counts, "lines": notes.lines()},
        "directions": table,
        **guesses(films, settings),
        "ceiling": _ceilings(source, split, films, settings) or None,
    }
    layout = localisation_layout(result, films, settings)
    return result | {"table": layout.as_json()}, film_scores(films, values)


def film_scores(films: Sequence[ScoredFilm], values: Mapping[str, Any]) -> bytes:
    """Pack the values of each film in each row; a query is a film."""
    every = np.arange(len(films))
    texts = [json.dumps([film.task, film.steps, [*map(list, film.intervals)]]) for film in films]
    rows = {row: (its, every) for row, its in values.items()}
    return pack_scores([film.name for film in films], every, texts, rows)


def localisation_layout(
    result: Mapping[str, Any], films: Sequence[ScoredFilm], settings: Settings
) -> Layout:
    """Make the layout of a result."""
    rows, ways, main = result["directions"], directions_of(films), settings.rules.main
    hows = [how for how in (ORDERED, ARGMAX) if f"{ways[0]} {how}" in rows]
    lead = max(
        (row for row in rows if row.endswith(ORDERED)), key=lambda row: ("+" not in row, len(row))
    )
    seconds, steps = result["clips"]["seconds"], sum(int(f.mask.any(axis=0).sum()) for f in films)
    about = f"{number_of(len(films), 'film')} of {seconds:,} s, {steps:,} steps that occur"
    problems = result["problems"]["lines"]
    columns = {n: h for n, h in COLUMNS.items() if any(n in row for row in rows.values())}
    if main == FRAMES:
        columns = {RECALL: "Recall"} | {n: h for n, h in columns.items() if n != FRAMES}
    return dataclasses.replace(
        LAYOUT,
        main=main,
        columns=columns,
        compared=[n for n in columns if all(n in row for row in rows.values())],
        guesses=LAYOUT.guesses if main == RECALL else {"equal parts": "chance"},
        tested=about,
        facts={f"problem {i}": line for i, line in enumerate(problems, start=1)},
        names={row: _in_words(row) for row in rows},
        groups={how: [f"{way} {how}" for way in ways] for how in hows},
        bars=[row for row in rows if row.endswith(ORDERED)],
        bars_title=f"{main} in per cent, steps in order",
        rivals={
            f"{w.replace('+', '')} {how}": [f"{w} {how}"]
            for w in ways
            for how in hows
            if "+" in w and w.replace("+", "") in ways
        },
        lead=[lead, _lead_sentence(rows[lead], main)],
    )


def _lead_sentence(row: Mapping[str, Any], main: str) -> str:
    score = f"{number(row[main])}\N{NO-BREAK SPACE}%"
    if main == FRAMES:
        return f"{score} of the seconds get the right step where their sequence is known."
    return f"{score} of the steps are found in a second in which they happen, in their order."


def _in_words(row: str) -> str:
    way, _, how = row.rpartition(" ")
    found = way.partition("->")[2]
    names = {"v": "video", "a": "audio"}
    words = " and ".join(names.get(letter, letter) for letter in found if letter != "+")
    averaged = ", averaged" if "+" in found else ""
    return f"text → {words}{averaged}, {'in order' if how == ORDERED else 'each by itself'}"


def _seconds(films: Sequence[ScoredFilm]) -> int:
    return round(sum(len(film.mask) * film.grid for film in films))


def _ceilings(
    source: Any, split: str, films: Sequence[ScoredFilm], settings: Settings
) -> dict[str, Any]:
    """Give the recall of a perfect perceiver for each row, where it is known."""
    perceive = getattr(source, "perceived", None)
    if perceive is None or settings.rules.main != RECALL:
        return {}
    found = {}
    for way in directions_of(films):
        known = perceive(split, parse_direction(way, ("text", "video", "audio")))
        for how, assign in {ORDERED: assign_in_order, ARGMAX: assign_best}.items():
            recalls = []
            for film in films:
                alone, in_order, scenes, right = known[film.name]
                shares = in_order if how == ORDERED else alone
                about = (scenes, right, len(film.mask), film.grid, assign)
                recalls.append(perceiver_recall(shares, *about))
            found[f"{way} {how}"] = {RECALL: 100 * float(np.mean(recalls))}
    return found
