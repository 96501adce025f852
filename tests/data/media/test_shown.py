"""Frames at given times: the same as by decoding everything, and far fewer are decoded."""

from fractions import Fraction

import av
import numpy as np
import pytest

from fusion.data.media.decode import Decoder, MediaError, open_media
from fusion.data.media.shown import Size, count_frames, read_shown
from tests.data.media.counter import number, picture

FPS, FRAMES = 25, 100
SIZE = Size(60, 80, stretch=True)
CODINGS = {  # container, codec, options
    "mp4": ("mp4", "libx264", {"g": "24", "bf": "2"}),
    "open": ("mp4", "libx264", {"g": "24", "bf": "2", "x264-params": "open-gop=1"}),
    "refresh": ("mp4", "libx264", {"g": "24", "x264-params": "intra-refresh=1"}),
    "one_key": ("mp4", "libx264", {"g": "1000", "x264-params": "scenecut=0"}),
    "mkv": ("matroska", "mpeg4", {"g": "12", "bf": "2"}),
    "ts": ("mpegts", "mpeg2video", {"g": "12", "bf": "2"}),
    "avi": ("avi", "mpeg4", {"g": "12"}),
}
PICKS = ([99], [7, 61, 61, 80], [70, 30])


def write(path, container, codec, options, times=range(FRAMES)):
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=FPS, options=options | {"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 80, 60, "yuv420p"
        stream.codec_context.thread_count = 1
        if codec != "libx264":
            stream.bit_rate = 2_000_000
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(k, cell=10), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, coding in CODINGS.items():
        write(folder / name, *coding)
    times = [k + 3 * (k // 5) for k in range(100)]  # a varying rate: each fifth frame stays longer
    write(folder / "varying", *CODINGS["mp4"], times)
    return folder


def by_hand(path, seconds):
    """The numbers of the frames that are shown at some seconds, by decoding all."""
    with open_media(path) as container:
        decoder = Decoder(container, ["video"])
        shown = [
            (second, number(frame.to_ndarray(format="rgb24")))
            for _, frame, second in decoder.frames()
        ]
    first = shown[0][0]
    return [[n for s, n in shown if s <= max(second, first)][-1] for second in seconds]


@pytest.mark.parametrize("name", [*CODINGS, "varying"])
def test_the_frames_are_those_that_are_shown_then(films, name):
    path, count = films / name, count_frames(films / name)
    with open_media(path) as container:
        rate = float(container.streams.video[0].average_rate)
    assert FRAMES <= count <= FRAMES + 3
    for pick in PICKS:
        got = read_shown(path, lambda n, pick=pick: pick, SIZE)
        assert list(map(number, got.frames)) == by_hand(path, [(k + 0.5) / rate for k in pick])
        whole = read_shown(path, lambda n, pick=pick: pick, SIZE, skip=False)
        assert np.array_equal(got.frames, whole.frames)


def test_only_frames_from_the_key_frame_before_are_decoded(films):
    def decoded(name, pick, **how):
        return read_shown(films / name, lambda n: pick, SIZE, **how).decoded

    assert decoded("mp4", [99], skip=False) == 100
    assert decoded("mp4", [99]) == 4  # key frames are 0, 24, …, 96
    assert decoded("mp4", [74, 75]) <= 10
    assert decoded("mp4", [0, 99]) <= 10
    assert decoded("mp4", list(range(100))) == 100  # each once
    assert decoded("one_key", [99]) == 100


def test_a_window_counts_from_its_beginning(films):
    seen = []
    got = read_shown(films / "mp4", lambda n: seen.append(n) or [0, n - 1], SIZE, 2.0, 3.0)
    assert seen == [25] and list(map(number, got.frames)) == [50, 74]
    assert count_frames(films / "mp4", 2.0, 3.0) == 25 and count_frames(films / "mp4") == 100
    assert count_frames(films / "mp4", 3.0, 99.0) == 25  # the film ends
    with pytest.raises(ValueError, match="0 <= start < end, in seconds; got 3"):
        read_shown(films / "mp4", lambda n: [0], SIZE, 3.0, 2.0)


@pytest.mark.parametrize("name", CODINGS)
def test_a_window_that_begins_beyond_the_end_has_no_frames(films, name):
    path = films / name
    assert 1 <= count_frames(path, 3.9, 5000.0) <= 5  # the end is that of the film
    with pytest.raises(MediaError, match=r"begins at 1000 s, beyond the end of the film at 4\.?"):
        count_frames(path, 1000.0, 2000.0)
    with pytest.raises(MediaError, match="beyond the end"):
        read_shown(path, range, SIZE, 1000.0, 2000.0)


def test_a_square_is_the_middle_and_a_stretched_frame_is_whole(films):
    square = read_shown(films / "mp4", lambda n: [5], Size(30, 30)).frames[0]
    wide = read_shown(films / "mp4", lambda n: [5], Size(30, 40, stretch=True)).frames[0]
    assert square.shape == (30, 30, 3)
    assert np.abs(square.astype(int) - wide[:, 5:35]).mean() < 3


def test_a_film_that_is_cut_off_gives_its_last_frame(films, tmp_path):
    data = (films / "mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    got = read_shown(tmp_path / "cut.mkv", lambda n: [10, 99], SIZE)
    assert number(got.frames[0]) == 10 and 30 < number(got.frames[1]) < 70


def test_what_is_no_film_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_text("nothing")
    with pytest.raises(MediaError, match="no media file"):
        read_shown(tmp_path / "a.mp4", lambda n: [0], SIZE)
