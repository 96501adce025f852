"""Networks that take no time, and stores as plain values."""

import torch

from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.media.pictures import Sampling
from fusion.extract.backbone import Backbone, Source
from fusion.extract.networks import BACKBONES_2D, BACKBONES_3D
from fusion.extract.settings import Features

TINY = Features("tiny", "tiny")


class Colours(torch.nn.Module):
    """Means over pixels, and how they change: (B, 3, [T,] H, W) -> (B, 6)."""

    def forward(self, x):
        means = x.mean(dim=(-1, -2)).view(len(x), 3, -1)
        return torch.cat([means.mean(-1), means[..., -1] - means[..., 0]], dim=1) / 64


def tiny_2d(name, source):
    sampling = Sampling(1, 24)
    return Backbone(name, Colours(), sampling, 6, (0.0,) * 3, (1.0,) * 3, source)


def tiny_3d(name, source):
    sampling = Sampling(24, 16, crop=16, frames=16, stride=16)
    return Backbone(name, Colours(), sampling, 6, (110.6, 103.2, 96.3), (1.0,) * 3, source)


def use_tiny_networks(monkeypatch):
    monkeypatch.setitem(BACKBONES_2D, "tiny", tiny_2d)
    monkeypatch.setitem(BACKBONES_3D, "tiny", tiny_3d)


def tiny_backbones():
    return {"2d": tiny_2d("tiny", Source("2d")), "3d": tiny_3d("tiny", Source("3d"))}


def content(store):
    """All that a store holds, as values that can be compared."""
    opened = FeatureStore(store)
    assert not find_damaged_shards(opened)
    return {
        video: {field: opened.read(video, field).numpy().tobytes() for field in opened.fields}
        | {"facts": opened.facts(video)}
        for video in opened.videos
    }
