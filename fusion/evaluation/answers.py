"""How many questions were answered rightly: by type, with intervals over images.

Shapes: N questions, K answers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fusion.config import ConfigError
from fusion.data.questions.question import Question
from fusion.evaluation.metrics import DRAWS_OF_A_TABLE, draw_recalls, interval_of
from fusion.evaluation.vqa_metric import accuracy, exact_match

METRICS = ("accuracy", "exact", "top5")
ALL, BY_ANSWER, BY_QUESTION = "all", "answer: ", "question: "
TOP = 5


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to evaluate answers; the ``evaluation`` section of a config.

    Attributes:
        batch_size: questions answered at a time by one process; it only changes the speed.
        questions_in_report: how many questions the report shows.

    Raises:
        ConfigError: a number is out of its range.
    """

    batch_size: int = 256
    questions_in_report: int = 24

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in {"batch_size": 1, "questions_in_report": 0}.items():
            if (number := getattr(self, name)) < least:
                raise ConfigError(f"evaluation.{name} must be at least {least}; got {number}")


@dataclasses.dataclass(frozen=True)
class Answered:
    """Questions, and the scores (N, K) of the answers that were chosen from."""

    questions: Sequence[Question]
    answers: Sequence[str]
    scores: Tensor

    @functools.cached_property
    def best(self) -> list[str]:
        """The answer with the highest score to each question."""
        return [self.answers[i] for i in self.scores.argmax(dim=1).tolist()]

    @property
    def images(self) -> NDArray[np.int64]:
        """(N,) the number of each question's image."""
        return np.unique([q.image for q in self.questions], return_inverse=True)[1].reshape(-1)

    def metrics_of(self, place: int) -> dict[str, float]:
        """Score one question from 0 to 1 by each of ``METRICS``."""
        given = self.questions[place].answers
        top = self.scores[place].topk(min(TOP, len(self.answers))).indices.tolist()
        best = [self.answers[i] for i in top]
        hits = (accuracy(best[0], given), exact_match(best[0], given))
        return dict(zip(METRICS, (*hits, max(exact_match(a, given) for a in best)), strict=True))

    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """Score all questions: (N,) by each of ``METRICS``."""
        rows = [self.metrics_of(place) for place in range(len(self.questions))]
        return {name: np.array([row[name] for row in rows], dtype=float) for name in METRICS}


def rows_of(questions: Sequence[Question]) -> dict[str, NDArray[np.int64]]:
    """Return the questions of each row of a table: all, by answer type, by question type.

    Types come with the most frequent first.
    """
    rows = {ALL: np.arange(len(questions))}
    for prefix, name in ((BY_ANSWER, "answer_type"), (BY_QUESTION, "question_type")):
        types = [getattr(question, name) for question in questions]
        for kind, _ in sorted(Counter(types).items(), key=lambda pair: (-pair[1], pair[0])):
            if kind:
                rows[prefix + kind] = np.flatnonzero([kind == other for other in types])
    return rows


def answer_table(answered: Answered, intervals: bool = True) -> dict[str, dict[str, Any]]:
    """Average the metrics in each row, in per cent, with 95 % intervals over images."""
    metrics, images = answered.metrics(), answered.images
    table: dict[str, dict[str, Any]] = {}
    for row, places in rows_of(answered.questions).items():
        line: dict[str, Any] = {m: float(100 * metrics[m][places].mean()) for m in METRICS}
        line["questions"] = len(places)
        if intervals:
            line["accuracy_interval"] = _interval(metrics["accuracy"][places], images[places])
        table[row] = line
    return table


def _interval(scores: NDArray[np.float64], images: NDArray[np.int64]) -> list[float]:
    _, owner = np.unique(images, return_inverse=True)
    found = np.bincount(owner, scores).astype(np.float64)
    asked = np.bincount(owner).astype(np.float64)
    return interval_of(draw_recalls(found[:, None], asked[:, None], DRAWS_OF_A_TABLE))


def most_frequent(
    train: Sequence[Question], test: Sequence[Question], by_type: bool
) -> Mapping[str, float]:
    """Answer each question with the most frequent answer of training, of its type or of all.

    Returns the metrics in per cent; a type that training lacks gets the answer of all.
    """
    counts: dict[str, Counter[str]] = {}
    for question in train:
        for kind in {"", question.question_type if by_type else ""}:
            counts.setdefault(kind, Counter()).update(question.answers)
    ranked = {
        kind: [a for a, _ in sorted(c.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP]]
        for kind, c in counts.items()
    }
    scores = []
    for question in test:
        best = ranked.get(question.question_type if by_type else "", ranked[""])
        one = (accuracy(best[0], question.answers), exact_match(best[0], question.answers))
        scores.append((*one, max(exact_match(a, question.answers) for a in best)))
    means = 100 * np.array(scores).mean(axis=0)
    return dict(zip(METRICS, means.tolist(), strict=True))
