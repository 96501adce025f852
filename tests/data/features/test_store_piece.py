"""A shard exists when its index piece does, so the piece appears at once and whole."""

import os

import pytest
import torch

from fusion.data.features.format import Field
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter


def test_a_piece_that_cannot_be_finished_is_not_there(tmp_path, monkeypatch):
    replace = os.replace

    def fail(source, target):
        if str(target).endswith(".json") and "shards" in str(target):
            raise OSError("the disk is gone")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    opened = StoreWriter(tmp_path, {"2d": Field(3, 1.0)}, name="w")
    with pytest.raises(OSError, match="the disk is gone"), opened as writer:
        writer.add("a", {"2d": torch.ones(2, 3)})
    monkeypatch.undo()
    assert [f.name for f in (tmp_path / "shards").iterdir() if not f.name.startswith(".")] == []
    with StoreWriter(tmp_path, {"2d": Field(3, 1.0)}, name="v") as other:
        other.add("a", {"2d": torch.ones(2, 3)})
    assert list(FeatureStore(tmp_path).videos) == ["a"]
