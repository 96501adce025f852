import os

import pytest

from fusion.extract.videos import find_videos


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_is_searched_and_names_are_relative_to_it(tmp_path):
    touch(tmp_path, "b.MP4", "a/c.mkv", "a/deep/d.mp3", "notes.txt", "a/subtitles.vtt")
    touch(tmp_path, "._b.MP4", ".hidden/e.mp4")
    found = find_videos([tmp_path])
    assert list(found) == ["a/c.mkv", "a/deep/d.mp3", "b.MP4"]
    assert found["a/c.mkv"] == tmp_path / "a" / "c.mkv"


def test_the_common_folder_of_all_places_is_what_names_are_relative_to(tmp_path):
    touch(tmp_path, "x/a.mp4", "y/z/b.mp4", "y/z/notes.odd")
    assert list(find_videos([tmp_path / "x", tmp_path / "y" / "z"])) == ["x/a.mp4", "y/z/b.mp4"]
    assert list(find_videos([tmp_path / "x" / "a.mp4"])) == ["a.mp4"]
    assert list(find_videos([tmp_path / "x" / "a.mp4", tmp_path / "x"])) == ["a.mp4"]
    assert list(find_videos([tmp_path / "y/z/notes.odd"])) == ["notes.odd"]  # named itself
    assert list(find_videos([tmp_path / "x"], root=tmp_path)) == ["x/a.mp4"]
    with pytest.raises(ValueError, match=r"a.mp4 is not in the folder .*y; give another --root"):
        find_videos([tmp_path / "x"], root=tmp_path / "y")


def test_the_store_is_not_searched_and_links_in_circles_end(tmp_path):
    touch(tmp_path, "a.mp4", "store/shards/b.mp4", "real/c.mp4")
    os.symlink(tmp_path, tmp_path / "real" / "up")
    found = find_videos([tmp_path], leave_out=tmp_path / "store")
    assert list(found) == ["a.mp4", "real/c.mp4"]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="none: no such file or folder; check the path"):
        find_videos([tmp_path / "none"])
    with pytest.raises(ValueError, match="no media file in this folder"):
        find_videos([tmp_path])
