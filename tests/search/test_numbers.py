"""Numbers of clips and films stay; readers see what others write, and need no write access."""

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fusion.files import lock
from fusion.search import snapshot as snapshots
from fusion.search.index import Index
from fusion.search.snapshot import Snapshot
from fusion.search.storage import Clip, Film, SearchError, Storage
from fusion.search.vectors import ONE
from tests.search.synthetic import put, unit

QUERY = unit(np.random.default_rng(0), 1, 8)[0]
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)


def numbers(folder):
    """Number of each film, and numbers of its clips, by name."""
    index = Index(folder)
    films = {film.name: film.id for film in index.films()}
    hits = index.nearest(QUERY, 1000, ["v"])
    index.close()
    return {name: (i, sorted(h.id for h in hits if h.film == i)) for name, i in films.items()}


def version(folder):
    return Index(folder).about()["version"]


def test_films_keep_their_number_and_no_number_is_given_twice(tmp_path):
    folder = put(tmp_path / "i", {"a": ["v", "va"], "b": ["v"], "c": ["v"]})
    assert numbers(folder) == {"a": (1, [1, 2]), "b": (2, [3]), "c": (3, [4])}
    put(folder, {"a": ["v"]}, seed=1, gone=["c"])
    assert numbers(folder) == {"a": (1, [5]), "b": (2, [3])}
    put(folder, {"c": ["v"]}, seed=2)
    assert numbers(folder) == {"a": (1, [5]), "b": (2, [3]), "c": (4, [6])}


