"""Small pictures of a film's clips, in one pass over the film."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from fusion.data.media.crop import Crop, crop_of
from fusion.data.media.decode import Decoder, MediaError, open_media
from fusion.data.media.encode import encode_jpeg
from fusion.data.media.pictures import PictureFilter, Sampling
from fusion.data.media.window import INDEXED, frames_after

SIDE = 180  # pixels of the shorter side; the longer one in proportion
_FAR = 20.0  # seconds that are skipped by a seek; decoding them would take longer
_LATE = 0.5  # seconds that the last picture of a film may be before the one wanted


def make_thumbnails(path: Path, seconds: Sequence[float]) -> list[bytes | None]:
    """Return JPEGs of the pictures at some seconds; None where there is no picture.

    To decode less, pictures that no other one depends on are left out, so a thumbnail may be a few
    pictures late. A film that is damaged has those before the damage.
    """
    order = sorted(range(len(seconds)), key=lambda i: seconds[i])
    runs: list[list[int]] = []
    for i in order:
        if runs and seconds[i] - seconds[runs[-1][-1]] < _FAR:
            runs[-1].append(i)
        else:
            runs.append([i])
    found: list[bytes | None] = [None] * len(seconds)
    for run in runs:
        pictures = _pictures(path, [seconds[i] for i in run])
        with contextlib.suppress(MediaError, av.FFmpegError):
            for i, picture in zip(run, pictures, strict=False):
                found[i] = encode_jpeg(picture)
    return found


def _pictures(path: Path, seconds: Sequence[float]) -> Iterator[NDArray[np.uint8]]:
    """Yield (H, W, 3) pictures at ascending seconds, as long as there are any."""
    with open_media(path) as container:
        decoder = Decoder(container, ["video"])
        if not decoder.streams:
            return
        stream = decoder.streams[0]
        if container.format.name in INDEXED:  # others may need all pictures to know their times
            stream.codec_context.skip_frame = "NONREF"
        border = crop_of(path, container, stream)
        wanted, last, second = deque(seconds), None, 0.0
        for _, frame, time in itertools.chain(
            frames_after(container, decoder, wanted[0]), [(stream, None, 0.0)]
        ):
            if frame is not None:
                last, second = frame, time
            elif last is not None:
                second += _LATE
            if last is None or second < wanted[0]:
                continue
            picture = _small(last, stream, border)
            while wanted and second >= wanted[0]:
                wanted.popleft()
                yield picture
            if not wanted:
                return


def _small(frame: av.VideoFrame, stream: av.VideoStream, border: Crop) -> NDArray[np.uint8]:
    """Scale a frame, upright and with square pixels."""
    sampling = Sampling(1, SIDE, interpolation="bilinear")
    scaled = PictureFilter(sampling, [], stream.sample_aspect_ratio, border)
    frame.pts = 0
    picture: Any = next(itertools.chain(scaled.push(frame), scaled.push(None))).to_ndarray()
    return picture
