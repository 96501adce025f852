"""The vocabulary of answers, and the targets that it gives."""

import pytest
import torch

from fusion.data.questions.answers import common_answers, score_row
from fusion.data.questions.question import Question, guess_answer_type, guess_question_type


def asked(*answers):
    return Question("1", "what?", answers)


def test_answers_are_ranked_by_their_scores():
    questions = [asked("red"), asked("Red."), asked("blue"), asked("blue", "blue", "blue", "green")]
    assert common_answers(questions) == ["blue", "red", "green"]
    # red 2; blue 1 + 1; green 1/3: of red and blue the first in the alphabet is first
    assert common_answers(questions, 1) == ["blue"]
    assert common_answers(questions[::-1]) == common_answers(questions)


def test_three_thirds_are_exactly_one():
    thirds = [asked("b", "x", "y", "z")] * 3
    assert common_answers([*thirds, asked("c")])[:4] == ["b", "c", "x", "y"]


def test_no_answers_make_no_vocabulary():
    assert common_answers([asked(), Question("2", "x?")]) == []


def test_ten_thousand_answers_of_many_questions():
    tens = ([f"answer {2 * n + k // 5}" for k in range(10)] for n in range(5000))
    questions = [asked(*ten) for ten in tens]
    answers = common_answers(questions)
    assert len(answers) == len(set(answers)) == 10_000
    index = {answer: place for place, answer in enumerate(answers)}
    row = score_row(questions[5].answers, index)
    assert row.shape == (10_000,) and row.sum() == row.count_nonzero() == 2
    assert common_answers(questions, 3000) == answers[:3000]


def test_scores_stand_at_the_places_of_the_answers():
    index = {"blue": 0, "red": 1, "2": 2}
    row = score_row(["Two", "red", "red", "a red", "green"], index)
    assert row.tolist() == pytest.approx([0, 1, 1 / 3])
    assert row.dtype == torch.float32
    assert score_row(["green"], index).tolist() == [0, 0, 0]
    assert score_row([], index).tolist() == [0, 0, 0]


def test_types_are_guessed():
    texts = ["What color is it?", "Why?", " how  many dogs?", ""]
    assert list(map(guess_question_type, texts)) == ["what color", "why", "how many", ""]
    cases = [["Yes"], ["no", "no", "3"], ["two"], ["1,000"], ["5.5"], ["red"], ["5 pm"], []]
    expected = ["yes/no", "yes/no", "number", "number", "number", "other", "other", ""]
    assert list(map(guess_answer_type, cases)) == expected
