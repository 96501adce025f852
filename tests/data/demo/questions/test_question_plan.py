"""The plan of the built-in questions: right answers, balance, and no cue beside the picture."""

import functools
import hashlib
import itertools
import re
from collections import Counter, defaultdict

import pytest

from fusion.data.demo.questions.ask import KINDS, TYPES, WORDINGS
from fusion.data.demo.questions.plan import BLOCK, BLOCKS, IMAGES, plan_pictures, plan_split
from fusion.data.demo.questions.things import COLOUR_NAMES, SHAPE_NAMES
from tests.data.demo.test_no_leak import assert_independent

ROUND = BLOCK * len(BLOCKS)  # pictures that are asked for each kind equally often


@functools.cache
def pictures(split):
    """The first pictures of a split."""
    return plan_split(split, 2 * ROUND)


def rows(split):
    return [(picture, *pair) for picture in pictures(split) for pair in picture.asked]


SPLITS = pytest.mark.parametrize("split", IMAGES)


# Answers, from the text and the things alone.


def named(phrase, things):
    """The things that ``red star``, ``crosses`` or ``pink objects`` means."""
    words = [re.sub("(?<=cross)es$|(?<!s)s$", "", word) for word in phrase.split()]
    assert set(words) <= {"object", *SHAPE_NAMES, *COLOUR_NAMES}
    return [t for t in things if set(words) <= {"object", t.shape, t.colour}]


def the(phrase, things):
    (thing,) = named(phrase, things)
    return thing


IS_BESIDE = {
    "left of": lambda a, b: a.x < b.x,
    "right of": lambda a, b: a.x > b.x,
    "above": lambda a, b: a.y < b.y,
    "below": lambda a, b: a.y > b.y,
}
NAME = f"(?:(?:{'|'.join(COLOUR_NAMES)}) )?(?:{'|'.join(SHAPE_NAMES)}|object)(?:e?s)?"


def naive_answer(text, things):
    """Answer a question by its words."""
    names = re.findall(NAME, text)
    relation = next((words for words in IS_BESIDE if words in text), None)
    if "how many" in text or "number" in text:
        return str(len(named(names[0], things)))
    if "upper" in text:
        return "upper" if the(names[0], things).y < 32 else "lower"
    if "left or" in text:
        return "left" if the(names[0], things).x < 32 else "right"
    if relation and not text.startswith("wh"):
        beside = IS_BESIDE[relation](the(names[0], things), the(names[1], things))
        return "yes" if beside else "no"
    if not text.startswith("wh"):
        return "yes" if named(names[0], things) else "no"
    thing = the(names[-1], things)
    if relation:
        (thing,) = [t for t in things if t is not thing and IS_BESIDE[relation](t, thing)]
    return thing.shape if "shape" in text else thing.colour


@SPLITS
def test_every_answer_is_right(split):
    for picture, question, answer in rows(split):
        assert naive_answer(question.text, picture.things) == answer, question.text


@SPLITS
def test_places_that_are_asked_for_differ_clearly(split):
    """A perceiver may be wrong by 3 pixels."""
    for picture, question, _ in rows(split):
        fitting = [t for t in picture.things if question.noun.fits(t.shape, t.colour)]
        if question.type == "place":
            (thing,) = fitting
            assert abs((thing.y if question.kind == "half" else thing.x) - 32) > 3
        elif question.type == "relation":
            (thing,) = fitting
            axis = "x" if question.relation in ("left of", "right of") else "y"
            others = [t for t in picture.things if t is not thing]
            if question.kind == "is":
                others = [t for t in others if question.other.fits(t.shape, t.colour)]
            assert all(abs(getattr(t, axis) - getattr(thing, axis)) > 6 for t in others)


# Balance.


@SPLITS
def test_each_text_has_each_of_its_answers_equally_often(split):
    counts = defaultdict(Counter)
    for _, question, answer in rows(split):
        counts[question.text][answer] += 1
        assert answer in question.answers
    for _, question, _ in rows(split):
        found = counts[question.text]
        assert set(found) == set(question.answers)
        assert len(set(found.values())) == 1


@SPLITS
def test_a_picture_has_two_types_and_two_different_answers_of_each(split):
    for picture in pictures(split):
        by_type = defaultdict(list)
        for question, answer in picture.asked:
            by_type[question.type].append(answer)
        assert [len(set(answers)) for answers in by_type.values()] == [2, 2]


