"""The eight ways in which a picture may be turned and mirrored, and other angles."""

import struct
import subprocess

import av
import numpy as np
import pytest

from fusion.commands.check_media import compare, find_ffmpeg
from fusion.data.media.crop import Crop, crop_of
from fusion.data.media.decode import open_media
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


@pytest.fixture(scope="module")
def cropped(tmp_path_factory):
    """A Matroska file whose sizes of display were made a border, and mp4 and mov files of it."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    folder = tmp_path_factory.mktemp("cropped")
    raw = np.stack([picture(number) for number in range(5)]).tobytes()
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "160x120", "-r", "10", "-i", "pipe:"]
    coding = ["-vf", "setsar=4/3", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    command = [ffmpeg, "-v", "error", *source, *coding, folder / "plain.mkv"]
    subprocess.run(command, input=raw, check=True)
    data = (folder / "plain.mkv").read_bytes()
    for size, border, pixels in ((b"\x54\xb0", b"\x54\xbb", 20), (b"\x54\xba", b"\x54\xcc", 40)):
        place = data.index(size)  # width and height of the display become top and left
        length = data[place + 2] & 0x7F
        value = bytes([data[place + 2]]) + pixels.to_bytes(length, "big")
        data = data[:place] + border + value + data[place + 3 + length :]
    (folder / "film.mkv").write_bytes(data)
    for ending in ("mp4", "mov"):
        copy = ["-i", folder / "film.mkv", "-c", "copy", folder / f"film.{ending}"]
        subprocess.run([ffmpeg, "-v", "error", *copy], check=True)
    return folder


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov"])
def test_a_border_that_the_container_states_is_cut_off(cropped, ending):
    path = cropped / f"film.{ending}"
    with open_media(path) as container:
        assert crop_of(path, container, container.streams.video[0]) == Crop(top=20, left=40)
    shown = read_frames(path, 10, 100, 120)[3]
    whole = read_frames(cropped / "plain.mkv", 10, 120, 160)[3]
    assert np.abs(shown.astype(int) - whole[20:, 40:]).mean() < 2
    assert sum(row.differ for row in compare(path, find_ffmpeg())) == 0


@pytest.mark.parametrize("number", [0, 1])
def test_an_aperture_of_zeros_is_none_and_one_of_a_pixel_leaves_a_pixel(cropped, tmp_path, number):
    data = bytearray((cropped / "film.mp4").read_bytes())
    place = data.index(b"clap") + 4
    data[place : place + 32] = number.to_bytes(4, "big") * 8
    (tmp_path / "film.mp4").write_bytes(data)
    with open_media(tmp_path / "film.mp4") as container:
        found = crop_of(tmp_path / "film.mp4", container, container.streams.video[0])
    assert found == ((60, 58, 80, 78) if number == 1 else (0, 0, 0, 0))
