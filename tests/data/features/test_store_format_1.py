"""Stores in folder ``format_1`` were written by version 0.1; they open, and are written alike.

Its index has version 1, which has no hashes of the names.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fusion.data.features.format import Field
from fusion.data.features.index import map_index
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter

OLD = Path(__file__).parent / "format_1"
FIELDS = {"2d": Field(4, 1.0), "audio": Field(2, 100.0)}
ROWS = np.arange(12).reshape(3, 4)
VIDEOS = {
    "b/film.mp4": ({"2d": ROWS, "audio": ROWS[:, :2] / 4}, {"duration": 3.0}),
    "a ☃": ({"2d": ROWS[:1] + 0.5}, {}),
    "c": ({}, {}),
    "d": ({"audio": ROWS[1:, 2:]}, {"problems": ["no picture"]}),
}


def check(store):
    assert list(store.videos) == sorted(VIDEOS) and store.fields == FIELDS
    for video, (features, facts) in VIDEOS.items():
        assert store.facts(video) == facts
        for field in FIELDS:
            expected = features.get(field, np.zeros((0, FIELDS[field].width)))
            assert np.array_equal(store.read(video, field).numpy(), expected)


def test_a_store_of_format_1_opens(tmp_path):
    shutil.copytree(OLD, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    check(store)
    assert find_damaged_shards(store) == []


def test_an_index_of_version_1_finds_the_same(tmp_path):
    (old,) = (OLD / "index").glob("*.safetensors")
    shutil.copytree(OLD, tmp_path / "store")
    new = FeatureStore(tmp_path / "store").index
    index = map_index(old)
    assert list(index.videos) == list(new.videos) == sorted(VIDEOS)
    for row, video in enumerate(index.videos):
        assert index.videos.find(video) == row and index.facts(row) == new.facts(row)
        assert [index.place(row, f) for f in (0, 1)] == [new.place(row, f) for f in (0, 1)]
    assert index.videos.find("e") == -1


def test_a_server_that_lists_nothing_may_have_an_index_of_version_1(tmp_path, monkeypatch):
    files = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "ls", lambda *a, **k: [])
    files.put(f"{OLD}/", "/format_1/", recursive=True)
    try:
        check(FeatureStore("memory://format_1"))
    finally:
        files.rm("/format_1", recursive=True)


def test_shards_have_the_same_bytes_and_the_description_a_checksum(tmp_path):
    with StoreWriter(tmp_path, FIELDS, "old", shard_bytes=40) as writer:
        for video, (features, facts) in VIDEOS.items():
            writer.add(video, features, facts)
    for path in (OLD / "shards").iterdir():
        assert (tmp_path / path.relative_to(OLD)).read_bytes() == path.read_bytes()
    said, old = (json.loads((folder / "store.json").read_text()) for folder in (tmp_path, OLD))
    written = hashlib.sha256((OLD / "store.json").read_bytes()).hexdigest()
    assert said.pop("sha256") == written and said == old  # older stores have no checksum
