"""Kinds of questions, their wordings, and the rule that answers them.

A question has an answer only where the picture leaves no doubt: what "the star" means must be one
thing, and places must differ by a margin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusion.data.demo.questions.things import (
    COLOUR_NAMES,
    MIDDLE,
    NOTHING,
    SHAPE_NAMES,
    Noun,
    Thing,
    pick,
)

YES_NO = ("yes", "no")

# Of each question type, its kinds; of each kind, the possible answers.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {"shape": SHAPE_NAMES},
    "colour": {"colour": COLOUR_NAMES},
    "count": {"count": ("0", "1", "2", "3")},
    "place": {"half": ("upper", "lower"), "side": ("left", "right")},
    "relation": {"is": YES_NO, "shape beside": SHAPE_NAMES, "colour beside": COLOUR_NAMES},
    "existence": {"existence": YES_NO},
}
TYPES = tuple(KINDS)
TYPE_OF = {kind: name for name, kinds in KINDS.items() for kind in kinds}
ANSWERS = {kind: answers for kinds in KINDS.values() for kind, answers in kinds.items()}

WORDINGS = {
    "shape": (
        "what shape is the {noun}?",
        "which shape does the {noun} have?",
        "what is the shape of the {noun}?",
    ),
    "colour": (
        "what colour is the {noun}?",
        "which colour does the {noun} have?",
        "what is the colour of the {noun}?",
    ),
    "count": (
        "how many {plural} are there?",
        "how many {plural} do you see?",
        "what is the number of {plural}?",
    ),
    "half": (
        "is the {noun} in the upper or the lower half?",
        "in which half is the {noun}, upper or lower?",
    ),
    "side": (
        "is the {noun} on the left or the right side?",
        "on which side is the {noun}, left or right?",
    ),
    "is": (
        "is the {noun} {relation} the {other}?",
        "does the {noun} lie {relation} the {other}?",
        "do you see the {noun} {relation} the {other}?",
    ),
    "shape beside": (
        "what shape is {relation} the {noun}?",
        "which shape lies {relation} the {noun}?",
        "what is the shape of the object {relation} the {noun}?",
    ),
    "colour beside": (
        "what colour is the object {relation} the {noun}?",
        "which colour has the object {relation} the {noun}?",
        "what is the colour of the object {relation} the {noun}?",
    ),
    "existence": (
        "is there a {noun}?",
        "do you see a {noun}?",
        "does the picture show a {noun}?",
    ),
}

# Axis (0: x, 1: y) and sign of the difference of two places
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
FROM_MIDDLE = 4.0  # pixels by which "the upper half" is unambiguous
FROM_OTHER = 7.0  # pixels by which "left of" is

BOTH = 0.6  # share of questions of existence that name a shape and a colour


@dataclasses.dataclass(frozen=True)
class Question:
    """A question without its answer."""

    kind: str
    noun: Noun
    text: str
    relation: str = ""  # of the kinds of type ``relation``
    other: Noun = NOTHING  # of kind ``is``

    @property
    def type(self) -> str:
        """One of ``TYPES``."""
        return TYPE_OF[self.kind]

    @property
    def answers(self) -> tuple[str, ...]:
        """The possible answers."""
        return ANSWERS[self.kind]


def draw_question(kind: str, rng: np.random.Generator) -> Question:
    """Draw the nouns, the relation and the wording of a question."""
    noun = other = _draw_noun(kind, rng)
    while other == noun:
        other = _draw_noun(kind, rng)
    relation = pick(tuple(RELATIONS), rng) if TYPE_OF[kind] == "relation" else ""
    text = pick(WORDINGS[kind], rng).format(
        noun=noun, plural=noun.plural, other=other, relation=relation
    )
    return Question(kind, noun, text, relation, other if kind == "is" else NOTHING)


def _draw_noun(kind: str, rng: np.random.Generator) -> Noun:
    """Draw a noun that does not say what a question of this kind asks for."""
    shape, colour = pick(SHAPE_NAMES, rng), pick(COLOUR_NAMES, rng)
    if kind == "existence" and rng.random() < BOTH:
        return Noun(shape, colour)
    says_shape = rng.random() < 0.5
    if kind in ("shape", "shape beside"):
        says_shape = False
    if kind in ("colour", "colour beside"):
        says_shape = True
    return Noun(shape=shape) if says_shape else Noun(colour=colour)


def answer(question: Question, things: Sequence[Thing]) -> str | None:
    """Answer a question about some things; None: they leave a doubt."""
    named = [thing for thing in things if question.noun.fits(thing.shape, thing.colour)]
    if question.kind == "count":
        return str(len(named))
    if question.kind == "existence":
        return YES_NO[not named]
    if len(named) != 1:
        return None
    (thing,) = named
    if question.kind in ("shape", "colour"):
        return thing.shape if question.kind == "shape" else thing.colour
    if question.kind in ("half", "side"):
        place = thing.y if question.kind == "half" else thing.x
        doubt = abs(place - MIDDLE) < FROM_MIDDLE
        return None if doubt else question.answers[place > MIDDLE]
    return _answer_relation(question, thing, things)


def _answer_relation(question: Question, thing: Thing, things: Sequence[Thing]) -> str | None:
    axis, sign = RELATIONS[question.relation]

    def way(start: Thing, end: Thing) -> float:
        return sign * (end.y - start.y if axis else end.x - start.x)

    if question.kind == "is":
        others = [t for t in things if question.other.fits(t.shape, t.colour)]
        if len(others) != 1 or abs(way(others[0], thing)) < FROM_OTHER:
            return None
        return YES_NO[way(others[0], thing) < 0]
    ways = [(way(thing, other), other) for other in things if other is not thing]
    beside = [other for distance, other in ways if distance > 0]
    if len(beside) != 1 or any(abs(distance) < FROM_OTHER for distance, _ in ways):
        return None
    return beside[0].shape if question.kind == "shape beside" else beside[0].colour
