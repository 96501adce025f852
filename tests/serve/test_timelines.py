"""When steps happen in a film of the index, over HTTP."""

import threading

import numpy as np
import pytest

from fusion.inference.localising import Localiser, Located
from fusion.serve.schemas import Refused
from fusion.serve.timelines import MOST_STEPS, Timelines, as_answer
from tests.serve.conftest import asking

STEPS = ["a red star", "a star"]


@pytest.fixture
def film(index):
    return next(film for film in index.films() if film.name == "a.mp4")


def look_for(client, film, steps, status=200, **more):
    answer = client.get(f"/api/steps/{film}", params={"step": steps, **more})
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize("ordered", [True, False])
def test_the_seconds_are_those_of_localise(client, index, model, film, ordered):
    found = look_for(client, film.id, STEPS, ordered=ordered)
    located = Localiser(model, STEPS).locate(index.film_path(film.id), ordered)
    assert found["film"] == {"id": film.id, "name": "a.mp4"}
    assert [step["step"] for step in found["steps"]] == STEPS
    times = [None if s["start"] is None else (s["start"], s["end"]) for s in found["steps"]]
    assert times == located.times()
    for number, step in enumerate(found["steps"]):
        values = [value for _, value in step["curve"]]
        np.testing.assert_allclose(values, located.scores[:, number], atol=1e-4)
        second = located.seconds[number]
        assert step["score"] == pytest.approx(located.scores[second, number], abs=1e-4)
    assert found["duration"] == len(located.scores)


def test_other_steps_do_not_read_the_film_again(index, model, film, monkeypatch):
    timelines, path = Timelines(model, threading.Lock()), index.film_path(film.id)
    first = timelines.find(path, STEPS, True)
    monkeypatch.setattr(Localiser, "embed", lambda *_: pytest.fail("it was read again"))
    again = timelines.find(path, [STEPS[1], "", STEPS[0]], False)
    assert [s["step"] for s in again["steps"]] == [STEPS[1], STEPS[0]]
    assert again["steps"][1]["curve"] == first["steps"][0]["curve"]


def test_a_film_that_was_changed_is_read_again(model, films, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes((films / "a.mp4").read_bytes())
    timelines = Timelines(model, threading.Lock())
    before = timelines.find(path, STEPS, True)["duration"]
    path.write_bytes((films / "silent.mp4").read_bytes())
    assert timelines.find(path, STEPS, True)["duration"] != before or len(timelines._kept) == 2
    assert len(timelines._kept) == 2


def test_only_a_few_films_stay_in_memory(model, films, monkeypatch):
    monkeypatch.setattr("fusion.serve.timelines.KEPT", 1)
    timelines = Timelines(model, threading.Lock())
    for name in ("a.mp4", "silent.mp4"):
        timelines.find(films / name, STEPS, True)
    assert [key[0].name for key in timelines._kept] == ["silent.mp4"]


@pytest.mark.parametrize(
    ("steps", "status", "message"),
    [
        ([" "], 400, "there is no step"),
        (["xyzzy"], 400, "knows no word of 'xyzzy'"),
        (["a star"] * (MOST_STEPS + 1), 400, "write at most 20"),
        (["a star" * 1000], 422, "step"),
        ([], 422, "step"),
    ],
)
def test_a_mistake_is_one_line(client, film, steps, status, message):
    error = look_for(client, film.id, steps, status)["error"]
    assert message in error and "\n" not in error


def test_words_that_are_left_out_are_named(client, film):
    assert "xyzzy" in look_for(client, film.id, ["a xyzzy star", "a star"])["unknown"]


def test_a_film_that_is_not_there_is_404(client):
    assert "no film 999" in look_for(client, 999, STEPS, 404)["error"]


def test_a_film_that_has_gone_is_told_without_its_path(model, tmp_path):
    timelines = Timelines(model, threading.Lock())
    with pytest.raises(Refused, match="gone.mp4 cannot be read now") as caught:
        timelines.find(tmp_path / "gone.mp4", STEPS, True)
    assert (caught.value.status, str(tmp_path) in caught.value.error) == (404, False)


def test_a_film_that_is_too_long_is_refused(model, films, monkeypatch):
    monkeypatch.setattr("fusion.serve.timelines.LONGEST", 1.0)
    timelines = Timelines(model, threading.Lock())
    with pytest.raises(Refused, match="a.mp4 is longer than"):
        timelines.find(films / "a.mp4", STEPS, True)
    assert not timelines._kept


def test_work_ends_when_the_server_stops(model, films):
    timelines = Timelines(model, threading.Lock())
    timelines.close()
    with pytest.raises(Refused, match="the server stops"):
        timelines.find(films / "a.mp4", STEPS, True)


def test_the_model_is_free_between_windows(model, films, monkeypatch):
    lock = threading.Lock()
    plain, free = Localiser.embed, []

    def watched(self, film):
        for window in plain(self, film):
            free.append(lock.locked())
            yield window

    monkeypatch.setattr(Localiser, "embed", watched)
    Timelines(model, lock).find(films / "a.mp4", STEPS, True)
    assert free and all(free) and not lock.locked()


def test_what_is_not_known_is_null():
    scores = np.array([[0.1, 0.3], [-np.inf, -np.inf], [0.2, 0.4]], np.float32)
    found = as_answer(Located(("a", "b"), scores, np.array([-1, 2]), 1.0))
    first, second = found["steps"]
    assert (first["start"], first["end"], first["score"]) == (None, None, None)
    assert first["curve"] == [[0.5, 0.1], [1.5, None], [2.5, 0.2]]
    assert (second["start"], second["end"], second["score"]) == (2.0, 3.0, 0.4)


def test_the_page_knows_whether_steps_can_be_found(client, index):
    assert client.get("/api/about").json()["steps"] is True
    with asking(index) as other:
        assert "/api/steps/{number}" in other.get("/docs").text
