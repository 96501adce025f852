import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.files import (
    append_text,
    cache_folder,
    lock,
    open_lock,
    patiently,
    recover_folder,
    remove_folder,
    replace_folder,
    write_atomically,
    write_once,
)


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


def test_a_link_is_replaced_by_a_folder_and_what_it_led_to_stays(tmp_path, caplog):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("precious")
    (tmp_path / "x").symlink_to(tmp_path / "other")
    for value in "123":
        with replace_folder(tmp_path / "x") as new:
            (new / value).write_text(value)
        assert names(tmp_path / "x") == [value] and names(tmp_path) == ["other", "x"]
    assert (tmp_path / "other" / "mine").read_text() == "precious"
    assert caplog.text.count("was a link; a folder takes its place") == 1


@pytest.mark.parametrize("name", ["x", "x.old", "x.new-1"])
def test_links_among_the_leftovers_are_removed_and_not_followed(tmp_path, name):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("precious")
    (tmp_path / name).symlink_to(tmp_path / "other")
    recover_folder(tmp_path / "x")
    remove_folder(tmp_path / "x")
    assert names(tmp_path) == ["other"] and names(tmp_path / "other") == ["mine"]


def test_a_lock_leaves_what_is_in_the_file_and_is_no_link(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"is a link, and must be a file.*\.lock"):
        open_lock(tmp_path / ".lock")
    with open_lock(tmp_path / "mine") as opened:
        assert lock(opened.fileno())
        with pytest.raises(BlockingIOError), open_lock(tmp_path / "mine") as other:
            lock(other.fileno())
    assert (tmp_path / "mine").read_text() == "precious"


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_f08_a_full_disk_is_said_with_the_name_of_the_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "x", "1")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device, while writing.*/x'"):
        write_atomically(tmp_path / "x", "2")
    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="such a device")
def test_f08_a_line_that_finds_no_room_is_an_error_with_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device, while writing.*/dev/full"):
        append_text(Path("/dev/full"), "a line\n")
    append_text(tmp_path / "log", "a\n")
    append_text(tmp_path / "log", "b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_f08_half_a_line_is_taken_back(tmp_path):
    """A limit on the size of files stands for a disk with a little room left."""
    path = tmp_path / "log"
    append_text(path, "first\n")
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        " from fusion.files import append_text;"
        " signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        " append_text(Path(sys.argv[1]), 'x' * 9999)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True
    )
    assert "while writing" in done.stderr and path.read_text() == "first\n"


def test_f26_only_what_passes_is_waited_for(monkeypatch):
    pauses, failures = [], [OSError(errno.EIO, "x"), OSError(errno.ETIMEDOUT, "x")]
    monkeypatch.setattr("fusion.files.time.sleep", pauses.append)

    def read():
        if failures:
            raise failures.pop()
        return 7

    assert patiently(read) == 7 and pauses == [0.1, 0.5]
    failures += [FileNotFoundError(errno.ENOENT, "gone")]
    with pytest.raises(FileNotFoundError):
        patiently(read)
    assert len(pauses) == 2
