"""Sample the frames of a film by FFmpeg's filters: choose by time, turn upright, scale, crop.

The pictures equal, bit by bit, those of ``ffmpeg -i FILE -vf fps=…,scale=…,crop=…``. Unlike the
published extractor of HowTo100M's features (github.com/antoine77340/video_feature_extractor), films
that are marked as rotated or have pixels that are not square are not distorted.

Shapes: N pictures, H x W pixels.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from fusion.data.media.crop import NONE, Crop
from fusion.data.media.upright import upright

LONGEST = 8  # times the shorter side; a film of 10,000 x 10 pixels would need gigabytes
_ALMOST_SQUARE = Fraction(1, 50)
_AT_A_TIME = 5  # pictures yielded at a time, where each is a feature


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which pictures of a film a backbone takes, and their size.

    Feature ``k`` is computed from ``frames`` pictures, the first of which is number ``k * stride``.
    After the end of the film, pictures are black.

    Attributes:
        frames_per_second: pictures to sample per second, independent of the film's.
        resize: pixels of the shorter side, the longer one in proportion; or height and width.
        crop: side of the square that is cut out of the middle, in pixels; None: no crop.
        frames: pictures of one feature.
        stride: pictures from the first one of a feature to that of the next.
        interpolation: ``bicubic`` or ``bilinear``.

    Raises:
        ValueError: a number is not positive, or ``crop`` is larger than ``resize``.
    """

    frames_per_second: float
    resize: int | tuple[int, int]
    crop: int | None = None
    frames: int = 1
    stride: int = 1
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        sizes = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        numbers = [self.frames_per_second, self.frames, self.stride, *sizes]
        if min(numbers) <= 0 or not 0 < (self.crop or 1) <= min(sizes):
            raise ValueError(f"all numbers must be > 0 and crop at most resize; got {self}")

    @property
    def per_second(self) -> float:
        """Features per second."""
        return self.frames_per_second / self.stride

    def scaled_size(self, width: float, height: float) -> tuple[int, int]:
        """Return the size of a picture before cropping; arguments: upright, of square pixels."""
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        shorter, longer = min(width, height), max(width, height)
        long_side = min(int(longer * self.resize / shorter), LONGEST * self.resize)
        return (self.resize, long_side) if height >= width else (long_side, self.resize)

    def picture_size(self, width: float, height: float) -> tuple[int, int]:
        """Return the height and width of the pictures that a backbone takes."""
        scaled_width, scaled_height = self.scaled_size(width, height)
        return (self.crop, self.crop) if self.crop else (scaled_height, scaled_width)


def seen_size(
    width: int, height: int, pixel_aspect: Fraction | None, turned: bool
) -> tuple[float, float]:
    """Return the width and height of a picture, upright and with square pixels.

    Pixels whose width and height differ by less than 2 % count as square: such values come from
    sizes that an encoder rounded, and the published extractor knows only square pixels.
    ``pixel_aspect``: width of a pixel by its height; None or 0: unknown. ``turned``: by a quarter.
    """
    aspect = pixel_aspect or Fraction(1)
    seen_width = width if abs(aspect - 1) < _ALMOST_SQUARE else float(width * aspect)
    return (height, seen_width) if turned else (seen_width, height)


def every(frames_per_second: float, options: str = "") -> tuple[str, str]:
    """Return FFmpeg's filter that samples a film evenly, with more of its options."""
    return "fps", f"fps={Fraction(frames_per_second).limit_denominator(1001)}{options}"


