"""Which pictures of a film a backbone sees, and at which size."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

LONGEST = 8  # times the shorter side; a film of 10,000 x 10 pixels would need gigabytes
_ALMOST_SQUARE = Fraction(1, 50)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which pictures of a film a backbone sees, and at which size.

    Feature ``k`` is made of ``frames`` pictures from number ``k * stride`` on, and what lies behind
    the end of the film is black.

    Attributes:
        frames_per_second: pictures taken per second, whatever the film has.
        resize: pixels of the shorter side, the longer one in proportion; or height and width.
        crop: pixels of the square that is cut out of the middle; None: nothing is cut off.
        frames: pictures of one feature.
        stride: pictures from the first one of a feature to that of the next.
        interpolation: a name of FFmpeg's scaler, ``bicubic`` or ``bilinear``.

    Raises:
        ValueError: a number that is not positive, or a crop of more than there is.
    """

    frames_per_second: float
    resize: int | tuple[int, int]
    crop: int | None = None
    frames: int = 1
    stride: int = 1
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        sizes = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        numbers = [self.frames_per_second, self.frames, self.stride, *sizes]
        if min(numbers) <= 0 or not 0 < (self.crop or 1) <= min(sizes):
            raise ValueError(f"all numbers must be > 0 and crop at most resize; got {self}")

    @property
    def per_second(self) -> float:
        """Features per second."""
        return self.frames_per_second / self.stride

    def scaled_size(self, width: float, height: float) -> tuple[int, int]:
        """Return the width and height that a picture is scaled to, before it is cropped.

        Args:
            width: of the picture as it is to be seen: upright, its pixels square.
            height: likewise.
        """
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        shorter, longer = min(width, height), max(width, height)
        long_side = min(int(longer * self.resize / shorter), LONGEST * self.resize)
        return (self.resize, long_side) if height >= width else (long_side, self.resize)

    def picture_size(self, width: float, height: float) -> tuple[int, int]:
        """Return the height and width of what a backbone gets."""
        scaled_width, scaled_height = self.scaled_size(width, height)
        return (self.crop, self.crop) if self.crop else (scaled_height, scaled_width)


def seen_size(
    width: int, height: int, pixel_aspect: Fraction | None, turns: int
) -> tuple[float, float]:
    """Return the width and height of a picture as it is to be seen.

    Pixels that are wider than high by less than 2 % count as square: such values come from sizes
    that an encoder rounded, and the published extractor knows only square pixels.

    Args:
        width: pixels, as coded.
        height: pixels, as coded.
        pixel_aspect: width of a pixel by its height; None or 0: unknown.
        turns: quarters of a turn that the picture must be turned by.
    """
    aspect = pixel_aspect or Fraction(1)
    seen_width = width if abs(aspect - 1) < _ALMOST_SQUARE else float(width * aspect)
    return (height, seen_width) if turns % 2 else (seen_width, height)
