"""The eight ways in which a picture may be turned and mirrored, and other angles."""

import struct
import subprocess

import av
import numpy as np
import pytest

from fusion.data.media.upright import upright
from fusion.data.media.window import read_frames
from tests.data.media.counter import corners, picture

EIGHT = {  # where the unit vectors go, and what is shown of R G / B Y
    (1, 0, 0, 1): "RGBY",
    (0, 1, -1, 0): "BRYG",
    (-1, 0, 0, -1): "YBGR",
    (0, -1, 1, 0): "GYRB",
    (-1, 0, 0, 1): "GRYB",
    (1, 0, 0, -1): "BYRG",
    (0, 1, 1, 0): "RBGY",
    (0, -1, -1, 0): "YGBR",
}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def marked(film, path, matrix):
    """Copy a film with another matrix in its track header; 16.16 fixed point, as floats."""
    data = bytearray(film.read_bytes())
    place = data.index(b"tkhd") + 44
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[place + offset : place + offset + 4] = struct.pack(">i", round(value * 65536))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix", EIGHT)
def test_all_right_angles_and_mirrors_are_shown_as_meant(film, tmp_path, matrix):
    path = marked(film, tmp_path / "film.mp4", matrix)
    assert corners(read_frames(path, 10, 120, 160)[0]) == EIGHT[matrix]


@pytest.mark.parametrize("matrix", [*EIGHT, (0.8, 0.6, -0.6, 0.8), (0.995, 0.1, -0.1, 0.995)])
def test_a_marked_film_is_shown_as_ffmpeg_shows_it(film, tmp_path, matrix):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    path = marked(film, tmp_path / "film.mp4", matrix)
    command = [ffmpeg, "-v", "error", "-i", path, "-vf", "fps=10,scale=80:60"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(output, np.uint8).reshape(-1, 60, 80, 3)
    np.testing.assert_array_equal(read_frames(path, 10, 60, 80), expected)


def test_a_matrix_of_zeros_is_none(film, tmp_path):
    path = marked(film, tmp_path / "film.mp4", (0, 0, 0, 0))
    with av.open(path) as container:
        assert upright(next(container.decode(video=0))) == (False, [])


def test_a_kind_of_data_that_pyav_does_not_know_leaves_the_angle():
    class Frame:
        rotation = 90

        @property
        def side_data(self):
            raise ValueError("37 is not a valid Type")

    assert upright(Frame()) == (True, [("transpose", "cclock")])
