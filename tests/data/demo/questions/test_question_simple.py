"""The simple pictures on which training may begin."""

import functools
import hashlib
from collections import Counter

from fusion.data.demo.questions.ask import ANSWERS, TYPE_OF
from fusion.data.demo.questions.plan import plan_pictures, plan_simple
from fusion.data.demo.questions.things import MIDDLE
from tests.data.demo.questions.test_question_plan import naive_answer

MANY = 1200


@functools.cache
def pictures():
    return plan_simple(MANY)


def rows():
    return [(picture, *pair) for picture in pictures() for pair in picture.asked]


def test_every_answer_is_right():
    for picture, question, answer in rows():
        assert naive_answer(question.text, picture.things) == answer, question.text


def test_there_are_one_or_two_things_which_nothing_confuses():
    sizes = Counter(len(picture.things) for picture in pictures())
    assert set(sizes) == {1, 2} and abs(sizes[1] - MANY / 2) < 5 * (MANY / 4) ** 0.5
    for picture in pictures():
        for look in ("shape", "colour"):
            assert len({getattr(t, look) for t in picture.things}) == len(picture.things)


def test_each_picture_is_asked_for_shape_colour_place_or_relation_and_presence():
    for picture in pictures():
        types = [question.type for question, _ in picture.asked]
        assert types[:2] == ["shape", "colour"]
        assert types[2] == ("place" if len(picture.things) == 1 else "relation")
        assert types[3] in ("existence", "count")


def test_answers_to_a_kind_of_question_are_about_equally_frequent():
    """Counts differ from those of fair draws by less than six standard deviations."""
    found = Counter((question.kind, answer) for _, question, answer in rows())
    for kind, answers in ANSWERS.items():
        possible = ("0", "1") if kind == "count" else answers
        counts = [found[kind, answer] for answer in possible]
        total, share = sum(counts), 1 / len(possible)
        assert total == sum(n for (k, _), n in found.items() if k == kind)
        assert max(abs(n - total * share) for n in counts) < 6 * (total * share) ** 0.5


def test_places_are_clear_and_they_and_presence_name_a_shape():
    for picture, question, _ in rows():
        if TYPE_OF[question.kind] in ("place", "existence", "count"):
            assert question.noun.shape
        if question.type == "place":
            (thing,) = (t for t in picture.things if question.noun.fits(t.shape, t.colour))
            assert abs((thing.y if question.kind == "half" else thing.x) - MIDDLE) >= 4


def test_the_plan_never_changes():
    assert (
        hashlib.md5(repr(pictures()[:216]).encode()).hexdigest()
        == "fa770763735825ecb4c4934d4ad842c6"
    )


def test_a_small_set_is_the_beginning_of_a_large_one():
    assert [p for p in plan_pictures(24) if p.split == "simple"] == pictures()[:24]
