import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import random
import signal
import tempfile
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils.data import DataLoader, Dataset

from fusion.data import store_files, store_open
from fusion.data.store import FeatureStore
from fusion.data.store_files import open_files
from fusion.data.store_format import Field, StoreError
from fusion.data.store_writer import StoreWriter

FIELDS = {"2d": Field(8, 1.0), "3d": Field(4, 1.5), "spec": Field(5, 100.0)}


def features_of(video):
    """Make features that depend on the name alone; any field may have no rows."""
    seed = int.from_bytes(hashlib.sha256(video.encode()).digest()[:4], "little")
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(rng.integers(0, 40), field.width)).astype(np.float16)
        for name, field in FIELDS.items()
    }


def write(folder, videos, name="w", shard_bytes=1500):
    with StoreWriter(folder, FIELDS, name, shard_bytes) as writer:
        for video in videos:
            if not writer.done(video):
                writer.add(video, features_of(video), {"duration": len(video)})


def check(store, videos):
    """Compare everything in a store with the plain way."""
    assert list(store.videos) == sorted(videos)
    for video in videos:
        for name, expected in features_of(video).items():
            assert store.rows(video, name) == len(expected)
            assert np.array_equal(store.read(video, name).numpy(), expected)
        assert store.facts(video) == {"duration": len(video)}


def names(count, prefix="v"):
    return [f"{prefix}{i:03d}" for i in range(count)]


def shards(folder, kind="safetensors"):
    return sorted((folder / "shards").glob(f"*.{kind}"))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "store", names(30))
    return tmp_path / "store"


# ---- what is written is what is read


def test_what_is_read_is_what_was_added(folder):
    store = FeatureStore(folder)
    check(store, names(30))
    assert store.fields == FIELDS
    assert len(store) == 30 and "v007" in store and "v030" not in store and 7 not in store
    assert store.videos[3:5] == ["v003", "v004"] and store.videos[-1] == "v029"
    assert store.verify() == []


def test_any_range_is_the_slice_of_the_whole(folder):
    store, rng = FeatureStore(folder), random.Random(0)
    for _ in range(1000):
        video, field = f"v{rng.randrange(30):03d}", rng.choice(list(FIELDS))
        first, last = rng.randint(0, 45), rng.randint(0, 45)
        expected = features_of(video)[field][first:last]
        assert np.array_equal(store.read(video, field, first, last).numpy(), expected)
    assert store.read("v001", "2d", -5, 10**9).equal(store.read("v001", "2d"))


def test_rows_may_be_written_to(folder):
    store = FeatureStore(folder)
    video = next(v for v in store.videos if store.rows(v, "2d"))
    before = store.read(video, "2d")
    store.read(video, "2d").zero_()
    assert store.read(video, "2d").equal(before)


def test_any_text_names_a_video_and_1000_of_them_are_found(tmp_path):
    videos = ["a/b", "a", "a/b/c.mp4", "2d", "a/2d", "__metadata__", "ein Film.mp4", "映画/🎬", "é"]
    videos += ["\n", "\\", '"', "..", "\x00", "\U0010ffff", "\uffff", *names(991)]
    write(tmp_path, videos, shard_bytes=100_000)
    check(FeatureStore(tmp_path), videos)


def test_tensors_of_any_kind_become_float16(tmp_path):
    values = torch.arange(16.0).view(8, 2)
    with StoreWriter(tmp_path, {"x": Field(2, 1.0)}, "w") as writer:
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64):
            writer.add(str(dtype), {"x": values.to(dtype)})
        writer.add("array", {"x": values.numpy()})
        writer.add("strided", {"x": values.T.contiguous().T})
        writer.add("with gradient", {"x": values.clone().requires_grad_()})
        own = values.half()
        writer.add("changed later", {"x": own})
        own.zero_()
    store = FeatureStore(tmp_path)
    assert all(store.read(video, "x").equal(values.half()) for video in store.videos)


