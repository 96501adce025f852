"""Frames of a user's films, as a model trained with ``data.raw_video`` reads them.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusion.checkpoint import CheckpointError
from fusion.data.labelled.frame_sampling import uniform_test
from fusion.data.labelled.raw_video import RawVideo
from fusion.data.media.shown import VERSION, read_shown, seconds_shown

VIDEO = "video"


class FilmFrames:
    """Reads the frames of clips: those that an evaluation of the model sees.

    Args:
        recipe: see :meth:`.RawVideo.recipe`.

    Attributes:
        modality: which they are for the model; ``video`` stands for the features of the recipe.

    Raises:
        CheckpointError: this version of fusion chooses other frames.
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        if recipe.get("version") != VERSION:
            raise CheckpointError(
                f"the model was trained from frames that version {recipe.get('version')} of the"
                f" reader chose, and this fusion has version {VERSION}; use the version of then"
            )
        settings = RawVideo(recipe["frames"], recipe["frame_size"])
        self.modality: str = recipe.get("modality", VIDEO)
        self.count, self.size = settings.frames, settings.size

    @property
    def replace_features(self) -> bool:
        """Whether they stand for the features of the pictures, which need not be computed."""
        return self.modality == VIDEO

    def seconds(self, path: Path) -> float:
        """Return for how long a film has a picture; MediaError: it cannot be read."""
        return seconds_shown(path)

    def read(self, path: Path, start: float, end: float | None) -> Tensor:
        """Read the frames of a clip, (T, 3, H, W) uint8 RGB; none where the film has no picture.

        ``end`` None: the end of the film. MediaError: it cannot be read.
        """
        if start >= self.seconds(path):
            return torch.zeros(0, 3, self.size.height, self.size.width, dtype=torch.uint8)
        found = read_shown(path, lambda n: uniform_test(n, self.count), self.size, start, end)
        return torch.from_numpy(found.frames).movedim(-1, 1).contiguous()
