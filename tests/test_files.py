import os

import pytest

from fusion.files import cache_folder, recover_folder, replace_folder, write_atomically, write_once


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path):
    with replace_folder(tmp_path / "x") as new:
        (new / "a").write_text("1")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x" / "a").read_text() == "1"
    assert names(tmp_path) == ["x"]


def test_a_folder_is_replaced_whole(tmp_path):
    for value in "12":
        with replace_folder(tmp_path / "x") as new:
            (new / value).write_text(value)
    assert names(tmp_path / "x") == ["2"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    with replace_folder(tmp_path / "x") as new:
        (new / "a").write_text("1")
    with pytest.raises(error), replace_folder(tmp_path / "x") as new:
        (new / "a").write_text("2")
        raise error
    assert (tmp_path / "x" / "a").read_text() == "1"
    assert names(tmp_path) == ["x"]


def test_an_exchange_that_was_cut_off_is_undone(tmp_path):
    (tmp_path / "x.old").mkdir()
    (tmp_path / "x.old" / "a").write_text("1")
    (tmp_path / "x.new-123").mkdir()
    assert (recover_folder(tmp_path / "x") / "a").read_text() == "1"
    assert names(tmp_path) == ["x"]


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert names(path.parent) == ["x"]


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FUSION_CACHE")
    assert cache_folder().name == "fusion"


@pytest.mark.parametrize("can_link", [True, False])
def test_a_file_is_written_once(tmp_path, monkeypatch, can_link):
    def refuse(*paths):
        raise PermissionError("no links here")

    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    for content in ("first", "second"):
        write_once(tmp_path / "x", content)
    assert (tmp_path / "x").read_text() == "first"
    assert names(tmp_path) == ["x"]


def test_of_two_that_write_at_once_the_first_one_counts(tmp_path, monkeypatch):
    link = os.link

    def late(new, path):
        path.write_text("of another process")
        link(new, path)

    monkeypatch.setattr(os, "link", late)
    write_once(tmp_path / "x", "ours")
    assert (tmp_path / "x").read_text() == "of another process"
    assert names(tmp_path) == ["x"]
