"""A network with all that lies between the pictures of a film and its features.

Shapes: B features at a time, T frames of each, H x W pixels, C channels, D width.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from fusion.extract.sampling import Sampling
from fusion.extract.weights import RANDOM, name_weights
from fusion.training.memory import is_out_of_memory

NONE = "none"  # the name of no backbone
_PIXELS = {"cpu": 1_500_000, "cuda": 32_000_000}  # computed at a time, to begin with


@dataclasses.dataclass(frozen=True)
class Source:
    """Where weights come from.

    Attributes:
        field: ``2d`` or ``3d``, for messages.
        file: of weights; None: the published ones of the network's name.
        random: take random weights where there is no file.
    """

    field: str
    file: Path | None = None
    random: bool = False

    @property
    def is_random(self) -> bool:
        """Whether the weights are random."""
        return self.random and not self.file

    def missing(self, name: str, way: str) -> ValueError:
        """Say in one line that a network has no weights, and how it gets some."""
        return ValueError(
            f"{name} needs its weights: {way}, and pass the file as --weights-{self.field} FILE; or"
            f" choose another network (--features-{self.field}, {NONE} for no such features); or"
            " see how things go with --random-weights"
        )


class Backbone:
    """A network with all that lies between pictures and features.

    Args:
        name: of the network, in full.
        network: (B, 3, T, H, W) -> (B, D), or (B, 3, H, W) -> (B, D) if T is 1.
        sampling: what it sees.
        dim: D.
        mean: of red, green and blue, subtracted from values of 0 to 255.
        std: of the same, what the rest is divided by.
        source: of the weights.

    Attributes:
        weights: what the weights are called: the beginning of a hash, or ``RANDOM``.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        sampling: Sampling,
        dim: int,
        mean: Sequence[float],
        std: Sequence[float],
        source: Source,
    ) -> None:
        self.name, self.network, self.sampling, self.dim = name, network.eval(), sampling, dim
        self._mean, self._std = torch.tensor(list(mean)), torch.tensor(list(std))
        self.weights = RANDOM if source.is_random else name_weights(network)
        self._device = torch.device("cpu")
        self._most: int | None = None  # features at a time, once memory has run out

    def to(self, device: torch.device) -> Backbone:
        """Move it to a device."""
        self._device, self.network = device, self.network.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def batch_of(self, height: int, width: int) -> int:
        """Return how many features to compute at a time from pictures of this size."""
        pixels = _PIXELS.get(self._device.type, _PIXELS["cpu"])
        return max(1, pixels // (self.sampling.frames * height * width))

    @torch.inference_mode()
    def compute(self, windows: Tensor) -> Tensor:
        """Compute features: (B, T, H, W, 3) uint8 RGB -> (B, D) float32, on the CPU.

        Where a device has no memory for all of them, half as many are computed at a time from then
        on.

        Raises:
            RuntimeError: there is not even memory for one.
        """
        return torch.cat(
            [self._compute(part) for part in windows.split(self._most or len(windows))]
        )

    def _compute(self, windows: Tensor) -> Tensor:
        try:
            values = (windows.to(self._device).float() - self._mean) / self._std
            values = rearrange(values, "b t h w c -> b c t h w")
            if self.sampling.frames == 1:
                values = values[:, :, 0]
            return self.network(values).float().cpu()
        except (RuntimeError, MemoryError) as error:
            if len(windows) == 1 or not is_out_of_memory(error):
                raise
        self._most = len(windows) // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.compute(windows)


def import_package(name: str) -> Any:
    """Import a package that only some backbones need.

    Raises:
        ValueError: it is not there; one line that says how to install it.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        package, reason = name.partition(".")[0], " ".join(str(error).split())
        raise ValueError(
            f"{package} cannot be imported ({reason}); pip install {package}"
        ) from None
