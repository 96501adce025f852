"""Weights of the published EAO models under this project's names.

The published names are facts about the files that people have; the code here is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

MODALITIES = ("text", "video", "audio")

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
# Why a weight is dropped.
NEVER_USED = "nothing ever read them"
SECOND_NAME = "second names of the text's transformer"
NO_MODALITY = "the model does not embed {}"


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


def sort_eao_weights(
    published: Iterable[str], modalities: Iterable[str] = MODALITIES
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Decide which weights of a published EAO model are kept.

    Args:
        published: their names, without ``module.`` before them.
        modalities: those of the model to load.

    Returns:
        The name in :class:`fusion.models.EAO` of each that is kept; and those that are dropped, by
        the reason.

    Raises:
        ValueError: a weight has an unknown name.
    """
    published, modalities = list(published), list(modalities)
    per_modality = any(name.startswith("fusion_text.") for name in published)
    kept: dict[str, str] = {}
    dropped: dict[str, list[str]] = {}
    for name in published:
        ours = convert_eao_name(name)
        owner = None if ours is None or "." not in ours else ours.split(".")[1]
        if owner not in (None, "shared", *MODALITIES):
            raise ValueError(f"weight {name!r} is of an unknown modality {owner!r}")
        if per_modality and name.startswith("fusion."):
            dropped.setdefault(SECOND_NAME, []).append(name)
        elif ours is None:
            dropped.setdefault(NEVER_USED, []).append(name)
        elif owner in MODALITIES and owner not in modalities:
            dropped.setdefault(NO_MODALITY.format(owner), []).append(name)
        else:
            kept[name] = ours
    return kept, dropped


def convert_eao_weights(
    published: Mapping[str, Tensor], modalities: Iterable[str] = MODALITIES
) -> dict[str, Tensor]:
    """Translate the state dict of a published EAO model.

    Args:
        published: weights under their published names, with or without ``module.`` before them.
        modalities: those of the model to load; weights of others are dropped. (The published
            text-video model holds an audio branch that its embeddings never depend on.)

    Returns:
        A state dict for :class:`fusion.models.EAO`.

    Raises:
        ValueError: a weight has an unknown name.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in published.items()}
    converted = {}
    for name, ours in sort_eao_weights(weights, modalities)[0].items():
        tensor = weights[name]
        if ours == "cls_token":
            tensor = tensor.flatten()  # (1, 1, D) -> (D,)
        if ours.startswith("positions."):
            tensor = tensor[0]  # (1, L, D) -> (L, D)
        converted[ours] = tensor
    return converted
