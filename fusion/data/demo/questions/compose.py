"""Compose things so that some questions have the answers that they are to have.

First shapes and colours are drawn: what the answers need, then the rest at random, until every noun
means what it must. Then the things are placed: of many random layouts without overlap, one is
chosen in which the answers about places are right.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusion.data.demo.questions.ask import (
    FROM_MIDDLE,
    FROM_OTHER,
    RELATIONS,
    Question,
)
from fusion.data.demo.questions.things import (
    COLOUR_NAMES,
    MIDDLE,
    NOTHING,
    REACH,
    SHAPE_NAMES,
    SIZE,
    Noun,
    Thing,
)

MOST = 4  # things
SHARES = (0.75, 0.9, 0.97)  # of pictures with at most 1, 2, 3 things, if no question needs more
RADIUS = (7.0, 10.0)
GAP = 1.5  # pixels between two things, and between a thing and the edge
TILT = 0.25  # radians
NEAR_MISS = 0.8  # of pictures without a red star: share that needs a star and a red thing

TRIES, PLACINGS = 25, 8  # before a picture is given up
LAYOUTS, PLACES = 400, 6  # layouts of a block; places tried for each thing
UNITE = 0.85  # probability that two questions are about one thing, if they can be

Looks = tuple[str, str]  # shape and colour


class Demand(NamedTuple):
    """``sign * (place of thing - place of other) >= margin`` along an axis."""

    thing: int
    other: int  # -1: the middle of the picture
    axis: int  # 0: x, 1: y
    sign: int
    margin: float


def compose(
    asked: Sequence[tuple[Question, str]], layouts: Layouts, rng: np.random.Generator
) -> list[Thing] | None:
    """Draw things for which each question has the answer beside it; None: not found."""
    placings = 0
    for _ in range(TRIES):
        looks = _draw_looks(asked, rng)
        demands = _all_demands(asked, looks, rng) if looks else None
        if looks is None or demands is None:
            continue
        if things := place_things(looks, demands, layouts.of(len(looks)), rng):
            return things
        placings += 1
        if placings == PLACINGS:
            break
    return None


def _all_demands(
    asked: Sequence[tuple[Question, str]], looks: Sequence[Looks], rng: np.random.Generator
) -> list[Demand] | None:
    demands: list[Demand] = []
    for question, answer in asked:
        found = demands_of(question, answer, looks, rng)
        if found is None:
            return None
        demands += found
    return demands


def _draw_looks(
    asked: Sequence[tuple[Question, str]], rng: np.random.Generator
) -> list[Looks] | None:
    """Draw shapes and colours that the answers need, and some more; None: too many are needed."""
    drawn: list[Noun] = []
    for question, answer in asked:
        free = list(range(len(drawn)))  # things that this question does not need yet
        for name, need in _needs(question, answer, rng):
            named = [i for i in free if name.fits(drawn[i].shape, drawn[i].colour)]
            able = [i for i in named or free if _agree(drawn[i], need)]
            if named and not able:
                return None
            if able and (named or len(drawn) == MOST or rng.random() < UNITE):
                i = _pick(able, rng)
                free.remove(i)
                shape, colour = drawn[i].shape or need.shape, drawn[i].colour or need.colour
                drawn[i] = Noun(shape, colour)
            elif len(drawn) == MOST:
                return None
            else:
                drawn.append(need)
    drawn += [Noun()] * (1 + bisect.bisect(SHARES, rng.random()) - len(drawn))
    nouns = [noun for question, _ in asked for noun in (question.noun, question.other)]
    looks = [_complete(thing, nouns, rng) for thing in drawn]
    return [looks[i] for i in rng.permutation(len(looks))]


def _complete(thing: Noun, nouns: Sequence[Noun], rng: np.random.Generator) -> Looks:
    """Draw what is open of a thing, if possible so that no more nouns than before fit it."""
    shapes = [thing.shape] if thing.shape else rng.permutation(SHAPE_NAMES).tolist()
    colours = [thing.colour] if thing.colour else rng.permutation(COLOUR_NAMES).tolist()
    closed = [noun for noun in nouns if not noun.fits(thing.shape, thing.colour)]
    for looks in itertools.product(shapes, colours):
        if not any(noun.fits(*looks) for noun in closed):
            break
    return looks


def _agree(thing: Noun, need: Noun) -> bool:
    """Say whether one thing can be both."""
    pairs = ((thing.shape, need.shape), (thing.colour, need.colour))
    return all(not one or not other or one == other for one, other in pairs)


def _needs(question: Question, answer: str, rng: np.random.Generator) -> list[tuple[Noun, Noun]]:
    """List the things that there must be: how the question names them, and what they are."""
    noun = question.noun
    match question.kind:
        case "shape":
            return [(noun, Noun(answer, noun.colour))]
        case "colour":
            return [(noun, Noun(noun.shape, answer))]
        case "count":
            return [(NOTHING, noun)] * int(answer)
        case "is":
            return [(noun, noun), (question.other, question.other)]
        case "shape beside":
            return [(noun, noun), (NOTHING, Noun(shape=answer))]
        case "colour beside":
            return [(noun, noun), (NOTHING, Noun(colour=answer))]
        case "existence" if answer == "no":
            if noun.shape and noun.colour and rng.random() < NEAR_MISS:
                return [(NOTHING, Noun(shape=noun.shape)), (NOTHING, Noun(colour=noun.colour))]
            return []
    return [(noun, noun)]


def _pick(numbers: Sequence[int], rng: np.random.Generator) -> int:
    return numbers[int(rng.integers(len(numbers)))]


def demands_of(
    question: Question, answer: str, looks: Sequence[Looks], rng: np.random.Generator
) -> list[Demand] | None:
    """Say where things must be for an answer; None: these shapes and colours do not allow it."""
    named = [i for i, look in enumerate(looks) if question.noun.fits(*look)]
    if question.kind == "count":
        return [] if len(named) == int(answer) else None
    if question.kind == "existence":
        return [] if bool(named) == (answer == "yes") else None
    if len(named) != 1:
        return None
    thing = named[0]
    if question.kind in ("shape", "colour"):
        return [] if answer in looks[thing] else None
    if question.type == "place":
        sign = 1 if answer == question.answers[1] else -1
        return [Demand(thing, -1, int(question.kind == "half"), sign, FROM_MIDDLE)]
    axis, sign = RELATIONS[question.relation]
    if question.kind == "is":
        others = [i for i, look in enumerate(looks) if question.other.fits(*look)]
        if len(others) != 1 or others[0] == thing:
            return None
        return [Demand(thing, others[0], axis, sign if answer == "yes" else -sign, FROM_OTHER)]
    able = [i for i, look in enumerate(looks) if i != thing and answer in look]
    if not able:
        return None
    beside = _pick(able, rng)
    return [
        Demand(i, thing, axis, sign if i == beside else -sign, FROM_OTHER)
        for i in range(len(looks))
        if i != thing
    ]


class Layouts:
    """Random layouts of things that do not overlap, drawn when they are first needed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._of: dict[int, np.ndarray] = {}

    def of(self, count: int) -> np.ndarray:
        """Return some layouts of ``count`` things: (N, count, 3), x, y and radius of each."""
        if count not in self._of:
            self._of[count] = self._draw(count)
        return self._of[count]

    def _draw(self, count: int) -> np.ndarray:
        """Put down one thing after the other, each where it has room after some tries."""
        layouts = np.zeros((LAYOUTS, 0, 3))
        while layouts.shape[1] < count:
            added = np.repeat(layouts, PLACES, axis=0)
            radius = self._rng.uniform(*RADIUS, len(added))
            reach = (REACH * radius + GAP / 2)[:, None]
            place = reach + self._rng.random((len(added), 2)) * (SIZE - 2 * reach)
            new = np.round(np.column_stack([place, radius]), 1)
            way = added[:, :, :2] - new[:, None, :2]
            room = REACH * (added[:, :, 2] + new[:, None, 2]) + GAP
            good = ((way * way).sum(axis=2) >= room * room).all(axis=1)
            # The first place with room of each layout
            good = good.reshape(-1, PLACES)
            first = (np.arange(len(good)) * PLACES + good.argmax(axis=1))[good.any(axis=1)]
            layouts = np.concatenate([added[first], new[first, None]], axis=1)
        return layouts


def place_things(
    looks: Sequence[Looks],
    demands: Sequence[Demand],
    layouts: np.ndarray,
    rng: np.random.Generator,
) -> list[Thing] | None:
    """Choose one of some layouts in which all is as demanded; None: there is none."""
    good = np.ones(len(layouts), bool)
    for thing, other, axis, sign, margin in demands:
        start = layouts[:, other, axis] if other >= 0 else MIDDLE
        good &= sign * (layouts[:, thing, axis] - start) >= margin
    if not good.any():
        return None
    layout = layouts[_pick(np.flatnonzero(good).tolist(), rng)].tolist()
    angles = np.round(rng.uniform(-TILT, TILT, len(looks)), 3).tolist()
    rows = zip(looks, layout, angles, strict=True)
    return [Thing(*look, x, y, radius, angle) for look, (x, y, radius), angle in rows]
