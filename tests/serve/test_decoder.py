"""The program that decodes uploads: it reads what this process would, and has limits."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.data.media.window import read_audio, read_frames
from fusion.serve import decoding
from fusion.serve.decoding import LimitedDecoder, Limits
from fusion.serve.schemas import Refused
from tests.data.media.films import write_film
from tests.serve.test_uploads import picture


class decoder:
    """A decoder with some limits, which is closed at the end."""

    def __init__(self, **limits):
        self.made = LimitedDecoder(Limits(**limits))

    def __enter__(self):
        return self.made

    def __exit__(self, *_):
        self.made.close()


def test_the_program_reads_what_this_process_would_read(films):
    path = films / "a.mp4"
    samplings = {"2d": Sampling(2, 24), "sound": Hearing(8000, 1.0, 1.0)}
    with decoder() as made:
        np.testing.assert_array_equal(made.frames(path, 10, 18, 32), read_frames(path, 10, 18, 32))
        np.testing.assert_array_equal(made.sound(path), read_audio(path))
        for piece, other in zip(
            made.pieces(path, samplings, True), Film(path, samplings, True).pieces(), strict=True
        ):
            assert (piece.field, piece.seconds) == (other.field, other.seconds)
            np.testing.assert_array_equal(piece.data, other.data)


def refused(status, call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.status == status
    return caught.value.error


def test_a_film_that_needs_too_much_memory_is_refused(films):
    with decoder(memory=2**27) as made:
        refused_as = refused(422, made.frames, films / "a.mp4", 10, 36, 64)
    assert "ends the program" in refused_as or "memory" in refused_as


def test_pictures_that_are_too_large_are_not_decoded(tmp_path):
    path = write_film(tmp_path / "large.mp4", 0.2, size=(480, 640))
    (tmp_path / "large.png").write_bytes(picture((640, 480)))
    with decoder(pixels=100_000) as made:
        assert "640 x 480 pixels" in refused(413, made.frames, path, 10, 18, 32)
        assert "640 x 480 pixels" in refused(413, made.picture, tmp_path / "large.png")


def test_f24_a_film_that_takes_too_long_is_stopped(films, monkeypatch):
    monkeypatch.setattr(decoding, "COMMAND", ("sleep", "60"))
    begin = time.monotonic()
    with decoder(wall=0.3) as made:
        assert "takes too long" in refused(413, made.sound, films / "a.mp4")
    assert time.monotonic() - begin < 5


def test_a_program_that_uses_up_its_time_is_stopped(films):
    with decoder(cpu=0) as made:
        assert "takes too long" in refused(413, made.frames, films / "a.mp4", 10, 360, 640)


def test_a_program_that_crashes_costs_its_file_alone(films, monkeypatch):
    with decoder() as made:
        monkeypatch.setattr(decoding, "COMMAND", ("false",))
        assert "ends the program" in refused(422, made.sound, films / "a.mp4")
        monkeypatch.undo()
        made._spare.wait()  # it was started by the same command
        assert len(made.sound(films / "a.mp4"))


@pytest.mark.parametrize(
    "message",
    [
        "{}",
        "[]",
        "no json",
        '{"kind": "piece", "field": "x", "seconds": 0, "shape": [-1], "dtype": "|u1"}',
        '{"kind": "piece", "field": "x", "seconds": 0, "shape": [4], "dtype": "O"}',
        '{"kind": "piece", "field": "x", "seconds": 0, "shape": [9999999, 9999], "dtype": "<f4"}',
    ],
)
def test_a_program_that_was_taken_over_does_no_harm(films, monkeypatch, message):
    monkeypatch.setattr(decoding, "COMMAND", ("sh", "-c", f"echo '{message}'"))
    with decoder() as made, pytest.raises(Refused):
        made.sound(films / "a.mp4")


def test_the_program_has_no_secrets_and_leaves_with_the_decoder(films, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with decoder() as made:
        made.warm()
        process = made._spare
        environment = Path(f"/proc/{process.pid}/environ")
        assert not environment.exists() or "secret" not in environment.read_text()
    assert process.poll() == -signal.SIGKILL
    refused(503, made.sound, films / "a.mp4")


def test_a_picture_is_turned_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera that was held upright
    (tmp_path / "a.jpg").write_bytes(picture((30, 20), "JPEG", exif=turned))
    with decoder() as made:
        assert made.picture(tmp_path / "a.jpg").shape == (1, 30, 20, 3)


def test_a_large_picture_is_scaled_down(tmp_path):
    (tmp_path / "a.png").write_bytes(picture((3000, 1500)))
    with decoder() as made:
        assert made.picture(tmp_path / "a.png").shape == (1, 512, 1024, 3)
