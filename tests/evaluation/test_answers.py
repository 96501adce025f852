import numpy as np
import pytest
import torch

from fusion.config import ConfigError
from fusion.data.questions.question import Question
from fusion.evaluation.answers import Answered, Settings, answer_table, most_frequent, rows_of

ANSWERS = ["yes", "no", "red", "two", "blue", "six"]
TEN = ("red",) * 3 + ("blue",) * 7  # red: seven subsets give 1, three give 2/3


def question(number, image, answers, kind, text="what is it"):
    answer_type = "yes/no" if answers[0] in ("yes", "no") else "other"
    return Question(str(number), text, answers, image, answer_type, kind)


QUESTIONS = [
    question(0, "a.png", ("yes",), "is it"),
    question(1, "a.png", ("no",), "is it"),
    question(2, "b.png", TEN, "what colour"),
    question(3, "b.png", ("six",), "how many"),
]
SCORES = torch.tensor(
    [
        [9.0, 1.0, 0.0, 0.0, 0.0, 0.0],  # yes: right
        [9.0, 8.0, 7.0, 0.0, 0.0, 0.0],  # yes: wrong, no is second
        [0.0, 0.0, 9.0, 0.0, 8.0, 0.0],  # red: 0.9
        [9.0, 8.0, 7.0, 6.0, 5.0, 0.0],  # yes: wrong, six is the last of six
    ]
)


def test_a_table_has_a_row_for_each_type():
    table = answer_table(Answered(QUESTIONS, ANSWERS, SCORES))
    assert list(table) == [
        "all",
        *("answer: other", "answer: yes/no"),
        *("question: is it", "question: how many", "question: what colour"),
    ]
    assert table["all"]["accuracy"] == pytest.approx(100 * (1 + 0 + 0.9 + 0) / 4)
    assert table["all"]["exact"] == pytest.approx(25)  # blue is what most people said
    assert table["all"]["top5"] == pytest.approx(75)
    assert table["answer: yes/no"]["accuracy"] == pytest.approx(50)
    assert [row["questions"] for row in table.values()] == [4, 2, 2, 2, 1, 1]


def test_intervals_draw_images_with_all_their_questions():
    """Two images with a mean of 50 and 45: only these and their mean can be drawn."""
    low, high = answer_table(Answered(QUESTIONS, ANSWERS, SCORES))["all"]["accuracy_interval"]
    assert (low, high) == (pytest.approx(45), pytest.approx(50))


def test_rows_list_frequent_types_first():
    assert rows_of(QUESTIONS)["question: is it"].tolist() == [0, 1]
    assert np.array_equal(rows_of(QUESTIONS)["all"], np.arange(4))


def test_the_most_frequent_answer_is_that_of_training():
    train = [question(i, "c.png", ("no",), "is it") for i in range(3)]
    train += [question(3, "c.png", ("six",), "how many")]
    assert most_frequent(train, QUESTIONS, by_type=False)["accuracy"] == 25  # no, to all
    by_type = most_frequent(train, QUESTIONS, by_type=True)
    assert by_type["accuracy"] == 50  # no, no, no (an unknown type), six


def test_without_answers_in_training_nothing_is_most_frequent():
    assert most_frequent([Question("1", "what?")], QUESTIONS, by_type=True) is None


@pytest.mark.parametrize("name", ["batch_size", "questions_in_report"])
def test_settings_out_of_range_are_explained(name):
    with pytest.raises(ConfigError, match=f"evaluation.{name} must be at least"):
        Settings(**{name: -1})
