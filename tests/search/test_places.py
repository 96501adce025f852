"""Which films an index has after several calls, from several places, and after a move."""

import shutil

import pytest

from fusion.search import indexing
from fusion.search.index import Index
from fusion.search.storage import Storage
from tests.search.test_index import content, index


@pytest.fixture
def other(films, tmp_path):
    """A second collection, with a film of a name that the first has too, and its captions."""
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(films / "more" / "c.mp4", folder / "a.mp4")
    (folder / "a.csv").write_text("start,end,text\n0,0.5,a star\n")
    return folder


def test_films_of_other_places_stay(model, films, other, tmp_path):
    Index(tmp_path / "i", model).add(films, quiet=True).add(other, quiet=True)
    Index(tmp_path / "both", model).add(films, other, quiet=True).add(films, other, quiet=True)
    known, clips = content(tmp_path / "i")
    assert {film.path for film in known.values()} == {
        *(str(films / name) for name in ("a.mp4", "silent.mp4", "more/c.mp4")),
        str(other / "a.mp4"),
    }
    assert content(tmp_path / "both") == (known, clips)
    assert [clip.text for name, clip, _ in clips if name == "other/a.mp4"] == ["a star"]
    assert {clip.text for name, clip, _ in clips if name == "films/a.mp4"} == {""}
    (other / "a.mp4").rename(other / "b.mp4")
    assert index(tmp_path / "i", model, films)["removed"] == 0  # it is of another place
    assert index(tmp_path / "i", model, other)["removed"] == 1


def test_a_film_named_by_itself_keeps_its_captions_and_the_others(model, films, tmp_path):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    counts = index(tmp_path / "i", model, films / "more" / "c.mp4")
    assert counts == {"new": 0, "changed": 0, "same": 1, "removed": 0, "unreadable": 0}
    assert content(tmp_path / "i") == before


def test_a_moved_collection_is_found_where_it_is(model, films, tmp_path, monkeypatch):
    index(tmp_path / "i", model, films)
    _, before = content(tmp_path / "i")
    films.rename(tmp_path / "moved")
    monkeypatch.setattr(indexing, "_embed", None)  # nothing may be embedded
    counts = index(tmp_path / "i", model, tmp_path / "moved")
    assert counts == {"new": 0, "changed": 0, "same": 3, "removed": 0, "unreadable": 0}
    known, clips = content(tmp_path / "i")
    assert clips == before
    assert known["a.mp4"].path == str(tmp_path / "moved" / "a.mp4")


def test_a_copy_is_another_film(model, films, tmp_path):
    index(tmp_path / "i", model, films)
    shutil.copytree(films, tmp_path / "copy")  # with the times of the files
    assert index(tmp_path / "i", model, tmp_path / "copy")["new"] == 3
    assert len(content(tmp_path / "i")[0]) == 6


def test_a_reader_sees_one_state(model, films, tmp_path):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    reader = Storage(tmp_path / "i")
    for name in ("silent.mp4", "more/c.mp4"):
        (films / name).unlink()
    index(tmp_path / "i", model, films)
    assert len(content(tmp_path / "i")[0]) == 1
    found = [
        (
            name,
            reader.clip(int(number))[1],
            [reader.vectors(c)[row].tobytes() for c in model_order(reader)],
        )
        for number, row, name, _ in zip(*reader.table(), strict=True)
    ]
    assert (reader.films(), sorted(found)) == before
    reader.close()


def test_a_reader_takes_the_next_state_if_its_vectors_go(model, films, tmp_path, monkeypatch):
    index(tmp_path / "i", model, films)
    real, calls = Storage._map, []

    def _map(self, combination):
        calls.append(combination)
        if len(calls) == 1:  # a writer is faster
            (films / "silent.mp4").unlink()
            (films / "more" / "c.mp4").unlink()
            index(tmp_path / "i", model, films)
        return real(self, combination)

    monkeypatch.setattr(Storage, "_map", _map)
    reader = Storage(tmp_path / "i")
    assert list(reader.films()) == ["a.mp4"]
    assert all(len(reader.vectors(c)) == len(reader.table().ids) for c in model_order(reader))
    reader.close()


def model_order(storage):
    return storage.fact("combinations")
