"""A server of a few films, and pages of it in a real browser."""

import pytest

import fusion
from fusion.data.media.encode import encode_jpeg
from tests.data.media.films import pictures, write_film, write_frames
from tests.serve.conftest import FixedAsker, serving
from tests.serve.page.browser import Watch, find_chromium, until

MARKUP = '<img src=x onerror="window.hacked=1"> a red star'
CAPTIONS = f'''start,end,text
0.2,0.8,a red star
1.2,1.8,"{MARKUP.replace('"', '""')}"
2.0,2.6,a star slides left
'''


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    path = find_chromium()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def things(tmp_path_factory):
    """Files to ask with."""
    folder = tmp_path_factory.mktemp("things")
    write_film(folder / "ask.mp4", 1)
    write_film(folder / "ask.m4a", 1, picture=False)
    (folder / "ask.jpg").write_bytes(encode_jpeg(next(pictures(1))))
    (folder / "bad.mp4").write_text("no film at all")
    (folder / "notes.txt").write_text("notes")
    return folder


@pytest.fixture(scope="session")
def address(tmp_path_factory, chromium, run):
    """Of a server with films: one with captions, one in a folder, one that no browser plays."""
    folder = tmp_path_factory.mktemp("served")
    films = folder / "films"
    write_film(films / "a.mp4", 3)
    (films / "a.csv").write_text(CAPTIONS)
    write_film(films / "more" / "silent.mp4", 1.5, sound=False)
    write_film(films / "sound.mp4", 1.5, picture=False)
    write_frames(films / "odd.mkv", range(0, 100, 4))
    index = fusion.Index(folder / "films.index", run).add(films, quiet=True)
    with serving(index, asker=FixedAsker()) as found:
        yield found


@pytest.fixture
def open_page(chromium, address):
    """Open the page with options of a browser's context; nothing may go elsewhere or wrong."""
    watches = []

    def open_one(path="/", **options):
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 800}} | options)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.watch = Watch(page, address)
        watches.append(page.watch)
        page.goto(address + path)
        until(page, "document.querySelectorAll('#within input').length")
        return page

    yield open_one
    for watch in watches:
        watch.page.context.close()
        watch.check()
