"""At which seconds the scene of a film changes, found by PySceneDetect.

The frames come from our own reader, so the times are those of clips.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusion.data.media.decode import MediaError
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling

FRAMES_PER_SECOND = 25.0  # times are as fine as this
_HEIGHT = 144  # pixels of the shorter side; PySceneDetect makes large pictures as small as this


def find_scenes(path: Path) -> list[float]:
    """Return the seconds of all hard cuts, ascending; none if there is no picture."""
    from scenedetect import ContentDetector, FrameTimecode  # takes a quarter of a second

    detector = ContentDetector(min_scene_len=0)
    film = Film(path, {"2d": Sampling(FRAMES_PER_SECOND, _HEIGHT, interpolation="bilinear")}, False)
    seconds, number = [], 0
    try:
        for piece in film.pieces():
            for picture in piece.data:
                blue_first = np.ascontiguousarray(picture[..., ::-1])
                place = FrameTimecode(number, FRAMES_PER_SECOND)
                found = detector.process_frame(place, blue_first)
                seconds += [cut.frame_num / FRAMES_PER_SECOND for cut in found]
                number += 1
    except MediaError:  # there is no picture, or none that can be decoded
        return []
    return seconds
