"""The answers that a model can give, and how right each of them is.

Shapes: K answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fusion.data.questions.normalisation import soft_scores
from fusion.data.questions.question import Question

_PARTS = 6  # of one: scores are sixths, and sums of whole numbers have no rounding errors


def common_answers(questions: Iterable[Question], number: int | None = None) -> list[str]:
    """List the most frequent answers, normalised, the most frequent first.

    The frequency of an answer is the sum of its :func:`.soft_scores` over the questions, so what
    one person in ten says counts a third. Of equally frequent answers the first in the order of
    the alphabet comes first.

    Args:
        questions: of the training split.
        number: how many answers; None: all.
    """
    sums: Counter[str] = Counter()
    for question in questions:
        for answer, score in soft_scores(question.answers).items():
            sums[answer] += round(_PARTS * score)
    ranked = sorted(sums, key=lambda answer: (-sums[answer], answer))
    return ranked if number is None else ranked[:number]


def score_row(answers: Sequence[str], index: Mapping[str, int]) -> Tensor:
    """Return how right each answer of a vocabulary is, in [0, 1]: (K,) float32.

    Args:
        answers: what people said; those that the vocabulary lacks are ignored.
        index: the place of each of the K answers, 0 to K - 1.
    """
    row = torch.zeros(len(index))
    for answer, score in soft_scores(answers).items():
        if (place := index.get(answer)) is not None:
            row[place] = score
    return row
