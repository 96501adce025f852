"""What workers share is made once, also when they ask for it at the same time."""

import threading
import time

import pytest

from tests.once import Once


def test_of_workers_that_ask_at_the_same_time_one_makes_it(tmp_path):
    made, seen = [], []

    def make(folder):
        made.append(folder)
        time.sleep(0.05)
        (folder / "whole").touch()

    def ask():
        seen.append((Once(tmp_path)("thing", make) / "whole").exists())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, seen) == ([tmp_path / "thing"], [True] * 4)


def test_what_one_worker_could_not_make_another_begins_anew(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Once(tmp_path)("thing", fail)
    folder = Once(tmp_path)("thing", lambda folder: (folder / "whole").touch())
    assert [file.name for file in folder.iterdir()] == ["whole"]


def test_all_workers_have_one_folder_and_one_cache(once, private_cache, tmp_path_factory):
    own = tmp_path_factory.getbasetemp()
    assert once.root in (own, own.parent)
    assert not once.root.name.startswith("popen-")  # that of a worker
    assert private_cache.is_dir()
