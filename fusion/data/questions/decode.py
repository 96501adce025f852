"""Decode image files: upright, of one size, whatever their mode.

Shapes: S pixels, the side of the square that every image becomes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

VERSION = 1  # raise it when the pixels change
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none that runs programs
MAX_PIXELS = 100_000_000  # 300 MB as RGB
_WHITE = (255, 255, 255, 255)
_DEEP_MODES = ("I", "F")  # and I;16 and its variants


class ImageError(ValueError):
    """An image that cannot be read; one line."""


def read_image(path: str | Path, size: int) -> Tensor:
    """Read an image as a tensor, see :func:`decode_image`: (3, S, S) uint8 RGB.

    Raises:
        ImageError: there is no such file, or it cannot be read; one line with its path.
    """
    try:
        with quiet():
            return torch.from_numpy(decode_image(path, size))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore Pillow's warnings, of odd metadata and of large images; not for a single thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_image(path: str | Path, size: int) -> NDArray[np.uint8]:
    """Decode an image file to RGB and scale it to a square: (3, S, S).

    The image is turned upright as its EXIF data say, its sides are scaled independently (bicubic,
    antialiased). Transparent parts become white. 16-bit grey becomes 8-bit by dividing by 257. Of
    an animation the first image counts.

    Raises:
        ImageError: there is no such file, it is no image of ``FORMATS``, it is damaged, or it has
            more than ``MAX_PIXELS``; one line without the path.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return _decode(picture, size)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ImageError(f"no image that is read ({known})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS // 10**6} million pixels; scale it down") from None
    except Exception as error:  # damaged files make Pillow raise many kinds
        said = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be decoded ({said})") from None


def _decode(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(
            f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS // 10**6} million;"
            " scale it down"
        )
    picture.draft(None, (size, size))  # a JPEG is decoded no larger than needed
    return _scaled(_as_rgb(ImageOps.exif_transpose(picture)), size)


def scale_picture(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale a decoded RGB picture as :func:`decode_image` does: (H, W, 3) -> (3, S, S)."""
    return _scaled(Image.fromarray(picture), size)


def _scaled(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    scaled = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in _DEEP_MODES or picture.mode.startswith("I;"):
        picture = _as_8_bit(picture)
    if picture.has_transparency_data:
        own = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", own.size, _WHITE), own)
    return picture.convert("RGB")


def _as_8_bit(picture: Image.Image) -> Image.Image:
    """Scale grey values of 16 or more bits, or floats, to 0 … 255.

    Whole numbers are of 16 bits if any is above 255, and floats are from 0 to 1 if none is above 1.
    """
    values = np.asarray(picture).astype(np.float32)
    highest = float(values.max(initial=0))
    if picture.mode == "F":
        most = 1.0 if highest <= 1 else max(255.0, highest)
    else:
        most = 65535.0 if picture.mode != "I" or highest > 255 else 255.0
    grey = np.nan_to_num(values / most * 255).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(grey)
