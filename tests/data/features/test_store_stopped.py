"""A writer stopped at any moment leaves a whole store."""

import contextlib
import os
import random
import signal
import tempfile
import time

import pytest

from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter
from tests.data.features.store_fixtures import FIELDS, check, features_of, names, shards, write
from tests.processes import context


class Killed(BaseException):
    pass


def stop_at(monkeypatch, module, function, count, error):
    """Let a function raise the error when it is called for this time, counted from 0."""
    plain, calls = getattr(module, function), iter(range(1000))

    def fail(*args, **kwargs):
        if next(calls) == count:
            raise error
        return plain(*args, **kwargs)

    monkeypatch.setattr(module, function, fail)
    return lambda: next(calls) > count  # whether it was called so often


@pytest.mark.parametrize("error", [OSError("no space"), Killed()])
@pytest.mark.parametrize(
    ("module", "function"),
    [
        *((os, name) for name in ("fsync", "replace", "chmod", "link", "fdopen")),
        (tempfile, "mkstemp"),
    ],
)
def test_a_writer_stopped_at_any_step_leaves_a_store(
    tmp_path, monkeypatch, module, function, error
):
    stopped, count = True, 0
    while stopped:
        folder = tmp_path / str(count)
        with monkeypatch.context() as patch, contextlib.suppress(type(error)):
            was_called = stop_at(patch, module, function, count, error)
            write(folder, names(3), shard_bytes=700)
        stopped, count = was_called(), count + 1
        assert not list(folder.rglob("*.new-*"))
        if (folder / "store.json").exists():
            store = FeatureStore(folder)
            check(store, list(store.videos))
            assert find_damaged_shards(store) == []
            assert len(shards(folder)) == len(shards(folder, "json"))
        write(folder, names(3), shard_bytes=700)
        check(FeatureStore(folder), names(3))
        assert not list(folder.rglob("*.new-*"))
    assert count > 1


def test_an_exception_in_the_body_drops_the_open_shard_alone(tmp_path):
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, FIELDS, "w") as writer:
        writer.add("kept", {})
        writer.flush()
        writer.add("dropped", {})
        raise KeyboardInterrupt
    assert list(FeatureStore(tmp_path).videos) == ["kept"]


def test_a_failed_flush_can_be_tried_again(tmp_path, monkeypatch):
    with StoreWriter(tmp_path, FIELDS, "w") as writer:
        writer.add("film", features_of("film"), {"duration": 4})
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
            writer.flush()
    check(FeatureStore(tmp_path), ["film"])


def test_a_killed_writer_costs_the_open_shard_alone(tmp_path):
    expected, rng = names(400), random.Random(0)
    kept = [0]
    for _ in range(5):
        process = context.Process(target=write, args=(tmp_path, expected, "w", 700))
        process.start()
        time.sleep(0.02)
        while process.is_alive() and len(shards(tmp_path, "json")) < kept[-1] + 5:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        store = FeatureStore(tmp_path)
        check(store, list(store.videos))
        assert find_damaged_shards(store) == []
        kept.append(len(shards(tmp_path, "json")))
    assert kept == sorted(set(kept))  # each went on from where the one before was killed
    write(tmp_path, expected, shard_bytes=10_000)
    check(FeatureStore(tmp_path), expected)
    assert not list(tmp_path.rglob("*.new-*"))
    assert len(shards(tmp_path)) == len(shards(tmp_path, "json"))


def test_what_a_killed_writer_left_is_removed_by_the_next_of_its_name(folder):
    (folder / "shards" / "w-00099.new-abc").write_text("half a shard")
    (folder / "shards" / "w-00099-0123456789ab.safetensors").write_text("a shard, not its piece")
    (folder / "shards" / "w-00099-0123456789ab.json.new-abc").write_text("half a piece")
    (folder / "shards" / "other-00099.new-abc").write_text("another's")
    check(FeatureStore(folder), names(30))
    write(folder, names(31))
    left = [path.name for path in (folder / "shards").glob("*-00099*")]
    assert left == ["other-00099.new-abc"]
    check(FeatureStore(folder), names(31))
