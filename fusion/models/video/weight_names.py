"""Weight files of the published video backbones, read into this project's models.

The names and shapes of the weights are facts about the files; the code here is our own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fusion.data.untrusted.weight_files import COUNTER, find_difference, read_weights
from fusion.models.video.resnext import ResNeXt101
from fusion.models.video.s3d import S3D


@dataclasses.dataclass(frozen=True)
class Published:
    """A published weight file, and the backbone that reads it."""

    backbone: Callable[[], nn.Module]
    source: str  # address of the file
    unused: str  # pattern of the weights in the file that our backbone does not need
    # Patterns and replacements that in turn make the published name of a weight from ours. (Not the
    # reverse: a message about a missing weight needs its published name.)
    rules: tuple[tuple[str, str], ...]

    def load(self, path: str | Path) -> nn.Module:
        """Read the backbone, in float32 and in evaluation mode, on the CPU.

        Raises:
            ValueError: it is no such file, or a weight is missing, unknown or of another shape; the
                message, one line, names it.
        """
        with torch.device("meta"):  # shapes only; the file has the values
            backbone = self.backbone()
        own = backbone.state_dict()
        names = {}
        for ours in own:
            names[ours] = ours
            for pattern, replacement in self.rules:
                names[ours] = re.sub(pattern, replacement, names[ours])
        try:
            weights = read_weights(path)
            weights = {k: v for k, v in weights.items() if not re.fullmatch(self.unused, k)}
            counters = {n: torch.tensor(0) for n in names.values() if n.endswith(COUNTER)}
            weights = counters | weights
            if different := find_difference({names[k]: v for k, v in own.items()}, weights):
                raise ValueError(f"{path}: {different}")
        except ValueError as error:
            kind = type(backbone).__name__
            raise ValueError(
                f"{error}; {kind} reads the file that is published at {self.source}"
            ) from None
        backbone.to_empty(device="cpu")
        backbone.load_state_dict({ours: weights[name] for ours, name in names.items()})
        return backbone.eval()


# The Kinetics weights that made HowTo100M's 3D features. Hara's own files for 3D ResNeXt-101 have
# the same names and shapes, so they are read too, even those trained on 64 frames instead of 16.
RESNEXT101 = Published(
    backbone=ResNeXt101,
    source="https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/models/resnext101.pth",
    rules=(
        (r"^stages\.0\.0\.", "conv1."),
        (r"^stages\.0\.1\.", "bn1."),
        (r"^stages\.", "layer"),
        (r"\.conv(\d)\.0\.", r".conv\1."),
        (r"\.conv(\d)\.1\.", r".bn\1."),
        (r"\.shortcut\.", ".downsample."),
    ),
    unused=r"fc\..+",  # the classifier of Kinetics' 400 actions
)
# The MIL-NCE weights of S3D. The weights that the authors' later code trains on GPUs have no
# space-to-depth stem, and are refused for the shape of ``conv1``.
S3D_HOWTO100M = Published(
    backbone=S3D,
    source="https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/s3d_howto100m.pth",
    rules=(
        (r"^stem\.", "conv1."),
        (r"^pointwise\.", "conv_2b."),
        (r"^separable\.", "conv_2c."),
        (r"^gate\.", "gating."),
        (r"^project\.", "fc."),
        (r"^blocks\.", "mixed_"),
        (r"\.gates\.", ".gating_b"),
        (r"\.branches\.0\.0\.", ".conv_b0."),
        (r"\.branches\.(\d)\.0\.", r".conv_b\1_a."),
        (r"\.branches\.(\d)\.1\.", r".conv_b\1_b."),
        (r"\.0\.(\w+)$", r".conv1.\1"),
        (r"\.1\.(\w+)$", r".bn1.\1"),
        (r"\.3\.(\w+)$", r".conv2.\1"),
        (r"\.4\.(\w+)$", r".bn2.\1"),
    ),
    unused=r"text_module\..+",  # embeds sentences
)
