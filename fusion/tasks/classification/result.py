"""The result of classification, its layout, and the scores that comparisons need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusion.evaluation.classes import (
    ALL,
    BY_CLASS,
    BY_PAIR,
    TOP,
    Classified,
    Settings,
    class_table,
)
from fusion.report.layout import FORMAT, Layout, number
from fusion.report.runs import pack_scores
from fusion.words import number_of

MOST_CLASSES = 24  # that a page shows, those with the lowest top-1 if there are more
KEY = (
    "top1: per cent of films whose right class has the highest score; top5: it is among the five"
    " highest; mean class: the mean of top1 over the classes."
)
PAIR_KEY = (
    " Classes of a pair differ only in the order of frames. Pair: the best class is in the right"
    " pair; order: of its two classes the right one has the higher score, 50 by guessing."
)
LAYOUT = Layout(
    title="Classes",
    row="row",
    rows="classes",
    main="top1",
    columns={"top5": "Top-5", "mean_class": "Mean class"},
    compared=("top5", "mean_class"),
    counts={"films": "films"},
    guesses={"guessing": "chance"},
    key=KEY,
    headline=(ALL,),
    headline_title="all films",
    headline_rule="top-1 over all films",
    bars_title="Top-1 in per cent",
    names={},
    groups={},
)


def describe_classes(
    source: Any, split: str, found: Classified, settings: Settings
) -> dict[str, Any]:
    """Put the table of a split together with what is needed to read it, ready for JSON."""
    table, classes = class_table(found), len(found.classes)
    lost = int((~found.readable).sum())
    rule = (
        f"{number_of(len(found.ids), 'film')}, each of one of {classes} classes;"
        f" {number_of(settings.clips, 'clip')} and {number_of(settings.crops, 'crop')} of each"
    )
    parts = {"rule": rule, "data": source.describe(split)}
    if lost:
        parts["unreadable"] = f"{number_of(lost, 'film')} cannot be read and count as wrong"
    chance = {"top1": 100 / classes, "top5": 100 * min(1.0, TOP / classes)}
    result = {
        "format": FORMAT,
        "set": split,
        "protocol": "; ".join(parts.values()),
        "protocol_parts": parts,
        "counted": len(set(found.files)),
        "gallery": classes,
        "clips": {"total": len(found.ids)},
        "classes": table,
        "chance": chance | {"mean_class": 100 / classes},
    }
    return result | {"table": classes_layout(table, bool(found.pairs)).as_json()}


def classes_layout(table: Mapping[str, Mapping[str, Any]], has_pairs: bool) -> Layout:
    """Make the layout of a table."""
    pairs = [row for row in table if row.startswith(BY_PAIR)]
    classes = [row for row in table if row.startswith(BY_CLASS)]
    heading = "By class"
    if len(classes) > MOST_CLASSES:
        classes = sorted(classes, key=lambda row: table[row]["top1"])[:MOST_CLASSES]
        heading = f"The {MOST_CLASSES} classes with the lowest top-1"
    names = {row: number_of(table[row]["films"], "film") for row in (ALL, *pairs, *classes)}
    groups = {"All": [ALL], "By pair": pairs, heading: classes}
    score = number(table[ALL]["top1"])
    more = {"pair": "Pair", "order": "Order"} if has_pairs else {}
    return dataclasses.replace(
        LAYOUT,
        columns={**LAYOUT.columns, **more},
        compared=(*LAYOUT.compared, *more),
        key=KEY + (PAIR_KEY if has_pairs else ""),
        names=names,
        groups={name: rows for name, rows in groups.items() if rows},
        bars=classes if len(classes) > 1 else [],
        lead=(
            ALL,
            f"The right class has the highest score for {score}\N{NO-BREAK SPACE}% of films.",
        ),
        asked_by_some=list(table),
    )


def class_scores(found: Classified) -> bytes:
    """Pack the top-1 of each film in each row; a clip is a file."""
    files = np.unique(np.asarray(found.files), return_inverse=True)[1].reshape(-1)
    texts = [found.classes[label] for label in found.labels]
    right = found.metrics["top1"]
    rows = {row: (right[places], places) for row, places in found.rows.items()}
    return pack_scores(found.ids, files.astype(np.int64), texts, rows)