def test_a_video_may_have_nothing(tmp_path):
    with StoreWriter(tmp_path, FIELDS, "w") as writer:
        writer.add("nothing", {})
        writer.add("no rows", {"2d": np.zeros((0, 8))}, {"problems": ["no picture"]})
    store = FeatureStore(tmp_path)
    assert store.rows("nothing", "2d") == store.rows("no rows", "2d") == 0
    assert store.read("no rows", "2d").shape == (0, 8)
    assert store.facts("nothing") == {} and store.facts("no rows") == {"problems": ["no picture"]}
    assert store.verify() == []


def test_shards_are_ordinary_safetensors_files(folder):
    found = {}
    for shard in shards(folder):
        found |= safetensors.torch.load_file(shard)
    expected = {
        f"{video}/{field}": torch.from_numpy(values)
        for video in names(30)
        for field, values in features_of(video).items()
        if len(values)
    }
    assert found.keys() == expected.keys()
    assert all(found[key].equal(expected[key]) for key in found)


def test_a_shard_is_closed_when_it_is_large_enough(tmp_path):
    with StoreWriter(tmp_path, {"x": Field(50, 1.0)}, "w", shard_bytes=1000) as writer:
        for i in range(35):
            writer.add(str(i), {"x": np.zeros((1, 50))})
            assert len(shards(tmp_path)) == (i + 1) // 10  # 100 bytes each
    held = [len(json.loads(piece.read_text())["videos"]) for piece in shards(tmp_path, "json")]
    assert held == [10, 10, 10, 5]


def test_bytes_read_are_the_bytes_used(folder, monkeypatch):
    store, read = FeatureStore(folder), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *a: read.append(pread(*a)) or read[-1])
    used = 0
    for video in store.videos:
        for field in FIELDS:
            used += store.read(video, field, 3, 9).nbytes
    assert used > 0 and sum(map(len, read)) == used


def test_reads_that_come_in_parts_are_put_together(folder, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, at: pread(file, min(length, 7), at))
    check(FeatureStore(folder), names(30))


# ---- input that is refused


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"2d": np.zeros(8)}, r"film: 2d must have the shape \(rows, 8\); got \(8,\)"),
        ({"2d": np.zeros((3, 7))}, r"must have the shape \(rows, 8\); got \(3, 7\)"),
        ({"spec": torch.zeros(5, 900)}, r"got \(5, 900\); it looks transposed: time comes first"),
        ({"2d": torch.full((3, 8), torch.nan)}, "must be finite; got nan at row 0, column 0"),
        ({"2d": np.diag([1, np.inf] * 4)}, "must be finite; got inf at row 1, column 1"),
        ({"2d": np.full((2, 8), -7e4)}, "at most 65504 for float16; got -70000 at row 0"),
        ({"2d": np.array([["a"] * 8])}, "film: 2d must be numbers; got <U1"),
        ({"4d": np.zeros((3, 8))}, r"film: the store .* no field '4d'; choose from \['2d', '3d'"),
    ],
)
def test_features_that_cannot_be_kept_are_refused(tmp_path, features, message):
    with StoreWriter(tmp_path, FIELDS, "w") as writer:
        with pytest.raises(ValueError, match=message) as caught:
            writer.add("film", features)
        assert "\n" not in str(caught.value)
        assert not writer.done("film")
        writer.add("film", {})  # nothing is left of the failed try


def test_the_largest_float16_is_kept(tmp_path):
    with StoreWriter(tmp_path, {"x": Field(1, 1.0)}, "w") as writer:
        writer.add("film", {"x": np.array([[65519.0], [-65504.0]])})
    assert FeatureStore(tmp_path).read("film", "x").tolist() == [[65504.0], [-65504.0]]


