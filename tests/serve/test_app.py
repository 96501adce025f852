"""The API: questions and answers, errors, security of requests, the manual, the figures."""

import contextlib
import re
import shutil

import pytest

from fusion.search.index import Index
from fusion.search.storage import SearchError, Storage
from fusion.serve.app import Settings
from fusion.serve.files import manual_of
from tests.data.media.films import write_film
from tests.serve.conftest import asking

WORD = "star"


def search(client, q=WORD, status=200, **parameters):
    answer = client.get("/api/search", params={"q": q, **parameters})
    assert answer.status_code == status, answer.text
    return answer.json()


def film_of(index, name):
    return next(film for film in index.films() if film.name == name)


@pytest.fixture
def own(index, tmp_path, model):
    """A copy of the index, to be changed."""
    shutil.copytree(index.folder, tmp_path / "films.index")
    return Index(tmp_path / "films.index", model)


def test_it_says_what_the_index_has(client, index):
    about = client.get("/api/about").json()
    assert (about["films"], about["combinations"]) == (3, index.about()["combinations"])
    assert about["clips"] == sum(film.clips for film in index.films()) > 3
    assert about["words"] == {"text": "said", "video": "seen", "audio": "heard"}
    assert about["limits"] == {"upload_bytes": 200 * 2**20, "upload_seconds": 120}


def test_hits_are_those_of_the_index(client, index):
    hits = search(client, top=4)["hits"]
    expected = index.search(WORD, k=4)
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    for hit, other in zip(hits, expected, strict=True):
        assert hit["score"] == pytest.approx(other.score)
        assert hit["calibrated"] == pytest.approx(other.calibrated)
        assert hit["by"] == pytest.approx(other.by)
        assert (hit["start"], hit["end"], hit["text"]) == (other.start, other.end, other.text)
        assert hit["film"] == {"id": other.film, "name": other.name}
        assert hit["media"] == f"/films/{other.film}"


def test_no_answer_has_a_path_of_this_machine(client, films):
    for path in ("/api/search?q=star", "/api/films", "/api/clips/1", "/api/about"):
        assert str(films) not in client.get(path).text


def test_markup_in_captions_is_json_and_nothing_else(client):
    answer = client.get("/api/search", params={"q": WORD, "film": "c.mp4", "in": "tv"})
    assert answer.headers["content-type"] == "application/json"
    assert "a red <b>star</b>" in [hit["text"] for hit in answer.json()["hits"]]


def test_unknown_words_are_named(client):
    assert search(client, "a star zqwx")["unknown"] == ["zqwx"]
    none = search(client, "zqwx", status=400)
    assert none["unknown"] == ["zqwx"]
    assert "knows no word of 'zqwx'" in none["error"]


def test_a_film_can_be_chosen_by_its_number_or_a_part_of_its_name(client, index):
    for film in (film_of(index, "a.mp4").id, "a.mp"):
        assert {hit["film"]["name"] for hit in search(client, film=film)["hits"]} == {"a.mp4"}
    assert search(client, film="nothing of this name")["hits"] == []
    assert "no film 99" in search(client, film=99, status=404)["error"]
    search(client, film="9" * 40, status=404)


def test_combinations_can_be_chosen(client, index):
    hits = search(client, **{"in": "v"})["hits"]
    assert [hit["id"] for hit in hits] == [h.id for h in index.search(WORD, 20, within=("v",))]
    assert "unknown modality 'q'" in search(client, status=400, **{"in": "q"})["error"]
    assert "no combination 'tva'" in search(client, status=400, **{"in": "tva"})["error"]


def test_the_combinations_of_the_command_count_where_a_question_has_none(index):
    with asking(index, Settings(within=["a"])) as client:
        assert all("audio" in hit["by"] for hit in search(client)["hits"])
        assert any("audio" not in h["by"] for h in search(client, **{"in": "v"})["hits"])


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"q": ""}, "the question is empty"),
        ({"q": "x" * 3000}, "at most 2000"),
        ({"top": 0}, "top: "),
        ({"top": 100_000}, "top: "),
        ({"top": "many"}, "got 'many'"),
    ],
)
def test_a_wrong_question_is_one_line(client, parameters, error):
    answer = client.get("/api/search", params={"q": WORD, **parameters})
    assert answer.status_code in (400, 422)
    assert error in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_near_finds_others_of_the_same_kind(client, index):
    clip = search(client)["hits"][0]["id"]
    near = client.get(f"/api/near/{clip}", params={"top": 3}).json()["hits"]
    assert [hit["id"] for hit in near] == [hit.id for hit in index.near(clip, 3)]
    assert clip not in [hit["id"] for hit in near]


def test_a_clip_is_compared_in_what_it_has(client, index):
    silent = index.search(WORD, 1, film="silent")[0].id
    answer = client.get(f"/api/near/{silent}", params={"in": "a"})
    assert answer.status_code == 400
    assert "has nothing of a; it has v" in answer.json()["error"]


def test_an_engine_that_fails_is_503(client, index, monkeypatch):
    def fail(*_):
        raise SearchError("the server at http://localhost:6333 does not answer; start it")

    monkeypatch.setattr(index, "nearest", fail)
    assert "does not answer" in search(client, status=503)["error"]


