"""Render one film into an mp4 file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from fusion.data.demo.pictures import HEIGHT, WIDTH, render_pictures
from fusion.data.demo.plan import FRAMES_PER_SECOND, Film, Scene, film_generator
from fusion.data.demo.sounds import SAMPLE_RATE, render_sounds

PICTURES, SOUNDS = 1, 2  # streams of random numbers


def write_film(film: Film, folder: Path) -> None:
    """Render a film into ``folder / film.path``."""
    # In memory first: PyAV reports a full disk by many kinds of errors, Python by one.
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        video = _add_video(container) if film.has_video_stream else None
        audio = _add_audio(container) if film.has_audio_stream else None
        num_frames = 0
        for number, scene in enumerate(film.scenes):
            if video is not None:
                frames = scene_frames(film, number, scene)
                _encode_pictures(container, video, frames, num_frames)
            if audio is not None:
                _encode_sound(container, audio, scene_wave(film, number, scene), num_frames)
            num_frames += scene.num_frames
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))
    path = folder / film.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(memory.getbuffer())


def scene_frames(film: Film, number: int, scene: Scene) -> np.ndarray:
    """Draw scene ``number``; black without a picture: (T, H, W, 3) uint8."""
    if not scene.has_picture:
        return np.zeros((scene.num_frames, HEIGHT, WIDTH, 3), np.uint8)
    rng = film_generator(film.split, film.index, number, PICTURES)
    return render_pictures(scene.values, scene.num_frames, rng)


def scene_wave(film: Film, number: int, scene: Scene) -> np.ndarray:
    """Play scene ``number``; zeros without sound: (S,) float32."""
    num_samples = scene.num_frames * SAMPLE_RATE // FRAMES_PER_SECOND
    if not scene.has_sound:
        return np.zeros(num_samples, np.float32)
    rng = film_generator(film.split, film.index, number, SOUNDS)
    return render_sounds(scene.values, num_samples, rng)


def _add_video(container: av.container.OutputContainer) -> av.VideoStream:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # Fast settings of good quality; one thread, so that the bytes do not depend on the machine.
    fast = {"preset": "ultrafast", "crf": "28"} if codec == "libx264" else {}
    options = fast | {"threads": "1"}
    stream = cast(av.VideoStream, container.add_stream(codec, FRAMES_PER_SECOND, options))
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.codec_context.gop_size = 20
    if codec == "mpeg4":
        stream.codec_context.bit_rate = 150_000
    return stream


def _add_audio(container: av.container.OutputContainer) -> av.AudioStream:
    options = {"aac_coder": "fast", "aac_tns": "0", "aac_pns": "0"}
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options=options)
    stream.codec_context.bit_rate = 32_000
    return stream


def _encode_pictures(
    container: av.container.OutputContainer, stream: av.VideoStream, frames: np.ndarray, first: int
) -> None:
    convert = VideoReformatter()  # shared by all frames: slow to construct
    for number, picture in enumerate(frames, start=first):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = convert.reformat(frame, format="yuv420p", interpolation="FAST_BILINEAR")
        frame.pts = number
        container.mux(stream.encode(frame))


def _encode_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, wave: np.ndarray, first: int
) -> None:
    frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = first * SAMPLE_RATE // FRAMES_PER_SECOND
    container.mux(stream.encode(frame))
