"""Simple pictures for training: one or two things, about which nothing can be confused.

In the balanced pictures a model must find the thing that a question names before it can learn what
shape it has, and to find it, it must know shapes. With one thing, nothing must be found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fusion.data.demo.questions.ask import KINDS, Question, answer, draw_question
from fusion.data.demo.questions.compose import Layouts, demands_of, place_things
from fusion.data.demo.questions.things import COLOUR_NAMES, SHAPE_NAMES, Thing, pick

Asked = list[tuple[Question, str]]
RELATION = tuple(KINDS["relation"])


def draw_simple(layouts: Layouts, rng: np.random.Generator) -> tuple[list[Thing], Asked]:
    """Draw one or two things, and four questions: shape, colour, place or relation, and presence.

    One thing is asked for its place, two for their relation: relations are learnt last, so each
    picture of two things has a question about one. Two things differ in shape and colour. As
    colours are learnt first, the questions about places and about what there is name a shape.
    """
    count = 1 + int(rng.integers(2))
    shapes, colours = (
        rng.permutation(names)[:count].tolist() for names in (SHAPE_NAMES, COLOUR_NAMES)
    )
    looks = list(zip(shapes, colours, strict=True))
    where = _draw(("half", "side"), lambda q: bool(q.noun.shape) and q.noun.fits(*looks[0]), rng)
    demands = demands_of(where, pick(where.answers, rng), looks, rng)
    things = place_things(looks, demands or [], layouts.of(count), rng)
    assert things is not None, "of so many layouts some always fit a single demand"

    def has_answer(question: Question) -> bool:
        return answer(question, things) is not None

    there = bool(rng.integers(2))

    def is_of_presence(question: Question) -> bool:
        found = answer(question, things) not in ("no", "0")
        return bool(question.noun.shape) and found == there

    asked = [_draw((kind,), has_answer, rng) for kind in ("shape", "colour")]
    if count > 1:
        where = _draw(RELATION, has_answer, rng)
    asked += [where, _draw(("existence", "count"), is_of_presence, rng)]
    return things, [(question, str(answer(question, things))) for question in asked]


def _draw(
    kinds: Sequence[str], is_right: Callable[[Question], bool], rng: np.random.Generator
) -> Question:
    """Draw questions of one of some kinds until one is right."""
    kind = pick(kinds, rng)
    while not is_right(question := draw_question(kind, rng)):
        pass
    return question
