"""An index made on Ray by two workers, of which one is killed, equals that of one process."""

import contextlib
import shutil

import pytest

from fusion.extract.ray_cluster import Cluster
from fusion.search import ray_embedding
from fusion.search.indexing import index_films
from fusion.search.ray_embedding import RayEmbedder
from fusion.search.storage import Storage
from tests.search.ray_workers import DeadlyFilms

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fusion[cluster]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings


@pytest.fixture(autouse=True)
def deadly_workers(monkeypatch):
    monkeypatch.setattr(ray_embedding, "Films", DeadlyFilms)


def make(folder, model, films, run=None):
    """Index films, on Ray if ``run`` is given; return the counts and all that the index holds."""
    embed = RayEmbedder(Cluster(workers=2), str(run), model.digest).embed if run else None
    with contextlib.closing(Storage(folder, write=True)) as storage:
        counts = index_films(storage, model, [films], quiet=True, embed=embed)
    return counts, content(folder)


def content(folder):
    """The rows of all tables, and the vector files as bytes.

    The bytes of the database itself depend on when SQLite moves its log into it.
    """
    files = {file.name: file.read_bytes() for file in (folder / "vectors").iterdir()}
    with contextlib.closing(Storage(folder)) as storage:
        tables = storage.select("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        rows = {name: storage.select(f"SELECT * FROM {name}").fetchall() for (name,) in tables}
    assert files and rows["films"] and rows["clips"]
    return files, rows


def test_where_a_worker_is_killed_the_index_is_the_same(local_ray, run, model, films, tmp_path):
    (films / "broken.mp4").write_bytes(b"this is no film")
    mark = films / "silent.mp4.kill"
    plain = make(tmp_path / "plain", model, films)
    mark.touch()
    assert make(tmp_path / "ray", model, films, run) == plain
    assert not mark.exists()
    assert plain[0] == {"new": 4, "changed": 0, "same": 0, "removed": 0, "unreadable": 1}


def test_a_film_that_ends_every_worker_is_named_and_tried_again(
    local_ray, run, model, films, tmp_path
):
    folder = tmp_path / "some"
    folder.mkdir()
    shutil.copy(films / "a.mp4", folder / "deadly.mp4")
    with contextlib.closing(Storage(tmp_path / "index", write=True)) as storage:
        embed = RayEmbedder(Cluster(workers=1), str(run), model.digest).embed
        counts = index_films(storage, model, [folder], quiet=True, embed=embed)
        (film,) = storage.films().values()
        assert counts["unreadable"] == 1
        assert film.problem.startswith("each of 3 workers ended while it had this film")
        again = index_films(storage, model, [folder], quiet=True)
        assert (again["changed"], again["unreadable"]) == (1, 0)


def test_a_worker_with_another_model_is_refused(run):
    with pytest.raises(ValueError, match="has other weights where a worker is .*, not 0123"):
        DeadlyFilms(str(run), "0123", False)
