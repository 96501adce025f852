"""Films good and bad, and a store that they were extracted into."""

import pytest

from fusion.extract.job import extract
from tests.data.media.films import write_film
from tests.extract.tiny import TINY, use_tiny_networks


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    use_tiny_networks(monkeypatch)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Six films, good and bad."""
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "a.mp4", 3)
    write_film(folder / "b/long.mp4", 9, fps=10)
    write_film(folder / "b/silent.mp4", 2, sound=False)
    write_film(folder / "blind.mp4", 2, picture=False)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "half.mp4").write_bytes((folder / "a.mp4").read_bytes()[:4000])
    return folder


@pytest.fixture(scope="module")
def done(films, tmp_path_factory):
    """Everything extracted once, undisturbed: the store and the report."""
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        store = tmp_path_factory.mktemp("done") / "store"
        return store, extract([films], store, TINY)
