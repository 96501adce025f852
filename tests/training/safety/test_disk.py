"""A disk that is full, read-only or slow, and clocks that jump."""

import builtins
import errno
import os
import random
import re
import tempfile
import time

import numpy as np
import pytest

from fusion.data.features import files
from fusion.data.features.format import Field
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.training.run_folder import RunFolder
from fusion.training.safety.checkpoints import copies, find_damage
from tests.training.doubles import ClipList
from tests.training.safety.runs import Undisturbed, copy_of, go_on
from tests.training.test_trainer import items, losses, make, state

WRITES = ("mkdir", "rename", "replace", "fsync", "link")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("run"))


class Failing:
    """From the n-th call on that writes, all fail, as on a disk that is full or read-only."""

    def __init__(self, patch, number, code):
        self.left, self.code = number, code
        for name in WRITES:
            patch.setattr(os, name, self.counting(getattr(os, name)))
        patch.setattr(tempfile, "mkstemp", self.counting(tempfile.mkstemp))
        patch.setattr(tempfile, "mkdtemp", self.counting(tempfile.mkdtemp))
        plain, counted = builtins.open, self.counting(builtins.open)

        def open_file(file, mode="r", *words, **options):
            writes = set(mode) & set("wax+")
            return (counted if writes else plain)(file, mode, *words, **options)

        patch.setattr(builtins, "open", open_file)

    def counting(self, call):
        def counted(*words, **options):
            self.left -= 1
            if self.left < 0:
                place = options.get("dir", words[0] if words else None)
                named = [str(place)] if isinstance(place, str | os.PathLike) else []  # no number
                raise OSError(self.code, os.strerror(self.code), *named)
            return call(*words, **options)

        return counted


def goes_on(run, undisturbed):
    trainer = go_on(run)
    trainer.fit()
    assert losses(run) == undisturbed.losses
    assert all(t.equal(undisturbed.state[n]) for n, t in state(trainer).items())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_f08_a_disk_that_fails_from_any_write_on_keeps_the_last_checkpoint(
    tmp_path, undisturbed, code
):
    failures = 0
    for number in range(0, 200, 3 if code == errno.ENOSPC else 7):
        run = copy_of(undisturbed.cut, tmp_path / str(number))
        with pytest.MonkeyPatch.context() as patch:
            try:
                trainer = go_on(run)
                disk = Failing(patch, number, code)
                trainer.fit()
            except OSError as error:
                failures += 1
                assert os.strerror(code) in str(error) and "\n" not in str(error)
                assert str(run) in str(error), number
            if disk.left >= 0:
                break
        assert find_damage(copies(run)[0]) is None, number
        goes_on(run, undisturbed)
    assert failures >= 3 and disk.left >= 0


def test_f08_a_read_only_folder_is_one_line(tmp_path, monkeypatch):
    Failing(monkeypatch, 0, errno.EROFS)
    with pytest.raises(OSError, match=f"Read-only file system.*{re.escape(str(tmp_path))}"):
        RunFolder(tmp_path / "run", {"resume": False, "overwrite": False}).claim()


class Slow(ClipList):
    """Clips of a disk that is slow now and then, on a machine whose clocks jump."""

    def __getitem__(self, index):
        time.sleep(0.005 * (index % 3))
        return super().__getitem__(index)


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_slow_disk_and_clocks_that_jump_change_nothing(tmp_path, undisturbed, monkeypatch, jump):
    plain, count = time.time, [0]

    def jumping():
        count[0] += 1
        return plain() + (jump if count[0] % 2 else -jump)

    monkeypatch.setattr(time, "time", jumping)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (time.sleep(0.01), fsync(number))[1])
    trainer = make(tmp_path, data=Slow(items()), save_every=3)
    trainer.fit()
    assert losses(tmp_path) == undisturbed.losses
    assert all(t.equal(undisturbed.state[n]) for n, t in state(trainer).items())
    assert go_on(tmp_path).steps_done == 12


def test_f26_one_read_in_a_hundred_that_fails_costs_nothing(tmp_path, monkeypatch):
    """With three more attempts one in a hundred million fails for good."""
    folder, chosen, failed, pauses = tmp_path / "store", random.Random(0), [], []
    with StoreWriter(folder, {"2d": Field(2, 1.0)}, "w") as writer:
        for number in range(50):
            writer.add(str(number), {"2d": np.array([[number, number + 1.0]], np.float32)})
    monkeypatch.setattr("fusion.files.time.sleep", pauses.append)
    plain = os.pread

    def pread(*words):
        if chosen.random() < 0.01:
            failed.append(words)
            raise OSError(errno.EIO, "Input/output error")
        return plain(*words)

    monkeypatch.setattr(files.os, "pread", pread)
    store = FeatureStore(folder)
    for _ in range(20):
        for number in range(50):
            assert store.read(str(number), "2d").tolist() == [[number, number + 1]]
    assert 5 <= len(failed) == len(pauses) < 30
