"""What is written into a feature store is what is read from it."""

import json
import os
import random

import numpy as np
import safetensors.torch
import torch

from fusion.data.features.format import Field
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter
from tests.data.features.store_fixtures import FIELDS, check, features_of, names, shards, write


def test_what_is_read_is_what_was_added(folder):
    store = FeatureStore(folder)
    check(store, names(30))
    assert store.fields == FIELDS
    assert len(store) == 30 and "v007" in store and "v030" not in store and 7 not in store
    assert store.videos[3:5] == ["v003", "v004"] and store.videos[-1] == "v029"
    assert find_damaged_shards(store) == []


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
    assert find_damaged_shards(store) == []


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
