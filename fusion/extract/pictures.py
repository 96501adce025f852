"""Frames of a film in, the pictures of one backbone out, chosen and scaled by FFmpeg's filters.

Equal bit by bit to those of ``ffmpeg -i FILE -vf fps=…,scale=…,crop=…``; where the published
extractor of HowTo100M's features (github.com/antoine77340/video_feature_extractor) squeezes films
that are marked as rotated or whose pixels are not square, they are shown as they are meant here.

Shapes: N pictures, H x W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fusion.extract.sampling import Sampling, seen_size

_AT_A_TIME = 5  # pictures given at a time, where each is a feature
_UPRIGHT: list[list[tuple[str, str]]] = [  # by quarters of a turn counterclockwise
    [],
    [("transpose", "cclock")],
    [("hflip", ""), ("vflip", "")],
    [("transpose", "clock")],
]


class PictureTrack:
    """Takes the frames of one stream, for several backbones.

    Args:
        samplings: which pictures are wanted, by field.
        stream: what the frames are of.
    """

    def __init__(self, samplings: Mapping[str, Sampling], stream: VideoStream) -> None:
        aspect = stream.sample_aspect_ratio
        self._samplers = {field: _Sampler(s, aspect) for field, s in samplings.items()}

    def push(self, frame: av.VideoFrame, second: float) -> Iterator[tuple[str, NDArray[Any]]]:
        """Take a frame; give fields and (N, H, W, 3) uint8 pictures once there are some."""
        for field, sampler in self._samplers.items():
            yield from ((field, pictures) for pictures in sampler.push(frame))

    def end(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Give what is left."""
        for field, sampler in self._samplers.items():
            yield from ((field, pictures) for pictures in sampler.end())


class _Sampler:
    def __init__(self, sampling: Sampling, pixel_aspect: Fraction | None) -> None:
        self._sampling, self._pixel_aspect = sampling, pixel_aspect
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None  # of the first frame
        self._last: av.VideoFrame | None = None
        self._made = 0
        self._pictures: list[NDArray[Any]] = []
        self._at_a_time = sampling.stride if sampling.frames > 1 else _AT_A_TIME

    def push(self, frame: av.VideoFrame) -> Iterator[NDArray[Any]]:
        self._last = frame = self._alike(frame)
        if self._graph is None:
            self._graph = build_graph(frame, self._sampling, self._pixel_aspect)
        self._graph.push(frame)
        yield from self._pull(self._graph)

    def end(self) -> Iterator[NDArray[Any]]:
        """Give what is left; a film of less than half a step has one picture, its last."""
        if self._graph is None or self._last is None:
            return
        self._graph.push(None)
        yield from self._pull(self._graph)
        if not self._made:
            graph = build_graph(self._last, self._sampling, self._pixel_aspect, sample=False)
            self._last.pts = 0
            graph.push(self._last)
            yield from self._pull(graph)
        if self._pictures:
            yield self._stacked()

    def _pull(self, graph: Graph) -> Iterator[NDArray[Any]]:
        # At its end a graph says EOF, before that "again".
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield from self._add(graph.vpull())

    def _add(self, frame: av.VideoFrame) -> Iterator[NDArray[Any]]:
        """Keep a picture; the first one also stands for the time before it, as in FFmpeg."""
        picture = frame.to_ndarray()
        for _ in range(1 if self._made else 1 + (frame.pts or 0)):  # none before second 0
            self._pictures.append(picture)
            self._made += 1
            if len(self._pictures) >= self._at_a_time:
                yield self._stacked()

    def _stacked(self) -> NDArray[Any]:
        pictures, self._pictures = np.stack(self._pictures), []
        return pictures

    def _alike(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Bring the frames of a film that changes its size to that of the first one."""
        shape = (frame.width, frame.height, frame.format.name)
        self._shape = self._shape or shape
        if shape == self._shape:
            return frame
        changed = frame.reformat(*self._shape)
        changed.pts, changed.time_base = frame.pts, frame.time_base
        return changed


def build_graph(
    frame: av.VideoFrame, sampling: Sampling, pixel_aspect: Fraction | None, sample: bool = True
) -> Graph:
    """Build the filters for frames like ``frame``.

    Args:
        frame: the first one.
        sampling: what comes out.
        pixel_aspect: width of a pixel by its height; None: unknown.
        sample: choose frames by their time; else every frame comes out.
    """
    turns = round(frame.rotation / 90) % 4
    seen = seen_size(frame.width, frame.height, pixel_aspect, turns)
    width, height = sampling.scaled_size(*seen)
    rate = Fraction(sampling.frames_per_second).limit_denominator(1001)
    filters = [
        *_UPRIGHT[turns],
        *([("fps", f"fps={rate}")] if sample else []),
        ("scale", f"{width}:{height}:flags={sampling.interpolation}"),
    ]
    if (crop := sampling.crop) is not None:
        x, y = int((width - crop) / 2), int((height - crop) / 2)
        filters.append(("crop", f"{crop}:{crop}:{x}:{y}"))
    filters += [("format", "rgb24"), ("buffersink", "")]
    graph = Graph()
    if hasattr(graph, "threads"):  # of newer versions of PyAV; there are processes instead
        graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(source, *(graph.add(name, args or None) for name, args in filters))
    graph.configure()
    return graph
