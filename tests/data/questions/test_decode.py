"""An image file of any mode becomes an upright RGB square."""

import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fusion.data.questions import decode
from fusion.data.questions.decode import ImageError, decode_image, read_image
from tests.data.questions.made import close, save_image


def test_a_plain_image_keeps_its_colour(tmp_path):
    image = read_image(save_image(tmp_path / "a.png", (10, 20, 30)), 5)
    assert image.shape == (3, 5, 5) and image.dtype == torch.uint8
    assert close(image, (10, 20, 30), 0)


def test_rows_are_rows_and_columns_are_columns(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 255, 0, 0  # the upper row is red
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", 4), pixels.transpose(2, 0, 1))


def test_the_sides_are_scaled_independently(tmp_path):
    pixels = np.zeros((2, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 8)
    assert (image[:, :, :3] == 0).all() and (image[:, :, 5:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_exif_says(tmp_path, orientation):
    upright = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpositions that hide an upright image
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    upright.save(tmp_path / "plain.png")
    found = decode_image(tmp_path / "a.png", 12)
    np.testing.assert_array_equal(found, decode_image(tmp_path / "plain.png", 12))


GREY16 = Image.fromarray(np.full((3, 3), 200 * 257, np.uint16))
MODES = {
    "1": (Image.new("1", (3, 3), 1), (255, 255, 255)),
    "L": (Image.new("L", (3, 3), 77), (77, 77, 77)),
    "LA": (Image.new("LA", (3, 3), (77, 255)), (77, 77, 77)),
    "P": (Image.new("RGB", (3, 3), (204, 0, 0)).convert("P"), (204, 0, 0)),
    "RGBA": (Image.new("RGBA", (3, 3), (200, 0, 0, 255)), (200, 0, 0)),
    "transparent": (Image.new("RGBA", (3, 3), (200, 0, 0, 0)), (255, 255, 255)),
    "half": (Image.new("RGBA", (3, 3), (0, 0, 0, 128)), (127, 127, 127)),
    "CMYK": (Image.new("CMYK", (3, 3), (0, 255, 255, 0)), (255, 0, 0)),
    "I;16": (GREY16, (200, 200, 200)),
    "I": (Image.new("I", (3, 3), 100 * 257), (100, 100, 100)),
    "F": (Image.new("F", (3, 3), 0.5), (128, 128, 128)),
}


@pytest.mark.parametrize("name", MODES)
def test_any_mode_becomes_rgb(tmp_path, name):
    picture, colour = MODES[name]
    picture.save(tmp_path / "a.tif")
    assert close(decode_image(tmp_path / "a.tif", 4), colour, 1)


def test_a_16_bit_png_is_not_clipped(tmp_path):
    GREY16.save(tmp_path / "a.png")
    assert close(decode_image(tmp_path / "a.png", 4), (200, 200, 200), 0)


def test_a_palette_may_have_a_transparent_colour(tmp_path):
    picture = Image.new("P", (3, 3), 0)
    picture.putpalette([0, 0, 0, 9, 9, 9])
    picture.save(tmp_path / "a.png", transparency=0)
    assert close(decode_image(tmp_path / "a.png", 4), (255, 255, 255), 0)


def test_of_an_animation_the_first_image_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert close(decode_image(tmp_path / "a.gif", 4), (200, 0, 0))


def test_a_large_jpeg_is_scaled_with_care(tmp_path):
    save_image(tmp_path / "a.jpg", (200, 100, 50), (640, 480))
    assert close(decode_image(tmp_path / "a.jpg", 50), (200, 100, 50))


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 90)
    path = save_image(tmp_path / "a.png", size=(10, 10))
    with pytest.raises(ImageError, match=r"a.png: 10 x 10 pixels, more than .*; scale it down$"):
        read_image(path, 4)


def test_a_decompression_bomb_is_refused_in_one_line(tmp_path):
    path = save_image(tmp_path / "a.png", size=(1, 1))
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2  # the header says 3.6 billion pixels
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"^[^\n]*more than 100 million pixels; scale it down$"):
        read_image(path, 4)


@pytest.mark.parametrize("keep", [0, 3, 40, 150])
def test_a_damaged_image_is_one_line(tmp_path, keep):
    save_image(tmp_path / "whole.png", size=(64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "whole.png").read_bytes()[:keep])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png", 4)
    assert "\n" not in str(caught.value) and "a.png" in str(caught.value)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(ImageError, match="no image that is read"):
        read_image(tmp_path / "a.png", 4)
    with pytest.raises(ImageError, match="b.png: no such file"):
        read_image(tmp_path / "b.png", 4)
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(tmp_path, 4)
