"""What comes out of one pass over a file, good or bad."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from fusion.data.media import pictures as module
from fusion.data.media.clock import PictureClock
from fusion.data.media.decode import Decoder, MediaError
from fusion.data.media.film import Film
from fusion.data.media.pictures import PictureTrack, Sampling
from fusion.data.media.window import read_audio
from tests.data.media.films import (
    RATE,
    SMALL,
    decode,
    make_cover,
    pictures,
    remux,
    tone,
    turn,
    write_film,
    write_frames,
    write_sound,
)


@pytest.mark.parametrize("seconds", [0.3, 2.0, 5.1])
def test_sound_equals_that_of_the_whole_file_read_alone(tmp_path, seconds):
    write_film(tmp_path / "film.mp4", seconds)
    parts, film = decode(tmp_path / "film.mp4")
    np.testing.assert_array_equal(parts["audio"], read_audio(tmp_path / "film.mp4"))
    assert film.problems == []
    assert film.seconds == pytest.approx(seconds, abs=0.05)


def test_sound_that_starts_late_is_in_its_place_at_any_rate(tmp_path):
    with av.open(str(tmp_path / "film.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 36, 64, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=44_100, layout="mono")
        for picture in pictures(25):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
        write_sound(output, sound, tone(2, 44_100), start=44_100 * 613 // 1000)
    parts, _ = decode(tmp_path / "film.mkv")
    assert (parts["audio"][: 600 * RATE // 1000] == 0).all()
    np.testing.assert_array_equal(parts["audio"], read_audio(tmp_path / "film.mkv"))


def test_time_counts_from_where_the_file_starts(tmp_path):
    path = tmp_path / "film.ts"
    write_frames(path, range(1000, 1200, 4), codec="mpeg2video", container="mpegts")
    parts, film = decode(path)
    assert (len(parts["2d"]), len(parts["3d"])) == (4, 20)
    assert film.seconds == pytest.approx(2.0, abs=0.1)


def test_pieces_come_while_the_film_is_decoded(tmp_path):
    """A film is not held in memory: no piece is longer than a few seconds."""
    write_film(tmp_path / "film.mp4", 30, fps=5)
    pieces = list(Film(tmp_path / "film.mp4", SMALL, True).pieces())
    assert max(len(p.data) for p in pieces if p.field == "audio") < 3 * RATE
    assert max(len(p.data) for p in pieces if p.field != "audio") <= 8
    times = [piece.seconds for piece in pieces]
    assert times == sorted(times)
    assert sum(0 < second < 20 for second in times) > 20


def test_a_film_held_sideways_is_shown_upright_and_in_its_proportions(tmp_path):
    picture = np.zeros((36, 64, 3), np.uint8)
    picture[:, 32:] = 200
    with av.open(str(tmp_path / "film.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 36, 64, "yuv420p"
        for _ in range(25):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    turn(tmp_path / "film.mp4", (0, 1, -1, 0))  # clockwise
    shown = decode(tmp_path / "film.mp4", SMALL)[0]["2d"][0]
    assert shown.shape == (42, 24, 3)
    assert shown[24:].mean() > 180 and shown[:18].mean() < 20


def test_pixels_that_are_not_square_are_shown_as_they_are_meant(tmp_path):
    with av.open(str(tmp_path / "film.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for picture in pictures(25, 48, 48):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    assert decode(tmp_path / "film.mp4")[0]["2d"].shape[1:] == (24, 36, 3)


def test_a_film_that_changes_its_size_midway_is_read_to_its_end(tmp_path):
    parts = []
    for number, size in enumerate([(36, 64), (48, 48)]):
        path = tmp_path / f"{number}.ts"
        times = range(number * 100, number * 100 + 100, 4)
        write_frames(path, times, codec="mpeg2video", size=size, container="mpegts")
        parts.append(path.read_bytes())
    (tmp_path / "film.ts").write_bytes(b"".join(parts))
    found, _ = decode(tmp_path / "film.ts")
    assert found["2d"].shape == (4, 24, 42, 3)


def test_a_turned_film_that_changes_its_size_stays_upright(monkeypatch):
    """Filters that turn pictures do not notice by themselves."""
    monkeypatch.setattr(module, "upright", lambda frame: (True, [("transpose", "clock")]))
    sampler, shown = PictureTrack(Sampling(10, 24), None), []
    for number, size in enumerate([(36, 64), (72, 128)]):
        picture = av.VideoFrame.from_ndarray(next(pictures(1, *size)), format="rgb24")
        for index in range(10):
            frame = picture.reformat(format="yuv420p")
            frame.pts, frame.time_base = 10 * number + index, Fraction(1, 10)
            shown += sampler.push(frame)
    shown = np.concatenate([*shown, *sampler.end()]).astype(int)
    assert np.abs(shown[15] - shown[5]).mean() < 10


def test_of_several_streams_the_largest_picture_and_the_first_sound_are_taken(tmp_path):
    sizes = [(36, 64), (72, 64), (36, 64)]
    with av.open(str(tmp_path / "film.mkv"), "w") as output:
        videos = [output.add_stream("ffv1", rate=25) for _ in sizes]
        for stream, size in zip(videos, sizes, strict=True):
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        sounds = [output.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, size in zip(videos, sizes, strict=True):
            for picture in pictures(25, *size):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
        for stream, loud in zip(sounds, (1.0, 0.1), strict=True):
            write_sound(output, stream, loud * tone(1))
    parts, _ = decode(tmp_path / "film.mkv")
    assert parts["2d"].shape[1:] == (27, 24, 3)
    np.testing.assert_allclose(parts["audio"], tone(1), atol=1e-4)


def test_the_cover_of_a_song_is_no_picture(tmp_path):
    make_cover(tmp_path / "song.mp4", tone(1), next(pictures(1)), RATE)
    parts, film = decode(tmp_path / "song.mp4")
    assert parts.keys() == {"audio"}
    assert film.problems == ["no picture"]


def test_what_a_film_lacks_is_said_and_what_it_has_is_kept(tmp_path):
    write_film(tmp_path / "silent.mp4", sound=False)
    write_film(tmp_path / "blind.mp4", picture=False)
    parts, film = decode(tmp_path / "silent.mp4")
    assert (parts.keys(), film.problems) == ({"2d", "3d"}, ["no sound"])
    parts, film = decode(tmp_path / "blind.mp4")
    assert (parts.keys(), film.problems) == ({"audio"}, ["no picture"])
    with pytest.raises(MediaError, match=r"blind.mp4: nothing to extract: no picture; check"):
        decode(tmp_path / "blind.mp4", audio=False)
    parts, film = decode(tmp_path / "silent.mp4", audio=False)
    assert film.problems == []


@pytest.mark.parametrize("times", [[0], [0, 0 + 1], [0, 1, 2]])
def test_a_film_of_a_moment_has_one_picture(tmp_path, times):
    write_frames(tmp_path / "film.mkv", times)
    parts, film = decode(tmp_path / "film.mkv", {"2d": Sampling(1, 24), "3d": Sampling(2, 16)})
    assert len(parts["2d"]) == len(parts["3d"]) == 1
    assert film.problems == ["no sound"]


@pytest.mark.parametrize(
    ("name", "options"),
    [("film.mkv", {}), ("film.mp4", {"options": {"movflags": "faststart"}})],
)
def test_f23_of_a_film_that_breaks_off_the_beginning_is_kept(tmp_path, name, options):
    write_film(tmp_path / "whole.mp4", 5, size=(90, 160))
    remux(tmp_path / "whole.mp4", tmp_path / name, **options)
    whole, _ = decode(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 6 // 10])
    parts, film = decode(tmp_path / name)
    count = len(parts["3d"]) - 4  # the last frames may be damaged
    assert count > 10
    np.testing.assert_array_equal(parts["3d"][:count], whole["3d"][:count])
    assert len(parts["audio"]) > 1.5 * RATE
    assert all(p.startswith("partial: ") for p in film.problems)
    assert any("truncated, its picture ends after " in p for p in film.problems)


def test_an_avi_that_breaks_off_is_noticed_by_its_number_of_pictures(tmp_path):
    path = write_frames(tmp_path / "film.avi", range(500), codec="mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    parts, film = decode(path)
    assert 4 <= len(parts["2d"]) <= 7
    assert any("truncated, its picture ends after " in p for p in film.problems)


def test_damaged_packets_are_passed_over_and_counted(tmp_path):
    data = bytearray(write_film(tmp_path / "film.mp4", 4).read_bytes())
    with av.open(tmp_path / "film.mp4") as container:
        packets = [p for p in container.demux(audio=0) if p.size][20:24]
        places = [(p.pos, p.size) for p in packets]
    for place, size in places:
        data[place : place + size] = b"\xff" * size
    (tmp_path / "film.mp4").write_bytes(data)
    parts, film = decode(tmp_path / "film.mp4")
    whole = read_audio(write_film(tmp_path / "whole.mp4", 4))
    assert len(parts["2d"]) == 8
    (problem,) = film.problems
    assert problem.startswith("partial: ") and "not decodable, from 1." in problem
    # What is lost is silence, so that the rest stays in place.
    np.testing.assert_allclose(parts["audio"][-RATE:], whole[-RATE:], atol=0.05)


def test_time_stamps_that_jump_are_not_filled_with_pictures(tmp_path, monkeypatch):
    decoded, original = [], Decoder.decode
    monkeypatch.setattr(
        Decoder, "decode", lambda self, p: decoded.append(p.stream.type) or original(self, p)
    )
    times = [*range(0, 200, 4), *range(9_000_000, 9_000_100, 4)]
    write_frames(tmp_path / "film.mkv", times, sound=True)
    parts, film = decode(tmp_path / "film.mkv")
    assert len(parts["3d"]) == 20
    assert "partial: its time stamps jump from 2.0 to 90000.0 s" in film.problems
    assert decoded.count("video") == 51  # the rest is skipped


@pytest.mark.parametrize("content", [b"", b"some words\n" * 99, bytes(range(256)) * 99])
def test_f23_what_is_no_media_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "film.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"^\S+film.mp4: [^\n]+; [^\n]+$"):
        decode(tmp_path / "film.mp4")


def test_pictures_that_cannot_be_converted_at_the_end_cost_no_sound(tmp_path, monkeypatch):
    def fail(self):
        raise ValueError("no such conversion")
        yield

    monkeypatch.setattr(PictureTrack, "end", fail)
    parts, film = decode(write_film(tmp_path / "film.mp4"))
    assert len(parts["audio"]) == 2 * RATE
    assert film.problems == ["partial: not convertible at 2.0 s (no such conversion)"]


@pytest.mark.parametrize("times", [[0, 400_000], [400_000, 400_004]])
def test_an_hour_before_a_picture_is_not_filled(tmp_path, times):
    write_frames(tmp_path / "film.mkv", times, sound=True)
    parts, film = decode(tmp_path / "film.mkv")
    assert len(parts.get("2d", ())) <= 1
    assert "partial: its time stamps jump from 0.0 to 4000.0 s" in film.problems


def test_a_picture_is_shown_for_an_hour_at_most():
    stream = SimpleNamespace(
        time_base=Fraction(1, 1000),
        average_rate=None,
        codec_context=SimpleNamespace(framerate=None),
    )
    frame = SimpleNamespace(pts=0, dts=0, duration=10**12)
    assert PictureClock(stream).place(frame) == 0.0
    assert frame.duration == 3600 * 1000
