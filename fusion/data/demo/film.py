"""Render one film into an mp4 file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from fusion.data.demo.pictures import HEIGHT, WIDTH, render_pictures
from fusion.data.demo.plan import FRAMES_PER_SECOND, Film, Scene
from fusion.data.demo.sounds import SAMPLE_RATE, render_sounds

PICTURES, SOUNDS = 1, 2  # streams of random numbers


def write_film(film: Film, folder: Path) -> None:
    """Render a film into ``folder / film.path``."""
    # In memory first: PyAV reports a full disk by many kinds of errors, Python by one.
    memory = io.BytesIO()
    convert = VideoReformatter()  # shared by all frames: slow to construct
    with av.open(memory, "w", format="mp4") as container:
        video = _add_video(container) if film.has_video_stream else None
        audio = _add_audio(container) if film.has_audio_stream else None
        first = 0  # the number of the scene's first frame
        for number, scene in enumerate(film.scenes):
            if video is not None:
                for place, picture in enumerate(scene_frames(film, number, scene), start=first):
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame = convert.reformat(frame, format="yuv420p", interpolation="FAST_BILINEAR")
                    frame.pts = place
                    container.mux(video.encode(frame))
            if audio is not None:
                wave = scene_wave(film, number, scene)[None]
                sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                sound.sample_rate = SAMPLE_RATE
                sound.pts = first * SAMPLE_RATE // FRAMES_PER_SECOND
                container.mux(audio.encode(sound))
            first += scene.num_frames
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
    rng = film.generator(number, PICTURES)
    shots = [render_pictures(shot.values, shot.num_frames, rng, shot.place) for shot in scene.shots]
    return np.concatenate(shots)


def scene_wave(film: Film, number: int, scene: Scene) -> np.ndarray:
    """Play scene ``number``; zeros without sound: (S,) float32."""
    num_samples = scene.num_frames * SAMPLE_RATE // FRAMES_PER_SECOND
    if not scene.has_sound:
        return np.zeros(num_samples, np.float32)
    rng = film.generator(number, SOUNDS)
    return render_sounds(scene.values, num_samples, rng, scene.place)


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