class PictureFilter:
    """Make pictures from the frames of one stream.

    ``choose`` has the names and arguments of the filters that choose frames by their time.
    """

    def __init__(
        self,
        sampling: Sampling,
        choose: Sequence[tuple[str, str]],
        pixel_aspect: Fraction | None = None,
        border: Crop = NONE,
    ) -> None:
        self._sampling, self._choose, self._pixel_aspect = sampling, choose, pixel_aspect
        self._border = border
        self._graph: Graph | None = None

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Take a frame, None at the end of the stream; yield the pictures that are ready."""
        if self._graph is None:
            if frame is None:
                return
            self._graph = self._build(frame)
        self._graph.push(frame)
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield self._graph.vpull()

    def _build(self, frame: av.VideoFrame) -> Graph:
        border, (turned, turns) = self._border, upright(frame)
        shown = (
            frame.width - border.left - border.right,
            frame.height - border.top - border.bottom,
        )
        seen = seen_size(*shown, self._pixel_aspect, turned)
        width, height = self._sampling.scaled_size(*seen)
        scale = f"{width}:{height}:flags={self._sampling.interpolation}"
        filters = [*border.filter(), *turns, *self._choose, ("scale", scale)]
        if (crop := self._sampling.crop) is not None:
            x, y = int((width - crop) / 2), int((height - crop) / 2)
            filters.append(("crop", f"{crop}:{crop}:{x}:{y}"))
        filters += [("format", "rgb24"), ("buffersink", "")]
        graph = Graph()
        if hasattr(graph, "threads"):  # newer versions of PyAV; whole films use processes instead
            graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        graph.link_nodes(source, *(graph.add(name, args or None) for name, args in filters))
        graph.configure()
        return graph


class PictureTrack:
    """Take the frames of a film and yield its pictures, a few at a time.

    Args:
        sampling: which pictures.
        pixel_aspect: width of a pixel by its height; None: unknown.
        first: number of the first picture to yield. Frames of half a second before it must come.
        count: pictures to yield at most; None: all.
        border: what is cut off.
    """

    def __init__(
        self,
        sampling: Sampling,
        pixel_aspect: Fraction | None,
        first: int = 0,
        count: int | None = None,
        border: Crop = NONE,
    ) -> None:
        self._sampling, self._seen = sampling, (pixel_aspect, border)
        chosen = [every(sampling.frames_per_second)]
        chosen += [("trim", f"start_pts={first}")] if first else []
        self._filter = PictureFilter(sampling, chosen, *self._seen)
        self._shape: tuple[int, int, str] | None = None  # of the first frame
        self._last: av.VideoFrame | None = None
        self._first, self._made, self._count = first, 0, count
        self._pictures: list[NDArray[Any]] = []
        self._at_a_time = sampling.stride if sampling.frames > 1 else _AT_A_TIME

    @property
    def complete(self) -> bool:
        """Whether the last picture was made."""
        return self._count is not None and self._made >= self._count

    def push(self, frame: av.VideoFrame) -> Iterator[NDArray[Any]]:
        """Take a frame; yield (N, H, W, 3) uint8 RGB pictures once there are enough."""
        self._last = frame = self._alike(frame)
        yield from self._add(self._filter.push(frame))

    def end(self) -> Iterator[NDArray[Any]]:
        """Yield the rest; what ends less than half a step after the last has one more picture."""
        yield from self._add(self._filter.push(None))
        if not self._made and self._last is not None and self._reaches(self._last):
            self._last.pts = 0
            unsampled = PictureFilter(self._sampling, [], *self._seen)
            yield from self._add(unsampled.push(self._last))
        if self._pictures:
            yield self._stacked()

    def _reaches(self, frame: av.VideoFrame) -> bool:
        end = float(((frame.pts or 0) + (frame.duration or 0)) * (frame.time_base or 0))
        return not self._first or end * self._sampling.frames_per_second > self._first

    def _add(self, frames: Iterator[av.VideoFrame]) -> Iterator[NDArray[Any]]:
        """Keep pictures; the first one is repeated for the time before it, as in FFmpeg."""
        for frame in frames:
            picture = frame.to_ndarray()
            before = (frame.pts or 0) - self._first
            for _ in range(1 if self._made else 1 + before):  # none before second 0
                if self.complete:
                    return
                self._pictures.append(picture)
                self._made += 1
                if len(self._pictures) >= self._at_a_time:
                    yield self._stacked()

    def _stacked(self) -> NDArray[Any]:
        pictures, self._pictures = np.stack(self._pictures), []
        return pictures

    def _alike(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Scale a frame to the size of the first one; some films change their size midway."""
        shape = (frame.width, frame.height, frame.format.name)
        self._shape = self._shape or shape
        if shape == self._shape:
            return frame
        changed = frame.reformat(*self._shape)
        changed.pts, changed.time_base = frame.pts, frame.time_base
        changed.duration = frame.duration
        return changed