def test_facts_and_names_that_cannot_be_kept_are_refused(tmp_path):
    with StoreWriter(tmp_path, FIELDS, "w") as writer:
        with pytest.raises(ValueError, match="film: the facts must fit into JSON"):
            writer.add("film", {}, {"duration": float("nan")})
        with pytest.raises(ValueError, match="film: the facts must fit into JSON"):
            writer.add("film", {}, {"path": "\udcff"})
        with pytest.raises(ValueError, match=r"'\\udcff' cannot name a video"):
            writer.add("\udcff", {})
        with pytest.raises(ValueError, match="'' cannot name a video"):
            writer.add("", {})
    with pytest.raises(ValueError, match="film: the writer of .* is closed"):
        writer.add("film", {})
    with pytest.raises(ValueError, match="'a/b' cannot name a writer"):
        StoreWriter(tmp_path, FIELDS, "a/b")
    with pytest.raises(ValueError, match="'a/b' cannot name a field"):
        StoreWriter(tmp_path / "new", {"a/b": Field(1, 1.0)}, "w")
    with pytest.raises(ValueError, match="needs a positive width"):
        Field(0, 1.0)
    with pytest.raises(ValueError, match="cannot write to s3://b/x; write to a folder"):
        StoreWriter("s3://b/x", FIELDS, "w")


def test_a_video_is_added_once(folder):
    with StoreWriter(folder, FIELDS, "other") as writer:
        with pytest.raises(ValueError, match="v003: already in .*; ask done"):
            writer.add("v003", {})
        writer.add("new", {})
        with pytest.raises(ValueError, match="new: already in"):
            writer.add("new", {})


def test_what_is_not_there_is_explained(folder, tmp_path):
    store = FeatureStore(folder)
    with pytest.raises(StoreError, match="has no video 'v999'"):
        store.read("v999", "2d")
    with pytest.raises(StoreError, match="has no video"):
        store.facts("\udcff")
    with pytest.raises(StoreError, match=r"no field '4d'; choose from \['2d', '3d', 'spec'\]"):
        store.rows("v003", "4d")
    with pytest.raises(StoreError, match="is no feature store: it has no store.json"):
        FeatureStore(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot be opened: Protocol not known: gopher"):
        FeatureStore("gopher://x")


def test_a_damaged_or_newer_description_is_explained(folder):
    described = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text("{")
    with pytest.raises(StoreError, match="store.json is damaged"):
        FeatureStore(folder)
    described["fields"]["2d"]["dtype"] = "float32"
    (folder / "store.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match="it has features of float32, not float16"):
        FeatureStore(folder)
    (folder / "store.json").write_text('{"format": 2}')
    with pytest.raises(StoreError, match="is of format 2 and only 1 can be read"):
        FeatureStore(folder)


# ---- several writers, and more of it


def test_a_store_grows(folder):
    before = FeatureStore(folder)
    write(folder, names(40))
    check(before, names(30))
    check(FeatureStore(folder), names(40))
    assert len(list((folder / "index").glob("*.safetensors"))) == 2  # `before` is still open
    numbers = [int(shard.stem.split("-")[1]) for shard in shards(folder)]
    assert numbers == list(range(len(numbers)))
    del before
    write(folder, names(41))
    check(FeatureStore(folder), names(41))
    assert len(list((folder / "index").glob("*.safetensors"))) == 1


def test_other_fields_are_refused(folder):
    fields = FIELDS | {"2d": Field(16, 1.0)}
    with pytest.raises(StoreError, match=r"has the fields 2d \(8 wide, 1/s\), .* and not 2d \(16"):
        StoreWriter(folder, fields, "w")


def test_two_writers_of_one_name_are_refused(folder):
    with StoreWriter(folder, FIELDS, "x"):
        with pytest.raises(StoreError, match="a writer named 'x' is at work there"):
            StoreWriter(folder, FIELDS, "x")
        with StoreWriter(folder, FIELDS, "x-00000"):
            pass
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()  # which inherits the lock
    with StoreWriter(folder, FIELDS, "x"):
        child.kill()
    child.join()


def test_of_a_video_in_two_shards_the_first_by_name_counts(tmp_path):
    fields = {"x": Field(1, 1.0)}
    with StoreWriter(tmp_path, fields, "b") as b, StoreWriter(tmp_path, fields, "a") as a:
        for writer, value in ((b, 2.0), (a, 1.0)):
            writer.add("film", {"x": np.full((3, 1), value)})
    store = FeatureStore(tmp_path)
    assert list(store.videos) == ["film"]
    assert store.read("film", "x").tolist() == [[1.0]] * 3
    assert store.verify() == []


def in_processes(method, target, arguments):
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=target, args=a) for a in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_processes_write_at_once(tmp_path):
    work = [(tmp_path, names(40, p) + names(5, "shared"), p, 700) for p in "abc"]
    in_processes("fork", write, work)
    store = FeatureStore(tmp_path)
    check(store, names(40, "a") + names(40, "b") + names(40, "c") + names(5, "shared"))
    assert store.verify() == []


def open_and_check(folder):
    for _ in range(5):
        for file in (folder / "index").glob("*.safetensors"):
            file.unlink(missing_ok=True)
        check(FeatureStore(folder), names(30))


def test_processes_rebuild_the_index_at_once(folder):
    in_processes("fork", open_and_check, [(folder,)] * 4)
    check(FeatureStore(folder), names(30))


# ---- interruptions


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
            assert store.verify() == []
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
        process = multiprocessing.get_context("fork").Process(
            target=write, args=(tmp_path, expected, "w", 700)
        )
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
        assert store.verify() == []
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


# ---- damage


def first_with_rows(store, shard):
    names_in = json.loads((shard.with_suffix(".json")).read_text())["videos"]
    return next((v, f) for v in names_in for f in FIELDS if store.rows(v, f))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing; remove what"),
        (lambda path: os.truncate(path, 300), "has 300 bytes instead of"),
        (lambda path: path.open("ab").write(b"more"), "bytes instead of"),
    ],
)
def test_reading_from_a_damaged_shard_is_refused_and_verify_names_it(folder, damage, message):
    shard = shards(folder)[3]
    damage(shard)
    store = FeatureStore(folder)
    video, field = first_with_rows(store, shard)
    with pytest.raises(StoreError, match=message) as caught:
        store.read(video, field)
    assert "\n" not in str(caught.value) and shard.name in str(caught.value)
    (report,) = store.verify()
    assert report.name == shard.stem
    assert set(report.videos) == set(json.loads(shard.with_suffix(".json").read_text())["videos"])
    assert str(caught.value) in str(report) and video in str(report)


