"""Which track is taken, and what is said of it."""

import av
import numpy as np
import pytest

from fusion.data.media.decode import open_media
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.streams import Tracks, choose
from fusion.data.media.window import read_audio, read_frames
from tests.data.media.films import RATE, pictures, write_sound
from tests.data.media.films import tone as sweep

LOUD = [0.1, 0.2, 0.4]
LANGUAGES = ["eng", "deu", "deu"]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Three tracks of sound, the last in stereo, and two of pictures, the second larger."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as output:
        videos = [output.add_stream("ffv1", rate=25) for _ in range(2)]
        for video, size in zip(videos, [(36, 64), (72, 128)], strict=True):
            video.height, video.width, video.pix_fmt = *size, "yuv420p"
        layouts = ["mono", "mono", "stereo"]
        sounds = [output.add_stream("pcm_s16le", rate=RATE, layout=name) for name in layouts]
        for sound, language in zip(sounds, LANGUAGES, strict=True):
            sound.metadata["language"] = language
        for stream in [*videos, *sounds]:
            stream.disposition = 0
        for video, level in zip(videos, (60, 200), strict=True):
            for shown in pictures(25, video.height, video.width):
                frame = av.VideoFrame.from_ndarray(shown * 0 + np.uint8(level), format="rgb24")
                output.mux(video.encode(frame))
            output.mux(video.encode(None))
        for sound, loud in zip(sounds[:2], LOUD, strict=False):
            write_sound(output, sound, loud * sweep(1))
        both = np.repeat((LOUD[2] * sweep(1) * 32_767).astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in [*sounds[2].encode(frame), *sounds[2].encode(None)]:
            output.mux(packet)
    return path


@pytest.mark.parametrize(
    ("tracks", "video", "audio"),
    [  # numbers of the streams: two of pictures, three of sound
        (Tracks(), 1, 4),  # the largest, and the one of most channels
        (Tracks(audio=0, video=0), 0, 2),
        (Tracks(audio="ENG"), 1, 2),
        (Tracks(audio="deu"), 1, 4),
        (Tracks(audio=1), 1, 3),
        (Tracks(audio=3), 1, None),
        (Tracks(audio="fra", video=2), None, None),
    ],
)
def test_the_wanted_track_is_taken_otherwise_the_best(film, tracks, video, audio):
    with open_media(film) as container:
        found = [choose(container, kind, tracks) for kind in ("video", "audio")]
        assert [stream and stream.index for stream in found] == [video, audio]


def test_whole_films_and_windows_take_the_same_track_and_name_it(film):
    whole, parts = Film(film, {"2d": Sampling(5, 36)}, True, Tracks(audio=0, video=0)), {}
    for piece in whole.pieces():
        parts.setdefault(piece.field, []).append(piece.data)
    assert whole.notes == [
        "picture of track 0 (of 0 to 1)",
        "sound of track 0 (of 0 to 2): eng",
    ]
    assert np.abs(parts["2d"][0].astype(int) - 60).max() < 4
    tracks = Tracks(audio=0, video=0)
    assert np.abs(read_frames(film, 5, 36, 64, 0.4, 0.8, tracks).astype(int) - 60).max() < 4
    wave = read_audio(film, RATE, 0.5, 1.0, tracks)
    np.testing.assert_array_equal(wave, np.concatenate(parts["audio"])[RATE // 2 :])
    assert np.abs(wave).max() == pytest.approx(0.1 * np.abs(sweep(1)).max(), abs=0.01)


def test_a_film_without_the_wanted_track_says_which_it_has(film):
    whole = Film(film, {}, True, Tracks(audio="fra"))
    with pytest.raises(ValueError, match="not among: 0 eng, 1 deu, 2 deu"):
        list(whole.pieces())
    assert not len(read_audio(film, tracks=Tracks(audio="fra")))


@pytest.mark.parametrize("wish", [-1, True, "", "e", "17x", 1.5])
def test_a_wish_that_is_no_track_is_refused(wish):
    with pytest.raises(ValueError, match=r"audio track: a number from 0 on, or a language"):
        Tracks(audio=wish)
    assert Tracks.of("2", "deu") == Tracks(2, "deu")
