"""Published checkpoints of TSM and TSN: the names of their weights, and what they say of the model.

github.com/mit-han-lab/temporal-shift-module, arXiv:1811.08383. The names are facts about the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fusion.convert.variant import Shapes, Variant
from fusion.models.tsm import DEEP, PLACES

RESNETS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
WIDTHS = [64, 128, 256, 512]  # of all of them
MOBILE = "mobilenetv2_100"
MOBILE_STAGES = (1, 2, 3, 4, 3, 3, 1)  # its blocks
CLASSIFIER = "classifier"  # the model of this project that has a TSM, with this prefix
PREFIX = "tsm."
SHIFT_DIV = 8
DROPOUT = 0.5
WHY = "as in the published training; the weights do not show it"

_NON_LOCAL = {"theta": "query", "phi.0": "key", "g.0": "value", "W.0": "out", "W.1": "norm"}
_NON_LOCAL_NAME = re.compile(r"layer(\d)\.(\d+)\.nl\.(theta|phi\.0|g\.0|W\.0|W\.1)\.(\w+)")
# Of MobileNetV2: the parts of a block without and with an expansion.
_NARROW = {"0": "conv_dw", "1": "bn1", "3": "conv_pw", "4": "bn2"}
_WIDE = {"0": "conv_pw", "1": "bn1", "3": "conv_dw", "4": "bn2", "6": "conv_pwl", "7": "bn3"}
_ENDS = {"0.0": "conv_stem", "0.1": "bn1", "18.0": "conv_head", "18.1": "bn2"}


def is_tsm(names: Iterable[str]) -> bool:
    """Tell whether weights, named without ``module.``, are of TSM or TSN."""
    names = set(names)
    is_online = {"features.0.0.weight", "classifier.weight"} <= names
    return is_online or any(name.startswith("base_model.") for name in names)


def convert_tsm_name(name: str) -> str:
    """Translate the published name of a weight, without ``module.``, into that in a TSM.

    Raises:
        ValueError: no published TSM has a weight of that name.
    """
    inner = name.removeprefix("base_model.")
    if match := re.fullmatch(r"(new_fc|fc|classifier|last_linear)\.(weight|bias)", inner):
        return f"classifier.{match[2]}"
    if inner.startswith("features."):
        return f"net.timm.{_mobile_name(inner, name)}"
    if match := _NON_LOCAL_NAME.fullmatch(inner):
        place = f"{int(match[1]) - 1}_{match[2]}"
        return f"non_locals.{place}.{_NON_LOCAL[match[3]]}.{match[4]}"
    plain = inner.replace(".net.", ".").replace(".block.", ".")
    if not re.fullmatch(r"(conv1|bn1)\.\w+|layer\d\.\d+\.(\w+|downsample\.[01])\.\w+", plain):
        raise ValueError(f"weight {name!r} belongs to no published TSM that is known")
    return f"net.timm.{plain}"


def _mobile_name(inner: str, name: str) -> str:
    plain = inner.removeprefix("features.").replace(".net.", ".")
    if match := re.fullmatch(r"(0\.0|0\.1|18\.0|18\.1)\.(\w+)", plain):
        return f"{_ENDS[match[1]]}.{match[2]}"
    match = re.fullmatch(r"(\d+)\.conv\.(\d)\.(\w+)", plain)
    number = int(match[1]) if match else 0
    parts = _NARROW if number == 1 else _WIDE
    if not match or not 1 <= number <= sum(MOBILE_STAGES) or match[2] not in parts:
        raise ValueError(f"weight {name!r} belongs to no published TSM that is known")
    stage, block = 0, number - 1
    while block >= MOBILE_STAGES[stage]:
        stage, block = stage + 1, block - MOBILE_STAGES[stage]
    return f"blocks.{stage}.{block}.{parts[match[2]]}.{match[3]}"


def convert_tsm_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state dict of a published TSM, with or without ``module.`` before the names.

    ValueError: a weight has an unknown name.
    """
    converted = {}
    for name, tensor in published.items():
        flat = tensor[..., 0] if tensor.ndim == 5 else tensor  # 1 x 1 x 1 convolutions
        converted[convert_tsm_name(name.removeprefix("module."))] = flat
    return converted


def detect_tsm(shapes: Shapes) -> Variant:
    """Find the ``model`` section of a published TSM by the names and shapes of its weights.

    ValueError: it is none of the published kinds; the message says what is odd.
    """
    found = Variant()
    heads = [n for n in shapes if convert_tsm_name(n) == "classifier.weight"]
    model: dict[str, Any] = {"name": CLASSIFIER}
    if any(".features." in f".{name}" for name in shapes):
        model["network"] = MOBILE
        model["shift"] = any(".net." in name for name in shapes)
        if not any(name.startswith("base_model.") for name in shapes):  # the online demonstration
            model |= {"shift": True, "causal": True}
    else:
        model |= _detect_resnet(shapes)
    model["num_classes"] = shapes[heads[0]][0] if heads else None
    if model["shift"]:
        model["shift_div"] = found.settle("shift_div", None, "", SHIFT_DIV, WHY)
    model["dropout"] = found.settle("dropout", None, "", DROPOUT, WHY)
    found.model = model
    return found


def _detect_resnet(shapes: Shapes) -> dict[str, Any]:
    plain = {n.removeprefix("base_model."): shape for n, shape in shapes.items()}
    firsts: dict[int, dict[int, str]] = {}  # of each stage: the first convolution of its blocks
    for name in plain:
        if match := re.fullmatch(
            r"layer(\d)\.(?:net\.)?(\d+)\.(?:(?:net|block)\.)*conv1\.(?:net\.)?weight", name
        ):
            firsts.setdefault(int(match[1]), {})[int(match[2])] = name
    if sorted(firsts) != [1, 2, 3, 4] or any(
        sorted(s) != [*range(len(s))] for s in firsts.values()
    ):
        raise ValueError("it is no whole ResNet of four stages")
    stages = [[firsts[stage][i] for i in sorted(firsts[stage])] for stage in (1, 2, 3, 4)]
    block = "bottleneck" if any(name.endswith("conv3.weight") for name in plain) else "basic"
    layers, widths = [len(stage) for stage in stages], [plain[stage[0]][0] for stage in stages]
    known = [name for name, spec in RESNETS.items() if spec == (block, layers)]
    own: dict[str, Any] = {"block": block, "layers": layers, "widths": widths}
    network = known[0] if known and widths == WIDTHS else own
    return {"network": network} | _detect_options(stages, plain)


def _detect_options(stages: list[list[str]], plain: Shapes) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if any(".nl." in name for name in plain):
        options["non_local"] = True
    if any(name.startswith("layer2.net.") for name in plain):
        options["temporal_pool"] = True
    if all(re.search(r"\d\.net\.conv1\.weight$", name) for stage in stages for name in stage):
        return {"shift": True, "shift_place": PLACES[1]} | options
    shifted = [[name.endswith("conv1.net.weight") for name in stage] for stage in stages]
    if not any(map(any, shifted)):
        return {"shift": False} | options
    is_deep = max(map(len, stages)) >= DEEP
    for every_second in (is_deep, not is_deep):
        expected = [[not (every_second and i % 2) for i in range(len(s))] for s in shifted]
        if shifted == expected:
            own = {} if every_second == is_deep else {"every_second_block": every_second}
            return {"shift": True} | own | options
    raise ValueError("its shifted blocks are neither all nor every second one")
