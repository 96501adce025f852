import os
import shutil

import av
import numpy as np
import pytest

from fusion.data.media.decode import MediaError
from fusion.data.media.encode import write_clip
from fusion.data.media.window import read_audio, read_frames
from tests.data.media.films import make_cover, remux

FRAMES = np.full((75, 32, 48, 3), 100, np.uint8)
WAVE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, FRAMES, 25, WAVE)
    return path


def bad_files(film):
    data, noise = film.read_bytes(), np.random.default_rng(0).bytes(20_000)
    return {
        "empty.mp4": (b"", "empty"),
        "noise.mp4": (noise, "no media file, or truncated"),
        "half.mp4": (data[: len(data) // 2], "no media file, or truncated"),
        "text.txt": (b"some words\n" * 200, "a format that is not read"),
        "list.ffconcat": (b"ffconcat version 1.0\nfile film.mp4\n", "a format that is not read"),
        "list.m3u8": (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfilm.mp4\n#EXT-X-ENDLIST\n",
            "a format that is not read",
        ),
        "net.m3u8": (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n"
            b"#EXT-X-ENDLIST\n",
            "a format that is not read",
        ),
    }


@pytest.mark.parametrize("read", [read_audio, lambda path: read_frames(path, 5, 32, 48)])
def test_what_is_no_media_file_is_refused_in_one_line(film, tmp_path, read):
    cases = bad_files(film)
    shutil.copy(film, tmp_path)  # what the lists point to
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=reason) as error:
            read(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
        assert "copy it again, or convert it to mp4" in str(error.value)
        assert "\n" not in str(error.value)
    assert len(cases) == 7


@pytest.mark.parametrize("name", ["none.mp4", "http://127.0.0.1:9/a.mp4", "concat:film.mp4", "."])
def test_only_files_are_opened(film, monkeypatch, name):
    monkeypatch.chdir(film.parent)
    with pytest.raises(MediaError, match="no such file; check the path"):
        read_audio(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="no such file"):
        read_audio(tmp_path / "pipe.mp4")


def test_a_title_in_another_encoding_does_not_matter(tmp_path):
    with av.open(str(tmp_path / "song.mkv"), "w") as container:
        container.metadata["title"] = "Caf0 au lait"
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        sound.sample_rate = 16_000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            container.mux(packet)
    data = (tmp_path / "song.mkv").read_bytes()
    (tmp_path / "song.mkv").write_bytes(data.replace(b"Caf0", b"Caf\xe9"))
    assert len(read_audio(tmp_path / "song.mkv")) == 1600


def test_a_name_with_a_colon_is_a_name(film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(film, "http:film.mp4")
    assert len(read_frames("http:film.mp4", 5, 32, 48))


@pytest.mark.parametrize(
    ("name", "options"), [("film.mkv", {}), ("film.mp4", {"options": {"movflags": "faststart"}})]
)
def test_of_a_file_that_breaks_off_there_is_what_is_whole(film, tmp_path, name, options):
    remux(film, tmp_path / name, **options)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 6 // 10])
    assert 16_000 < len(read_audio(tmp_path / name)) < 40_000
    assert 5 < len(read_frames(tmp_path / name, 5, 32, 48)) < 14
    assert len(read_audio(tmp_path / name, end=1.0)) == 16_000
    assert len(read_frames(tmp_path / name, 5, 32, 48, end=1.0)) == 5
    assert len(read_frames(tmp_path / name, 5, 32, 48, 2.5, 3.0)) == 0


def test_a_damaged_packet_of_sound_is_silence_and_does_not_spread(film, tmp_path):
    data = bytearray(film.read_bytes())
    with av.open(film) as container:
        packets = [p for p in container.demux(audio=0) if p.size]
        lost = [p for p in packets if 2.0 < float(p.pts * p.time_base) < 2.3]
    for packet in lost:
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (tmp_path / "damaged.mp4").write_bytes(data)
    whole, wave = read_audio(film), read_audio(tmp_path / "damaged.mp4")
    assert wave.shape == whole.shape
    assert np.abs(wave[:31_000] - whole[:31_000]).max() < 0.01
    assert (wave[33_500:35_000] == 0).all()
    assert np.abs(wave[-9_000:] - whole[-9_000:]).max() < 0.05
    np.testing.assert_array_equal(
        read_audio(tmp_path / "damaged.mp4", start=2.5), wave[round(2.5 * 16_000) :]
    )
    assert len(read_frames(tmp_path / "damaged.mp4", 5, 32, 48)) == 15


def test_the_cover_of_a_song_is_no_film(tmp_path):
    make_cover(tmp_path / "song.mp4", WAVE[:16_000], FRAMES[0], 16_000)
    assert not len(read_frames(tmp_path / "song.mp4", 5, 32, 48))
    assert len(read_audio(tmp_path / "song.mp4"))


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 2), (2, 2), (3, 1), (float("nan"), 2), (0, np.inf)]
)
def test_impossible_windows_are_refused(film, start, end):
    for read in (read_audio, lambda *args: read_frames(args[0], 5, 32, 48, *args[2:])):
        with pytest.raises(ValueError, match="a window needs 0 <= start < end"):
            read(film, 16_000, start, end)


def test_impossible_rates_and_sizes_are_refused(film):
    with pytest.raises(ValueError, match="must be > 0; got 0, 32, 48"):
        read_frames(film, 0, 32, 48)
    with pytest.raises(ValueError, match="must be > 0; got 5, 32, -1"):
        read_frames(film, 5, 32, -1)
    with pytest.raises(ValueError, match="rate must be > 0; got 0"):
        read_audio(film, 0)
