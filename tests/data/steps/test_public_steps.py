"""CrossTask's steps as VT-TWINS publishes them; they are no part of the repository."""

from pathlib import Path

import numpy as np
import pytest

from fusion.data.steps.annotation import Notes, group_films
from fusion.data.steps.table import read_steps
from fusion.evaluation.localisation import (
    assign_best,
    chance_best,
    chance_in_order,
    steps_found,
)
from fusion.evaluation.localisation.recall import mean_over_tasks
from fusion.evaluation.localisation.settings import Settings
from fusion.evaluation.localisation.table import ScoredFilm, guesses, localisation_table

FILE = Path(__file__).parents[4] / "shared/data/annotations/crosstask_vttwins/crosstask.csv"
pytestmark = pytest.mark.skipif(
    not FILE.is_file(), reason="needs ../shared/data/annotations, beside the checkout"
)
ROUNDS = 31  # of random scores: with 331 films, 10,261 draws


@pytest.fixture(scope="module")
def films():
    captions = read_steps(FILE, 0.0, Notes())
    assert len(captions) == 2640
    return group_films(captions)


def scored(films, rng):
    """Give films random scores; a film ends 5 seconds after its last step."""
    made = []
    for film in films:
        seconds = int(max(i.end for i in film.intervals)) + 5
        scores = {"t->v": rng.random((seconds, len(film.steps)), np.float32)}
        made.append(ScoredFilm(film.video, film.steps, film.intervals, scores, task=film.task))
    return made


def test_the_file_is_read_whole(films):
    assert len(films) == 331
    assert len({film.task for film in films}) == 18
    assert sum(len(film.intervals) for film in films) == 2640
    assert sum(len({i.step for i in film.intervals}) for film in films) > 1500


def test_random_scores_reach_the_exact_recall_per_task_and_in_the_mean(films):
    rng, settings = np.random.default_rng(0), Settings(protocol="crosstask")
    made = scored(films, rng)
    table, values = localisation_table(made, settings)
    assert table["t->v argmax"]["recall"] == pytest.approx(100 * values["t->v argmax"].mean())
    tasks = np.array([film.task for film in films])
    draws = np.array(
        [
            [steps_found(f.mask, assign_best(rng.random(f.mask.shape))).mean() for f in made]
            for _ in range(ROUNDS)
        ]
    )  # (rounds, films)
    exact = np.array([chance_best(film.mask).mean() for film in made])
    by_task = []
    for task in np.unique(tasks):
        drawn = draws[:, tasks == task].mean(axis=1)
        by_task.append(exact[tasks == task].mean())
        assert abs(drawn.mean() - by_task[-1]) < 5 * drawn.std() / ROUNDS**0.5, task
    guess = guesses(made, settings)["chance"]["recall"]
    assert guess == pytest.approx(100 * np.mean(by_task), rel=1e-12)
    means = np.array([mean_over_tasks(row, tasks) for row in draws])
    assert abs(100 * means.mean() - guess) < 4 * 100 * means.std() / ROUNDS**0.5
    assert abs(table["t->v argmax"]["recall"] - guess) < 4 * 100 * means.std()


def test_ordered_draws_reach_the_exact_recall(films):
    """Orders drawn evenly, which random scores are not: 200 for each of some films."""
    rng = np.random.default_rng(1)
    for film in scored(films, rng)[::20]:
        seconds, steps = film.mask.shape
        occurs = np.flatnonzero(film.mask.any(axis=0))
        draws = np.sort(np.argsort(rng.random((200, seconds)), axis=1)[:, :steps], axis=1)
        hits = film.mask[draws[:, occurs], occurs]
        exact = chance_in_order(film.mask)
        error = np.sqrt(exact * (1 - exact) / 200)
        assert np.all(abs(hits.mean(axis=0) - exact) < 5 * error + 0.02), film.name
