"""Read a few frames of a film, and decode no more than they need.

Frames are decoded from the key frame before each of them, or from the frame before if no key frame
lies between. Packets in between are read for their times alone; far ahead the file is searched.
What is damaged is passed over; there, frames may differ from those of a film that is decoded as a
whole.

Shapes: N frames, H x W pixels.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from fusion.data.media.crop import crop_of
from fusion.data.media.decode import Decoder, MediaError, open_media
from fusion.data.media.device import decoding_device
from fusion.data.media.pictures import PictureFilter, Sampling
from fusion.data.media.streams import promised_end
from fusion.data.media.window import INDEXED

VERSION = 2  # raise it when other frames are chosen or they are scaled in another way
_FAR = 4.0  # seconds; what is nearer is read on
_MOST_HELD = 2**26  # bytes of packets
_LASTS = 0.5  # seconds that the last frame may be shown
_GUESS = 25.0  # frames per second of a film that does not say it

Pick = Callable[[int], Sequence[int] | NDArray[np.int64]]


class Size(NamedTuple):
    """The pixels of all frames: scaled to cover them, and the middle cut out; or stretched."""

    height: int
    width: int
    stretch: bool = False

    def sampling(self) -> Sampling:
        """Say it to the filter that scales."""
        if self.height == self.width and not self.stretch:
            return Sampling(1, self.height, self.height, interpolation="bilinear")
        return Sampling(1, (self.height, self.width), interpolation="bilinear")


class Shown(NamedTuple):
    """Frames that were read: (N, H, W, 3) uint8 RGB, and how many frames were decoded for them."""

    frames: NDArray[np.uint8]
    decoded: int


def read_shown(
    path: str | Path,
    pick: Pick,
    size: Size,
    start: float = 0.0,
    end: float | None = None,
    *,
    skip: bool = True,
) -> Shown:
    """Read some frames of a film or of a window of it.

    Of ``n`` frames, as many as the average rate gives in its time, number ``k`` is the one that is
    shown at ``start + (k + 1/2) / rate`` seconds. So the time of a frame counts, not its number:
    films of a varying rate are read evenly.

    Args:
        path: media file.
        pick: given ``n``, at least 1, returns the numbers of the frames wanted, in any order.
        size: of the frames. A square without ``stretch``: the shorter side is scaled to it and the
            middle cut out.
        start: seconds.
        end: seconds; None: to the end.
        skip: False: decode every frame up to the last one wanted.

    Returns:
        The frames in the order of ``pick``, repeated where numbers are; none if the film has no
        picture that can be decoded.

    Raises:
        MediaError: no such file, not a media file, or the window begins beyond its end.
        ValueError: an impossible window, or a device (``FUSION_DECODE_ON``) that there is not.
    """
    if not 0 <= start < (math.inf if end is None else end):
        raise ValueError(f"a window needs 0 <= start < end, in seconds; got {start} to {end}")
    found = _read(path, pick, size, start, end, skip)
    if found is None:  # a key frame from which decoding could not begin
        found = _read(path, pick, size, start, end, False)
    assert found is not None
    return found


def count_frames(path: str | Path, start: float = 0.0, end: float | None = None) -> int:
    """Return how many frames :func:`read_shown` would choose from; nothing is decoded.

    MediaError: as there. 0: it has no picture.
    """
    with open_media(path) as container:
        decoder = Decoder(container, ["video"])
        return _grid(path, container, decoder, start, end)[0] if decoder.streams else 0


def seconds_shown(path: str | Path) -> float:
    """Return for how long a film has a picture, as it says; MediaError: as :func:`read_shown`."""
    with open_media(path) as container:
        decoder = Decoder(container, ["video"])
        if not decoder.streams:
            return 0.0
        count, rate = _grid(path, container, decoder, 0.0, None)
        return count / rate


def _read(
    path: str | Path, pick: Pick, size: Size, start: float, end: float | None, skip: bool
) -> Shown | None:
    """Read the frames; None if skipping has missed one."""
    scaled: dict[int, NDArray[np.uint8]] = {}
    with open_media(path, decoding_device()) as container:
        decoder = Decoder(container, ["video"])
        if not decoder.streams:
            return Shown(np.empty((0, size.height, size.width, 3), np.uint8), 0)
        count, rate = _grid(path, container, decoder, start, end)
        wanted = [min(max(int(k), 0), count - 1) for k in pick(count)]
        finder = _Finder(container, decoder, skip)
        scale = _Scaler(path, container, decoder, size)
        before: tuple[Any, NDArray[np.uint8]] | None = None
        for k in sorted(set(wanted)):
            try:
                frame = finder.find(start + (k + 0.5) / rate)
            except _Missed:
                return None
            if frame is None:
                break
            if before is None or before[0] is not frame:
                before = frame, scale(frame)
            scaled[k] = before[1]
    if not scaled:
        return Shown(np.empty((0, size.height, size.width, 3), np.uint8), finder.decoded)
    last = max(scaled)  # stands for those after the end of a film that is cut off
    return Shown(np.stack([scaled[min(k, last)] for k in wanted]), finder.decoded)


def _grid(
    path: str | Path,
    container: InputContainer,
    decoder: Decoder,
    start: float,
    end: float | None,
) -> tuple[int, float]:
    """Return how many frames there are to choose from, and how many per second."""
    stream: Any = decoder.streams[0]
    rate = float(stream.average_rate or stream.codec_context.framerate or _GUESS)
    last = promised_end(container, stream, decoder.origin)
    if last is None and container.duration is not None:
        last = container.duration / av.time_base
    last = None if last is not None and last <= 0 else last  # not stated
    if last is not None and start >= last:
        raise MediaError(
            f"{path}: the window begins at {start:g} s, beyond the end of the film at {last:g} s;"
            " correct its seconds, or remove it"
        )
    ends = [second for second in (end, last) if second is not None]
    return max(1, round((min(ends, default=start + 1 / rate) - start) * rate)), rate


class _Missed(Exception):
    """The frames from a key frame on begin after the one wanted."""


class _Finder:
    """Finds the frames that are shown at ascending seconds."""

    def __init__(self, container: InputContainer, decoder: Decoder, skip: bool) -> None:
        self._container, self._decoder, self._skips = container, decoder, skip
        self._packets = decoder.packets()
        self._held: deque[Any] = deque()
        self._frames = self._decode(settled=True)
        self._shown: Any = None
        self._ahead: tuple[Any, float] | None = None
        self._read_to = 0.0  # seconds, of the last packet read
        self._began = False  # whether a frame was found since the last skip
        self._lasts_to = 0.0  # seconds, the last frame found
        self.decoded = 0

    def find(self, second: float) -> Any:
        """Return the frame that is shown at a second, the first one if that is later.

        None: there is no frame at all. ``_Missed``: it was skipped by mistake.
        """
        if self._skips and (self._ahead is None or self._ahead[1] <= second):
            self._skip_to(second)
        while self._ahead is None or self._ahead[1] <= second:
            if self._ahead is not None:
                self._shown, self._began = self._ahead[0], True
                self._lasts_to = self._ahead[1] + _LASTS
            self._ahead = next(self._frames, None)
            if self._ahead is None:
                break
        if self._skips and (self._decoder.failures or self._decoder.broken):
            raise _Missed
        if self._ahead is None:
            if self._skips and not (self._began and second < self._lasts_to):
                raise _Missed  # the film is cut off, so its last frame is searched for
            return self._shown
        if not self._began:
            if self._skips:
                raise _Missed
            self._shown = self._ahead[0]
        return self._shown

    def _decode(self, settled: bool) -> Iterator[tuple[Any, float]]:
        """Decode on; not ``settled``: what comes before the first intact key frame is dropped."""
        while True:
            packet = self._held.popleft() if self._held else self._next_packet()
            frames = self._decoder.drain() if packet is None else self._decoder.decode(packet)
            for _, frame, second in frames:
                self.decoded += 1
                settled = settled or (frame.key_frame and not frame.is_corrupt)
                if settled:
                    yield frame, second
            if packet is None:
                return

    def _next_packet(self) -> Any:
        packet = next(self._packets, None)
        if packet is not None and (time := _time(packet)) is not None:
            self._read_to = time
        return packet

    def _skip_to(self, second: float) -> None:
        """Hold the packets from the last key frame before a second on, up to that second."""
        restarts = second - self._read_to > _FAR and self._seek(second)
        held, found, size = deque(self._held), restarts, 0
        self._held = held
        while size < _MOST_HELD:
            packet = self._next_packet()
            if packet is None:
                break
            # Without it, as in AVI, the time of a frame depends on the frames before
            shown_at = None if packet.pts is None else float(packet.pts * packet.time_base)
            if packet.is_keyframe and shown_at is not None and shown_at <= second:
                held.clear()
                found, size = True, 0
            held.append(packet)
            size += packet.size
            if self._read_to > second:
                break
        if found:
            with contextlib.suppress(av.FFmpegError):
                self._decoder.streams[0].codec_context.flush_buffers()
            self._frames = self._decode(settled=False)
            self._ahead, self._began = None, False

    def _seek(self, second: float) -> bool:
        """Go to a key frame before a second, where the file has an index."""
        if self._container.format.name not in INDEXED:
            return False
        stream: Any = self._decoder.streams[0]
        target = math.floor((second + self._decoder.origin / av.time_base) / stream.time_base)
        try:
            self._container.seek(target, stream=stream)
        except av.FFmpegError:
            return False
        self._held.clear()
        self._packets = self._decoder.packets()
        return True


class _Scaler:
    """Scales frames of one film to one size, by FFmpeg's filters."""

    def __init__(
        self, path: str | Path, container: InputContainer, decoder: Decoder, size: Size
    ) -> None:
        stream: Any = decoder.streams[0]
        given = size.sampling(), (), stream.sample_aspect_ratio, crop_of(path, container, stream)
        self._make = lambda: PictureFilter(*given)
        self._filters: dict[tuple[int, int, str], PictureFilter] = {}  # of frames of each size

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        kind = (frame.width, frame.height, frame.format.name)
        if kind not in self._filters:
            self._filters[kind] = self._make()
        picture = next(self._filters[kind].push(frame))
        pixels: NDArray[np.uint8] = np.asarray(picture.to_ndarray(), np.uint8)
        return pixels


def _time(packet: Any) -> float | None:
    """Return when a packet is decoded, in seconds; None: it is not known."""
    time = packet.dts if packet.dts is not None else packet.pts
    return None if time is None else float(time * packet.time_base)


__all__ = ["MediaError", "Shown", "Size", "count_frames", "read_shown", "seconds_shown"]
