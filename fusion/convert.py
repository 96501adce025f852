"""Weights of the published EAO models under this project's names.

The published names are facts about the files that people have; the code here is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# Published name -> ours; the first pattern that matches the whole name counts. {m}: a modality.
RULES = [
    (r"fusion(_text)?\.(masking_token|cls_token)", r"\2"),
    (r"fusion\.(blocks\..+)", r"transformers.shared.\1"),
    (r"fusion_([a-z]+)\.(blocks\..+)", r"transformers.\1.\2"),
    (r"([a-z]+)_norm_layer\.(.+)", r"token_projections.\1.1.\2"),
    (r"([a-z]+)_token_proj\.(.+)", r"token_projections.\1.0.\2"),
    (r"([a-z]+)_proj\.(.+)", r"heads.\1.\2"),
    (r"proj\.(.+)", r"heads.shared.\1"),
    (r"([a-z]+)_pos_embed", r"positions.\1"),
    (r"davenet\.layer(\d)\.(.+)", r"encoders.audio.net.stages.\1.\2"),
    (r"davenet\.(conv1|bn1)\.(.+)", r"encoders.audio.net.\1.\2"),
]
PARTS = [  # renamed inside of what the rules kept
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.out."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
    (r"\.cg\.fc\.", ".gate."),
    (r"\.fc\.", ".project."),
    (r"\.downsample\.", ".shortcut."),
]
# Weights that the published modules hold and never use.
UNUSED = [
    r"fusion(_[a-z]+)?\.norm\..+",
    r"fusion_(video|audio)\.(masking_token|cls_token)",  # all modalities use the text's
    r"davenet\.batchnorm1\..+",
]


def convert_eao_name(name: str) -> str | None:
    """Translate the published name of a weight.

    Returns:
        The name in :class:`fusion.models.EAO`, or None for a weight that nothing ever used.

    Raises:
        ValueError: no published EAO model has a weight of that name.
    """
    if any(re.fullmatch(pattern, name) for pattern in UNUSED):
        return None
    for pattern, ours in RULES:
        if match := re.fullmatch(pattern, name):
            converted = match.expand(ours)
            for part, replacement in PARTS:
                converted = re.sub(part, replacement, converted)
            # The published stages count from 1.
            return re.sub(r"stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", converted)
    raise ValueError(f"weight {name!r} belongs to no published EAO model that is known here")


def convert_eao_weights(
    published: Mapping[str, Tensor], modalities: Iterable[str] = ("text", "video", "audio")
) -> dict[str, Tensor]:
    """Translate the state dict of a published EAO model.

    Args:
        published: weights under their published names, with or without ``module.`` before them.
        modalities: those of the model to load; weights of others are dropped. (The published
            text-video model holds an audio branch that it never reads.)

    Returns:
        A state dict for :class:`fusion.models.EAO`.

    Raises:
        ValueError: a weight has an unknown name.
    """
    kept = {"shared", *modalities}
    weights = {name.removeprefix("module."): tensor for name, tensor in published.items()}
    if any(name.startswith("fusion_text.") for name in weights):
        # A transformer per modality; there "fusion" is a second name of the text's.
        weights = {k: v for k, v in weights.items() if not k.startswith("fusion.")}
    converted = {}
    for name, tensor in weights.items():
        ours = convert_eao_name(name)
        if ours is None or ("." in ours and ours.split(".")[1] not in kept):
            continue
        if ours == "cls_token":
            tensor = tensor.flatten()  # (1, 1, D) -> (D,)
        if ours.startswith("positions."):
            tensor = tensor[0]  # (1, L, D) -> (L, D)
        converted[ours] = tensor
    return converted
