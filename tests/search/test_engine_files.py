"""What engines keep: lists of FAISS beside the vectors, points of a Qdrant server."""

import contextlib
import logging
import os

import numpy as np
import pytest

from fusion.cli.main import main
from fusion.search.engines import ivf, server
from fusion.search.engines.choice import prepare
from fusion.search.index import Index
from fusion.search.storage import SearchError, Storage
from tests.search.synthetic import put, unit
from tests.search.test_numbers import as_nobody, everybodys, needs_root
from tools.benchmarks import search as benchmark

URL = "http://localhost:6333"
QDRANT = ["--engine", "qdrant", "--url", URL]
QUERY = unit(np.random.default_rng(0), 1, 8)[0]


@pytest.fixture
def small(monkeypatch):
    """Lists are made for a hundred clips and looked into for ten."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(ivf, "EXACT", 100)
    monkeypatch.setattr(ivf, "FEW", 10)


@pytest.fixture
def client(monkeypatch):
    """A Qdrant server in memory."""
    made = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    monkeypatch.setattr(made, "close", lambda: None)
    monkeypatch.setattr(server, "connect", lambda url: made)
    monkeypatch.setattr(server, "FEW", 0)
    return made


def ready(folder, *engine):
    with contextlib.closing(Storage(folder, write=True)) as storage:
        prepare(storage, *engine, quiet=True)
        return storage.fact("neighbours"), storage.fact("engine")


def files(folder):
    return sorted(file.name for file in (folder / "vectors").glob("*.faiss"))


def test_lists_find_what_a_search_of_all_clips_finds(small, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "PER_FILM", 500)
    folder = tmp_path / "i"
    benchmark.write(folder, 5000, 32)
    made, _ = ready(folder)
    assert made["v"]["recall"] >= 0.99 and made["v"]["probes"] < 100  # of 141 lists
    fast, slow = Index(folder), Index(folder, engine="exact")
    assert (fast.about()["engine"], slow.about()["engine"]) == ("faiss", "exact")
    for options in ({}, {"film": "00000500"}, {"film": "000000"}, {"k": 50}):
        shares = []
        for query in [
            *benchmark.draw(1, 30, 5000, 32),
            *benchmark.draw(2, 30, 5000, 32, words=True),
        ]:
            ours, all_of_them = fast.nearest(query, **options), slow.nearest(query, **options)
            known = {hit.id: hit for hit in all_of_them}
            assert len(ours) == len(all_of_them)
            assert all(known[hit.id] == hit for hit in ours if hit.id in known)  # the same scores
            shares.append(np.mean([hit.id in known for hit in ours]))
        assert np.mean(shares) >= 0.98, options


def test_lists_are_made_again_when_a_fifth_has_changed(small, tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"] * 150, "b": ["v"] * 25})
    assert ready(folder)[0]["v"]["clips"] == 175
    (before,) = files(folder)
    put(folder, {"c": ["v"] * 10}, seed=1, gone=["b"])
    assert ready(folder)[0]["v"]["rows"] == 175  # 35 of 175 are not more than a fifth
    assert files(folder) == [before]
    put(folder, {"d": ["v"]}, seed=2)
    assert ready(folder)[0]["v"]["rows"] == 186
    assert len(files(folder)) == 1 and files(folder) != [before]  # never again under its name
    put(folder, {}, gone=["a"])  # compacted, and no longer large
    assert ready(folder)[0] is None and files(folder) == []


def test_lists_of_another_generation_are_not_used(small, tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"] * 150, "b": ["v"] * 200})
    ready(folder)
    before = [(h.id, h.score) for h in Index(folder).nearest(QUERY, 999) if h.name == "b"]
    put(folder, {}, gone=["a"])
    ready(folder)
    put(folder, {"b": ["v"] * 120}, seed=1)  # the rest is compacted, the lists are not made again
    with contextlib.closing(Storage(folder)) as storage:
        assert storage.fact("generation") > storage.fact("neighbours")["v"]["generation"]
    found = Index(folder).nearest(QUERY, 5)
    assert found == Index(folder, engine="exact").nearest(QUERY, 5)
    assert not {h.id for h in found} & {number for number, _ in before}


def test_lost_lists_are_no_loss(small, tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"] * 150})
    ready(folder)
    (folder / "vectors" / files(folder)[0]).unlink()
    assert Index(folder).nearest(QUERY) == Index(folder, engine="exact").nearest(QUERY)


def test_without_faiss_one_line_says_what_to_install(small, tmp_path, monkeypatch, caplog):
    folder = put(tmp_path / "i", {"a": ["v"] * 150})
    monkeypatch.setattr(ivf, "find_faiss", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert ready(folder)[0] is None
        index = Index(folder)
        assert index.nearest(QUERY) and index.nearest(QUERY)
    assert [record.message.partition("; ")[2] for record in caplog.records] == [
        "to make them fast, install it by: pip install 'fusion[search]', and index once more",
        "for speed install it by: pip install 'fusion[search]'",
    ]
    with pytest.raises(SearchError, match=r"the engine faiss needs FAISS; install it by"):
        Index(folder, engine="faiss")


@needs_root
def test_lists_are_used_without_write_access(small, monkeypatch):
    with everybodys() as path:
        folder = put(path / "i", {"a": ["v"] * 150})
        ready(folder)
        expected = repr([hit.id for hit in Index(folder).nearest(QUERY)])
        monkeypatch.setattr("fusion.search.engines.exact.Exact.candidates", None)
        assert as_nobody(lambda: [hit.id for hit in Index(folder).nearest(QUERY)]) == expected


def points(client, made):
    found, _ = client.scroll(made["collection"], limit=999, with_vectors=True)
    return {p.id: (p.payload["film"], p.payload["has"], {*p.vector}) for p in found}


def test_a_server_gets_what_is_new_and_loses_what_is_gone(client, tmp_path, monkeypatch):
    folder = put(tmp_path / "i", {"a": ["va", "v"], "b": ["a"]})
    _, made = ready(folder, "qdrant", URL)
    assert points(client, made) == {
        1: (1, "va", {"v", "a", "va"}),
        2: (1, "v", {"v"}),
        3: (2, "a", {"a"}),
    }
    sent = []
    real = client.upsert
    monkeypatch.setattr(client, "upsert", lambda *a, **o: sent.append(o["points"]) or real(*a, **o))
    put(folder, {"b": ["v"]}, seed=1, gone=["a"])
    _, made = ready(folder)
    assert points(client, made) == {4: (2, "v", {"v"})} and made["clips"] == 4
    assert [[point.id for point in one] for one in sent] == [[4]]
    ready(folder)
    assert len(sent) == 1  # nothing is sent again


@pytest.mark.parametrize("call", ["create_payload_index", "upsert", "delete"])
def test_the_next_run_repairs_what_a_kill_left(client, tmp_path, monkeypatch, call):
    class Killed(BaseException):
        pass

    def killed(*arguments, **options):
        if call == "upsert" and not client.count(arguments[0]).count:
            return real(*arguments, **options)  # the first batch arrives
        raise Killed

    monkeypatch.setattr(server, "FLOATS", 8 * 7)  # a clip at a time
    folder = put(tmp_path / "i", {"a": ["va", "v"], "b": ["a", "va"]})
    if call == "delete":
        ready(folder, "qdrant", URL)
    put(folder, {"c": ["va"]}, seed=1, gone=["b"])
    with monkeypatch.context() as patch:
        real = getattr(client, call)
        patch.setattr(client, call, killed)
        with pytest.raises(Killed):
            ready(folder, "qdrant", URL)
    exact = Index(folder, engine="exact").nearest(QUERY)
    assert Index(folder).nearest(QUERY) == exact  # also before it is repaired
    _, made = ready(folder)
    assert sorted(points(client, made)) == [1, 2, 5]
    assert Index(folder).nearest(QUERY) == exact


def test_an_empty_server_is_filled_again(client, tmp_path):
    folder = put(tmp_path / "i", {"a": ["va", "v"]})
    _, made = ready(folder, "qdrant", URL)
    client.delete_collection(made["collection"])
    with pytest.raises(SearchError, match="index once more"):
        Index(folder).nearest(QUERY)
    assert sorted(points(client, ready(folder)[1])) == [1, 2]
    assert len(Index(folder).nearest(QUERY)) == 2


def test_an_index_goes_back_to_another_engine(client, tmp_path):
    folder = put(tmp_path / "i", {"a": ["va", "v"]})
    ready(folder, "qdrant", URL)
    index = Index(folder)
    assert index.about()["engine"] == "qdrant"
    assert ready(folder, "exact")[1] == {"name": "exact"}
    index._live._until = 0
    assert index.about()["engine"] == "exact"
    with pytest.raises(SearchError, match="needs the address of the server: --url URL"):
        ready(folder, "qdrant")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--engine", "fais"],
            "argument --engine: choose from exact, faiss, qdrant, ray; got 'fais'",
        ),
        (["--engine", "faiss,exact"], "one of faiss, exact can find neighbours; name one"),
        (["--url", URL], f"--url {URL} is for --engine qdrant; name that engine too"),
        (["--engine", "qdrant"], "needs the address of the server: --url URL"),
        (["--engine", "qdrant", "--url", "localhost"], "--url must be like http://localhost:6333"),
        (["--engine", "qdrant", "--url", "http://me:x@host"], "must not hold a password"),
        (
            ["--engine", "qdrant", "--url", "http://127.0.0.1:9"],
            "the Qdrant server at http://127.0.0.1:9 does not do what it should",
        ),
    ],
    ids=str,
)
def test_wrong_engines_are_one_line(tmp_path, capsys, words, message):
    pytest.importorskip("faiss")
    pytest.importorskip("qdrant_client")
    (tmp_path / "a.mp4").write_bytes(b"film")
    with pytest.raises(SystemExit) as stop:
        main(["index", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "i"), *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "i").exists()


def test_an_engine_is_chosen_on_the_command_line(client, run, films, tmp_path, capsys):
    folder = tmp_path / "i"
    main(["index", str(films), "--out", str(folder), "--model", str(run), *QDRANT])
    capsys.readouterr()
    answers = []
    for engine in ([], ["--engine", "exact"]):
        main(["search", str(folder), "a red star", "--json", *engine])
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] and "a.mp4" in answers[0]


def test_rows_that_have_gone_are_left_out():
    rows = np.array([0, 2, 5])
    assert ivf._places_of(np.array([0, 1, 2, 3, 5, 9]), rows).tolist() == [0, 1, 2]
    assert ivf._places_of(np.array([7]), rows).tolist() == []
