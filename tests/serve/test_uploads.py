"""Questions with files: what is found, what is refused, and that nothing stays."""

import http.server
import io
import threading
import zipfile
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from fusion.serve import uploads


def ask(client, status=200, name="upload", **given):
    """Ask with files, given as paths or bytes, and fields, given as strings or numbers."""
    parts = {}
    for key, value in given.items():
        key = "in" if key == "within" else key
        if key in uploads.FILES:
            content = value if isinstance(value, bytes) else value.read_bytes()
            parts[key] = (name, content, "video/mp4")
        else:
            parts[key] = (None, str(value))
    answer = client.post("/api/search", files=parts)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.text
    return answer.json()


def empty(folder):
    return [path for path in folder.rglob("*") if path.is_file()] == []


def png(width, height, pixels=b""):
    """A PNG that promises so many pixels."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    body = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + body


def picture(size=(64, 36), kind="PNG", **options):
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.mp4", b"0" * 1000)
    return file.getvalue()


# What is found


def test_a_part_of_an_indexed_film_finds_itself(client, films, index):
    """The features equal those in the index, so the score is 1."""
    for hit in index.search("star", 2, film="a.mp4"):
        given = {"video": films / "a.mp4", "start": hit.start, "end": hit.end}
        best = ask(client, **given)["hits"][0]
        assert best["id"] == hit.id
        assert best["score"] == pytest.approx(1.0, abs=1e-5)


def test_sound_is_compared_with_sound(client, films, index):
    hit = index.search("star", 1, film="a.mp4")[0]
    given = {"audio": films / "a.mp4", "start": hit.start, "end": hit.end, "within": "a"}
    best = ask(client, **given)["hits"][0]
    assert best["by"]["audio"] == pytest.approx(1.0, abs=1e-5)


def test_a_film_without_sound_is_a_question_too(client, films, index):
    hit = index.search("star", 1, film="silent")[0]
    given = {"video": films / "silent.mp4", "start": hit.start, "end": hit.end}
    best = ask(client, **given, film="silent")["hits"][0]
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    assert list(best["by"]) == ["video"]


def test_a_question_with_files_is_that_of_python(client, films, model, index):
    parts = {"text": "a star", "video": films / "a.mp4", "audio": films / "more" / "c.mp4"}
    given = {"words": "a star zqwx", "video": parts["video"], "audio": parts["audio"], "end": 0.5}
    answer = ask(client, **given)
    expected = index.nearest(model.encode(parts, end=0.5).numpy(), 20)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert answer["hits"][0]["score"] == pytest.approx(expected[0].score, abs=1e-5)
    assert answer["unknown"] == ["zqwx"]


def test_a_picture_is_that_of_python(client, model, index):
    content = picture()
    answer = ask(client, picture=content, within="v")
    with pytest.warns(
        UserWarning, match="longer than the model takes"
    ):  # a picture counts a second
        question = model.encode({"video": Image.open(io.BytesIO(content))})
    assert answer["notes"] == []
    expected = index.nearest(question.numpy(), 20, within=("v",))
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert answer["hits"][0]["score"] == pytest.approx(expected[0].score, abs=1e-5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_kinds_of_pictures(client, kind):
    assert ask(client, picture=picture((7, 3), kind))["hits"]


def test_a_long_film_is_cut_off_with_a_note(client, films):
    answer = ask(client, video=films / "a.mp4")
    assert "longer than the model takes" in answer["notes"][0]


def test_fields_that_a_browser_leaves_empty_do_not_count(client):
    parts = {"words": (None, "star"), "start": (None, ""), "end": (None, "")}
    empty_file = {"video": ("", b"", "application/octet-stream")}
    answer = client.post("/api/search", files=parts)
    assert answer.status_code == 200
    request = client.build_request("POST", "/api/search", files=parts | empty_file)
    body = request.read().replace(b'name="video"', b'name="video"; filename=""')
    headers = {"Content-Type": request.headers["content-type"]}
    assert client.post("/api/search", content=body, headers=headers).status_code == 200


# What is refused


def hostile(films):
    film = (films / "a.mp4").read_bytes()
    page = b"<html><script>fetch('/')</script></html>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    concat = b"ffconcat version 1.0\nfile /etc/passwd\n"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"
    damaged = picture((64, 64))
    return {
        "page as film": ("video", page, 415),
        "page as picture": ("picture", page, 415),
        "svg as picture": ("picture", svg, 415),
        "postscript as picture": ("picture", postscript, 415),
        "zip as film": ("video", archive(), 415),
        "zip as sound": ("audio", archive(), 415),
        "playlist as film": ("video", playlist, 415),
        "playlist as sound": ("audio", playlist, 415),
        "concat as film": ("video", concat, 415),
        "film as picture": ("picture", film, 415),
        "picture as film": ("video", picture(), 415),
        "picture as sound": ("audio", picture(), 415),
        "noise as film": ("video", np.random.default_rng(0).bytes(9999), 415),
        "beginning of a film": ("video", film[: len(film) // 3], 415),
        "empty film": ("video", b"", 422),
        "empty picture": ("picture", b"", 422),
        "half a picture": ("picture", damaged[: len(damaged) // 2], 422),
        "bomb": ("picture", png(50_000, 50_000), 413),
        "another bomb": ("picture", png(2**31 - 1, 1), 413),
        "silent film as sound": ("audio", (films / "silent.mp4").read_bytes(), 400),
    }


def test_f31_hostile_uploads_get_one_line_and_leave_nothing(client, films):
    for what, (part, content, status) in hostile(films).items():
        error = ask(client, status, **{part: content})["error"]
        assert error and "/" not in error.replace("mp4/", ""), (what, error)
        assert empty(client.app.state.folder.path), what
    assert client.get("/healthz").status_code == 200


def test_f31_a_playlist_of_addresses_loads_nothing(client):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.ts"
        playlists = (f"#EXTM3U\n#EXTINF:1,\n{address}\n", f"ffconcat version 1.0\nfile {address}\n")
        for text in (*playlists, address, f'<SMIL><video src="{address}"/></SMIL>'):
            for part in ("video", "audio", "picture"):
                assert ask(client, 415, **{part: text.encode()})["error"]
        server.shutdown()
    assert asked == []


def test_f31_the_name_of_a_file_means_nothing(client, films):
    for name in ("../../a.html", "x" * 3000):
        assert ask(client, name=name, video=films / "a.mp4", end=0.5)["hits"]


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        ({"words": ""}, 400, "the question is empty"),
        ({"words": "zqwx"}, 400, "knows no word"),
        ({"words": "star", "top": "many"}, 422, "top: "),
        ({"words": "star", "end": "nan"}, 422, "end: "),
        ({"words": "star", "start": "-1"}, 422, "start: "),
        ({"words": "star", "within": "q"}, 400, "unknown modality"),
        ({"words": "star", "colour": "red"}, 422, "a field 'colour'; it may have words"),
        ({"words": "x" * 20_000}, 413, "longer than"),
        ({"words": "x" * 9_000}, 422, "words: "),
        ({"video": b"x", "picture": b"x"}, 422, "not both"),
        ({"video": b"x", "start": 3, "end": 2}, 422, "start must be before end"),
        ({"picture": b"x", "start": 3}, 422, "a picture has no time"),
        ({"video": b"x", "film": 99}, 404, "no film 99"),
    ],
)
def test_a_question_that_makes_no_sense(client, given, status, error):
    assert error in ask(client, status, **given)["error"]


def test_unknown_words_beside_a_file_are_named(client, films):
    answer = ask(client, 400, words="zqwx", video=films / "a.mp4")
    assert answer["unknown"] == ["zqwx"]


def test_no_film_of_a_stranger_is_decoded_here(client, films, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("decoded in this process")

    monkeypatch.setattr(av, "open", fail)
    assert ask(client, video=films / "more" / "c.mp4", end=0.5)["hits"]
