"""The images of a data set, decoded once and kept in the cache.

Shapes: N images, S pixels, the side of each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.features.problems import name_some, tolerate
from fusion.data.media.decoded import DecodedCache, state_of
from fusion.data.questions.decode import VERSION, ImageError, decode_image, quiet
from fusion.files import missing_folder
from fusion.words import number_of


class Images(DecodedCache):
    """Some images of a folder, all scaled to one size; an image that cannot be read is missing.

    The file of the cache belongs to these names, sizes and times of change: if an image is changed,
    all are decoded again.

    Args:
        folder: what the names are relative to.
        names: of the files; order and repetitions do not matter.
        size: S.

    Attributes:
        names: each once, in order.

    Raises:
        ImageError: there is no such folder, or it has none of the images.
    """

    at_a_time = 64
    said = "reading images", "image"

    def __init__(self, folder: Path, names: Iterable[str], size: int) -> None:
        self.folder, self.size = folder, size
        self.names: Sequence[str] = sorted(set(names))
        if not folder.is_dir():
            where = missing_folder(folder)
            raise ImageError(
                f"data.images: there is no folder {folder}{where}; name that of images"
            )
        states = [state_of(folder / name) for name in self.names]
        if self.names and not any(states):
            raise ImageError(
                f"data.images: {folder} has none of {number_of(len(states), 'image')} that the"
                f" questions name (such as {self.names[0]}); name the folder that has them"
            )
        facts = [VERSION, size, str(folder.resolve()), *zip(self.names, states, strict=True)]
        super().__init__("images", facts, len(self.names), (3, size, size))
        self._index = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def read(self, name: str) -> Tensor:
        """Return an image: (1, 3, S, S) uint8 RGB; (0, 3, S, S) if it cannot be read."""
        if name not in self._index:
            return torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        return torch.from_numpy(self.rows(self._index[name]).copy())

    @functools.cached_property
    def unreadable(self) -> Mapping[str, str]:
        """Why images cannot be read, by name; decodes them all on the first use."""
        found = zip(self.names, self.found, strict=True)
        return {name: why for name, why in found if isinstance(why, str)}

    def check(self, source: str | Path, bad: str, max_bad: float) -> None:
        """Warn of images that cannot be read; ``source`` is the file that names them.

        ValueError: their share is more than ``max_bad``. ``bad`` says what becomes of them.
        """
        if self.unreadable:
            named = [f"{name}: {reason}" for name, reason in self.unreadable.items()]
            said = f"{source}: {len(named)} of {len(self)} images in {self.folder} cannot be read"
            said += f" ({name_some(named, '; ')})"
            tolerate(said, len(named) / len(self), bad, max_bad)

    @property
    def known_rows(self) -> int:
        """N: a row each."""
        return len(self)

    def fill(self) -> None:
        """Decode the images unless the cache has them, with a progress bar.

        ImageError: there is no space in the cache.
        """
        with quiet():
            super().fill()

    def decode(self, number: int) -> NDArray[np.uint8] | str:
        """Decode an image."""
        try:
            return decode_image(self.folder / self.names[number], self.size)[None]
        except ImageError as error:
            return str(error)

    def no_space(self, found: str) -> ImageError:
        """Say that the disk is full."""
        needed = max(1, round(len(self) * self.row_bytes / 1e6))
        return ImageError(
            f"no space for {number_of(len(self), 'image')} in {self._place.parent}: they take"
            f" {needed} MB, {found}; free some, set FUSION_CACHE to a folder on another disk, or"
            f" lower data.image_size ({self.size})"
        )
