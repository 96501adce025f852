"""Small files of situations in which the wrong second, picture or track is easily taken."""

from pathlib import Path

import numpy as np
import pytest

from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.streams import Tracks
from fusion.data.media.window import read_audio, read_frames
from tests.data.media.counter import corners, number, tones

CASES = Path(__file__).parent / "cases"
PLAIN = [300, 400, 500, 600, 700, 800, 900, 1000]
# Frame k of 25 per second is shown at 10 per second from the time nearest to k / 25 on
TENTHS = [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38, 41, 43, 46, 48]


def read(name, **options):
    """The numbers of the pictures at 10 per second, the sound, and the film."""
    film, parts = Film(CASES / name, {"2d": Sampling(10, (120, 160))}, True, **options), {}
    for piece in film.pieces():
        parts.setdefault(piece.field, []).append(piece.data)
    shown = np.concatenate(parts["2d"]) if "2d" in parts else np.zeros((0, 120, 160, 3), np.uint8)
    wave = np.concatenate(parts["audio"])
    # A window is read in another way
    kinds = options.get("tracks", Tracks())
    np.testing.assert_array_equal(read_frames(CASES / name, 10, 120, 160, tracks=kinds), shown)
    np.testing.assert_array_equal(read_audio(CASES / name, tracks=kinds), wave)
    return list(map(number, shown)), wave, film


def test_a_plain_film_has_each_picture_and_each_second_in_its_place():
    shown, wave, film = read("base.mp4")
    assert (shown[:20], len(shown)) == (TENTHS, 80)
    assert (tones(wave), len(wave)) == (PLAIN, 128_000)
    assert film.problems == film.notes == []


def test_a_gap_in_the_sound_is_silence_and_what_follows_stays_in_its_place():
    shown, wave, _ = read("gap_aac.mp4")
    assert (tones(wave), len(wave)) == ([300, 400, 0, 0, 700, 800, 900, 1000], 128_000)
    assert shown[:20] == TENTHS


def test_a_block_without_a_time_stamp_follows_the_one_before():
    _, wave, film = read("adpcm_44k.wav")
    assert tones(wave) == [300, 400, 500]
    assert 3.0 <= len(wave) / 16_000 < 3.02
    assert np.abs(wave[:48_000].reshape(-1, 800)).max(1).min() > 0.4  # nowhere silence
    assert film.problems == ["no picture"]


def test_an_avi_has_its_pictures_when_ffmpeg_shows_them():
    shown, _, _ = read("bframes_h264.avi")
    expected = [1, 1, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 29, 31, 34, 36, 39, 41, 44, 46]
    assert (shown[:20], len(shown)) == (expected, 81)


def test_a_mirrored_film_is_shown_as_it_is_meant():
    assert corners(read_frames(CASES / "base.mp4", 10, 120, 160)[0]) == "RGBY"
    assert corners(read_frames(CASES / "mirrored.mp4", 10, 120, 160)[0]) == "GRYB"


def test_the_sound_marked_as_default_is_taken_and_named():
    _, wave, film = read("second_sound_default.mkv")
    assert tones(wave) == PLAIN
    assert film.notes == ["sound of track 1 (of 0 to 1): default"]
    assert film.problems == []


def test_another_track_is_taken_if_the_user_wants_it():
    _, wave, film = read("second_sound_default.mkv", tracks=Tracks(audio=0))
    assert tones(wave) == [2000] * 8
    assert film.notes == ["sound of track 0 (of 0 to 1)"]


def test_a_second_recording_whose_time_begins_anew_follows_the_first():
    shown, wave, film = read("stamps_restart.ts")
    assert len(shown) == 80
    assert len(wave) == pytest.approx(8.06 * 16_000, abs=160)
    assert tones(wave) == PLAIN
    for tenth, k in enumerate(shown):
        assert abs(k - 2.5 * tenth) <= 2
    assert film.problems == []


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.5), (0.2, 0.9), (3.3, 4.9)])
def test_a_window_in_a_program_stream_is_no_damage(start, end):
    window = read_audio(CASES / "program_stream.mpg", 16_000, start, end)
    whole = read_audio(CASES / "program_stream.mpg")
    np.testing.assert_array_equal(window, whole[round(start * 16_000) : round(end * 16_000)])
    assert start != 1.0 or tones(np.tile(window, 2)) == [400]
    shown = read_frames(CASES / "program_stream.mpg", 10, 48, 64, start, end)
    expected = read_frames(CASES / "program_stream.mpg", 10, 48, 64)
    np.testing.assert_array_equal(shown, expected[int(start * 10) : round(end * 10)])


def test_all_cases_are_tried():
    assert len(list(CASES.iterdir())) == 8
