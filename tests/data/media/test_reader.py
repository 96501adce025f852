import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from fusion.data.media.decode import Decoder
from fusion.data.media.encode import write_clip
from fusion.data.media.window import read_audio, read_frames
from tests.data.media.films import turn

RATE = 44_100
FPS = 25
SECONDS = 3
LEVELS = 20 + 3 * np.arange(FPS * SECONDS)  # frame i is grey of level 20 + 3 i
TIME = np.arange(RATE * SECONDS) / RATE
WAVE = (0.5 * np.cos(2 * np.pi * (300 + 200 * TIME) * TIME)).astype(np.float32)


def grey(levels=LEVELS):
    return np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (len(levels), 32, 48, 3))


def numbers(frames):
    """Which frames of the film these are."""
    return np.round((frames.mean(axis=(1, 2, 3)) - 20) / 3).astype(int).tolist()


def write_other(
    target,
    container="matroska",
    *,
    fps=FPS,
    gop=5,
    between="0",
    seconds=SECONDS,
    origin=0,
    sound_from=0.0,
):
    """Write the film with a key frame per ``gop`` and ``between`` B-frames, and lossless sound.

    Time stamps start at ``origin`` seconds, the sound ``sound_from`` later; None: no sound.
    """
    with av.open(target, "w", format=container) as output:
        video = output.add_stream(
            "mpeg4", rate=fps, options={"g": str(gop), "qmax": "3", "bf": between}
        )
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        if sound_from is not None:
            audio = output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for index, picture in enumerate(grey()[: seconds * fps]):
            frame = av.VideoFrame.from_ndarray(picture.copy(), format="rgb24")
            frame.pts, frame.time_base = index + origin * fps, Fraction(1, fps)
            output.mux(video.encode(frame))
            if sound_from is not None:
                first = index * RATE // fps
                samples = (WAVE[None, first : first + RATE // fps] * 32767).astype(np.int16)
                sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                sound.sample_rate, sound.time_base = RATE, Fraction(1, RATE)
                sound.pts = first + round((origin + sound_from) * RATE)
                output.mux(audio.encode(sound))
        output.mux(video.encode(None))
        if sound_from is not None:
            output.mux(audio.encode(None))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, grey(), FPS, WAVE, RATE, crf=1)
    return path


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    write_other(str(path))
    return path


def test_each_picture_is_the_last_whose_time_rounds_to_it(film):
    """Round half up as the fps filter does: at 5 fps, frames 0-2 of 25 are near 0, 3-7 near 1."""
    expected = [2 + 5 * k for k in range(5 * SECONDS - 1)] + [72]
    assert numbers(read_frames(film, 5, 32, 48)) == expected


def test_more_pictures_than_the_film_has_are_repeated(film):
    pictures = numbers(read_frames(film, 50, 32, 48))
    assert len(pictures) == 50 * SECONDS
    assert sorted(set(pictures)) == list(range(FPS * SECONDS))


@pytest.mark.parametrize("fps", [1, 1.5, 7, 24, 30])
def test_f33_pictures_equal_those_of_the_ffmpeg_command_line(film, fps):
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    command = [ffmpeg, "-v", "error", "-i", film, "-vf", f"fps={fps},scale=40:24"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(output, np.uint8).reshape(-1, 24, 40, 3)
    np.testing.assert_array_equal(read_frames(film, fps, 24, 40), expected)


@pytest.mark.parametrize("fps", [1, 7, 24])
@pytest.mark.parametrize(("start", "end"), [(0, 0.7), (1, 2), (1.34, 2.11), (2.2, 9), (2.5, None)])
def test_a_window_shows_that_part_of_the_whole_film(film, lossless, fps, start, end):
    last = None if end is None else int(np.ceil(round(end * fps, 6)))
    for path in (film, lossless):
        expected = read_frames(path, fps, 32, 48)[int(start * fps) : last]
        window = read_frames(path, fps, 32, 48, start, end)
        assert len(window)
        np.testing.assert_array_equal(window[: len(expected)], expected)
        assert len(window) - len(expected) == (len(expected) == 0)  # never empty, see below


@pytest.mark.parametrize(("start", "end"), [(1.1, 1.5), (1.9, 3)])
def test_a_slide_is_shown_until_the_next_one(tmp_path, start, end):
    write_other(str(tmp_path / "slides.mkv"), fps=1, gop=1)
    expected = read_frames(tmp_path / "slides.mkv", 10, 32, 48)
    assert numbers(expected) == [0] * 10 + [1] * 10 + [2] * 10
    window = read_frames(tmp_path / "slides.mkv", 10, 32, 48, start, end)
    np.testing.assert_array_equal(window, expected[round(start * 10) : round(end * 10)])


def test_a_window_does_not_grow_by_rounding(film):
    assert 0.07 * 100 > 7  # in floating point
    assert len(read_frames(film, 100, 32, 48, 0, 0.07)) == 7
    assert 0.29 * 100 < 29
    assert len(read_frames(film, 100, 32, 48, 0.29, 0.3)) == 1


@pytest.mark.parametrize("name", ["mpegts", "avi", "matroska"])
def test_time_counts_from_where_the_file_starts(tmp_path, film, name):
    """AVI has no time stamps: B-frames come a frame late, and miscounted after a jump."""
    path, origin = tmp_path / "film", 0 if name == "avi" else 10
    write_other(str(path), name, gop=12, between="2", origin=origin, sound_from=None)
    pictures = numbers(read_frames(path, 12, 32, 48))
    late = np.subtract(numbers(read_frames(film, 12, 32, 48)), pictures)
    assert set(late) == ({1} if name == "avi" else {0})
    for start, end in [(0.5, 1.0), (1.5, 2.25), (2.0, 2.75)]:
        window = read_frames(path, 12, 32, 48, start, end)
        assert numbers(window) == pictures[round(start * 12) : round(end * 12)]


def test_a_film_of_a_moment_has_one_picture(tmp_path):
    write_clip(tmp_path / "short.mp4", grey()[:6], FPS, None, crf=1)
    assert numbers(read_frames(tmp_path / "short.mp4", 1, 32, 48)) == [5]


def test_behind_the_end_there_is_nothing(film):
    assert read_frames(film, 7, 32, 48, start=4, end=5).shape == (0, 32, 48, 3)
    assert read_audio(film, start=4, end=5).shape == (0,)


def test_sound_is_that_of_the_film_from_its_first_sample_to_its_last(film):
    wave = read_audio(film, RATE)
    assert wave.dtype == np.float32 and wave.shape == WAVE.shape
    assert np.square(wave - WAVE).mean() < 2e-3
    assert np.corrcoef(wave[:1000], WAVE[:1000])[0, 1] > 0.9  # AAC begins with a silent block


def test_sound_is_resampled_in_place(lossless):
    wave = read_audio(lossless)
    time = np.arange(16_000 * SECONDS) / 16_000
    expected = 0.5 * np.cos(2 * np.pi * (300 + 200 * time) * time)
    assert wave.shape == expected.shape
    assert np.abs(wave - expected)[50:-50].max() < 1e-3


@pytest.mark.parametrize(("start", "end"), [(0, 0.7), (1, 2), (1.34, 2.11), (2.2, 9), (2.5, None)])
def test_a_window_sounds_like_that_part_of_the_whole_film(film, start, end):
    last = None if end is None else round(end * 16_000)
    expected = read_audio(film)[round(start * 16_000) : last]
    window = read_audio(film, 16_000, start, end)
    assert window.shape == expected.shape
    # AAC fills in noise, different after a jump; and FFmpeg's versions cut its last block elsewhere
    assert np.abs(window - expected)[:-64].max() < 5e-3


def test_silence_comes_before_sound_that_starts_late(tmp_path):
    write_other(str(tmp_path / "late.mkv"), sound_from=1.5)
    wave = read_audio(tmp_path / "late.mkv")
    assert np.abs(wave[:23_990]).max() < 1e-3
    assert np.abs(wave[24_010:24_030]).max() > 0.3
    for start, end in [(0.1, 0.3), (1.0, 2.0), (2.0, 3.0)]:
        window = read_audio(tmp_path / "late.mkv", 16_000, start, end)
        expected = wave[round(start * 16_000) : round(end * 16_000)]
        assert window.shape == expected.shape
        delay = min(range(-8, 9), key=lambda d: np.abs(window - np.roll(expected, d))[9:-9].max())
        assert np.abs(window - np.roll(expected, delay))[9:-9].max() < 1e-3


def test_stereo_is_mixed(tmp_path):
    with av.open(str(tmp_path / "stereo.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="stereo")
        samples = np.array([[16_000, 0] * 8000], np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    wave = read_audio(tmp_path / "stereo.wav")
    np.testing.assert_allclose(wave, 16_000 / 32_768 / np.sqrt(2), atol=1e-4)


def test_a_missing_stream_is_empty(tmp_path):
    write_clip(tmp_path / "silent.mp4", grey(), FPS, None)
    write_clip(tmp_path / "blind.mp4", None, FPS, WAVE, RATE)
    assert read_audio(tmp_path / "silent.mp4").shape == (0,)
    assert len(read_frames(tmp_path / "silent.mp4", 5, 32, 48)) == 15
    assert read_frames(tmp_path / "blind.mp4", 5, 32, 48).shape == (0, 32, 48, 3)
    assert len(read_audio(tmp_path / "blind.mp4")) == 48_000


@pytest.mark.parametrize(
    ("matrix", "bright"),
    [  # of the track header: where the unit vectors go; the bright half was on the right
        ((1, 0, 0, 1), np.s_[:, 24:]),
        ((0, 1, -1, 0), np.s_[16:, :]),  # turned clockwise
        ((-1, 0, 0, -1), np.s_[:, :24]),
        ((0, -1, 1, 0), np.s_[:16, :]),
    ],
)
def test_a_film_held_sideways_is_turned_upright(tmp_path, matrix, bright):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, 24:] = 200
    write_clip(tmp_path / "turned.mp4", [picture] * 10, FPS, None)
    turn(tmp_path / "turned.mp4", matrix)
    frame = read_frames(tmp_path / "turned.mp4", 5, 32, 48)[0]
    assert frame[bright].mean() > 180
    assert frame.mean() < 110


def test_what_comes_before_a_window_is_jumped_over(lossless, monkeypatch):
    decoded, original = [], Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda *words: decoded.append(1) or original(*words))
    read_frames(lossless, 5, 32, 48, 2.0, 2.4)
    assert 0 < len(decoded) < 50  # of 75