def test_a_shard_cut_while_it_is_open_is_refused(folder):
    store, shard = FeatureStore(folder), shards(folder)[3]
    video, field = first_with_rows(store, shard)
    store.read(video, field)
    os.truncate(shard, 20)
    with pytest.raises(StoreError, match="ends at byte"):
        store.read(video, field)


def test_verify_finds_a_changed_bit(folder):
    shard = shards(folder)[2]
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    store, seen = FeatureStore(folder), []
    (report,) = store.verify(seen.append)
    assert "SHA-256" in report.problem and report.name == shard.stem
    assert sum(seen) == store.num_bytes == sum(path.stat().st_size for path in shards(folder))


def forge(shard, change):
    """Let an index piece lie, with a name that fits to it."""
    piece = shard.with_suffix(".json")
    content = json.loads(piece.read_text())
    change(content)
    new = json.dumps(content).encode()
    stem = f"{shard.stem.rpartition('-')[0]}-{hashlib.sha256(new).hexdigest()[:12]}"
    piece.unlink()
    shard.with_name(f"{stem}.json").write_bytes(new)
    return shard.rename(shard.with_name(f"{stem}.safetensors"))


def entries(content):
    return [e for video in content["videos"].values() for e in video["fields"].values()]


def beyond(content):
    entries(content)[-1][1] += 4


def overlapping(content):
    entries(content)[1][1] -= 2


def negative(content):
    entries(content)[0][1] = -8


def endless(content):
    entries(content)[-1][0] = 10**12


def half_a_row(content):
    entries(content)[0][0] = 1.5


def nameless(content):
    content["videos"]["\ud800"] = {"fields": {}, "facts": {}}


@pytest.mark.parametrize("lie", [beyond, overlapping, negative, endless, half_a_row, nameless])
def test_an_index_piece_that_cannot_be_true_is_refused(folder, lie, caplog):
    shard = forge(shards(folder)[3], lie)
    videos = set(json.loads(shard.with_suffix(".json").read_text())["videos"]) - {"\ud800"}
    with caplog.at_level(logging.WARNING):
        store = FeatureStore(folder)
    assert f"{shard.stem}.json cannot be true" in caplog.text
    for video in videos:
        with pytest.raises(StoreError, match=r"no video .* \(1 of its index pieces are damaged"):
            store.read(video, "2d")
    (report,) = store.verify()
    assert report.name == shard.stem and set(report.videos) <= videos and report.videos
    check(store, sorted(set(names(30)) - videos))


