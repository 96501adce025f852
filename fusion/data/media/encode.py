"""Write pictures and sound to files that all players and browsers can open."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from os import PathLike, fspath
from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

_AUDIO_CHUNK = 16_384  # samples given to the encoder at a time
_JPEG_QUALITY = "4"  # scale of the encoder, 1 best .. 31

Timed = tuple[Fraction | float, Any, Any]  # second, stream, and frame; None at the stream's end


def write_clip(
    target: str | PathLike[str] | BinaryIO,
    frames: Iterable[NDArray[np.uint8]] | None,
    fps: float | Fraction,
    wave: NDArray[np.floating] | None,
    rate: int = 16_000,
    *,
    crf: int = 23,
) -> None:
    """Write an mp4 of H.264 pictures (MPEG-4 where PyAV lacks x264) and mono AAC sound.

    Frames are encoded as they arrive, so an iterator of any length needs little memory. The same
    input gives the same bytes on any number of cores. After an error, half a file may be left.

    Args:
        target: path, or a writable and seekable binary file.
        frames: (H, W, 3) uint8 RGB pictures of one size, H and W even; None or empty: no picture.
        fps: pictures per second.
        wave: (S,) samples within [-1, 1], of any length; None or empty: no sound.
        rate: samples per second.
        crf: x264's quality, 0 best .. 51.

    Raises:
        ValueError: neither picture nor sound, or a picture or wave of another shape or type.
    """
    pictures = iter(() if frames is None else frames)
    first = next(pictures, None)
    if first is None and (wave is None or len(wave) == 0):
        raise ValueError("a clip needs pictures or sound; got neither")
    name = fspath(target) if isinstance(target, str | PathLike) else target
    with av.open(name, "w", format="mp4") as container:
        events: list[Iterator[Timed]] = []
        if first is not None:
            video = _add_video(container, first, fps, crf)
            events.append(_timed_pictures(video, itertools.chain([first], pictures)))
        if wave is not None and len(wave) > 0:
            audio = container.add_stream("aac", rate=rate, layout="mono")
            audio.bit_rate = 64_000
            events.insert(0, _timed_sound(audio, wave, rate))  # first where times are equal
        for _, stream, frame in heapq.merge(*events, key=lambda event: event[0]):
            container.mux(stream.encode(frame))


def encode_jpeg(frame: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) uint8 RGB picture as JPEG; another shape or type is a ValueError."""
    options = {"qmin": _JPEG_QUALITY, "qmax": _JPEG_QUALITY}
    return _encode_picture(frame, "mjpeg", "yuvj420p", options)


def encode_png(frame: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) uint8 RGB picture as PNG; another shape or type is a ValueError."""
    return _encode_picture(frame, "png", "rgb24", {"pred": "paeth"})


def _encode_picture(
    frame: NDArray[np.uint8], name: str, pixels: str, options: dict[str, str]
) -> bytes:
    _check_picture(frame, frame.shape)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    codec = cast(VideoCodecContext, av.CodecContext.create(name, "w"))
    codec.width, codec.height = picture.width, picture.height
    codec.pix_fmt = pixels
    codec.time_base = Fraction(1)
    codec.options = options
    if pixels != "rgb24":
        picture = picture.reformat(format=pixels)
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(picture), *codec.encode(None)])


def _add_video(
    container: OutputContainer, first: NDArray[np.uint8], fps: float | Fraction, crf: int
) -> VideoStream:
    _check_picture(first, first.shape)
    height, width, _ = first.shape
    if height % 2 or width % 2:
        raise ValueError(f"pictures need an even height and width; got {height} x {width}")
    rate = Fraction(fps).limit_denominator(1001)
    if "libx264" in av.codecs_available:
        # With x264's macroblock tree, small pictures differ from run to run
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
    else:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.bit_rate = height * width * math.ceil(rate) // 4  # a quarter of a bit per pixel
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1  # x264's result depends on the number of threads
    return stream


def _timed_pictures(video: VideoStream, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[Timed]:
    step = 1 / Fraction(video.codec_context.framerate)  # seconds
    for index, picture in enumerate(pictures):
        _check_picture(picture, (video.height, video.width, 3))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = index, step
        yield index * step, video, frame
    yield index * step, video, None


def _timed_sound(audio: AudioStream, wave: NDArray[np.floating], rate: int) -> Iterator[Timed]:
    if wave.ndim != 1:
        raise ValueError(f"sound must be mono, of shape (S,); got {wave.shape}")
    samples = np.clip(wave, -1, 1).astype(np.float32)
    for start in range(0, len(samples), _AUDIO_CHUNK):
        part = samples[None, start : start + _AUDIO_CHUNK]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield Fraction(start, rate), audio, frame
    yield math.inf, audio, None


def _check_picture(picture: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"a picture is an (H, W, 3) array of uint8; got {picture.shape} of {picture.dtype}"
        )
    if picture.shape != shape:
        raise ValueError(f"all pictures of a clip have one size; got {picture.shape} after {shape}")
