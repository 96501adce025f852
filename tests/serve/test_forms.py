"""How the body of a question is received: forms, limits, and files that never stay."""

import asyncio
import os
import subprocess

import pytest

from fusion.serve import uploads
from fusion.serve.app import Settings, create_app
from fusion.serve.decoding import Limits
from fusion.serve.schemas import Refused
from tests.serve.conftest import asking
from tests.serve.loops import run_async
from tests.serve.test_uploads import ask, empty


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"words=star", "application/x-www-form-urlencoded", 415),
        (b"--x\r\n", "multipart/form-data", 415),
        (b"nothing of this kind", "multipart/form-data; boundary=x", 400),
        (b'--x\r\nContent-Disposition: form-data; name="words"\r\n\r\nst', None, 400),
        (b"", "multipart/form-data; boundary=x", 400),
    ],
)
def test_a_body_that_is_no_form(client, body, kind, status):
    headers = {"Content-Type": kind or "multipart/form-data; boundary=x"}
    answer = client.post("/api/search", content=body, headers=headers)
    assert answer.status_code == status and answer.json()["error"]


def test_a_form_without_its_end_is_not_answered(client):
    body = b'--x\r\nContent-Disposition: form-data; name="words"\r\n\r\nstar\r\n--x\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/search", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "the form ends too early; send it again",
    )


def test_a_field_given_twice_is_refused(client):
    parts = [("words", (None, "a")), ("words", (None, "b"))]
    answer = client.post("/api/search", files=parts)
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "words is given twice; give it once",
    )


@pytest.fixture(scope="module")
def small(index):
    """A client of a server that takes 1 MB and a second."""
    settings = Settings(upload_bytes=2**20, decoding=Limits(seconds=1.0))
    with asking(index, settings) as client:
        yield client


def test_f31_an_upload_that_says_it_is_too_large(small):
    assert "larger than 1 MB" in ask(small, 413, video=b"0" * 2**21)["error"]


def test_what_is_too_large_is_refused_before_it_is_read():
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(2**30)}
    with pytest.raises(Refused, match="larger than 1 MB"):
        uploads._boundary(headers, 2**20)


def test_f31_an_upload_that_does_not_say_it_is_too_large(small):
    sent = []

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
        for _ in range(200):
            kept = [path for path in small.app.state.folder.path.rglob("*") if path.is_file()]
            sent.append(sum(path.stat().st_size for path in kept))
            yield b"0" * 2**16

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = small.post("/api/search", content=body(), headers=headers)
    assert answer.status_code == 413 and "larger than 1 MB" in answer.json()["error"]
    assert max(sent) < 2**20 + 2**18  # it was not kept
    assert empty(small.app.state.folder.path)


def test_a_film_that_is_too_long(small, films):
    for part in ("video", "audio"):
        assert "longer than 1 s" in ask(small, 413, **{part: films / "a.mp4"})["error"]


def test_a_client_that_goes_away_leaves_nothing(index):
    """The body ends without its end, as when a connection breaks."""
    app = create_app(index)
    head = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
    messages = [
        {"type": "http.request", "body": head + b"0" * 2**21, "more_body": True},
        {"type": "http.disconnect"},
    ]
    kept, sent = [], []

    async def receive():
        await asyncio.sleep(0)
        if len(messages) == 1:
            kept.append(not empty(app.state.folder.path))
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message):
        sent.append(message)

    async def play():
        headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")]
        scope = {"type": "http", "method": "POST", "path": "/api/search", "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "root_path": "", "scheme": "http"}
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
            assert empty(app.state.folder.path)
            assert app.state.uploads.inside == 0

    run_async(play())
    assert kept[0]  # the file was there before
    assert sent[0]["status"] == 400


def test_a_full_disk_is_503(client, films, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "open", full, raising=False)
    assert "No space left" in ask(client, 503, video=films / "a.mp4")["error"]


def test_the_folder_goes_with_the_server_and_what_a_killed_one_left(index, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f"fusion-serve-{ended.pid}-abc").mkdir()
    (tmp_path / f"fusion-serve-{os.getppid()}-abc").mkdir()  # of one that runs
    with asking(index) as client:
        own = client.app.state.folder.path
        assert own.parent == tmp_path and own.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.glob("fusion-serve-*")] == [
        f"fusion-serve-{os.getppid()}-abc"
    ]
