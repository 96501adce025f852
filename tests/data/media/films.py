"""Small films for tests, and what comes out of them."""

import functools
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from fusion.data.media import SAMPLE_RATE as RATE
from fusion.data.media.encode import write_clip
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling

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
    path.write_bytes(_film(path.suffix, seconds, fps, sound, picture, size))
    return path


@functools.cache  # hundreds of tests begin with the same few films
def _film(suffix, seconds, fps, sound, picture, size):
    frames = pictures(round(seconds * fps), *size) if picture else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"film{suffix}"
        write_clip(path, frames, fps, tone(seconds) if sound else None)
        return path.read_bytes()


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


def remux(source, target, **options):
    """Copy a film into another container as it is."""
    with av.open(source) as old, av.open(str(target), "w", **options) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def turn(path, matrix):
    """Mark a film as turned: where the unit vectors go, in its track header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[place + offset : place + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


def make_cover(path, tone, picture, rate):
    """Write a song with a cover picture; ``picture`` has an even height and width."""
    with av.open(str(path), "w") as output:
        sound, cover = (
            output.add_stream("aac", rate=rate, layout="mono"),
            output.add_stream("mjpeg", rate=1),
        )
        height, width, _ = picture.shape
        cover.width, cover.height, cover.pix_fmt = width, height, "yuvj420p"
        cover.disposition = Disposition.attached_pic.value
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
        shown.pts = 0
        for packet in [*sound.encode(frame), *sound.encode(None), *cover.encode(shown)]:
            output.mux(packet)