def test_a_lie_within_the_file_is_found_by_verify(folder):
    def swap(content):
        fields = next(v["fields"] for v in content["videos"].values() if len(v["fields"]) == 3)
        fields["2d"][0] -= 1

    shard = forge(shards(folder)[3], swap)
    (report,) = FeatureStore(folder).verify()
    assert "does not hold what its index piece says" in report.problem
    assert report.name == shard.stem


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_index_piece_is_noticed_by_its_name_and_mended(folder, content):
    shard = shards(folder)[3]
    videos = json.loads(shard.with_suffix(".json").read_text())["videos"]
    shard.with_suffix(".json").write_bytes(content)
    store = FeatureStore(folder)
    assert not set(videos) & set(store.videos)
    (report,) = store.verify()
    assert f"{shard.stem}.json is damaged" in report.problem
    assert {v for v in videos if videos[v]["fields"]} == set(report.videos)
    assert not set(videos) & set(FeatureStore(folder).videos)
    shard.unlink()
    shard.with_suffix(".json").unlink()
    write(folder, names(30), name="again")
    check(FeatureStore(folder), names(30))
    assert FeatureStore(folder).verify() == []


def test_an_index_piece_that_came_back_is_read(folder):
    pieces = [piece.rename(piece.with_suffix(".bak")) for piece in shards(folder, "json")[3:5]]
    for piece in pieces:
        piece.with_suffix(".json").write_text("damaged")
    assert len(FeatureStore(folder)) == len(FeatureStore(folder)) < 30
    for piece in pieces:
        piece.rename(piece.with_suffix(".json"))
        store = FeatureStore(folder)
    check(store, names(30))


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_a_damaged_index_is_made_again(folder, damage):
    FeatureStore(folder)
    (index,) = (folder / "index").glob("*.safetensors")
    index.write_bytes(index.read_bytes()[:-9] if damage is None else damage)
    check(FeatureStore(folder), names(30))
    assert len(safetensors.torch.load_file(index)) == 7


def test_files_of_others_among_the_shards_are_left_alone(folder):
    (folder / "shards" / "notes.json").write_text("{}")
    (folder / "shards" / "w-00007-0123456789ab.safetensors").write_text("no index piece")
    store = FeatureStore(folder)
    check(store, names(30))
    assert store.verify() == []


def test_a_store_that_cannot_be_written_to_has_its_index_in_the_cache(folder, monkeypatch):
    plain = store_open.write_atomically

    def refuse(path, data):
        if folder in path.parents:
            raise PermissionError(path)
        plain(path, data)

    monkeypatch.setattr(store_open, "write_atomically", refuse)
    check(FeatureStore(folder), names(30))
    monkeypatch.setattr(store_open, "build_index", None)  # the second time it is there
    check(FeatureStore(folder), names(30))


# ---- other processes and other places


