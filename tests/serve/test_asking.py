"""Questions about pictures over HTTP: about an upload, about a moment of a film."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.media.encode import encode_jpeg, encode_png
from fusion.serve.asking import LARGEST, Asking
from fusion.serve.schemas import Refused
from fusion.tasks.question_answering.ask import Asker
from tests.data.media.films import pictures
from tests.serve.conftest import FixedAsker, asking
from tests.tasks.pictures import config_of, write_questions


@pytest.fixture(scope="module")
def asker():
    return FixedAsker()


@pytest.fixture(scope="module")
def client(index, asker):
    with asking(index, asker=asker) as made:
        yield made


@pytest.fixture(scope="module")
def picture():
    return encode_jpeg(next(pictures(1)))


def ask(client, status=200, picture=None, **fields):
    files = {name: (None, str(value)) for name, value in fields.items()}
    if picture is not None:
        files["picture"] = ("a.jpg", picture)
    answer = client.post("/api/ask", files=files)
    assert answer.status_code == status, answer.text
    return answer.json()


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def number_of(index, name):
    return next(film.id for film in index.films() if film.name == name)


def test_an_upload_gets_five_answers_and_the_picture_with_attention(client, asker, picture):
    found = ask(client, words="what colour is it?", picture=picture)
    assert found["answers"][0]["answer"] == "red"
    assert [one["probability"] for one in found["answers"]] == [0.7, 0.2, 0.06, 0.03, 0.01]
    shape, question, number = asker.asked[-1]
    assert (question, number) == ("what colour is it?", 5) and shape[2] == 3
    seen, looked = (np.asarray(opened(found[key])).astype(int) for key in ("picture", "attention"))
    assert seen.shape == looked.shape and min(seen.shape[:2]) >= 240
    high, wide = (side // 2 for side in seen.shape[:2])
    parts = [looked[:high, :wide].sum(), looked[high:, :wide].sum()]
    whole = [seen[:high, :wide].sum(), seen[high:, :wide].sum()]
    assert abs(parts[0] - whole[0]) < 0.02 * whole[0]  # where it looked
    assert parts[1] < 0.5 * whole[1]  # where it did not


def test_a_moment_of_a_film_is_asked_about(client, asker, index):
    film = number_of(index, "a.mp4")
    early, late = (ask(client, words="what?", film=film, start=second) for second in (0.1, 1.5))
    assert asker.asked[-1][0][2] == 3
    assert early["picture"] != late["picture"]
    assert early["answers"][0] == {"answer": "red", "probability": 0.7}


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"words": " ", "film": 1}, 400, "the question is empty"),
        ({"words": "xyzzy", "film": 1}, 400, "knows no word of 'xyzzy'"),
        ({"words": "what?"}, 422, "give a picture, or the number of a film"),
        ({"words": "what?", "film": "a.mp4"}, 422, "give a picture, or the number of a film"),
        ({"words": "what?", "film": 999}, 404, "no film 999"),
        ({"words": "what?", "film": 1, "start": -1}, 422, "start"),
        ({"words": "what?", "picture": b"no picture"}, 415, "picture: it is no picture"),
        ({"words": "what?", "picture": b""}, 422, "picture: the file is empty"),
    ],
)
def test_a_mistake_is_one_line(client, index, fields, status, message):
    if fields.get("film") == 1:
        fields = fields | {"film": number_of(index, "a.mp4")}
    error = ask(client, status, **fields)["error"]
    assert message in error and "\n" not in error


def test_a_picture_and_a_film_are_too_much(client, picture):
    assert "one picture" in ask(client, 422, words="what?", film=1, picture=picture)["error"]


def test_a_film_that_has_gone_is_told_without_its_path(tmp_path):
    with pytest.raises(Refused, match="gone.mp4 cannot be read now") as caught:
        Asking(FixedAsker(), None).about_moment("what?", tmp_path / "gone.mp4", 0.0)
    assert str(tmp_path) not in caught.value.error


def test_a_moment_beyond_the_end_says_so(client, index):
    film = number_of(index, "a.mp4")
    assert "has no picture at 99 s" in ask(client, 422, words="what?", film=film, start=99)["error"]


def test_without_a_model_of_answers_it_says_how_to_get_one(index, picture):
    with asking(index) as client:
        assert client.get("/api/about").json()["answers"] is False
        error = ask(client, 501, words="what?", picture=picture)["error"]
    assert "fusion serve --questions RUN" in error


def test_it_is_said_that_questions_are_answered(client):
    assert client.get("/api/about").json()["answers"] is True
    assert "/api/ask" in client.get("/docs").text


def test_an_odd_picture_stays_small(client):
    thin = encode_png(np.zeros((1, 999, 3), np.uint8))
    found = ask(client, words="what?", picture=thin)
    assert max(opened(found["picture"]).size) <= LARGEST


def test_a_run_answers_what_it_answers_of_a_file(index, tmp_path):
    folder = write_questions(tmp_path / "questions")
    train(load_config("vqa", config_of(folder, tmp_path / "run")))
    made, file = Asker(tmp_path / "run"), folder / "images" / "test1.png"
    expected = made(file, "what colour is it")
    with Image.open(file) as picture:
        reply = made.answer(np.asarray(picture.convert("RGB")), "what colour is it")
    assert reply.best == expected.best and (reply.look == expected.look).all()
    with asking(index, asker=made) as client:
        found = ask(client, words="what colour is it", picture=file.read_bytes())
    assert [one["answer"] for one in found["answers"]] == [answer for answer, _ in expected.best]
    torch.testing.assert_close(
        torch.tensor([one["probability"] for one in found["answers"]]),
        torch.tensor([p for _, p in expected.best]),
    )
    assert found["attention"]
