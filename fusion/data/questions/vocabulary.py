"""The vocabulary of answers of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fusion.data.questions.answers import common_answers
from fusion.data.questions.question import Question
from fusion.data.questions.readers import QuestionError


class WithAnswers:
    """A data set of questions, whose training has the answers that a model can give.

    Attributes:
        about: what a question is about, a noun; intervals are over these.
        num_answers: how many of the most frequent ones; None: all.
        answers: the vocabulary, most frequent first: :func:`.common_answers` of the training,
            unless it was set before, as a checkpoint has its own.
    """

    about: ClassVar[str] = "image"
    num_answers: int | None
    _answers: list[str] | None = None

    def questions(self, split: str) -> list[Question]:
        """The questions of a split."""
        raise NotImplementedError

    @property
    def answers(self) -> list[str]:
        """The vocabulary of answers; ValueError: there is none, as no training answer is known."""
        if self._answers is None:
            found = common_answers(self.questions("train"), self.num_answers)
            if not found:
                raise QuestionError(
                    "no question of data.train has an answer, so there are none to learn; add them"
                    " (for VQA v2 data.train.annotations)"
                )
            self._answers = found
        return self._answers

    @answers.setter
    def answers(self, answers: Sequence[str]) -> None:
        self._answers = list(answers)

    def check_number(self) -> None:
        """Check ``num_answers``; ValueError: it is less than 1."""
        if self.num_answers is not None and self.num_answers < 1:
            raise QuestionError(f"data.num_answers is {self.num_answers}; it must be at least 1")
