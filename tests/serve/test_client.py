"""The Python client, with a server behind a socket."""

import http.server
import logging
import subprocess
import sys
import threading

import pytest

from fusion.search.records import Hit
from fusion.serve import Client
from fusion.serve.client import ServeError
from tests.serve.test_uploads import picture


@pytest.fixture(scope="module")
def client(address):
    return Client(address)


def test_words(client, address, index):
    hits = client.search("star", k=3, within=("v", "a"), film="a.mp4")
    expected = index.search("star", k=3, within=("v", "a"), film="a.mp4")
    assert all(isinstance(hit, Hit) for hit in hits)
    for hit, other in zip(hits, expected, strict=True):
        assert hit.video == f"{address}/films/{other.film}"
        assert hit._replace(video="", by={}, score=0, calibrated=0) == other._replace(
            video="", by={}, score=0, calibrated=0
        )
        assert hit.score == pytest.approx(other.score)
        assert dict(hit.by) == pytest.approx(dict(other.by))


def test_files(client, films, index, tmp_path):
    hit = index.search("star", 1, film="a.mp4")[0]
    times = {"start": hit.start, "end": hit.end}
    assert client.search(video=films / "a.mp4", **times)[0].score == pytest.approx(1, abs=1e-5)
    sound = client.search(audio=str(films / "a.mp4"), within=("a",), **times)
    assert sound[0].by["audio"] == pytest.approx(1, abs=1e-5)
    (tmp_path / "a.png").write_bytes(picture())
    assert client.search("a star", picture=tmp_path / "a.png", k=2, film=hit.film)


def test_near_films_about_and_thumbnails(client, address, index):
    assert [hit.id for hit in client.near(1, k=2)] == [hit.id for hit in index.near(1, k=2)]
    names = [(film.id, film.name, film.seconds, film.clips) for film in index.films()]
    found = client.films()
    assert [(film.id, film.name, film.seconds, film.clips) for film in found] == names
    assert found[0].path == f"{address}/films/{found[0].id}"
    assert [film.name for film in client.films("sil")] == ["silent.mp4"]
    assert client.about()["films"] == 3
    assert client.thumbnail(1)[:2] == b"\xff\xd8"


def test_unknown_words_are_logged(client, caplog):
    with caplog.at_level(logging.WARNING):
        client.search("a star zqwx")
    assert "unknown words are left out: zqwx" in caplog.text


@pytest.mark.parametrize(
    ("ask", "status", "error"),
    [
        (lambda client, _: client.search("zqwx"), 400, "knows no word"),
        (lambda client, _: client.search("star", k=0), 422, "top: "),
        (lambda client, _: client.near(999), 404, "no clip 999"),
        (lambda client, _: client.thumbnail(999), 404, "no clip 999"),
        (lambda client, here: client.search(video=here), 415, "no media file"),
        (lambda client, here: client.search(video=here / "nothing"), None, "there is no file"),
    ],
)
def test_errors_are_one_line(client, ask, status, error, tmp_path):
    (tmp_path / "page.mp4").write_text("<html>")
    place = tmp_path / "page.mp4" if status == 415 else tmp_path
    with pytest.raises(ServeError, match=error) as caught:
        ask(client, place)
    assert caught.value.status == status and "\n" not in str(caught.value)
    assert caught.value.unknown == (["zqwx"] if status == 400 else [])


def test_a_server_that_is_not_there():
    with pytest.raises(ServeError, match=r"cannot be reached .* start it by: fusion serve INDEX"):
        Client("http://127.0.0.1:9").search("star")
    with pytest.raises(ServeError, match="begins with http://"):
        Client("127.0.0.1:8765")


def test_a_server_of_another_kind():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if "films" in self.path else 418)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        other = Client(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(ServeError, match="is no server of fusion"):
            other.films()
        with pytest.raises(ServeError, match="answers with status 418"):
            other.search("star")
        server.shutdown()


def test_a_server_that_is_too_slow(index, monkeypatch, address):
    go = threading.Event()
    monkeypatch.setattr(index, "films", lambda: go.wait(20) or [])
    with pytest.raises(ServeError, match=r"did not answer in 0.2 s|timed out"):
        Client(address, timeout=0.2).films()
    go.set()


def test_it_needs_no_torch():
    code = "import sys, fusion.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
