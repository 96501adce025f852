"""An index of films: what is in it, what a kill leaves, and what it answers."""

import argparse
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.commands import index as index_command
from fusion.data.media.encode import write_clip
from fusion.search.films import embedding
from fusion.search.index import Index
from fusion.search.indexing import index_films, summarise
from fusion.search.storage import SearchError, Storage
from tests.search.conftest import write_films


def index(folder, model, films, **options):
    storage = Storage(folder, write=True)
    try:
        return index_films(storage, model, [films], quiet=True, **options)
    finally:
        storage.close()


def content(folder):
    """Everything in an index, in the order of films and times, whatever its row numbers."""
    storage = Storage(folder)
    ids, rows, names, _ = storage.table()
    found = []
    for number, row, name in zip(ids.tolist(), rows, names, strict=True):
        _, clip = storage.clip(number)
        vectors = [storage.vectors(c)[row].tobytes() for c in storage.fact("combinations")]
        found.append((name, clip, vectors))
    films = storage.films()
    storage.close()
    return films, sorted(found)


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    """An index of the films, which no test changes."""
    folder = tmp_path_factory.mktemp("found")
    return Index(folder / "i", model).add(write_films(folder / "films"))


def test_films_are_cut_into_windows_or_at_their_captions(model, films, tmp_path):
    counts = index(tmp_path / "i", model, films)
    assert counts == {"new": 3, "changed": 0, "same": 0, "removed": 0, "unreadable": 0}
    known, clips = content(tmp_path / "i")
    times = {
        name: [(c.start, c.end, c.text, c.has) for n, c, _ in clips if n == name] for name in known
    }
    assert times["more/c.mp4"] == [(0.0, 0.5, "a red star", "tva"), (1.0, 1.5, "a star", "tva")]
    assert {has for *_, has in times["silent.mp4"]} == {"v"}
    starts, ends = [t[0] for t in times["a.mp4"]], [t[1] for t in times["a.mp4"]]
    assert starts[0] == 0 and ends[-1] == pytest.approx(2, abs=0.1)
    assert all(later < end for later, end in zip(starts[1:], ends, strict=False))  # they overlap
    assert all(clip.thumbnail.startswith(b"\xff\xd8") for _, clip, _ in clips)


def test_vectors_are_those_of_encode(model, films, tmp_path):
    index(tmp_path / "i", model, films)
    storage = Storage(tmp_path / "i")
    ids, rows, names, _ = storage.table()
    row = rows[names.index("a.mp4")]
    _, clip = storage.clip(int(ids[names.index("a.mp4")]))
    for combination in ("v", "a", "va"):
        given = model.encode(films / "a.mp4", combination, start=clip.start, end=clip.end)
        torch.testing.assert_close(torch.tensor(storage.vectors(combination)[row]), given)
    assert not storage.vectors("t")[row].any()
    storage.close()


def test_only_what_is_new_or_changed_is_embedded_again(model, films, tmp_path, monkeypatch):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    monkeypatch.setattr(embedding, "_embed", None)  # nothing may be embedded
    assert index(tmp_path / "i", model, films)["same"] == 3
    assert content(tmp_path / "i") == before
    monkeypatch.undo()
    os.utime(films / "a.mp4", (1, 1))
    (films / "silent.mp4").unlink()
    shutil.copy(films / "a.mp4", films / "new.mp4")
    counts = index(tmp_path / "i", model, films)
    assert counts == {"new": 1, "changed": 1, "same": 1, "removed": 1, "unreadable": 0}
    assert set(content(tmp_path / "i")[0]) == {"a.mp4", "more/c.mp4", "new.mp4"}


def test_other_captions_change_a_film(model, films, tmp_path):
    index(tmp_path / "i", model, films)
    (films / "more" / "c.csv").write_text("start,end,text\n0,0.5,a blue star\n")
    assert index(tmp_path / "i", model, films)["changed"] == 1
    assert [c.text for n, c, _ in content(tmp_path / "i")[1] if n == "more/c.mp4"] == [
        "a blue star"
    ]


