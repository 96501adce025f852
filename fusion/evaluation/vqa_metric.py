"""The accuracy of the VQA challenge, equal to that of its official evaluation.

Antol et al., "VQA: Visual Question Answering", arXiv:1505.00468; github.com/GT-Vision-Lab/VQA.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from fusion.data.questions.normalisation import ENOUGH, strip
from fusion.data.questions.normalisation import normalise as normalise
from fusion.data.questions.normalisation import soft_scores as soft_scores

Name = TypeVar("Name", bound=Hashable)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Compare a prediction with the answers of several people to one question.

    Each of them is left out once; with m matches among the others that subset has min(m / 3, 1),
    and the accuracy is the mean over the subsets. Prediction and answers are normalised first,
    see :func:`normalise`; if all answers agree, neither is, so capitals and articles count then.

    A single answer, which leaves an empty subset (the official code would always say 0), gives 1
    or 0: whether both are equal, normalised.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: there are no answers.
    """
    guess, given = _compared(prediction, answers)
    if len(given) == 1:
        return float(guess == given[0])
    matches = [answer == guess for answer in given]
    total = sum(matches)
    scores = [min(1, float(total - own) / ENOUGH) for own in matches]
    return float(sum(scores)) / len(scores)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction is the answer that most people gave, else 0.

    Any of several that are equally frequent counts. Normalised as for :func:`accuracy`.

    Raises:
        ValueError: there are no answers.
    """
    guess, given = _compared(prediction, answers)
    return float(given.count(guess) == max(map(given.count, given)))


def percent(scores: Iterable[float]) -> float:
    """Return the mean of scores in per cent, rounded to two digits as the challenge does.

    Raises:
        ValueError: there are no scores.
    """
    values = list(scores)
    if not values:
        raise ValueError("the mean of no scores; there must be at least one question")
    return round(100 * float(sum(values)) / len(values), 2)


def percent_by(scores: Iterable[float], names: Iterable[Name]) -> dict[Name, float]:
    """Return :func:`percent` of the scores of each name, such as a type of answer or question.

    Names are in the order in which they come first.
    """
    groups: dict[Name, list[float]] = {}
    for score, name in zip(scores, names, strict=True):
        groups.setdefault(name, []).append(score)
    return {name: percent(group) for name, group in groups.items()}


def _compared(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Return a prediction and answers as they are compared: normalised unless all agree."""
    if not answers:
        raise ValueError("an accuracy needs at least one answer; leave such questions out")
    guess, given = strip(prediction), [strip(answer) for answer in answers]
    if len(given) > 1 and len(set(given)) == 1:
        return guess, given
    return normalise(guess), [normalise(answer) for answer in given]
