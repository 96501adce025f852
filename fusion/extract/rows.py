"""From the pieces of a film to rows of features.

Shapes: N pictures, H x W pixels, S samples, R rows, D width.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.media.film import Piece
from fusion.data.media.log_mel import Spectrogram
from fusion.extract.backbone import Backbone

AUDIO = "audio"  # the field of sound


class FilmRows:
    """Computes the features of one film; keeps its rows and a few seconds of its pictures.

    The windows that are computed together are of one film and always the same ones, so the rows do
    not depend on other films.

    Args:
        backbones: by field.
    """

    def __init__(self, backbones: Mapping[str, Backbone]) -> None:
        self._pictures = {field: _PictureRows(backbone) for field, backbone in backbones.items()}
        self._sound = Spectrogram()

    def push(self, piece: Piece) -> None:
        """Take a piece of the film."""
        if piece.field == AUDIO:
            self._sound.push(piece.data)
        else:
            self._pictures[piece.field].push(piece.data)

    def end(self) -> dict[str, Tensor]:
        """Return the rows of each field, (R, D) float16; R is 0 without picture or sound."""
        return {f: p.end() for f, p in self._pictures.items()} | {AUDIO: self._sound.end()}


class _PictureRows:
    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self._sampling = backbone, backbone.sampling
        self._frames: deque[NDArray[Any]] = deque()  # (H, W, 3) each, from the next window on
        self._windows: list[Tensor] = []
        self._rows = [torch.zeros(0, backbone.dim, dtype=torch.float16)]

    def push(self, pictures: NDArray[Any]) -> None:
        self._frames.extend(pictures)
        while len(self._frames) >= self._sampling.frames:
            self._cut()

    def end(self) -> Tensor:
        while self._frames:
            self._cut()
        self._compute()
        return torch.cat(self._rows)

    def _cut(self) -> None:
        """Cut a window off the frames; black pictures follow the last frame."""
        shown = list(itertools.islice(self._frames, self._sampling.frames))
        black = [np.zeros_like(shown[0])] * (self._sampling.frames - len(shown))
        self._windows.append(torch.from_numpy(np.stack(shown + black)))
        for _ in range(min(self._sampling.stride, len(self._frames))):
            self._frames.popleft()
        if len(self._windows) >= self._backbone.batch_of(*shown[0].shape[:2]):
            self._compute()

    def _compute(self) -> None:
        if self._windows:
            self._rows.append(self._backbone.compute(torch.stack(self._windows)).half())
            self._windows = []
