"""The highest accuracies possible on the built-in questions, counted from their plan.

* ``perceiver``: sees all things of the picture and applies the rule of the question.
* ``question``: knows the text of the question alone; the most frequent answer to each text.
* ``image``: knows the picture alone; the most frequent answer to what is asked about each.
* ``frequent``: knows the type of the question alone; the most frequent answer of each type.

All know the answers of the split they are scored on, so no model that is given as little has a
higher accuracy, whatever it was trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from fusion.data.demo.questions.ask import TYPES, answer
from fusion.data.demo.questions.plan import Picture

ALL = "all"


def ceilings(pictures: Sequence[Picture]) -> dict[str, dict[str, float]]:
    """Return the four accuracies in per cent, of all questions and of each type alone."""
    rows = [(picture, question, right) for picture in pictures for question, right in picture.asked]
    scores = {}
    for name in (ALL, *TYPES):
        some = [row for row in rows if name in (ALL, row[1].type)]
        if not some:
            continue  # a small set may lack a type
        known = [answer(question, picture.things) == right for picture, question, right in some]
        scores[name] = {
            "perceiver": 100 * sum(known) / len(some),
            "question": _best((question.text, right) for _, question, right in some),
            "image": _best((picture.path, right) for picture, _, right in some),
            "frequent": _best((question.type, right) for _, question, right in some),
        }
    return scores


def _best(pairs: Iterable[tuple[Hashable, str]]) -> float:
    """Give one answer to all pairs with the same cue: the highest accuracy, in per cent."""
    counts = Counter(pairs)
    most: dict[Hashable, int] = {}
    for (cue, _), count in counts.items():
        most[cue] = max(count, most.get(cue, 0))
    return 100 * sum(most.values()) / counts.total()
