"""Captions that several machines convert at once."""

import pickle

import pytest

from fusion.data.captions import index_cache as caption_cache
from fusion.data.captions.index_cache import open_captions

CAPTIONS = {"aaa": {"start": [1.0], "end": [2.0], "text": ["cut it"]}}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "caption.pickle"
    file.write_bytes(pickle.dumps(CAPTIONS))
    return file


def test_of_two_that_convert_at_once_the_first_is_kept(path, tmp_path, monkeypatch):
    """Others have its files mapped, which must not vanish."""
    write, mapped = caption_cache.write_caption_store, []

    def slowly(place, items):
        if not mapped:
            mapped.append(None)
            mapped.append(open_captions(path))  # another machine, from beginning to end
            mapped.append(state(mapped[1].path))
        write(place, items)

    def state(folder):
        return {file.name: file.stat().st_ino for file in folder.iterdir()}

    monkeypatch.setattr(caption_cache, "write_caption_store", slowly)
    opened = open_captions(path)
    assert [caption.text for caption in opened.captions("aaa")] == ["cut it"]
    assert opened.path == mapped[1].path
    assert state(opened.path) == mapped[2]
    assert list((tmp_path / "cache" / "captions").iterdir()) == [opened.path]


def test_a_conversion_that_fails_leaves_nothing_behind(path, tmp_path):
    path.write_bytes(pickle.dumps({"aaa": {"start": [1.0], "end": [], "text": []}}))
    with pytest.raises(ValueError, match="must be lists start, end, text"):
        open_captions(path)
    assert list((tmp_path / "cache" / "captions").iterdir()) == []


def test_a_cache_without_a_count_of_bad_captions_still_opens(path):
    opened = open_captions(path)
    (opened.path / caption_cache.BAD).unlink()
    assert [caption.text for caption in open_captions(path).captions("aaa")] == ["cut it"]
