"""Frequent and rare answers."""

from fusion.data.questions.balance import count_answers
from fusion.data.questions.question import Question


def asked(*answers):
    return [Question(str(n), "what?", given, "a.png") for n, given in enumerate(answers)]


def test_a_question_counts_for_its_most_frequent_answer():
    questions = asked(("Yes",), ("yes", "no", "no"), ("red", "red", "yes"), ("six",), (), ("yes",))
    found = count_answers(questions, ["no", "yes", "red", "blue"])
    assert found.counts == {"yes": 2, "no": 1, "red": 1, "blue": 0}
    assert list(found.counts) == ["yes", "no", "red", "blue"]  # equal ones as in the vocabulary
    assert (found.others, found.unanswered, found.questions) == (1, 1, 5)
    assert found.share("yes") == 40
    assert found.describe() == (
        "4 answers to 5 questions; most frequent: yes 2 (40.0 %), no 1 (20.0 %), red 1 (20.0 %);"
        " least: blue 0 (0.0 %); 4 answers with fewer than 10 questions; 1 question (20.0 %) with"
        " none of these answers"
    )


def test_balanced_answers_are_said_without_warnings():
    said = count_answers(asked(*[("yes",), ("no",)] * 600), ["no", "yes"]).describe()
    assert said == ("2 answers to 1200 questions; most frequent: no 600 (50.0 %), yes 600 (50.0 %)")


def test_ten_thousand_answers_are_said_in_one_line():
    answers = [f"answer {n:05d}" for n in range(10_000)]
    found = count_answers(asked(*((a,) for a in answers), *[("yes",)] * 30), ["yes", *answers])
    said = found.describe()
    assert "\n" not in said and len(said) < 300
    assert "10000 answers with fewer than 10 questions" in said and "least: answer 09998 1" in said


def test_without_questions_nothing_is_divided():
    assert count_answers([], ["yes"]).share("yes") == 0