def test_clips_have_addresses(client):
    hit = search(client)["hits"][0]
    clip = client.get(f"/api/clips/{hit['id']}").json()
    assert clip == {key: hit[key] for key in clip}
    assert client.get(clip["thumbnail"]).content[:2] == b"\xff\xd8"
    for path in ("/api/clips/999", "/api/near/999", "/thumbnails/999", "/films/999"):
        assert client.get(path).status_code == 404, path
    assert client.get("/api/clips/9223372036854775808").status_code == 422


def test_films_are_found_by_a_part_of_their_name(client):
    names = [film["name"] for film in client.get("/api/films").json()]
    assert names == ["a.mp4", "more/c.mp4", "silent.mp4"]
    found = client.get("/api/films", params={"query": "SIL"}).json()
    assert [(film["name"], film["clips"] > 0) for film in found] == [("silent.mp4", True)]


def test_a_question_is_embedded_once(index, monkeypatch):
    asked = []
    encode = index.model.encode
    monkeypatch.setattr(index.model, "encode", lambda *a, **k: asked.append(a) or encode(*a, **k))
    with asking(index) as client:
        asked.clear()
        first = search(client, "a  red star")["hits"]
        for _ in range(2):
            assert search(client, "a red star ")["hits"] == first
    assert asked == [({"text": "a red star"},)]


def test_the_index_may_grow_while_it_serves(own, tmp_path):
    with asking(own) as client:
        before = client.get("/api/about").json()
        write_film(tmp_path / "new" / "d.mp4", 1)
        Index(own.folder, own.model).add(tmp_path / "new", quiet=True)
        after = client.get("/api/about").json()
        assert after["films"] == before["films"] + 1 and after["version"] != before["version"]
        hits = search(client, film="d.mp4")["hits"]
        assert hits and client.get(hits[0]["media"]).status_code == 200


def test_an_index_that_is_gone_is_503_until_it_is_back(own, films, run):
    with asking(own) as client:
        moved = own.folder.rename(own.folder.with_name("moved"))
        for path in ("/api/search?q=star", "/api/about", "/healthz", "/api/films", "/films/1"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert "the index cannot be used now" in answer.json()["error"]
            assert str(own.folder) not in answer.text
        assert "fusion_index_up 0.0" in client.get("/metrics").text
        moved.rename(own.folder)
        assert search(client)["hits"] and client.get("/healthz").json()["ok"]
        shutil.rmtree(own.folder)
        Index(own.folder, run).add(films / "a.mp4", quiet=True)
        assert client.get("/healthz").json()["films"] == 1
        assert search(client)["hits"][0]["film"]["name"] == "a.mp4"


def test_an_index_of_another_model_is_not_searched(own):
    with asking(own) as client:
        with contextlib.closing(Storage(own.folder, write=True)) as storage:
            storage.set_facts(model="another")
        assert "of another model" in search(client, status=503)["error"]
        assert client.get("/healthz").status_code == 503


def test_a_model_that_fails_is_named_by_healthz_until_it_works(index, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: the device is lost")

    with asking(index) as client, monkeypatch.context() as patch:
        patch.setattr(index.model, "encode", fail)
        assert "the device is lost" in search(client, "a new star", status=503)["error"]
        assert "the device is lost" in client.get("/healthz").json()["error"]
        patch.undo()
        search(client, "a new star")
        assert client.get("/healthz").status_code == 200


def test_a_mistake_of_the_program_is_json_too(index, monkeypatch):
    with asking(index, raise_server_exceptions=False) as client:
        monkeypatch.setattr(index, "films", lambda: 1 / 0)
        answer = client.get("/api/films")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed (ZeroDivisionError); see its log"}


def test_other_addresses_are_404_in_json(client):
    for path in ("/nothing", "/static/nothing.js", "/static/..%2fapp.py", "/static/%2e%2e/app.py"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"], path
    assert client.put("/api/search").status_code == 405


def test_the_manual_is_a_page_without_scripts_and_addresses(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text and "http:" not in page.text and "https:" not in page.text
    assert {"/api/search", "/films/{number}", "/healthz"} <= set(
        re.findall(r" (/[^<]+)<", page.text)
    )
    assert "text/css" in client.get("/docs.css").headers["content-type"]


def test_the_manual_escapes_all_text(client):
    openapi = client.get("/openapi.json").json()
    openapi["paths"]["/healthz"]["get"]["description"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in manual_of(openapi)


def test_openapi_describes_answers_and_forms(client):
    openapi = client.get("/openapi.json").json()
    assert {"Answer", "Hit", "About", "Problem"} <= openapi["components"]["schemas"].keys()
    post = openapi["paths"]["/api/search"]["post"]
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert form.keys() == {
        *("words", "audio", "picture", "video", "start", "end", "in", "film", "top")
    }
    assert {"400", "413", "415", "503"} <= post["responses"].keys()


def test_figures_count_requests_by_route_and_status(index):
    with asking(index) as client:
        search(client)
        search(client, "zqwx", status=400)
        client.get("/nothing-1")
        client.get("/nothing-2")
        text = client.get("/metrics").text
    counted = 'fusion_requests_total{method="GET",route="%s",status="%s"} %s'
    assert counted % ("/api/search", 200, 1.0) in text
    assert counted % ("/api/search", 400, 1.0) in text
    assert counted % ("other", 404, 2.0) in text  # not one line for each address
    assert 'fusion_request_seconds_count{route="/api/search"} 2.0' in text
    assert "fusion_films 3.0" in text and "fusion_index_up 1.0" in text
    assert 'fusion_waiting{what="questions"} 0.0' in text
    assert "process_resident_memory_bytes" in text