@SPLITS
def test_types_and_their_kinds_are_asked_equally_often(split):
    for number, size in ((36, "type"), (ROUND, "kind")):
        some = [getattr(q, size) for p in pictures(split)[:number] for q, _ in p.asked]
        for name in TYPES:
            counts = Counter(s for s in some if s in (name, *KINDS[name]))
            assert len(set(counts.values())) == 1
            assert counts.total() == len(some) / 6
    assert all(count % ROUND == 0 for count in IMAGES.values())


def test_all_wordings_and_names_are_asked():
    texts = [q.text.replace("crosses", "cross") for s in IMAGES for _, q, _ in rows(s)]
    for name in (*SHAPE_NAMES, *COLOUR_NAMES):
        assert sum(name in text for text in texts) > 150
    for wording in itertools.chain(*WORDINGS.values()):
        pattern = re.sub("{[a-z]+}", "[a-z ]+", wording).replace("?", r"\?")
        assert any(re.fullmatch(pattern, text) for text in texts), wording


# Things.


@SPLITS
def test_things_are_inside_and_do_not_overlap(split):
    for picture in pictures(split):
        assert 1 <= len(picture.things) <= 4
        for thing in picture.things:
            assert 7 <= thing.radius <= 10
            reach = 1.32 * thing.radius
            assert all(reach <= place <= 64 - reach for place in (thing.x, thing.y))
        for one, other in itertools.combinations(picture.things, 2):
            distance = ((one.x - other.x) ** 2 + (one.y - other.y) ** 2) ** 0.5
            assert distance > 1.32 * (one.radius + other.radius)


def test_no_two_pictures_are_the_same():
    some = [picture.things for split in IMAGES for picture in pictures(split)]
    assert len(set(some)) == len(some)


# Cues.


CUES = {
    "the order of the questions": lambda picture, place: place,
    "the place within the block": lambda picture, place: picture.index % BLOCK,
    "an odd number": lambda picture, place: picture.index % 2,
    "an earlier or later file": lambda picture, place: picture.index // ROUND,
}


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("name", TYPES)
def test_a_cue_says_nothing_of_the_answer(name, cue):
    pairs = [
        (answer, CUES[cue](picture, place))
        for split in IMAGES
        for picture in pictures(split)
        for place, (question, answer) in enumerate(picture.asked)
        if question.type == name
    ]
    assert_independent(pairs)


@pytest.mark.parametrize("kind", sorted({k for kinds in BLOCKS for k in kinds} - {"count"}))
def test_the_number_of_things_says_nothing_of_the_answer(kind):
    pairs = [
        (answer, len(picture.things))
        for split in IMAGES
        for picture, question, answer in rows(split)
        if question.kind == kind
    ]
    assert_independent(pairs)


def test_half_of_what_is_missing_is_nearly_there():
    """Where there is no red star, there often are a star and something red."""
    near = [
        any(t.shape == q.noun.shape for t in p.things)
        and any(t.colour == q.noun.colour for t in p.things)
        for split in IMAGES
        for p, q, answer in rows(split)
        if q.kind == "existence" and answer == "no" and q.noun.shape and q.noun.colour
    ]
    assert 0.4 < sum(near) / len(near) < 0.8


# Versions and sizes.


def test_the_plan_never_changes():
    """Caches hold the set under its number: what must change becomes another version."""
    some = [picture for split in IMAGES for picture in pictures(split)]
    assert hashlib.md5(repr(some).encode()).hexdigest() == "8e7ee8b7bf82c95da863a8fa664eba6c"


@SPLITS
def test_216_training_pictures_have_all_answers_of_every_split(split):
    few = {answer for picture in pictures("train")[:ROUND] for _, answer in picture.asked}
    assert {answer for _, _, answer in rows(split)} == few
    assert len(few) == 6 + 6 + 4 + 2 + 2 + 2


def test_a_small_set_is_the_beginning_of_a_large_one():
    small = plan_pictures(24)
    for split in IMAGES:
        assert [p for p in small if p.split == split] == pictures(split)[:24]


@pytest.mark.parametrize("images", [0, 13, -12, 60_012])
def test_an_impossible_size_is_an_error_that_names_the_possible_ones(images):
    with pytest.raises(
        ValueError, match=f"data.images is {images}; choose a multiple of 12 from 12"
    ):
        plan_pictures(images)
