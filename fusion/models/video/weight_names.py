"""Weight files of the published video backbones, read into this project's models.

The names and shapes of the weights are facts about the files; the code here is our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fusion.models.video.resnext import ResNeXt101
from fusion.models.video.s3d import S3D

Backbone = TypeVar("Backbone", bound=nn.Module)

COUNTER = "num_batches_tracked"  # of BatchNorm; missing in files older than PyTorch 0.4.1


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
    names = {}
    for ours in backbone.state_dict():
        names[ours] = ours
        for pattern, replacement in published.rules:
            names[ours] = re.sub(pattern, replacement, names[ours])
    try:
        weights = read_weights(path)
        weights = {k: v for k, v in weights.items() if not re.fullmatch(published.unused, k)}
        check_weights(weights, {names[k]: v for k, v in backbone.state_dict().items()})
    except ValueError as error:
        raise ValueError(
            f"{path} {error}; {model.__name__} reads the file that is published at"
            f" {published.source}"
        ) from None
    counter = torch.tensor(0)
    backbone.to_empty(device="cpu")
    backbone.load_state_dict({ours: weights.get(name, counter) for ours, name in names.items()})
    return backbone.eval()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read weights by name from a file of ``torch.save``; no code in it is ever run.

    They may be the ``state_dict`` of a dict, and all names may begin with ``module.``. The text of
    a ValueError goes on after the path.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None
    except Exception as error:  # torch raises many kinds, with pages of advice
        reason = f"damaged, or of another kind: {type(error).__name__}"
        if called := re.search(r"GLOBAL (\S+)", str(error)):
            reason = f"it asks for {called[1]}, which is refused as it could run code"
        raise ValueError(f"is no file of PyTorch weights ({reason})") from None
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content:
        kind = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise ValueError(f"holds no weights by name but {kind}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"holds {name!r} of type {kind} where a weight should be")
    parallel = all(name.startswith("module.") for name in content)  # saved from a DataParallel
    return {name.removeprefix("module.") if parallel else name: v for name, v in content.items()}


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check names, shapes and types; only the counters of BatchNorm may be missing."""
    for name, weight in weights.items():
        if name not in expected:
            raise ValueError(f"has an unknown weight {name!r} ({_shape(weight)})")
        ours = expected[name]
        if weight.shape != ours.shape:
            raise ValueError(f"has {name!r} of shape {_shape(weight)} instead of {_shape(ours)}")
        if weight.is_floating_point() != ours.is_floating_point():
            raise ValueError(f"has {name!r} of type {weight.dtype} instead of {ours.dtype}")
    missing = [name for name in expected if name not in weights and not name.endswith(COUNTER)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        first = missing[0]
        raise ValueError(f"lacks the weight {first!r} ({_shape(expected[first])}){more}")


def _shape(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape)) or "a scalar"
