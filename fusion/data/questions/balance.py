"""How often each answer is right in training: classes that a model learns are seldom balanced."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fusion.data.questions.normalisation import soft_scores
from fusion.data.questions.question import Question
from fusion.words import number_of

MOST, LEAST = 3, 2  # answers that a line names
FEW = 10  # questions; of an answer with fewer a model learns little


@dataclasses.dataclass(frozen=True)
class Balance:
    """Questions of a split by their answer, the most frequent one that people gave.

    Attributes:
        counts: of each answer of a vocabulary, the most frequent first.
        others: questions with another answer, which a model can never give.
        unanswered: questions whose answer is not known.
    """

    counts: Mapping[str, int]
    others: int
    unanswered: int

    @property
    def questions(self) -> int:
        """How many questions have an answer."""
        return sum(self.counts.values()) + self.others

    def share(self, answer: str) -> float:
        """Return of how many of the answered questions this is the answer, in per cent."""
        return 100 * self.counts[answer] / max(1, self.questions)

    def describe(self) -> str:
        """Say in one line which answers are frequent and which are not."""
        names = list(self.counts)
        said = (
            f"{number_of(len(names), 'answer')} to {number_of(self.questions, 'question')}; most"
            f" frequent: {self._list(names[:MOST])}"
        )
        if least := names[MOST:][-LEAST:]:
            said += f"; least: {self._list(least)}"
        if few := sum(count < FEW for count in self.counts.values()):
            said += f"; {number_of(few, 'answer')} with fewer than {FEW} questions"
        if self.others:
            share = 100 * self.others / self.questions
            said += (
                f"; {number_of(self.others, 'question')} ({share:.1f} %) with none of these answers"
            )
        return said

    def _list(self, answers: Iterable[str]) -> str:
        return ", ".join(f"{a} {self.counts[a]:,} ({self.share(a):.1f} %)" for a in answers)


def count_answers(questions: Iterable[Question], vocabulary: Sequence[str]) -> Balance:
    """Count the questions of each answer of a vocabulary."""
    found: Counter[str] = Counter()
    for question in questions:
        found[next(iter(soft_scores(question.answers)), "")] += 1
    unanswered = found.pop("", 0)
    counts = {answer: found.pop(answer, 0) for answer in vocabulary}
    ranked = dict(sorted(counts.items(), key=lambda pair: -pair[1]))  # equal ones as they are
    return Balance(ranked, found.total(), unanswered)
