"""The frames of films, decoded once and kept in the cache.

Shapes: N films, T frames of a film, H x W pixels.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.data.labelled.film import LabelError, LabelledFilm
from fusion.data.media.decode import MediaError
from fusion.data.media.decoded import DecodedCache, state_of
from fusion.data.media.device import CPU, decoding_device
from fusion.data.media.shown import VERSION, Size, count_frames, read_shown
from fusion.files import cache_folder

PROBED = 20  # films of which the space is estimated
NO_PICTURE = "no picture that can be decoded"  # a problem

Part = tuple[str, float, float | None]  # video, start and end in seconds


def part_of(film: LabelledFilm) -> Part:
    """Return what of which file a film is."""
    return film.video, film.start, film.end


class FrameCache(DecodedCache):
    """All frames of some films, scaled to one size; each film or part of one once.

    The file belongs to these names, sizes and times of change.

    Args:
        folder: what the names of the films are relative to.
        films: in any order.
        size: of the frames.
        way_out: what else the user can do where the disk is full.
    """

    at_a_time = 32
    said = "decoding films", "film"

    def __init__(
        self, folder: Path, films: Iterable[LabelledFilm], size: Size, way_out: str = ""
    ) -> None:
        self.folder, self.size, self.way_out = folder, size, way_out
        self.parts: Sequence[Part] = sorted(set(map(part_of, films)), key=str)
        states = [state_of(folder / video) for video, _, _ in self.parts]
        facts = [VERSION, *size, str(folder.resolve()), *zip(self.parts, states, strict=True)]
        if (device := decoding_device()) != CPU:
            facts.append(device)
        super().__init__("frames", facts, len(self.parts), (size.height, size.width, 3))
        self._index = {part: number for number, part in enumerate(self.parts)}

    def estimate(self) -> int:
        """Estimate the bytes of all frames from those of a few films."""
        some = self.parts[:: max(1, len(self.parts) // PROBED)]
        counts = [count for part in some if (count := self._count_frames(part))]
        return round(len(self.parts) * self.row_bytes * float(np.mean(counts or [0])))

    def read(self, film: LabelledFilm) -> NDArray[np.uint8]:
        """Return the frames of a film, mapped: (T, H, W, 3); T is 0 if it cannot be read."""
        return self.rows(self._index[part_of(film)])

    @functools.cached_property
    def problems(self) -> dict[Part, str]:
        """Why films or parts of them cannot be read; decodes them all on the first use."""
        found = zip(self.parts, self.found, strict=True)
        return {part: why for part, why in found if isinstance(why, str)}

    def decode(self, number: int) -> NDArray[np.uint8] | str:
        """Decode a film."""
        video, start, end = self.parts[number]
        try:
            frames = read_shown(self.folder / video, range, self.size, start, end).frames
        except MediaError as error:
            return str(error)
        return frames if len(frames) else NO_PICTURE

    def no_space(self, found: str) -> LabelError:
        """Say that the disk is full."""
        return LabelError(
            f"no space for the frames of films in {self._place.parent}: {found}; free some, or set"
            f" FUSION_CACHE to a folder on another disk{self.way_out and f', or {self.way_out}'}"
        )

    def _count_frames(self, part: Part) -> int:
        try:
            return count_frames(self.folder / part[0], *part[1:])
        except MediaError:
            return 0


def list_problems(problems: Mapping[Part, str]) -> list[str]:
    """Say what cannot be read; what several parts of a film have in common is said once."""
    return list(dict.fromkeys(f"{part[0]}: {why}" for part, why in problems.items()))


def free_bytes() -> int:
    """Return how much space there is for the cache."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free