class Rows(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(self.store)

    def __getitem__(self, index):
        video = self.store.videos[index]
        return {field: self.store.read(video, field, 1, 7) for field in FIELDS}


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_read_the_same(folder, context):
    store = FeatureStore(folder)
    store.read("v000", "2d")  # the workers inherit an open file
    loader = DataLoader(Rows(store), None, num_workers=2, multiprocessing_context=context)
    found = list(loader)
    for video, item in zip(names(30), found, strict=True):
        for field, values in item.items():
            assert np.array_equal(values.numpy(), features_of(video)[field][1:7])


def test_a_pickled_store_is_the_same_though_the_folder_grew(folder):
    store = FeatureStore(folder)
    write(folder, names(35))
    check(pickle.loads(pickle.dumps(store)), names(30))


def test_the_working_directory_may_change(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    store = FeatureStore("store")
    with StoreWriter("store", FIELDS, "w") as writer:
        writer.add("v030", features_of("v030"), {"duration": 4})
        monkeypatch.chdir("/")
    check(store, names(30))
    check(FeatureStore(folder), names(31))


def test_few_files_are_open_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(store_files, "MAX_OPEN", 4)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    store = FeatureStore(folder)
    for _ in range(2):
        check(store, names(30))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 4 + 1  # and the map of the index
        del store
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def memory(request, folder, tmp_path, monkeypatch):
    """A store behind a URL that cannot be a folder by mistake."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")

    def publish(source=folder):
        if files.exists("/published"):
            files.rm("/published", recursive=True)
        for path in source.rglob("*"):
            if path.is_file():
                name = path.relative_to(source).as_posix()
                files.pipe_file(f"/published/{name}", path.read_bytes())
        return files

    request.addfinalizer(lambda: files.rm("/published", recursive=True))
    return publish


@pytest.mark.parametrize("index", ["none", "whole", "damaged"])
def test_a_store_behind_a_url_is_read_by_ranges(folder, memory, index):
    if index != "none":
        FeatureStore(folder)
    for path in (folder / "index").glob("*.safetensors"):
        os.truncate(path, 900 if index == "damaged" else path.stat().st_size)
    memory()
    store = FeatureStore("memory://published/")
    check(store, names(30))
    assert store.verify() == []
    expected = features_of("v003")["2d"][2:5]
    assert np.array_equal(store.read("v003", "2d", 2, 5).numpy(), expected)
    check(pickle.loads(pickle.dumps(store)), names(30))


def test_a_forked_process_makes_connections_of_its_own(memory, monkeypatch):
    memory()
    store, opened = FeatureStore("memory://published"), []
    monkeypatch.setattr(
        "fusion.data.store.open_files", lambda at: opened.append(at) or open_files(at)
    )
    check(store, names(30))
    assert opened == []
    monkeypatch.setattr(os, "getpid", lambda: -1)
    check(store, names(30))
    assert opened == ["memory://published"]


def test_the_index_of_a_remote_store_is_fetched_once_and_again_when_it_grew(
    folder, memory, monkeypatch
):
    FeatureStore(folder)
    files = memory()
    fetched, plain = [], files.cat_file
    monkeypatch.setattr(files, "cat_file", lambda p, **k: fetched.append(p) or plain(p, **k))
    check(FeatureStore("memory://published"), names(30))
    check(FeatureStore("memory://published"), names(30))
    assert len([path for path in fetched if "/index/" in path]) == 1
    write(folder, names(35))
    memory()  # with the old index alone
    check(FeatureStore("memory://published"), names(35))


def test_an_index_piece_that_came_back_behind_a_url_is_read(folder, memory):
    piece = shards(folder, "json")[3]
    content = piece.read_bytes()
    piece.write_bytes(b"damaged")
    assert len(FeatureStore(folder)) < 30
    files = memory()
    files.pipe_file(f"/published/shards/{piece.name}", content)
    check(FeatureStore("memory://published"), names(30))


def test_a_server_that_lists_nothing_needs_an_index(folder, memory, monkeypatch):
    files = memory()
    monkeypatch.setattr(files, "ls", lambda *a, **k: [])
    with pytest.raises(StoreError, match="can neither be listed nor has it an index; open it once"):
        FeatureStore("memory://published")
    FeatureStore(folder)
    memory()
    check(FeatureStore("memory://published"), names(30))


def test_a_remote_shard_that_is_short_missing_or_sent_whole_is_refused(folder, memory, monkeypatch):
    files, shard = memory(), shards(folder)[3]
    store, path = FeatureStore("memory://published"), f"/published/shards/{shard.name}"
    video, field = first_with_rows(store, shard)
    with monkeypatch.context() as patch:
        patch.setattr(files, "cat_file", lambda p, **k: shard.read_bytes())
        with pytest.raises(StoreError, match="cannot send parts of files"):
            store.read(video, field)
    files.pipe_file(path, shard.read_bytes()[:30])
    with pytest.raises(StoreError, match="gave 0 bytes instead of"):
        store.read(video, field)
    files.rm(path)
    with pytest.raises(StoreError, match="is missing"):
        store.read(video, field)
    assert [damaged.name for damaged in store.verify()] == [shard.stem]
