"""A store written for a test, of features that follow from the names of its videos."""

import hashlib
import json

import numpy as np

from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter

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


def first_with_rows(store, shard):
    names_in = json.loads((shard.with_suffix(".json")).read_text())["videos"]
    return next((v, f) for v in names_in for f in FIELDS if store.rows(v, f))
