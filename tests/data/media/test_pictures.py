"""Pictures compared with those of the published extractor's command; their sizes."""

import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from fusion.data.media.pictures import Sampling, seen_size
from tests.data.media.films import decode, pictures, write_film, write_frames

PUBLISHED = {"2d": Sampling(1, 224), "3d": Sampling(24, 112, crop=112, frames=16, stride=16)}


def ffmpeg(path, filters, height, width):
    """Run the command of the published extractor."""
    program = shutil.which("ffmpeg")
    if program is None:
        reason = "no ffmpeg to compare with; pip install imageio-ffmpeg"
        program = pytest.importorskip("imageio_ffmpeg", reason=reason).get_ffmpeg_exe()
    command = [program, "-v", "error", "-i", path, "-vf", filters]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(output, np.uint8).reshape(-1, height, width, 3)


def coloured(path):
    """High definition is coded in other colours than the rest, and screens in full range."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 90, 160, "yuvj420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 2  # BT.709, full
        for picture in pictures(70, 90, 160):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


FILMS = {
    "plain.mp4": lambda p: write_film(p, 3, 25, size=(90, 160)),
    "upright.mp4": lambda p: write_film(p, 2, Fraction(30_000, 1001), size=(160, 90)),
    "odd.mkv": lambda p: write_frames(p, range(0, 300, 4), size=(77, 131), pixels="yuv444p"),
    "irregular.mkv": lambda p: write_frames(p, [0, 3, 4, 40, 41, 44, 90, 180, 181, 260, 261, 300]),
    "late.mkv": lambda p: write_frames(p, range(170, 400, 5), sound=True),
    "ten_bit.mkv": lambda p: write_frames(p, range(0, 300, 4), pixels="yuv420p10le"),
    "colours.mp4": coloured,
    "slow.mkv": lambda p: write_frames(p, range(0, 900, 150)),
}


@pytest.mark.parametrize("name", FILMS)
def test_pictures_equal_those_of_the_published_extractors_command(tmp_path, name):
    FILMS[name](tmp_path / name)
    with av.open(tmp_path / name) as container:
        height, width = container.streams.video[0].height, container.streams.video[0].width
    parts, _ = decode(tmp_path / name, PUBLISHED, audio=False)

    def scaled(side):
        if height >= width:
            return int(height * side / width), side
        return side, int(width * side / height)

    tall, wide = scaled(224)
    expected = ffmpeg(tmp_path / name, f"fps=fps=1,scale={wide}:{tall}", tall, wide)
    np.testing.assert_array_equal(parts["2d"], expected)
    tall, wide = scaled(112)
    crop = f"crop=112:112:{int((wide - 112) / 2)}:{int((tall - 112) / 2)}"
    expected = ffmpeg(tmp_path / name, f"fps=fps=24,scale={wide}:{tall},{crop}", 112, 112)
    np.testing.assert_array_equal(parts["3d"], expected)


@pytest.mark.parametrize(
    ("size", "expected"),  # width, height
    [
        ((640, 360), (398, 224)),
        ((360, 640), (224, 398)),
        ((300, 300), (224, 224)),
        ((638, 358), (399, 224)),
        ((1, 1), (224, 224)),
        ((10_000, 10), (8 * 224, 224)),  # and not 224,000 pixels wide
    ],
)
def test_the_shorter_side_is_fixed_and_the_longer_one_rounded_down(size, expected):
    assert Sampling(1, 224).scaled_size(*size) == expected
    assert Sampling(1, 224).picture_size(*size) == expected[::-1]


def test_a_crop_is_what_a_backbone_gets():
    assert Sampling(24, 112, crop=112).picture_size(640, 360) == (112, 112)
    assert Sampling(15, (128, 171), crop=112).scaled_size(640, 360) == (171, 128)


def test_rows_per_second_follow_from_rate_and_stride():
    assert Sampling(24, 112, frames=16, stride=16).per_second == 1.5
    assert Sampling(10, 224, frames=32, stride=10).per_second == 1.0


def test_pixels_that_are_not_square_are_stretched_and_nearly_square_ones_are_not():
    assert seen_size(720, 576, Fraction(16, 11), False) == (pytest.approx(1047.27, abs=0.01), 576)
    assert seen_size(720, 576, Fraction(2560, 2559), False) == (720, 576)
    assert seen_size(720, 576, None, False) == seen_size(720, 576, Fraction(0), False) == (720, 576)


def test_a_quarter_turn_swaps_width_and_height():
    assert seen_size(640, 360, None, True) == (360, 640)
    assert seen_size(640, 360, None, False) == (640, 360)
    assert seen_size(640, 360, Fraction(2), True) == (360, 1280)


@pytest.mark.parametrize(
    "arguments", [(0, 224), (1, 0), (1, 224, 225), (1, 224, None, 0), (1, 9, 9, 1, 0), (1, (0, 9))]
)
def test_impossible_numbers_are_refused(arguments):
    with pytest.raises(ValueError, match="all numbers must be > 0 and crop at most resize"):
        Sampling(*arguments)
