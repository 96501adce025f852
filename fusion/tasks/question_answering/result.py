"""The result of question answering, its layout, and the scores that comparisons need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusion.data.questions.normalisation import soft_scores
from fusion.evaluation.answers import (
    ALL,
    BY_ANSWER,
    BY_QUESTION,
    METRICS,
    Answered,
    answer_table,
    most_frequent,
    rows_of,
)
from fusion.report.layout import FORMAT, Layout, number
from fusion.report.runs import pack_scores
from fusion.words import number_of

MOST_TYPES = 20  # types of questions that a page shows, the most frequent
LAYOUT = Layout(
    title="Questions",
    row="type",
    rows="kinds",
    main="accuracy",
    columns={"exact": "Most frequent answer hit", "top5": "Among the five best"},
    compared=("exact", "top5"),
    counts={"questions": "questions"},
    guesses={
        "accuracy of the most frequent answer": "frequent",
        "the same by type of question": "frequent_by_type",
        "best possible without the image": "question_alone",
        "best possible without the question": "image_alone",
    },
    key="accuracy: of ten answers, min(3 who gave it, 1) averaged over any nine of them, in per"
    " cent (arXiv:1505.00468); with one answer it is right or wrong. exact: per cent of questions"
    " whose most frequent answer was given; top5: it is among the five best.",
    ceiling_note="the accuracy of a perfect perceiver",
    headline=(ALL,),
    headline_title="all questions",
    headline_rule="accuracy over all questions",
    bars_title="Accuracy in per cent by type",
    names={},
    groups={},
)


def describe_answers(source: Any, split: str, answered: Answered) -> dict[str, Any]:
    """Put the table of a split together with what is needed to read it, ready for JSON."""
    table, images = answer_table(answered), len(set(answered.images.tolist()))
    limits = source.ceiling(split) or {}
    guesses: dict[str, Any] = {}
    if "train" in source.splits:
        train = source.questions("train")
        for key, by_type in {"frequent": False, "frequent_by_type": True}.items():
            if found := most_frequent(train, answered.questions, by_type):
                guesses[key] = found
    whole = limits.get(ALL, {})
    for key, name in {"question_alone": "question", "image_alone": "image"}.items():
        if name in whole:
            guesses[key] = {"accuracy": whole[name]}
    parts = {
        "rule": f"{number_of(len(answered.questions), 'question')} about"
        f" {number_of(images, source.about)}, each answered by one of"
        f" {number_of(len(answered.answers), 'answer')}",
        "data": source.describe(split),
    }
    result = {
        "format": FORMAT,
        "set": split,
        "protocol": "; ".join(parts.values()),
        "protocol_parts": parts,
        "counted": images,
        "gallery": len(answered.answers),
        "clips": {"total": images},
        "kinds": table,
        "chance": guesses.get("frequent_by_type"),
        "ceiling": _ceilings(limits),
        **guesses,
    }
    return result | {"table": answers_layout(table).as_json()}


def _ceilings(limits: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the accuracy of a perfect perceiver for each row that has one."""
    rows = {ALL if k == ALL else BY_QUESTION + k: values for k, values in limits.items()}
    found = {r: {"accuracy": v["perceiver"]} for r, v in rows.items() if "perceiver" in v}
    return found or None


def answers_layout(table: Mapping[str, Mapping[str, Any]]) -> Layout:
    """Make the layout of a table."""
    answer = [row for row in table if row.startswith(BY_ANSWER)]
    question = [row for row in table if row.startswith(BY_QUESTION)][:MOST_TYPES]
    groups = {"All": [ALL], "By type of answer": answer, "By type of question": question}
    counts = {row: table[row]["questions"] for row in (ALL, *answer, *question)}
    names = {row: number_of(count, "question") for row, count in counts.items()}
    bars = [*answer, *question] if len(question) < MOST_TYPES else answer
    score = number(table[ALL]["accuracy"])
    return dataclasses.replace(
        LAYOUT,
        names=names,
        groups={name: rows for name, rows in groups.items() if rows},
        bars=bars if len(bars) > 1 else [],
        lead=(ALL, f"The answers to all questions are {score}\N{NO-BREAK SPACE}% right."),
        asked_by_some=[row for row in table],
    )


def answer_scores(answered: Answered) -> bytes:
    """Pack the accuracy of each question in each row; a clip is an image."""
    ids = [question.id for question in answered.questions]
    texts = [f"{q.text} {'|'.join(q.answers)}" for q in answered.questions]
    scores = answered.metrics[METRICS[0]]
    rows = {row: (scores[places], places) for row, places in rows_of(answered.questions).items()}
    return pack_scores(ids, answered.images.astype(np.int64), texts, rows)


def confusion(answered: Answered, most: int = 14) -> tuple[Sequence[str], Sequence[str], Any]:
    """Count which answer was given where which was asked for.

    Only questions whose most frequent answer is one of the ``most`` most frequent count. Returns
    the names of the rows (asked for) and columns (given), which end with all others, and counts.
    """
    wanted = [next(iter(soft_scores(q.answers)), "") for q in answered.questions]
    names, counts = np.unique([w for w in wanted if w], return_counts=True)
    rows = [str(name) for name in names[np.argsort(-counts, kind="stable")][:most]]
    columns = [*rows, "others"]
    table = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for asked, (given, *_) in zip(wanted, answered.best, strict=True):
        if asked in rows:
            table[rows.index(asked), rows.index(given) if given in rows else -1] += 1
    return rows, columns, table
