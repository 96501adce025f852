"""MiningYouTube's labels, as lists of classes and as matrices."""

import json

import numpy as np
import pytest

from fusion.data.steps.annotation import Notes, StepError, group_films
from fusion.data.steps.mining_youtube import read_classes, read_mining_youtube


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mapping.txt").write_text("0 background\n1 crack_egg\n2 stir_dough\n")
    (tmp_path / "ground_truth").mkdir()
    labels = ["background", "stir_dough", "stir_dough", "2", "1", "background", "crack_egg"]
    (tmp_path / "ground_truth" / "film.txt").write_text("\n".join(labels) + "\n")
    (tmp_path / "ground_truth" / "idle.txt").write_text("background\nbackground\n")
    return tmp_path


def test_labels_become_intervals(folder):
    notes = Notes()
    (film,) = group_films(read_mining_youtube(folder, 0.05, notes, rate=2.0))
    assert film.steps == ("stir dough", "crack egg")
    assert [tuple(i) for i in film.intervals] == [(0, 0.5, 2.0), (1, 2.0, 2.5), (1, 3.0, 3.5)]
    assert notes.lines() == ["1 films without annotation, left out (idle)"]


def test_an_unknown_label_is_a_bad_line_and_background(folder):
    file = folder / "ground_truth" / "film.txt"
    file.write_text("1\nfly\n1\n")
    with pytest.raises(ValueError, match=r"film.txt, line 2: 'fly' is not in mapping.txt"):
        read_mining_youtube(folder, 0.01, Notes())
    (film,) = group_films(read_mining_youtube(folder, 0.5, Notes()))
    assert [tuple(i) for i in film.intervals] == [(0, 0, 1), (0, 2, 3)]


def test_matrices_with_the_steps_of_each_film(tmp_path):
    steps = {"film": ["stir", "crack"], "gone": ["stir"]}
    (tmp_path / "step.json").write_text(json.dumps(steps))
    (tmp_path / "anno").mkdir()
    np.save(tmp_path / "anno" / "film.npy", np.array([[0, 0], [0, 1], [1, 1], [1, 0]]))
    notes = Notes()
    (film,) = group_films(read_mining_youtube(tmp_path, 0.05, notes))
    assert film.steps == ("crack", "stir")
    assert [tuple(i) for i in film.intervals] == [(0, 1, 3), (1, 2, 4)]
    assert notes.counts == {"films without annotation, left out": 1}
    np.save(tmp_path / "anno" / "film.npy", np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"\[4, 3\] is not seconds x 2 steps"):
        read_mining_youtube(tmp_path, 0.05, notes)


@pytest.mark.parametrize("steps", ['{"film": 3}', '{"film": "stir"}', "[]", "5"])
def test_a_list_of_steps_that_is_none(tmp_path, steps):
    (tmp_path / "steps.json").write_text(steps)
    np.save(tmp_path / "film.npy", np.ones((2, 1)))
    with pytest.raises(StepError, match=r"steps.json must name the steps of each film"):
        read_mining_youtube(tmp_path, 0.05, Notes())


@pytest.mark.parametrize("cut", [None, 30])
def test_a_matrix_that_is_an_archive_is_a_bad_file(tmp_path, cut):
    (tmp_path / "steps.json").write_text('{"film": ["stir"]}')
    np.savez(tmp_path / "film.npz", np.ones((2, 1)))
    (tmp_path / "film.npy").write_bytes((tmp_path / "film.npz").read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"film.npy cannot be read"):
        read_mining_youtube(tmp_path, 0.01, Notes())


def test_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("crack_egg\nstir\n")
    names = read_classes(tmp_path / "classes.txt")
    assert (names["0"], names["crack_egg"], names["1"]) == ("crack egg", "crack egg", "stir")


def test_what_is_not_there(tmp_path):
    with pytest.raises(StepError, match=r"has neither mapping.txt .* nor steps.json"):
        read_mining_youtube(tmp_path, 0.05, Notes())
    (tmp_path / "mapping.txt").write_text("0 background\n")
    with pytest.raises(StepError, match=r"no labels of films; name their files VIDEO.txt"):
        read_mining_youtube(tmp_path, 0.05, Notes())
    with pytest.raises(StepError, match="data.rate is 0"):
        read_mining_youtube(tmp_path, 0.05, Notes(), rate=0)