@pytest.mark.parametrize("stage", ["before vectors", "after vectors", "in the transaction"])
@pytest.mark.parametrize("film", [0, 1, 2])
def test_a_kill_leaves_an_index_that_goes_on(model, found, tmp_path, monkeypatch, stage, film):
    films, calls = found.folder.parent / "films", []

    class Killed(BaseException):
        pass

    def wrap(real, wanted):
        def call(self, *arguments, **options):
            calls.append(wanted)
            if stage == wanted and calls.count(wanted) == 1 + film * of[wanted]:
                raise Killed
            return real(self, *arguments, **options)

        return call

    of = {"before vectors": len(model.combinations), "after vectors": 1, "in the transaction": 1}
    if stage == "before vectors":
        monkeypatch.setattr(Storage, "_write", wrap(Storage._write, stage))
    elif stage == "after vectors":
        monkeypatch.setattr(Storage, "_transaction", wrap(Storage._transaction, stage))
        of["after vectors"] = 1
    else:
        put = Storage._put

        def call(self, facts):
            calls.append(stage)
            if "rows" in facts and calls.count(stage) > 1 + film:
                raise Killed
            put(self, facts)

        monkeypatch.setattr(Storage, "_put", call)
    with pytest.raises(Killed):
        index(tmp_path / "i", model, films)
    monkeypatch.undo()
    index(tmp_path / "i", model, films)
    assert content(tmp_path / "i") == content(found.folder)


def test_rows_of_removed_clips_are_dropped_in_time(model, films, tmp_path):
    for round_ in range(5):
        os.utime(films / "a.mp4", (1, round_ + 1))
        os.utime(films / "more" / "c.mp4", (1, round_ + 1))
        index(tmp_path / "i", model, films)
    storage = Storage(tmp_path / "i")
    rows = storage.table().rows
    assert len(rows) <= storage.fact("rows") <= 2 * len(rows)
    sizes = {file.stat().st_size for file in (tmp_path / "i" / "vectors").iterdir()}
    assert len(list((tmp_path / "i" / "vectors").iterdir())) == len(model.combinations)
    assert len(sizes) == 1
    storage.close()
    index(tmp_path / "fresh", model, films)
    assert content(tmp_path / "i") == content(tmp_path / "fresh")


def test_an_unreadable_film_is_named_and_the_others_go_on(model, films, tmp_path, capsys):
    (films / "broken.mp4").write_bytes(b"no film")
    assert index(tmp_path / "i", model, films)["unreadable"] == 1
    assert content(tmp_path / "i")[0]["broken.mp4"].problem
    storage = Storage(tmp_path / "i")
    assert "4 films" in summarise({"new": 4}, storage)
    storage.close()


def naive(folder, query, within, but=None):
    """Rank the clips of an index by hand: their numbers, the best first."""
    storage = Storage(folder)
    ids, rows, _, has = storage.table()
    chosen, values = {}, {}
    for number, row, letters in zip(ids.tolist(), rows, has, strict=True):
        fitting = [c for c in within if set(c) <= set(letters)]
        for c in fitting:
            values[c, number] = float(storage.vectors(c)[row] @ query)
        if fitting:
            chosen[number] = max(fitting, key=len)
    storage.close()

    def place(number):
        its = [value for (c, _), value in values.items() if c == chosen[number]]
        return values[chosen[number], number] - np.mean(its)

    return sorted((number for number in chosen if number != but), key=place, reverse=True)


@pytest.fixture(scope="module")
def different(model, tmp_path_factory):
    """An index of the films, and of two whose pictures and sound are of their own; the films."""
    folder, rng = tmp_path_factory.mktemp("different"), np.random.default_rng(0)
    films = write_films(folder / "films")
    for name in ("x", "y"):
        frames = [rng.integers(0, 256, (36, 64, 3), np.uint8) for _ in range(50)]
        write_clip(films / f"{name}.mp4", frames, 25, rng.uniform(-0.5, 0.5, 32_000).astype("f4"))
    return Index(folder / "i", model).add(films), films


def test_a_part_of_a_film_finds_itself(model, different):
    found, films = different
    for number, name, clip in numbered(found.folder):
        if name in ("x.mp4", "y.mp4"):
            query = model.encode(films / name, start=clip.start, end=clip.end).numpy()
            hit = found.nearest(query, k=1)[0]
            assert (hit.id, hit.video, hit.start) == (number, str(films / name), clip.start)
            assert hit.score == pytest.approx(1, abs=1e-5)


def numbered(folder):
    storage = Storage(folder)
    ids, _, names, _ = storage.table()
    found = [(i, n, storage.clip(i)[1]) for i, n in zip(ids.tolist(), names, strict=True)]
    storage.close()
    return found


def test_questions_find_every_clip_once(found):
    words = found.search("a red star", k=20)
    assert len({h.id for h in words}) == len(words) == len(content(found.folder)[1])
    assert [h.calibrated for h in words] == sorted((h.calibrated for h in words), reverse=True)
    assert {h.video.rpartition("/")[2] for h in words} == {"a.mp4", "c.mp4", "silent.mp4"}
    assert all(set(h.by) == {"video"} for h in words if "silent" in h.video)
    (silent,) = {Path(h.video) for h in found.search("a red star", film="silent")}
    assert silent == found.folder.parent / "films" / "silent.mp4"