def test_numbers_outlive_a_compaction(tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"] * 5, "b": ["v"] * 2})
    before = [(h.id, h.score) for h in Index(folder).nearest(QUERY, 99) if h.name == "b"]
    put(folder, {}, gone=["a"])
    with contextlib.closing(Storage(folder)) as storage:
        assert storage.table().rows.tolist() == [0, 1] and storage.fact("generation") == 1
    assert [(h.id, h.score) for h in Index(folder).nearest(QUERY, 99)] == before
    assert Index(folder).near(6)[0].id == 7
    with pytest.raises(SearchError, match="has no clip 1"):
        Index(folder).near(1)


def test_every_change_raises_the_version(tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"] * 3, "b": ["v"]})
    seen = [version(folder)]
    for changes in [{"films": {"c": ["v"]}}, {"gone": ["c"]}, {"films": {"a": ["v"]}}]:
        put(folder, changes.get("films", {}), seed=1, gone=changes.get("gone", ()))
        seen.append(version(folder))
    with contextlib.closing(Storage(folder, write=True)) as storage:
        storage.relocate([], {"/films/a": "/films/d"})
    seen.append(version(folder))
    assert seen == sorted(set(seen))
    put(folder, {})
    with contextlib.closing(Storage(folder, write=True)) as storage:
        storage.relocate([], {})
        storage.set_facts(model="none")
    assert version(folder) == seen[-1]  # nothing was changed


def test_means_are_those_of_the_clips_that_are_there(tmp_path):
    folder = put(tmp_path / "i", {"a": ["va", "v"] * 9, "b": ["va"] * 3, "c": ["a"]})
    put(folder, {"b": ["v", "va"]}, seed=3, gone=["c"])
    with contextlib.closing(Storage(folder)) as storage:
        clips = [*zip(*storage.table(), strict=True)]
        held = Snapshot(storage)
        for c in ("v", "a", "va"):
            rows = [row for _, row, _, has in clips if set(c) <= set(has)]
            vectors = storage.vectors(c)[rows].astype(np.float64)
            np.testing.assert_allclose(held.mean(c), vectors.mean(axis=0), atol=1e-9)
            whole = np.rint(vectors * ONE).sum(axis=0).astype(np.int64)
            assert (storage.sum(c)[0] == whole).all()  # whatever came and went


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_vectors_that_cannot_be_compared_are_refused(tmp_path, bad):
    folder = put(tmp_path / "i", {"a": ["v"]})
    with contextlib.closing(Storage(folder, write=True)) as storage:
        vectors = {"v": np.full((1, 8), bad, np.float32)}
        with pytest.raises(ValueError, match="vectors of v must be finite and at most 1000"):
            storage.replace(Film("/films/b", "", 1), [Clip(0, 1, "", "v")], vectors)
    assert [film.name for film in Index(folder).films()] == ["a"]


def test_another_format_is_refused_in_one_line(tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"]})
    for number, way in [(1, "delete it and index the films again"), (3, "install the version")]:
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
            db.execute("UPDATE facts SET value = ? WHERE key = 'format'", (str(number),))
        for write in (False, True):
            with pytest.raises(SearchError, match=f"has format {number}, .* reads 2; {way}"):
                Storage(folder, write=write)


def test_an_index_of_the_first_format_is_not_changed(tmp_path):
    (tmp_path / "i").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "i" / "index.sqlite")) as db, db:
        db.execute("CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("CREATE TABLE clips (row INTEGER PRIMARY KEY)")
    before = (tmp_path / "i" / "index.sqlite").read_bytes()
    with pytest.raises(SearchError, match="has format 1"):
        Storage(tmp_path / "i", write=True)
    assert (tmp_path / "i" / "index.sqlite").read_bytes() == before


def test_a_search_sees_what_others_add_and_remove(tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"]})
    index = Index(folder)
    assert {h.name for h in index.nearest(QUERY)} == {"a"}
    put(folder, {"b": ["v"]}, seed=1, gone=["a"])
    index._live._until = 0  # it took no time to load
    assert {h.name for h in index.nearest(QUERY)} == {"b"}
    shutil.rmtree(folder)
    put(folder, {"c": ["v"]}, seed=2)
    assert {h.name for h in index.nearest(QUERY)} == {"c"}  # another index in its place
    index.close()


def test_an_old_snapshot_serves_for_a_while_but_not_for_clips_that_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "PATIENCE", 1e9)
    folder = put(tmp_path / "i", {"a": ["v"] * 3, "b": ["v"]})
    index = Index(folder)
    index.nearest(QUERY)
    put(folder, {"c": ["v"]}, seed=1)
    assert {h.name for h in index.nearest(QUERY)} == {"a", "b"}  # old
    assert index.near(5, k=1)  # but a question about something new takes a new one
    assert {h.name for h in index.nearest(QUERY)} == {"a", "b", "c"}
    query = index._live.snapshot().vector(0, "v")
    assert [h.id for h in index.nearest(query, k=1)] == [1]
    put(folder, {}, gone=["a"])  # the files are compacted too
    assert [h.name for h in index.nearest(query, k=1)] in (["b"], ["c"])
    index.close()


def test_an_index_that_is_written_is_searched_by_many_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    folder = put(tmp_path / "i", {"a": ["va", "v"] * 5, "b": ["a"] * 5})
    index, files = Index(folder), Path("/proc/self/fd")
    stop = []

    def ask(seed):
        query, most = unit(np.random.default_rng(seed), 1, 8)[0], 0
        while not stop:
            hits = index.nearest(query, 7)
            assert [(-h.calibrated, h.id) for h in hits] == sorted(
                (-h.calibrated, h.id) for h in hits
            )
            assert len({h.id for h in hits}) == len(hits) > 0
            assert index.film_path(2).name == "b" and index.clip(11).film == 2
            most = max(most, len([*files.iterdir()])) if files.exists() else 0
        return most

    with ThreadPoolExecutor(6) as pool:
        before = len([*files.iterdir()]) if files.exists() else 0
        asked = [pool.submit(ask, seed) for seed in range(6)]
        try:
            for seed in range(30):
                put(folder, {"c": ["va", "v"] * (seed % 4)}, seed)
        finally:
            stop.append(True)
        most = max(one.result() for one in asked)
    assert most - before < 70  # of the writer, and a few snapshots with a file of each combination
    index.close()


@contextlib.contextmanager
def everybodys():
    """A folder that everybody can read, whatever the folders above pytest's are."""
    path = Path(tempfile.mkdtemp(prefix="fusion-"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


def as_nobody(function):
    """Call a function in a process without any rights; return as text what it returns or raises."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            said = repr(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


def search(folder):
    with contextlib.closing(Index(folder)) as index:
        return [h.name for h in index.nearest(QUERY)]


@needs_root
def test_an_index_can_be_searched_without_write_access():
    with everybodys() as path:
        folder = put(path / "i", {"a": ["v"]})
        assert as_nobody(lambda: search(folder)) == "['a']"
        assert as_nobody(lambda: Storage(folder).frozen) == "False"  # it keeps no writer away
        with contextlib.closing(Storage(folder, write=True)):  # also while it is open
            assert as_nobody(lambda: search(folder)) == "['a']"
        put(folder, {"a": ["v"], "b": []}, seed=1)
        assert as_nobody(lambda: len(Index(folder).films())) == "2"
        assert "cannot be written" in as_nobody(lambda: Storage(folder, write=True))


@needs_root
def test_a_copy_without_the_files_of_sqlite_is_searched_while_nothing_can_write():
    with everybodys() as path:
        folder = put(path / "i", {"a": ["v"]})
        for name in ("index.sqlite-wal", "index.sqlite-shm"):
            (folder / name).unlink()

        def search_and_write():
            index = Index(folder)
            first = [h.name for h in index.nearest(QUERY)]
            return first, [h.name for h in index.nearest(QUERY)], index.about()["clips"]

        assert as_nobody(search_and_write) == "(['a'], ['a'], 1)"
        with open(folder / ".lock") as opened:
            lock(opened.fileno())  # somebody writes
            assert "another process is writing" in as_nobody(lambda: search(folder))
        (folder / ".lock").unlink()
        assert "cannot be locked, so it may change" in as_nobody(lambda: search(folder))
        (folder / "index.sqlite-wal").write_bytes(b"changes")
        assert "holds changes that cannot be read" in as_nobody(lambda: search(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
def test_a_writer_waits_for_no_reader(tmp_path):
    folder = put(tmp_path / "i", {"a": ["v"]})
    with contextlib.closing(Storage(folder)), contextlib.closing(Index(folder)) as index:
        index.nearest(QUERY)
        put(folder, {"b": ["v"]}, seed=1)
    assert len(Index(folder).films()) == 2
