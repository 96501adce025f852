"""The content of every picture and its questions, drawn without rendering.

Pictures come in blocks of 12 that are asked the same four questions, two of one type and two of
another. In a block

* each question has each of its possible answers equally often (12 is a multiple of 2, 4 and 6);
* in each picture, the two questions of one type have different answers.

So a text alone says nothing of its answer: who answers without looking at the picture is right in
1 of 2, 4 or 6 cases, whatever is asked. Who does not know the question is right in 1 of 2 cases at
most. See :mod:`fusion.data.demo.questions.ceilings`.

Beside the splits there are as many simple pictures as in training, on which it may begin, see
:mod:`fusion.data.demo.questions.simple`.

Random numbers are seeded by (seed, split, block): a small set is the beginning of a large one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from fusion.data.demo.plan import SPLITS
from fusion.data.demo.questions.ask import Question, draw_question
from fusion.data.demo.questions.compose import Layouts, compose
from fusion.data.demo.questions.simple import draw_simple
from fusion.data.demo.questions.things import NOTHING, Thing

VERSION, SEED = 3, 1  # validation and test are as in version 1
BLOCK = 12  # pictures
IMAGES = {"train": 5832, "validation": 432, "test": 864}  # multiples of 216: of all ``BLOCKS``
MOST_IMAGES = 60_000  # for training

SIMPLE = "simple"  # set of pictures beside the splits
SETS = (*SPLITS, SIMPLE)

QUESTIONS, DRAWING, LAYOUTS = 1, 2, 3  # streams of random numbers

# The kinds of the four questions of each block, in turn. Each three blocks ask for all six types,
# and all of them ask for each kind of a type equally often. Counting goes with two types only:
# three red things beside one blue and one green thing would be too many.
BLOCKS = (
    ("count", "count", "half", "side"),
    ("shape", "shape", "colour", "colour"),
    ("shape beside", "colour beside", "existence", "existence"),
    ("count", "count", "existence", "existence"),
    ("shape", "shape", "is", "shape beside"),
    ("half", "half", "colour", "colour"),
    ("count", "count", "side", "side"),
    ("shape", "shape", "existence", "existence"),
    ("colour", "colour", "is", "colour beside"),
    ("count", "count", "existence", "existence"),
    ("shape", "shape", "colour", "colour"),
    ("is", "is", "half", "side"),
    ("count", "count", "half", "half"),
    ("shape", "shape", "shape beside", "shape beside"),
    ("colour", "colour", "existence", "existence"),
    ("count", "count", "existence", "existence"),
    ("shape", "shape", "side", "side"),
    ("colour", "colour", "colour beside", "colour beside"),
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture, and what is asked about it."""

    split: str  # or SIMPLE
    index: int  # within the split
    things: tuple[Thing, ...]
    asked: tuple[tuple[Question, str], ...]  # questions and answers

    @property
    def path(self) -> str:
        """Path within the folder."""
        return f"images/{self.split}_{self.index:05d}.png"

    def generator(self) -> np.random.Generator:
        """Make the generator of all that is drawn but not asked about."""
        return _generator(self.split, DRAWING, self.index)


def plan_pictures(images: int | None = None) -> list[Picture]:
    """Draw the content of all pictures.

    ``images`` is the number of training pictures, and of simple ones; the other splits have as
    many, at most those of ``IMAGES``; None: ``IMAGES``. ValueError: see :func:`check_images`.
    """
    check_images(images)
    sizes = dict(IMAGES)
    if images is not None:
        sizes = {s: images if s == "train" else min(images, n) for s, n in IMAGES.items()}
    plan = [picture for split, size in sizes.items() for picture in plan_split(split, size)]
    return plan + plan_simple(sizes["train"])


def check_images(images: int | None) -> None:
    """Raise a ValueError if there cannot be so many training pictures."""
    if images is None:
        return
    if not BLOCK <= images <= MOST_IMAGES or images % BLOCK:
        raise ValueError(
            f"data.images is {images}; choose a multiple of {BLOCK} from {BLOCK} to {MOST_IMAGES},"
            f" or none for the whole set ({IMAGES['train']})"
        )


