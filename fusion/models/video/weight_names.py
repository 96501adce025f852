"""Weight files of the published video backbones, read into this project's models.

The names and shapes of the weights are facts about the files; the code here is our own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from fusion.data.untrusted.weight_files import COUNTER, find_difference, read_weights
from fusion.models.video.resnext import ResNeXt101
from fusion.models.video.s3d import S3D

Backbone = TypeVar("Backbone", bound=nn.Module)


class Published(NamedTuple):
    """Facts about a published weight file."""

    source: str  # its address
    unused: str  # pattern of the weights in the file that our model does not need
    # Patterns and replacements that in turn make the published name of a weight from ours. (Not the
    # reverse: a message about a missing weight needs its published name.)
    rules: tuple[tuple[str, str], ...]


RESNEXT101 = Published(
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
S3D_HOWTO100M = Published(
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


def load_resnext101(path: str | Path) -> ResNeXt101:
    """Read the Kinetics weights that made HowTo100M's 3D features, ``resnext101.pth``.

    Hara's own files for 3D ResNeXt-101 have the same names and shapes, so they are read too, even
    those trained on 64 frames instead of 16. The classifier is dropped. The model is in float32 and
    in evaluation mode, on the CPU.

    Raises:
        ValueError: it is no such file, or a weight is missing, unknown or of another shape; the
            message, one line, names it.
    """
    return _load(path, ResNeXt101, RESNEXT101)


def load_s3d(path: str | Path) -> S3D:
    """Read the MIL-NCE weights of S3D, ``s3d_howto100m.pth``, as :func:`load_resnext101` does.

    The text half is dropped. The weights that the authors' later code trains on GPUs have no
    space-to-depth stem, and are refused for the shape of ``conv1``.
    """
    return _load(path, S3D, S3D_HOWTO100M)


def _load(path: str | Path, model: type[Backbone], published: Published) -> Backbone:
    with torch.device("meta"):  # shapes only; the file has the values
        backbone = model()
    own = backbone.state_dict()
    names = {}
    for ours in own:
        names[ours] = ours
        for pattern, replacement in published.rules:
            names[ours] = re.sub(pattern, replacement, names[ours])
    try:
        weights = read_weights(path)
        weights = {k: v for k, v in weights.items() if not re.fullmatch(published.unused, k)}
        counters = {name: torch.tensor(0) for name in names.values() if name.endswith(COUNTER)}
        weights = counters | weights
        if different := find_difference({names[k]: v for k, v in own.items()}, weights):
            raise ValueError(f"{path}: {different}")
    except ValueError as error:
        raise ValueError(
            f"{error}; {model.__name__} reads the file that is published at {published.source}"
        ) from None
    backbone.to_empty(device="cpu")
    backbone.load_state_dict({ours: weights[name] for ours, name in names.items()})
    return backbone.eval()
