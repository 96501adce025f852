"""A backbone: a network, the pictures it gets, and how their values are normalised.

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

from fusion.data.media.pictures import Sampling
from fusion.extract.weights import RANDOM, name_weights
from fusion.training.memory import is_out_of_memory

NONE = "none"  # instead of a name: no such features
_PIXELS = {"cpu": 1_500_000, "cuda": 32_000_000}  # computed at a time, unless memory runs out


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the weights of a backbone come from."""

    field: str  # of its features, ``2d`` or ``3d``
    file: Path | None = None  # of weights; None: the published weights of the network
    random: bool = False  # take random weights if there is no file

    def missing(self, name: str, way: str) -> ValueError:
        """Make the error that the network ``name`` has no weights, and the ``way`` to get some."""
        return ValueError(
            f"{name} needs its weights: {way}, and pass the file as --weights-{self.field} FILE; or"
            f" choose another network (--features-{self.field}, {NONE} for no such features); or"
            " try things out with --random-weights"
        )


class Backbone:
    """Computes features of windows of pictures.

    ``network`` maps (B, 3, T, H, W), or (B, 3, H, W) if T is 1, to (B, D), where ``dim`` is D. Its
    input are the pictures of ``sampling``: values of 0 to 255 minus ``mean``, divided by ``std``,
    both of red, green and blue. The attribute ``weights`` is the beginning of the hash of the
    weights, or ``RANDOM``.
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
        self.weights = RANDOM if source.random and not source.file else name_weights(network)
        self._device = torch.device("cpu")
        self._most: int | None = None  # features at a time, once memory has run out

    def to(self, device: torch.device) -> Backbone:
        """Move the network to a device."""
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

        If memory runs out, half as many are computed at a time from then on; RuntimeError if there
        is none for a single one.
        """
        parts = windows.split(self._most or len(windows))
        return torch.cat([self._compute(part) for part in parts])

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
    """Import a package that only some backbones need; ValueError says how to install it."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        package, reason = name.partition(".")[0], " ".join(str(error).split())
        raise ValueError(
            f"{package} cannot be imported ({reason}); pip install {package}"
        ) from None
