"""A feature store in other processes, in other folders and behind a URL."""

import os
import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from fusion.data.features import files as store_files
from fusion.data.features.files import open_files
from fusion.data.features.format import StoreError
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter
from tests.data.features.store_fixtures import (
    FIELDS,
    check,
    features_of,
    first_with_rows,
    names,
    shards,
    write,
)


class Rows(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(self.store)

    def __getitem__(self, index):
        video = self.store.videos[index]
        return {field: self.store.read(video, field, 1, 7) for field in FIELDS}


@pytest.mark.parametrize("context", ["fork", "forkserver"])  # of which one inherits nothing
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
    assert find_damaged_shards(store) == []
    expected = features_of("v003")["2d"][2:5]
    assert np.array_equal(store.read("v003", "2d", 2, 5).numpy(), expected)
    check(pickle.loads(pickle.dumps(store)), names(30))


def test_a_forked_process_makes_connections_of_its_own(memory, monkeypatch):
    memory()
    store, opened = FeatureStore("memory://published"), []
    monkeypatch.setattr(
        "fusion.data.features.store.open_files", lambda at: opened.append(at) or open_files(at)
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
    with pytest.raises(StoreError, match="cannot be listed, and it has no index; open it once"):
        FeatureStore("memory://published")
    FeatureStore(folder)
    memory()
    check(FeatureStore("memory://published"), names(30))


def test_a_server_names_its_index_by_a_hash_or_not_at_all(folder, memory, monkeypatch):
    FeatureStore(folder)
    files = memory()
    (index,) = (folder / "index").glob("*.safetensors")
    files.pipe_file("/published/index/other.safetensors", index.read_bytes())
    files.pipe_file("/published/index/current", b"other")
    monkeypatch.setattr(files, "ls", lambda *a, **k: [])
    with pytest.raises(StoreError, match="cannot be listed, and it has no index"):
        FeatureStore("memory://published")


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
    assert [damaged.name for damaged in find_damaged_shards(store)] == [shard.stem]
