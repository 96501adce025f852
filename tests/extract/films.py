"""Small films for tests, networks that take no time, and stores as plain values."""

from fractions import Fraction

import av
import numpy as np
import torch

from fusion.data.features.store import FeatureStore
from fusion.data.features.verify import find_damaged_shards
from fusion.data.media.encode import write_clip
from fusion.extract.backbone import Backbone, Source
from fusion.extract.decoding import Film
from fusion.extract.networks_2d import BACKBONES_2D
from fusion.extract.networks_3d import BACKBONES_3D
from fusion.extract.sampling import Sampling
from fusion.extract.settings import Features

RATE = 16_000
TINY = Features("tiny", "tiny")
SMALL = {"2d": Sampling(2, 24), "3d": Sampling(10, 16, crop=16, frames=8, stride=8)}


def pictures(count, height=36, width=64):
    """A gradient that wanders, with a corner that counts."""
    across = np.linspace(0, 255, width)[None, :] + np.linspace(0, 90, height)[:, None]
    for i in range(count):
        picture = np.stack([across + 7 * i, across - 5 * i, np.roll(across, i, 1)], -1) % 256
        picture[: height // 3, : width // 3] = 10 + 3 * i % 240
        yield picture.astype(np.uint8)


def tone(seconds, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (300 + 90 * time) * time) + 0.01).astype(np.float32)


def write_film(path, seconds=2.0, fps=25, sound=True, picture=True, size=(36, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = pictures(round(seconds * fps), *size) if picture else None
    write_clip(path, frames, fps, tone(seconds) if sound else None)
    return path


def write_frames(
    path, times, codec="ffv1", pixels="yuv420p", size=(36, 64), container=None, sound=False
):
    """Write pictures at the given times, in hundredths of a second, and a second of sound."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=100)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 100)
        if sound:
            write_sound(output, output.add_stream("pcm_s16le", rate=RATE, layout="mono"), tone(1))
        for time, picture in zip(times, pictures(len(times), *size), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = time, Fraction(1, 100)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_sound(output, stream, wave, start=0):
    """Write 16-bit samples, the first of them at sample number ``start``."""
    samples = (wave * 32_767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts = stream.rate, start
    for packet in [*stream.encode(frame), *stream.encode(None)]:
        output.mux(packet)


def decode(path, samplings=SMALL, audio=True):
    """All pieces of each field put together, and the film."""
    film, parts = Film(path, samplings, audio), {}
    for piece in film.pieces():
        parts.setdefault(piece.field, []).append(piece.data)
    return {field: np.concatenate(pieces) for field, pieces in parts.items()}, film


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