def plan_split(split: str, images: int) -> list[Picture]:
    """Draw the first pictures of a split."""
    return [picture for block in range(images // BLOCK) for picture in _plan_block(split, block)]


def plan_simple(images: int) -> list[Picture]:
    """Draw the first simple pictures."""
    layouts, plan = Layouts(_generator(SIMPLE, LAYOUTS)), []
    for index in range(images):
        things, asked = draw_simple(layouts, _generator(SIMPLE, QUESTIONS, index))
        plan.append(Picture(SIMPLE, index, tuple(things), tuple(asked)))
    return plan


def _plan_block(split: str, block: int) -> list[Picture]:
    rng = _generator(split, QUESTIONS, block)
    layouts = Layouts(rng)
    while True:  # some questions cannot be asked together
        questions = [draw_question(kind, rng) for kind in BLOCKS[block % len(BLOCKS)]]
        if not _go_together(questions):
            continue
        pictures = list(_draw_block(questions, layouts, rng))
        if len(pictures) == BLOCK:
            break
    return [
        Picture(split, BLOCK * block + number, things, asked)
        for number, (things, asked) in enumerate(pictures)
    ]


def _go_together(questions: Sequence[Question]) -> bool:
    """Say whether all answers to some questions may be possible in one picture."""
    for one, other in itertools.combinations(questions, 2):
        if dataclasses.replace(one, text=other.text) == other:
            return False  # the same question
        if one.type == other.type == "count" and bool(one.noun.shape) == bool(other.noun.shape):
            return False  # three stars and three rings would be too many; three red things may do
        nouns = {one.noun, one.other} & {other.noun, other.other} - {NOTHING}
        if nouns and {one.type, other.type} & {"count", "existence"}:
            return False  # what is there once is neither missing nor there twice
        alike = (
            one.noun.shape == other.noun.shape != "" or one.noun.colour == other.noun.colour != ""
        )
        if alike and {one.type, other.type} in ({"existence", "shape"}, {"existence", "colour"}):
            return False  # the red thing is a star in one of six pictures, not in half of them
    return True


def _draw_block(
    questions: Sequence[Question], layouts: Layouts, rng: np.random.Generator
) -> Iterator[tuple[tuple[Thing, ...], tuple[tuple[Question, str], ...]]]:
    """Yield things, questions and answers of each picture; stop where no things are found."""
    first = _draw_answers(questions[0], questions[1], rng)
    second = _draw_answers(questions[2], questions[3], rng)
    for answers in first:
        # Answers of the two types may contradict each other: take the first that do not.
        for number, others in enumerate(second):
            asked = list(zip(questions, answers + others, strict=True))
            if things := compose(asked, layouts, rng):
                del second[number]
                yield tuple(things), tuple(asked[i] for i in rng.permutation(len(asked)))
                break
        else:
            return


def _draw_answers(
    one: Question, other: Question, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Draw two answers for each picture of a block: each equally often, and never the same."""
    pairs = list(zip(_shuffled(one.answers, rng), _shuffled(other.answers, rng), strict=True))
    if one.answers == other.answers:
        # Another answer in place of each, everywhere the same: a derangement
        count = len(one.answers)
        shift = 1 + int(rng.integers(count - 1))
        order = [one.answers[i] for i in rng.permutation(count)]
        following = dict(zip(order, order[shift:] + order[:shift], strict=True))
        pairs = [(answer, following[answer]) for answer, _ in pairs]
    return pairs


def _shuffled(answers: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Repeat answers to one for each picture of a block, in random order."""
    return [answers[i % len(answers)] for i in rng.permutation(BLOCK)]


def _generator(split: str, *stream: int) -> np.random.Generator:
    return np.random.default_rng([SEED, SETS.index(split), *stream])
