"""An index made on Ray by two workers, of which one is killed, equals that of one process."""

import contextlib
from importlib.util import find_spec

import pytest

import fusion
from fusion.cli.main import main
from fusion.commands import index as commands
from fusion.extract.ray_cluster import Answer, Cluster
from fusion.search import ray_embedding
from fusion.search.films.embedding import embed_films
from fusion.search.indexing import index_films
from fusion.search.ray_embedding import RayEmbedder
from fusion.search.storage import Storage
from tests.search.ray_workers import DeadlyFilms

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'fusion[cluster]'"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of Ray's own settings
]


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
    mark = films / "a.mp4.kill"  # the first film: it comes last
    plain = make(tmp_path / "plain", model, films)
    mark.touch()
    assert make(tmp_path / "ray", model, films, run) == plain
    assert not mark.exists()
    assert plain[0] == {"new": 4, "changed": 0, "same": 0, "removed": 0, "unreadable": 1}


def test_a_film_for_which_ray_has_no_answer_is_named_and_tried_again(
    model, films, tmp_path, monkeypatch
):
    def answers(cluster, todo, make, arguments):
        yield from [Answer(problem="each of 3 workers ended")] * len(todo)

    monkeypatch.setattr(ray_embedding, "compute_films", answers)
    embed = RayEmbedder(Cluster(), "-", model.digest).embed
    with contextlib.closing(Storage(tmp_path / "index", write=True)) as storage:
        counts = index_films(storage, model, [films / "a.mp4"], quiet=True, embed=embed)
        (film,) = storage.films().values()
        assert (counts["unreadable"], film.problem) == (1, "each of 3 workers ended")
        again = index_films(storage, model, [films / "a.mp4"], quiet=True)
        assert (again["changed"], again["unreadable"]) == (1, 0)


def test_a_worker_with_another_model_is_refused(run):
    with pytest.raises(ValueError, match="has other weights where a worker is .*, not 0123"):
        DeadlyFilms(str(run), "0123", False)


def test_the_command_takes_ray_beside_another_engine(run, films, tmp_path, monkeypatch, capsys):
    made = []

    class Here:
        def __init__(self, *words):
            made.append(words)
            self.model = fusion.load(run)

        def embed(self, todo):
            yield from embed_films(self.model, todo)

    monkeypatch.setattr(commands, "RayEmbedder", Here)
    words = [films, "--out", tmp_path / "index", "--model", run, "--engine", "ray,exact"]
    main(["index", *map(str, words), "--workers", "3", "--ray-address", "head:1"])
    ((cluster, place, digest, trust),) = made
    assert (cluster, place, trust) == (Cluster("head:1", 3), str(run), False)
    assert digest == fusion.load(run).digest
    assert "3 new" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["index", str(films), "--out", str(tmp_path / "other"), "--workers", "3"])
    assert "--ray-address and --workers are for --engine ray" in capsys.readouterr().err
