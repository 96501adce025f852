"""What a feature store refuses, and several that write into one."""

import json
import multiprocessing
import time

import numpy as np
import pytest
import torch

from fusion.data.features.format import Field, StoreError
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter
from tests.data.features.store_fixtures import FIELDS, check, names, shards, write


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
    with pytest.raises(ValueError, match="width and rows per second of a field must be"):
        Field(0, 1.0)
    with pytest.raises(ValueError, match="cannot write to s3://b/x; write to a folder"):
        StoreWriter("s3://b/x", FIELDS, "w")


def test_a_video_is_added_once(folder):
    with StoreWriter(folder, FIELDS, "other") as writer:
        with pytest.raises(ValueError, match="v003: already in .*; call done"):
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
    with pytest.raises(StoreError, match="is of format 2, .* reads only format 1"):
        FeatureStore(folder)


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
        with pytest.raises(StoreError, match="another writer named 'x' is writing to it"):
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
    assert find_damaged_shards(store) == []


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
    assert find_damaged_shards(store) == []


def open_and_check(folder):
    for _ in range(5):
        for file in (folder / "index").glob("*.safetensors"):
            file.unlink(missing_ok=True)
        check(FeatureStore(folder), names(30))


def test_processes_rebuild_the_index_at_once(folder):
    in_processes("fork", open_and_check, [(folder,)] * 4)
    check(FeatureStore(folder), names(30))


@pytest.mark.parametrize(
    ("before", "after"),
    [('"width": 5', '"width": 4'), ('"per_second": 1.0', '"per_second": 9.0'), ('"2d"', '"3d"')],
)
def test_f07_a_changed_digit_in_the_description_of_the_fields_is_noticed(tmp_path, before, after):
    with StoreWriter(tmp_path, {"2d": Field(5, 1.0)}, "w") as writer:
        writer.add("a", {"2d": torch.ones(2, 5)})
    described = (tmp_path / "store.json").read_text()
    assert before in described
    (tmp_path / "store.json").write_text(described.replace(before, after))
    with pytest.raises(StoreError, match="store.json is damaged .its SHA-256 is not the one"):
        FeatureStore(tmp_path)
