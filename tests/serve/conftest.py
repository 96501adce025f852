"""A small index, and its application in this process or behind a socket."""

import contextlib
import threading
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient

import fusion
from fusion.commands.serve import address_of, open_socket
from fusion.search.index import Index
from fusion.serve.app import create_app
from fusion.tasks.question_answering.ask import Reply
from tests.data.media.films import write_film
from tests.search.conftest import train_tiny

HOME = "http://127.0.0.1"
MARKUP_ANSWER = "<img src=y onerror=alert(1)>"


class FixedAsker:
    """Always has the same answers; it knows all words but one."""

    def __init__(self):
        self.asked = []

    def answer(self, picture, question, number=5):
        self.asked.append((picture.shape, question, number))
        if "xyzzy" in question:
            raise ValueError("runs/vqa knows no word of 'xyzzy'; ask in other words")
        best = [("red", 0.7), (MARKUP_ANSWER, 0.2), ("blue", 0.06), ("two", 0.03), ("no", 0.01)]
        look = np.array([[1.0, 0.2], [0.1, 0.5]], np.float32)
        return Reply(best, picture, look)


@pytest.fixture(scope="session")
def run(once):
    """Folder of a tiny model, that of the tests of search."""
    return once("search", train_tiny) / "run"


@pytest.fixture(scope="session")
def model(run):
    return fusion.load(run)


def write_films(folder):
    """Three films: with sound, without, and with captions that have markup."""
    write_film(folder / "a.mp4", 2)
    write_film(folder / "silent.mp4", 1.5, sound=False)
    write_film(folder / "more" / "c.mp4", 2)
    text = "start,end,text\n0,0.5,a red <b>star</b>\n1,1.5,a star\n"
    (folder / "more" / "c.csv").write_text(text)
    return folder


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def index(films, run, model, tmp_path_factory):
    """An index of three films, which no test changes."""
    folder = tmp_path_factory.mktemp("index") / "films.index"
    Index(folder, run).add(films, quiet=True)
    return Index(folder, model)


@contextlib.contextmanager
def asking(index, settings=None, asker=None, **options):
    """A client of the application of an index."""
    app = create_app(index, settings, asker)
    with TestClient(app, base_url=HOME, **options) as client:
        yield client


@pytest.fixture(scope="module")
def client(index):
    with asking(index) as made:
        yield made


@contextlib.contextmanager
def serving(index, settings=None, asker=None):
    """Serve in a thread; yields the address."""
    import uvicorn

    listening = open_socket("127.0.0.1", 0)
    app = create_app(index, settings, asker)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    address = address_of(listening)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def address(index):
    """Address of a server of the index."""
    with serving(index) as made:
        yield made
