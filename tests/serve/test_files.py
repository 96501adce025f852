"""Media files and thumbnails: only those of the index, in ranges, and never as a page."""

import contextlib
import os
import shutil

import pytest

from fusion.search.index import Index
from fusion.serve.files import TYPES
from tests.data.media.films import write_film
from tests.serve.conftest import asking


@contextlib.contextmanager
def served(films, run, model, folder):
    """A film in a folder, its address by an index of it, and a client."""
    own = folder / "own"
    own.mkdir()
    shutil.copy(films / "a.mp4", own / "a film, 100%.mp4")
    index = Index(folder / "own.index", run).add(own, quiet=True)
    with asking(Index(index.folder, model)) as client:
        yield own / "a film, 100%.mp4", f"/films/{index.films()[0].id}", client


@pytest.fixture(scope="module")
def place(films, run, model, tmp_path_factory):
    """A film that no test changes."""
    with served(films, run, model, tmp_path_factory.mktemp("place")) as found:
        yield found


@pytest.fixture
def own_place(films, run, model, tmp_path):
    """A film that a test may change."""
    with served(films, run, model, tmp_path) as found:
        yield found


def test_a_film_is_sent_whole(place):
    path, address, client = place
    answer = client.get(address)
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    expected = "inline; filename*=utf-8''a%20film%2C%20100%25.mp4"
    assert answer.headers["content-disposition"] == expected


def test_head_has_no_body(place):
    path, address, client = place
    answer = client.head(address)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == path.stat().st_size


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("0-", 0, None),
        ("0-0", 0, 1),
        ("100-199", 100, 200),
        ("-50", -50, None),
        ("5-99999999", 5, None),
    ],
)
def test_a_range_of_a_film(place, wanted, first, last):
    path, address, client = place
    content = path.read_bytes()
    answer = client.get(address, headers={"Range": f"bytes={wanted}"})
    assert answer.status_code == 206
    assert answer.content == content[first:last]
    begin = first % len(content)
    end = begin + len(answer.content) - 1
    assert answer.headers["content-range"] == f"bytes {begin}-{end}/{len(content)}"


def test_several_ranges_at_once(place):
    path, address, client = place
    answer = client.get(address, headers={"Range": "bytes=0-9,100-109"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    content = path.read_bytes()
    assert content[:10] in answer.content and content[100:110] in answer.content


def test_a_range_behind_the_end_is_416(place):
    path, address, client = place
    answer = client.get(address, headers={"Range": "bytes=99999999-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{path.stat().st_size}"


@pytest.mark.parametrize("wanted", ["bytes=9-2", "bytes=x", "lines=1-2", "bytes=" + "0-1," * 9999])
def test_a_wrong_range_costs_nothing(place, wanted):
    _, address, client = place
    assert client.get(address, headers={"Range": wanted}).status_code in (200, 400)


def test_an_old_range_gets_the_whole_film(place):
    path, address, client = place
    headers = {"Range": "bytes=0-9", "If-Range": '"of another version"'}
    assert client.get(address, headers=headers).content == path.read_bytes()


def test_a_film_that_changed_is_served(own_place):
    path, address, client = own_place
    write_film(path, 1)
    assert client.get(address).content == path.read_bytes()


def test_a_film_that_is_gone_is_404_in_one_line(own_place):
    path, address, client = own_place
    path.unlink()
    answer = client.get(address)
    assert answer.status_code == 404
    assert answer.json()["error"] == f"{path.name} cannot be read now (No such file or directory)"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused(own_place, make):
    path, address, client = own_place
    path.unlink()
    make(path)
    answer = client.get(address)
    assert answer.status_code == 404
    assert answer.json()["error"] == f"{path.name} is no regular file"


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "a.mp4", "-1", "1e3", ""],
)
def test_no_path_leads_to_a_file(client, name):
    assert client.get(f"/films/{name}").status_code in (404, 422)


def test_a_film_is_never_a_page():
    assert {kind.partition("/")[0] for kind in TYPES.values()} == {"audio", "video", "image"}
    assert "image/svg+xml" not in TYPES.values()


def test_thumbnails_are_kept_by_the_browser(client):
    address = client.get("/api/clips/1").json()["thumbnail"]
    answer = client.get(address)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == "image/jpeg"
    again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_thumbnail_of_an_earlier_index_is_not_kept(client):
    for address in ("/thumbnails/1", "/thumbnails/1?v=00000000"):
        assert client.get(address).headers["cache-control"] == "private, no-cache"
    old = {"If-None-Match": '"00000000"'}
    assert client.get("/thumbnails/1", headers=old).status_code == 200
