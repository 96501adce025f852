"""Turn and mirror pictures as a file says that they are to be shown.

A file has a matrix of 3 x 3 numbers, where ``[0], [1], [3], [4]`` say where the unit vectors go;
phones write one, with a mirror for the front camera.
"""

from __future__ import annotations

import math
from typing import Any

import av
import numpy as np

Filters = list[tuple[str, str]]  # names and arguments of FFmpeg's filters
_NEAR = 1.0  # degrees


def upright(frame: av.VideoFrame) -> tuple[bool, Filters]:
    """Return whether width and height of a frame are swapped, and the filters that turn it.

    They are those of FFmpeg's command line: angles that are no right ones leave black corners.
    """
    matrix = _matrix(frame)
    if matrix is None:
        return False, []
    a, b, c, d = matrix
    width, height = math.hypot(a, c), math.hypot(b, d)
    if not (width and height):
        return False, []
    clockwise = round(math.degrees(math.atan2(b / height, a / width))) % 360
    if abs(clockwise - 90) < _NEAR:
        return True, [("transpose", "cclock_flip" if c > 0 else "clock")]
    if abs(clockwise - 270) < _NEAR:
        return True, [("transpose", "clock_flip" if c < 0 else "cclock")]
    if abs(clockwise - 180) < _NEAR:
        return False, [("hflip", "")] * (a < 0) + [("vflip", "")] * (d < 0)
    if clockwise:
        return False, [("rotate", f"{clockwise}*PI/180")]
    return False, [("vflip", "")] * (d < 0)


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # a kind of data that PyAV does not know is beside it
        turns = round(frame.rotation / 90) % 4
        return [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)][turns]
    if data is None:
        return None
    numbers = np.frombuffer(bytes(data), np.int32)
    return int(numbers[0]), int(numbers[1]), int(numbers[3]), int(numbers[4])
