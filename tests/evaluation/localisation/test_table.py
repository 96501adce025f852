"""The table of a localisation: what every row is the mean of."""

import numpy as np
import pytest

from fusion.config import ConfigError
from fusion.evaluation.localisation.settings import Settings, WholeFilmSettings
from fusion.evaluation.localisation.table import (
    ScoredFilm,
    equal_parts,
    guesses,
    localisation_table,
    seconds_of_steps,
)
from fusion.evaluation.localisation.whole_table import FilmScores, whole_film_table


def film(name, scores, intervals, task="", steps=("cut", "fry"), **more):
    return ScoredFilm(name, steps, intervals, {"t->v": np.asarray(scores)}, task=task, **more)


@pytest.fixture
def films():
    right = film("a", np.eye(4)[:, :2], [(0, 0, 1), (1, 1, 2)], "x")
    # fry is best at second 0, before cut: argmax finds it, the order does not
    wrong = film("b", [[0, 1.0], [1.0, 0], [0, 0.1], [0, 0.2]], [(0, 1, 2), (1, 0, 1)], "x")
    other = film("c", [[0, 0], [0, 0.5], [1.0, 0]], [(0, 2, 3)], "y")
    return [right, wrong, other]


def test_recall_is_the_mean_over_tasks_of_the_mean_over_films(films):
    table, values = localisation_table(films, Settings(protocol="crosstask"))
    row = table["t->v argmax"]
    assert row["recall"] == row["pooled"] == 100  # in b argmax ignores the order
    # ordered: a 2 of 2; b cut and not fry; c cut must come before fry: not found
    row = table["t->v ordered"]
    assert row["recall"] == pytest.approx(100 * ((1 + 0.5) / 2 + 0) / 2)
    assert row["pooled"] == pytest.approx(100 * (3 / 4 + 0) / 2)
    assert values["t->v ordered"].mean() == pytest.approx(row["recall"] / 100)
    assert values["t->v ordered"].tolist() == pytest.approx([0.75, 0.375, 0])
    low, high = row["recall_interval"]
    assert low <= row["recall"] <= high and low < high
    assert row["films"] == 3 and "MoF" not in row


def test_alignment_columns(films):
    table, _ = localisation_table(films[:1], Settings(protocol="steps"))
    # a: cut, fry, then background of the mean score
    assert table["t->v ordered"]["MoF"] == 100
    assert table["t->v ordered"]["IoU"] == table["t->v ordered"]["IoD"] == 100
    assert "MoF" not in table["t->v argmax"]
    table, values = localisation_table(films[:2], Settings(protocol="mining-youtube"))
    assert [*table] == ["t->v ordered"]
    aligned = [one.aligned("t->v").frames for one in films[:2]]
    assert table["t->v ordered"]["MoF"] == pytest.approx(100 * np.mean(aligned))
    assert values["t->v ordered"].tolist() == pytest.approx(aligned)


def test_the_background_may_have_its_own_score():
    scores = np.zeros((4, 1))
    empty = {"t->v": np.array([1.0, 1.0, -1.0, -1.0])}
    one = film("a", scores, [(0, 2, 4)], steps=("cut",), background=empty)
    assert one.truth.tolist() == [1, 1, 0, 0]
    assert one.aligned("t->v").frames == 1.0


def test_what_guessing_reaches(films):
    found = guesses(films, Settings(protocol="crosstask"))
    assert found["chance"]["recall"] == pytest.approx(100 * ((1 / 4 + 1 / 4) / 2 + 1 / 3) / 2)
    # in order: cut at 0 in 3 of 6 choices of a, fry at 1 in 1; of b cut at 1 in 2, fry never at 0
    # of c cut never at 2
    expected = ((3 / 6 + 1 / 6) / 2 + (2 / 6 + 0) / 2) / 2
    assert found["chance_ordered"]["recall"] == pytest.approx(100 * (expected + 0) / 2)
    equal = film("a", np.zeros((6, 2)), [(0, 0, 2), (1, 2, 4)])
    assert equal_parts(equal).frames == 1.0  # cut, fry, background: two seconds each


def test_times_are_the_middles_of_seconds():
    one = film("a", np.zeros((4, 2)), [], grid=0.5)
    assert seconds_of_steps(one, np.array([3, -1])) == [1.75, None]


def test_a_caption_without_a_known_word_is_a_miss():
    scores = {"t->v": np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])}
    known = np.array([True, True, False])
    scored = FilmScores(
        ["a", "b"], np.array([0, 1, 0]), np.array([0, 1]), known, scores, ["x", "y", "z"], [""] * 3
    )
    table, found = whole_film_table(scored)
    assert table["t->v caption"]["R@1"] == pytest.approx(200 / 3)
    assert table["t->v caption"]["queries"] == 3
    assert table["t->v all captions"]["R@1"] == table["t->v votes"]["R@1"] == 100
    assert found["t->v caption"].hits[0].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Settings(protocol="coin"), "evaluation.protocol: unknown 'coin'; choose from"),
        (lambda: Settings(batch_size=0), "evaluation.batch_size must be at least 1; got 0"),
        (lambda: Settings(scale=0.0), "evaluation.scale must be more than 0"),
        (lambda: WholeFilmSettings(film_letters=0), "evaluation.film_letters must be at least 1"),
        (lambda: WholeFilmSettings(background_seconds=0.0), "background_seconds must be above 0"),
    ],
)
def test_impossible_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