def test_scores_are_calibrated_by_combination(model, found):
    query = model.encode("a red star").numpy()
    hits = {h.id: h for h in found.nearest(query, 100)}
    storage = Storage(found.folder)
    clips = list(zip(*storage.table(), strict=True))
    for combination in ("v", "va"):
        there = [clip for clip in clips if set(combination) <= set(clip[3])]
        values = {i: float(storage.vectors(combination)[row] @ query) for i, row, *_ in there}
        mean = np.mean([*values.values()])
        for number in (i for i, *_, has in there if ("a" in has) == (combination == "va")):
            assert hits[number].score == pytest.approx(values[number], abs=1e-6)
            assert hits[number].calibrated == pytest.approx(values[number] - mean, abs=1e-5)
    storage.close()


@pytest.mark.parametrize("within", [(), ("v",), ("v", "a")])
def test_answers_are_those_of_a_naive_search(model, different, within):
    found, _ = different
    query = model.encode("a red star").numpy()
    hits = [hit.id for hit in found.nearest(query, 100, within)]
    assert hits == naive(found.folder, query, within or ("v", "a", "va"))


@pytest.mark.parametrize("within", [(), ("v",), ("a", "v")])
def test_what_is_near_a_clip_is_that_of_a_naive_search(different, within):
    found, _ = different
    number = next(one[0] for one in numbered(found.folder) if one[1] == "x.mp4")
    storage = Storage(found.folder)
    ids, rows, *_ = storage.table()
    row = rows[ids.tolist().index(number)]
    query = np.array(storage.vectors(max(within or ("va",), key=len))[row])
    storage.close()
    expected = naive(found.folder, query, within or ("v", "a", "va"), but=number)
    assert [hit.id for hit in found.near(number, 100, within)] == expected
    assert [hit.id for hit in found.near(number, 3, within)] == expected[:3]
    assert {Path(hit.video).name for hit in found.near(number, 3, within, "y.mp4")} == {"y.mp4"}


def test_impossible_questions_are_one_line(found):
    silent = next(number for number, name, _ in numbered(found.folder) if name == "silent.mp4")
    with pytest.raises(SearchError, match=f"clip {silent} has nothing of a; it has 'v'"):
        found.near(silent, within=["a"])
    with pytest.raises(SearchError, match="has no clip 999"):
        found.near(999)
    for k in (0, -1):
        with pytest.raises(SearchError, match=f"the number of hits, must be at least 1; got {k}"):
            found.search("a red star", k=k)


def test_another_model_is_refused(model, films, tmp_path):
    Index(tmp_path / "i", model).add(films)
    storage = Storage(tmp_path / "i", write=True)
    storage.set_facts(model="another")
    storage.close()
    with pytest.raises(SearchError, match="was made with another model"):
        Index(tmp_path / "i", model)


def test_two_writers_and_no_index_are_one_line(model, films, tmp_path):
    storage = Storage(tmp_path / "i", write=True)
    with pytest.raises(SearchError, match="another process is writing"):
        Storage(tmp_path / "i", write=True)
    storage.close()
    with pytest.raises(SearchError, match=r"there is no index at \S*nothing; make one by"):
        Storage(tmp_path / "nothing")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "index.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(SearchError, match="cannot be opened"):
        Storage(tmp_path / "bad")


def test_impossible_windows_are_one_line(model, films, tmp_path):
    with pytest.raises(ValueError, match=r"at most 0.7 s, which is the longest clip"):
        index(tmp_path / "i", model, films, windows=30)
    with pytest.raises(ValueError, match="step must be above 0 and at most 0.5 s; got 3"):
        index(tmp_path / "i", model, films, windows=0.5, step=3)


def test_a_full_disk_keeps_what_is_there(model, films, tmp_path, monkeypatch):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    shutil.copy(films / "a.mp4", films / "new.mp4")

    def full(self, facts):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Storage, "_put", full)
    with pytest.raises(SearchError, match="make room there; what it has so far is complete"):
        index(tmp_path / "i", model, films)
    monkeypatch.undo()
    assert content(tmp_path / "i") == before


def test_a_wrong_path_leaves_no_index(tmp_path):
    given = argparse.Namespace(films=[tmp_path / "no"], prune=False, out=str(tmp_path / "i"))
    with pytest.raises(ValueError, match="no: no such file or folder"):
        index_command.index(given)
    assert not (tmp_path / "i").exists()
