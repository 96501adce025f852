"""Pictures held against those of the published extractor's command."""

import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from fusion.extract.sampling import Sampling
from tests.extract.films import decode, pictures, write_film, write_frames

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
