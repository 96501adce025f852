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
from fusion.data.questions.answers import common_answers
from fusion.data.questions.question import Question
from fusion.evaluation.metrics import interval_over
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
    def best(self) -> list[list[str]]:
        """The answers with the highest scores to each question, at most ``TOP``, best first."""
        places = self.scores.topk(min(TOP, len(self.answers)), dim=1).indices.tolist()
        return [[self.answers[i] for i in row] for row in places]

    @functools.cached_property
    def images(self) -> NDArray[np.int64]:
        """(N,) the number of each question's image or film."""
        return np.unique([q.image for q in self.questions], return_inverse=True)[1].reshape(-1)

    @functools.cached_property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """Each of ``METRICS`` of each question, (N,), from 0 to 1."""
        return _metrics(self.best, self.questions)


def _metrics(
    best: Sequence[Sequence[str]], questions: Sequence[Question]
) -> dict[str, NDArray[np.float64]]:
    """Score the best answers to each question, in their order, by each of ``METRICS``: (N,)."""
    rows = np.zeros((len(METRICS), len(questions)))
    for place, (answers, question) in enumerate(zip(best, questions, strict=True)):
        hits = [exact_match(answer, question.answers) for answer in answers]
        rows[:, place] = accuracy(answers[0], question.answers), hits[0], max(hits)
    return dict(zip(METRICS, rows, strict=True))


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
    metrics, images = answered.metrics, answered.images
    table: dict[str, dict[str, Any]] = {}
    for row, places in rows_of(answered.questions).items():
        line: dict[str, Any] = {m: float(100 * metrics[m][places].mean()) for m in METRICS}
        line["questions"] = len(places)
        if intervals:
            line["accuracy_interval"] = interval_over(images[places], metrics["accuracy"][places])
        table[row] = line
    return table


def most_frequent(
    train: Sequence[Question], test: Sequence[Question], by_type: bool
) -> Mapping[str, float] | None:
    """Answer each question with the most frequent answers of training, of its type or of all.

    Returns the metrics in per cent; a type that training lacks gets the answers of all. None: no
    answer of training is known.
    """
    of_type: dict[str, list[Question]] = {}
    for question in train:
        of_type.setdefault(question.question_type, []).append(question)
    of_all = common_answers(train, TOP)
    if not of_all:
        return None
    best = {kind: common_answers(some, TOP) or of_all for kind, some in of_type.items() if by_type}
    given = [best.get(question.question_type, of_all) for question in test]
    return {name: float(100 * row.mean()) for name, row in _metrics(given, test).items()}
