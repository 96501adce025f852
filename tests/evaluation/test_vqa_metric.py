"""The metric of the VQA challenge: published cases, and every rule of its normalisation.

All expected values but those of a single answer were compared with the official code.
"""

import json

import pytest

from fusion.evaluation.vqa_metric import (
    accuracy,
    exact_match,
    normalise,
    percent,
    percent_by,
    soft_scores,
)
from tests.golden_cases import GOLDEN

FILE = GOLDEN / "vqa_metric.json"
PUBLISHED = json.loads(FILE.read_text())
CASES = PUBLISHED["cases"]


def test_there_are_25_published_cases():
    assert len(CASES) == 25


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_published_cases(case):
    assert round(100 * accuracy(case["prediction"], case["answers"]), 2) == case["percent"]
    if case["normalised"]:
        assert normalise(case["prediction"]) == case["prediction_compared"]
        assert list(map(normalise, case["answers"])) == case["answers_compared"]


def test_published_means():
    scores = [accuracy(case["prediction"], case["answers"]) for case in CASES]
    assert percent(scores) == PUBLISHED["overall"]
    for kind in ("answer_type", "question_type"):
        assert percent_by(scores, [case[kind] for case in CASES]) == PUBLISHED[f"by_{kind}"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", ""),
        (" \n\t ", ""),
        ("red\nwhite\tblue", "red white blue"),
        ("Red   WHITE", "red white"),
        ("\rred\r", "red"),
        # full stops
        ("u.s.a.", "usa"),
        ("5.", "5"),
        ("5.5", "5.5"),
        (".5", ".5"),
        ("a.5", "a.5"),
        ("no. 5", "no 5"),
        ("..5", ".5"),
        ("." * 40, "." * 8),  # the official code removes 32
        # commas
        ("1,000", "1000"),
        ("1,000,000", "1000000"),
        ("1, 000", "1 000"),
        ("red,white", "red white"),
        ("red ,white", "red white"),
        ("red,white, blue", "redwhite blue"),  # one space beside any comma: all fall away
        ("1,000 red/white", "1000 redwhite"),  # a comma between digits: all signs fall away
        ("1,a", "1"),
        # other signs
        ("red/white", "red white"),
        ("red/ white", "red white"),
        ("red /white", "red white"),
        ("x-y/-z", "x y z"),  # the space that the slash becomes does not count for the hyphens
        ("(red)", "red"),
        ("[1]{2}", "1 2"),
        ("a-b_c+d=e", "b c d e"),
        ("x<y>z@w`v", "x y z w v"),
        ('"red"!', "red"),
        ("red?", "red"),
        ("back\\slash;semi", "back slash semi"),
        ("$5", "$5"),
        ("50%", "50%"),
        ("10:30", "10:30"),
        ("r&b #1 *", "r&b #1 *"),
        ("-", ""),
        # number words, after the signs
        ("none", "0"),
        ("Zero", "0"),
        ("one two three four five", "1 2 3 4 5"),
        ("six seven eight nine ten", "6 7 8 9 10"),
        ("eleven", "eleven"),
        ("twenty-one", "twenty 1"),
        ("someone", "someone"),
        # articles
        ("the", ""),
        ("A cat and an owl", "cat and owl"),
        ("the-end", "end"),
        ("t-h-e", "t h e"),
        ("thea", "thea"),
        # contractions
        ("dont", "don't"),
        ("DONT", "don't"),
        ("don't", "don't"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("ow's'at", "'ow's'at"),
        ("yalld've", "yalld've"),
        ("y'alld've", "y'all'd've"),
        ("lets", "lets"),
        ("shes", "shes"),
        ("somebody'd", "somebodyd"),
        ("somebodys", "somebody's"),
        ("im", "im"),
        ("ive", "ive"),
        ("twas", "'twas"),
        ("dont.", "don't"),
        ("don.t", "don't"),  # the full stop falls away first
        ("cant-stop", "can't stop"),
        ("it's 5 oclock", "it's 5 o'clock"),
    ],
)
def test_an_answer_is_normalised(answer, expected):
    assert normalise(answer) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("yes", ["yes"] * 10, 1.0),
        ("yes.", ["yes"] * 10, 0.0),  # all agree: nothing is normalised
        (" yes\n", ["yes"] * 9 + ["yes "], 1.0),  # but the space around falls away before
        ("yes", ["yes"] * 9 + ["Yes"], 1.0),
        ("", ["red"] * 10, 0.0),
        ("", ["red"] * 9 + ["blue"], 0.0),
        ("", ["the"] * 2 + ["red"] * 8, 0.6),
        ("yes", ["yes", "yes"], 1 / 3),  # of two answers only one is left to match
        ("yes", ["yes", "no"], 1 / 6),
        ("red", ["red"] * 3 + ["blue"] * 8, (8 * 1 + 3 * 2 / 3) / 11),
        # a single answer
        ("Yes.", ["yes"], 1.0),
        ("no", ["yes"], 0.0),
        ("", [""], 1.0),
    ],
)
def test_accuracy_by_hand(prediction, answers, expected):
    assert accuracy(prediction, answers) == pytest.approx(expected, abs=1e-15)


def test_no_answers_are_an_error():
    with pytest.raises(ValueError, match="at least one answer"):
        accuracy("yes", [])
    with pytest.raises(ValueError, match="at least one question"):
        percent([])


def test_exact_match_asks_for_the_most_frequent_answer():
    answers = ["red"] * 4 + ["The blue"] * 4 + ["green"] * 2
    assert [exact_match(p, answers) for p in ("Red", "blue", "green", "", "x")] == [1, 1, 0, 0, 0]
    assert exact_match("Red", ["red"] * 10) == 0  # all agree, as for the accuracy
    assert exact_match("Red", ["red"]) == 1
    assert exact_match("x", ["red"]) == 0


def test_soft_scores_are_thirds_up_to_one():
    answers = ["Red"] * 5 + ["the red", "blue", "blue", "two", "2."]
    assert soft_scores(answers) == {"red": 1.0, "blue": 2 / 3, "2": 2 / 3}
    assert list(soft_scores(["b", "c", "c"])) == ["c", "b"]


def test_soft_scores_of_few_answers_are_their_shares():
    assert soft_scores(["Red"]) == {"red": 1.0}
    assert soft_scores(["red", "blue"]) == {"red": 0.5, "blue": 0.5}
    assert soft_scores(["red", "red"]) == {"red": 1.0}
    assert soft_scores(["red", "red", "blue"]) == {"red": 2 / 3, "blue": 1 / 3}
    assert soft_scores([]) == {}


def test_an_answer_of_articles_alone_can_be_learnt():
    assert soft_scores(["A"]) == {"a": 1.0}
    assert accuracy("a", ["A"]) == 1.0
    assert soft_scores([" ", "red"]) == {"red": 1.0}  # an empty answer is none
