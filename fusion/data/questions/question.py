"""A question about an image, and its types where the data name none."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from fusion.data.questions.normalisation import soft_scores

YES_NO, NUMBER, OTHER = ANSWER_TYPES = ("yes/no", "number", "other")  # as in VQA v2
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question about an image.

    Attributes:
        id: its name, unique in its split.
        text: the question.
        answers: as people gave them: one, or several; none if they are not known.
        image: name of the image file, relative to a folder; or full name of the film.
        answer_type: such as ``yes/no``, see :func:`guess_answer_type`.
        question_type: such as ``what color``, see :func:`guess_question_type`.
    """

    id: str
    text: str
    answers: tuple[str, ...] = ()
    image: str = ""
    answer_type: str = ""
    question_type: str = ""


def guess_question_type(text: str) -> str:
    """Return the first two words of a question, in lower case."""
    return " ".join(text.lower().rstrip("?").split()[:2])


def guess_answer_type(answers: Sequence[str]) -> str:
    """Return ``yes/no``, ``number`` or ``other``, by the most frequent answer; empty: no answer."""
    best = next(iter(soft_scores(answers)), None)
    if best is None:
        return ""
    if best in ("yes", "no"):
        return YES_NO
    return NUMBER if _NUMBER.fullmatch(best) else OTHER
