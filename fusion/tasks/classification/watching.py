"""Classify a film while it is read, frame by frame, in constant memory.

Shapes: H x W pixels, K classes.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.checkpoint import find_checkpoint, load_model, read_config
from fusion.config import ConfigError
from fusion.data.labelled.film import frame_size
from fusion.data.media.film import Film
from fusion.data.media.pictures import PictureFilter
from fusion.data.media.shown import Size
from fusion.models.classifier import VideoClassifier
from fusion.models.frame_transforms import crop_for_test
from fusion.tasks.classification.task import NAMES, read_classes

KEPT = 10_000  # times of frames, so that a stream of days needs no more memory
DEFAULTS = {"frames": 8, "frame_size": 256}  # of data sets of films with classes


class Seen(NamedTuple):
    """What a watcher says after a frame."""

    number: int  # of the frame, from 0
    probabilities: Tensor  # (K,)
    seconds: float  # of the processor that this frame took

    @property
    def best(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())


class Watcher:
    """Classifies a film as its frames come, with a causal network.

    The scores are the mean over the last ``window`` frames, as those of a clip are the mean over
    its frames. They are what the network gives for the film as a whole.

    Args:
        model: of classification, trained with ``model.causal=true``.
        classes: names of the classes in the order of the scores.
        size: of the frames before they are cropped, as in training.
        window: frames whose scores are averaged.

    Attributes:
        times: seconds of the processor that each of the last frames took.

    Raises:
        ValueError: the network is not causal.
    """

    def __init__(
        self, model: VideoClassifier, classes: Sequence[str], size: Size, window: int
    ) -> None:
        self.model, self.classes, self.size, self.window = model.eval(), list(classes), size, window
        self.stream = model.tsm.stream()
        self.times: deque[float] = deque(maxlen=KEPT)
        self._scores: deque[Tensor] = deque(maxlen=window)
        self._device = next(model.parameters()).device
        self._number = 0
        self._filters: dict[tuple[int, ...], PictureFilter] = {}  # the last shape of frames alone

    def see(self, picture: NDArray[np.uint8]) -> Seen:
        """Classify the next frame, (H, W, 3) uint8 RGB of any size; it is scaled as in training.

        ValueError: it is no picture.
        """
        begun = time.process_time()
        frame = torch.from_numpy(self._scale(picture)).movedim(-1, 0).to(self._device)
        (cropped,) = crop_for_test(frame[None, None], self.model.crop_size, 1)  # (1, 1, 3, S, S)
        self._scores.append(self.stream.step(cropped[:, 0])[0])
        probabilities = torch.stack([*self._scores]).mean(dim=0).float().softmax(dim=-1).cpu()
        number, self._number = self._number, self._number + 1
        self.times.append(time.process_time() - begun)
        return Seen(number, probabilities, self.times[-1])

    def watch(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[Seen]:
        """Classify frames of a film, a camera or any other source as they come."""
        return map(self.see, pictures)

    def watch_film(self, path: str | Path, frames_per_second: float) -> Iterator[Seen]:
        """Classify a film while it is decoded; frame ``k`` is the one of ``k`` / rate seconds.

        Raises:
            MediaError: it cannot be read, or has no picture.
        """
        sampling = dataclasses.replace(self.size.sampling(), frames_per_second=frames_per_second)
        for piece in Film(path, {"pictures": sampling}, audio=False).pieces():
            yield from self.watch(piece.data)

    def _scale(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if picture.shape[:2] == (self.size.height, self.size.width):
            return np.ascontiguousarray(picture)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a frame is an (H, W, 3) array of uint8 RGB; got {picture.shape} of"
                f" {picture.dtype}"
            )
        if picture.shape not in self._filters:
            self._filters = {picture.shape: PictureFilter(self.size.sampling(), ())}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1)
        (scaled,) = self._filters[picture.shape].push(frame)
        pixels: NDArray[np.uint8] = np.asarray(scaled.to_ndarray(), np.uint8)
        return pixels


def open_watcher(run: str | Path, window: int | None = None, trust: bool = False) -> Watcher:
    """Open a run of classification, or a checkpoint, to watch films with it.

    ``window`` None: as many frames as a clip has in training. ``trust``: import the user's own
    parts.

    Raises:
        ValueError: there is none, it is of another task, or its network is not causal.
    """
    folder = find_checkpoint(run)
    model, config = load_model(folder, trust=trust), read_config(folder, trust)
    if not isinstance(model, VideoClassifier):
        raise ConfigError(f"{run} does not classify films; name a run of fusion train tsm/causal")
    if not model.tsm.causal:
        raise ConfigError(
            f"{run}: its network looks at later frames, so it cannot watch a film while it is read;"
            " train one with model.causal=true, as fusion train tsm/causal does"
        )
    data: Mapping[str, Any] = {**DEFAULTS, **config["data"]}
    size = frame_size("data.frame_size", data["frame_size"])
    names = read_classes(folder) if (folder / NAMES).exists() else _numbers(model)
    return Watcher(model, names, size, window or data["frames"])


def _numbers(model: VideoClassifier) -> list[str]:
    """Name the classes of a converted checkpoint by their numbers."""
    return [f"class {number}" for number in range(model.tsm.num_classes or 0)]
