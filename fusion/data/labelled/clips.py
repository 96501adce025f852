"""What a data set of films with classes gives to a model.

Shapes: T frames, M clips of a film, H x W pixels.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.datasets.dataset import ClipSet
from fusion.data.features.problems import Unreadable
from fusion.data.labelled.cache import NO_PICTURE, FrameCache
from fusion.data.labelled.film import LabelledFilm
from fusion.data.labelled.sampling import draw_clip, place_clips
from fusion.data.media.decode import MediaError
from fusion.data.media.shown import Size, read_shown

LABEL = "label"


class FilmClips(ClipSet):
    """The films of one split.

    An item has ``id``, ``video``, frames (T, 3, H, W) uint8 RGB, and ``targets``: ``label``, the
    number of its class. A film that cannot be read has 0 frames; it is named once. Of a training
    split one clip is drawn of each film, anew in each epoch. Of another split an item has the
    frames of ``num_clips`` clips, evenly placed, one after another: (M T, 3, H, W).

    Args:
        films: with their classes.
        folder: what their names are relative to.
        classes: names of all classes.
        size: of the frames.
        frames: T.
        sampling: see :func:`.sampling.draw_clip`.
        draws: whether it is a training split.
        cache: decoded frames; None: films are decoded as they are asked for.
        max_bad: the share of films that may be unreadable.
    """

    num_clips = 1

    def __init__(
        self,
        films: Sequence[LabelledFilm],
        folder: Path,
        classes: Sequence[str],
        size: Size,
        frames: int,
        sampling: str,
        draws: bool,
        cache: FrameCache | None,
        max_bad: float,
    ) -> None:
        self.films, self.folder, self.classes, self.size = films, folder, classes, size
        self.frames, self.sampling, self.draws = frames, sampling, draws
        self.cache = cache
        self._numbers = {name: number for number, name in enumerate(classes)}
        self._unreadable = Unreadable([film.video for film in films], ["video"], max_bad)
        self._seed = 0

    def __len__(self) -> int:
        """Number of films."""
        return len(self.films)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read a film."""
        film = self.films[index]
        frames = torch.from_numpy(self._read(index, film)).movedim(-1, 1).contiguous()
        label = torch.tensor(self._numbers[film.label])
        return {"id": film.id, "video": frames, "targets": {LABEL: label}}

    def set_epoch(self, seed: int) -> None:
        """Set the seed of the frames that are drawn; the draws belong to (seed, film)."""
        self._seed = seed

    def end_epoch(self) -> None:
        """Say how many films could not be read."""
        self._unreadable.report()

    @contextlib.contextmanager
    def tested_with(self, num_clips: int) -> Iterator[None]:
        """Within the block films are read for a test, with so many clips of each."""
        before = self.num_clips, self.draws
        self.num_clips, self.draws = num_clips, False
        try:
            yield
        finally:
            self.num_clips, self.draws = before

    @property
    def labels(self) -> Tensor:
        """The number of the class of each film, (N,) int64."""
        return torch.tensor([self._numbers[film.label] for film in self.films])

    def _read(self, index: int, film: LabelledFilm) -> NDArray[np.uint8]:
        def pick(n: int) -> NDArray[np.int64]:
            if self.draws:
                rng = np.random.default_rng([self._seed % 2**63, zlib.crc32(film.id.encode())])
                return draw_clip(self.sampling, n, self.frames, rng)
            return place_clips(self.sampling, n, self.frames, self.num_clips)

        if self.cache is not None:
            kept = self.cache.read(film)
            return kept[pick(len(kept))] if len(kept) else kept.copy()
        problem, frames = None, np.empty((0, self.size.height, self.size.width, 3), np.uint8)
        try:
            path = (self.folder or Path()) / film.video
            frames = read_shown(path, pick, self.size, film.start, film.end).frames
            problem = None if len(frames) else f"{film.video}: {NO_PICTURE}"
        except MediaError as error:
            problem = str(error)
        if problem:
            self._unreadable.name(index, "video", problem)
        self._unreadable.count([problem] if problem else [])
        return frames
