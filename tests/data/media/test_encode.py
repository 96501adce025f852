import io

import av
import numpy as np
import pytest

from fusion.data.media.encode import encode_jpeg, encode_png, write_clip
from fusion.data.media.window import read_audio, read_frames

GRADIENT = np.linspace(20, 220, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
FRAMES = np.stack([np.roll(GRADIENT, shift, axis=0) for shift in range(10)])
WAVE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)


def test_pictures_and_sound_come_back(tmp_path):
    write_clip(tmp_path / "clip.mp4", FRAMES, 10, WAVE)
    frames = read_frames(tmp_path / "clip.mp4", 10, 48, 64)
    wave = read_audio(tmp_path / "clip.mp4")
    assert frames.shape == FRAMES.shape
    assert np.abs(frames.astype(int) - FRAMES).mean() < 6
    assert wave.shape == WAVE.shape
    assert np.square(wave - WAVE).mean() < 1e-4


def test_a_player_finds_sound_beside_its_picture_in_a_long_film():
    buffer = io.BytesIO()
    write_clip(buffer, np.repeat(FRAMES, 6, axis=0), 2, np.tile(WAVE, 30))
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        packets = [
            (packet.pos, packet.stream.type, float(packet.dts * packet.time_base))
            for packet in container.demux()
            if packet.size
        ]
    times = {"video": 0.0, "audio": 0.0}
    for _, kind, seconds in sorted(packets)[:-20]:
        times[kind] = seconds
        assert abs(times["video"] - times["audio"]) < 5


def test_the_same_input_gives_the_same_bytes_from_an_iterator_too(tmp_path):
    write_clip(tmp_path / "clip.mp4", FRAMES, 10, WAVE)
    generator = np.random.default_rng(0)
    for _ in range(8):
        dirt = [generator.random(int(size)) for size in generator.integers(100, 400_000, 8)]
        del dirt  # leaves memory behind that x264 once took for its own
        write_clip(buffer := io.BytesIO(), iter(FRAMES), 10, WAVE)
        assert buffer.getvalue() == (tmp_path / "clip.mp4").read_bytes()


@pytest.mark.parametrize(("frames", "wave"), [(FRAMES, None), ([], WAVE), (None, WAVE)])
def test_either_stream_may_be_missing(tmp_path, frames, wave):
    write_clip(tmp_path / "clip.mp4", frames, 10, wave)
    with av.open(tmp_path / "clip.mp4") as container:
        assert len(container.streams.video) == (frames is FRAMES)
        assert len(container.streams.audio) == (wave is not None)
        assert container.duration / av.time_base == pytest.approx(1, abs=0.1)


def test_mpeg4_is_written_where_x264_is_lacking(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    write_clip(tmp_path / "clip.mp4", FRAMES, 10, None)
    with av.open(tmp_path / "clip.mp4") as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert read_frames(tmp_path / "clip.mp4", 10, 48, 64).shape == FRAMES.shape


@pytest.mark.parametrize(
    ("frames", "wave", "message"),
    [
        (None, None, "needs pictures or sound; got neither"),
        ([], np.zeros(0, np.float32), "needs pictures or sound; got neither"),
        (FRAMES[:, :47], None, "even height and width; got 47 x 64"),
        (FRAMES / 255, None, "uint8; got .* of float64"),
        ([FRAMES[0], FRAMES[0, :32]], None, "one size; got .32, 64, 3. after .48, 64, 3."),
        (None, WAVE[None], "mono, of shape .S,.; got .1, 16000."),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, frames, wave, message):
    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path / "clip.mp4", frames, 10, wave)


@pytest.mark.parametrize("width", [63, 64])
def test_a_jpeg_shows_its_picture(width):
    picture = np.ascontiguousarray(GRADIENT[:, :width])
    data = encode_jpeg(picture)
    assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
    decoder = av.CodecContext.create("mjpeg", "r")
    decoded = decoder.decode(av.Packet(data))[0].to_ndarray(format="rgb24")
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("width", [64, 33])
def test_a_png_is_its_picture(width):
    picture = GRADIENT[:, :width]
    decoder = av.CodecContext.create("png", "r")
    (frame,) = decoder.decode(av.Packet(encode_png(picture)))
    np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), picture)


def test_a_picture_of_floats_is_no_png():
    with pytest.raises(ValueError, match="array of uint8"):
        encode_png(GRADIENT / 255)


def test_a_picture_of_floats_is_no_jpeg():
    with pytest.raises(ValueError, match="uint8; got .* of float64"):
        encode_jpeg(GRADIENT / 255)
